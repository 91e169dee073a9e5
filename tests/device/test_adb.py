"""Phones: the real adb client, a stand-in for the phone's adbd, and one for benchmark_model that runs the models."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import take, write_tflite

from device.adbd import Phone
from hwnas.device.device import Device, Setting, read_device
from hwnas.device.runner import Job
from hwnas.device.transports import adb, open_transport
from hwnas.device.transports._benchmark_model import Report, ToolError, command, read
from hwnas.errors import DeviceError, InputError
from hwnas.latency.measure import Conditions, read_conditions, time_models, write_models
from hwnas.network.graph import Builder

TFLITE = Setting(runtime="tflite")
GETPROP = 'case "$1" in ro.product.model) echo "Pixel 8";; ro.board.platform) echo zuma;; esac'

TIMED = """count=7 first=64791 curr=57000 min=56000 max=64791 avg=57758.2 std=2000

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=58154 curr=53809 min=53077 max=60727 avg=55043.2 std=1562

Inference timings in us: Init: 18777, First inference: 64791, Warmup (avg): 57758.2, Inference (avg): 55043.2
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
"""
MEMORY = round(46.0859 * 2**20)
QUICK = TIMED.replace("55043.2", "3.4")


def replaced(taken: int, of: int, delegate: str, partitions: int, where: str = "subgraph 0") -> str:
    """Return the runtime's own line on a delegate."""
    parts = f"yielding {partitions} partitions for {where}."
    return f"VERBOSE: Replacing {taken} out of {of} node(s) with delegate (TfLite{delegate}) node, {parts}"


def takes_it(delegate: str, takes: str) -> str:
    """Return the tool's own line on a delegate."""
    if takes == "not":
        start = f"INFO: Though {delegate} delegate is explicitly applied, the model graph will not be"
    else:
        start = f"INFO: Explicitly applied {delegate} delegate, and the model graph will be {takes}"
    return f"{start} executed by the delegate{' w/ 1 delegate kernels' if takes == 'partially' else ''}."


GPU_WHOLE, GPU_PART = replaced(49, 49, "GpuDelegateV2", 1), replaced(54, 559, "GpuDelegateV2", 3)
THE_REST = replaced(456, 506, "XNNPackDelegate", 9)
CPU_WHOLE = replaced(58, 58, "XNNPackDelegate", 1, "the whole graph")
CPU_PART = replaced(539, 548, "XNNPackDelegate", 19)
NPU_WHOLE = replaced(31, 31, "NnapiDelegate", 1)
EDGE_TPU = "INFO: NNAPI accelerators available: [google-edgetpu,nnapi-reference]"

RUNS_THE_MODEL = f"""#!{sys.executable}
import argparse, statistics, time
flags = argparse.ArgumentParser()
for name, kind in {{"graph": str, "num_threads": int, "use_xnnpack": str, "warmup_runs": int, "warmup_min_secs": float,
                   "num_runs": int, "min_secs": float, "max_secs": float}}.items():
    flags.add_argument("--" + name, type=kind, required=True)
flags = flags.parse_args()
from ai_edge_litert.interpreter import Interpreter

def calls(least, least_s):
    start, taken = time.perf_counter(), []
    while len(taken) < least or time.perf_counter() - start < min(least_s, 0.01):
        before = time.perf_counter_ns()
        interpreter.invoke()
        taken.append((time.perf_counter_ns() - before) // 1000)
    text = f"count={{len(taken)}} first={{taken[0]}} curr={{taken[-1]}} min={{min(taken)}} max={{max(taken)}}"
    print(f"INFO: {{text}} avg={{statistics.mean(taken):.6g}} std=0")
    return taken

start = time.perf_counter_ns()
print("INFO: STARTING!")
interpreter = Interpreter(model_path=flags.graph, num_threads=flags.num_threads)
interpreter.allocate_tensors()
init = (time.perf_counter_ns() - start) // 1000
first = calls(flags.warmup_runs, flags.warmup_min_secs)[0]
calls(flags.num_runs, flags.min_secs)
print(f"INFO: Inference timings in us: Init: {{init}}, First inference: {{first}}, Warmup (avg): 1, Inference (avg): 1")
"""
PRINTS = f"""#!/bin/sh
case "$*" in
    *-crash.tflite*) echo 'INFO: STARTING!'; kill -SEGV $$;;
    *-slow.tflite*) echo 'INFO: STARTING!'; sleep 30;;
esac
cat <<'END'
{TIMED}END
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def run_adb(*arguments: str) -> None:
    subprocess.run(["adb", *arguments], check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start an adb server of our own, with a home and a port of its own."""
    if shutil.which("adb") is None:
        pytest.skip("the adb client is not here (Debian: apt-get install adb)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        run_adb("start-server")
        yield
        run_adb("kill-server")


@pytest.fixture
def attach(server: None, tmp_path: Path) -> Iterator[Callable[..., Phone]]:
    """Return a function that attaches one more phone."""
    program(tmp_path / "bin" / "getprop", "#!/bin/sh\n" + GETPROP)
    phones: list[Phone] = []

    def attach(**options: Any) -> Phone:
        phones.append(Phone(tmp_path / "bin", **options))
        run_adb("connect", phones[-1].serial)
        return phones[-1]

    yield attach
    for phone in phones:
        run_adb("disconnect", phone.serial)
        phone.close()


@pytest.fixture
def phone(attach: Callable[..., Phone]) -> Phone:
    return attach()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """Return the device of the one attached phone; its tool prints what it should at once."""
    tool = program(tmp_path / "benchmark_model", PRINTS)
    (tmp_path / "phone").mkdir()
    folder = str(tmp_path / "phone")
    return Device(name="pixel8", transport="adb", benchmark_model=str(tool), folder=folder, settings=(TFLITE,))


@pytest.fixture
def three(tmp_path: Path) -> dict[str, Path]:
    return {name: write_tflite(tmp_path / f"{name}.tflite") for name in ("a", "b", "c")}


def changed(device: Device, **fields: Any) -> Device:
    return device.model_copy(update=fields)


def turns(phone: Phone) -> list[str]:
    """Return the models in the order of their turns, by their files' names."""
    graphs = [line.partition("--graph=")[2].split()[0] for line in phone.commands if "--graph=" in line]
    return [Path(graph).stem.partition("-")[2] for graph in graphs]


def refusal(device: Device) -> str:
    """Return what is said when the device is opened in vain."""
    with pytest.raises(DeviceError) as error:
        open_transport(device)
    return str(error.value)


@pytest.mark.adb
class TestTiming:
    def test_models_that_hwnas_wrote_are_timed_by_a_tool_that_runs_them(
        self, phone: Phone, device: Device, tmp_path: Path
    ) -> None:
        program(tmp_path / "benchmark_model", RUNS_THE_MODEL)
        graphs = {}
        for filters in (4, 8):
            builder = Builder((3, 8, 8))
            graphs[f"conv {filters}"] = builder.finish(
                builder.relu(builder.window("conv", 0, name="c", filters=filters))
            )
        models = write_models(graphs, Setting(runtime="tflite"), tmp_path)
        core = min(os.sched_getaffinity(0))
        seen: list[Conditions] = []
        timed = list(
            time_models(
                changed(device, cores=(core,)),
                Setting(runtime="tflite", threads=2),
                models,
                rounds=2,
                attempts=1,
                on_conditions=seen.append,
            )
        )
        assert sorted(one.name for one in timed) == ["conv 4", "conv 8"]
        assert all([len(samples) for samples in one.measurement.rounds_ms] == [1, 1] for one in timed)
        assert all(one.measurement.ms > 0 and (one.other.load_ms or 0) > 0 for one in timed)
        assert all(one.other.file_bytes == models[one.name].stat().st_size for one in timed)
        before, after = seen
        assert before.fingerprint == after.fingerprint
        assert (before.cpu, before.threads, before.pinned) == ("Pixel 8 (zuma)", 2, (core,))
        assert before.arch == os.uname().machine
        assert before.cores >= len(os.sched_getaffinity(0))
        assert before.runtime_version.startswith("benchmark_model ")
        assert "--num_threads=2 --use_xnnpack=true" in "".join(phone.commands)
        assert list((tmp_path / "phone").iterdir()) == []

    def test_each_round_times_every_model_once_in_an_order_of_its_own(
        self, phone: Phone, device: Device, three: dict[str, Path]
    ) -> None:
        list(time_models(device, TFLITE, three, rounds=4))
        order = [name for name in turns(phone) if name in three]
        rounds = [order[start : start + 3] for start in range(0, len(order), 3)]
        assert [sorted(names) for names in rounds] == [["a", "b", "c"]] * 4
        assert len({tuple(names) for names in rounds}) > 1

    def test_the_conditions_are_read_without_models(self, phone: Phone, device: Device) -> None:
        assert read_conditions(device, TFLITE).cpu == "Pixel 8 (zuma)"

    def test_the_tool_may_be_on_the_phone(
        self, phone: Phone, device: Device, three: dict[str, Path], tmp_path: Path
    ) -> None:
        program(tmp_path / "bin" / "on_the_phone", PRINTS)
        timed = list(time_models(changed(device, benchmark_model="./on_the_phone"), TFLITE, three, rounds=2))
        assert [one.measurement.rounds_ms for one in timed] == [((55.0432,), (55.0432,))] * 3

    def test_where_models_ran_comes_with_them(
        self, phone: Phone, device: Device, three: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "hwnas")
        program(
            tmp_path / "benchmark_model", f"#!/bin/sh\ncat <<'END'\n{CPU_PART}\nINFO: Num threads: [1]\n{TIMED}END\n"
        )
        for one in time_models(device, TFLITE, three, rounds=2):
            assert str(one.measurement.placement) == "on the CPU, by XNNPACK: 539 of 548 operators, in 19 partitions"
            assert one.measurement.placement is not None
            assert one.measurement.placement.flags == ("num_threads=1",)
        assert "a network of plain operators ran on the CPU, by XNNPACK: 539 of 548" in caplog.text

    def test_a_model_that_crashes_the_tool_is_named_and_the_others_go_on(
        self, phone: Phone, device: Device, three: dict[str, Path], tmp_path: Path
    ) -> None:
        three["b"] = write_tflite(tmp_path / "crash.tflite")
        arrived, said = take(time_models(device, TFLITE, three, rounds=2))
        assert sorted(arrived) == ["a", "c"]
        assert (
            "got 1 that did not\n  b: ToolError: benchmark_model must end with status 0; got 139 (SIGSEGV): INFO: START"
            in said
        )
        assert turns(phone).count("crash") == 1

    def test_a_tool_that_runs_nothing_is_an_error_at_once(
        self, phone: Phone, device: Device, three: dict[str, Path], tmp_path: Path
    ) -> None:
        program(tmp_path / "benchmark_model", "#!/bin/sh\necho no such instruction; exit 4")
        arrived, said = take(time_models(device, TFLITE, three))
        assert arrived == []
        assert "nothing can be timed on pixel8, tflite-fp32-1t: benchmark_model must end with status 0; got 4" in said


ON_GPU = (
    f"INFO: Use gpu: [1]\n{GPU_PART}\n{takes_it('GPU', 'partially')}\n{THE_REST}\n{takes_it('XNNPACK', 'partially')}"
)
ON_NPU = f"{EDGE_TPU}\nINFO: NNAPI accelerator name: [google-edgetpu]\n{NPU_WHOLE}\n{takes_it('NNAPI', 'completely')}"
DELEGATES = f"""#!/bin/sh
case "$*" in
    *-lone.tflite*) echo '{takes_it("GPU", "not")}';;
    *--use_gpu=true*) echo '{ON_GPU}';;
    *--use_nnapi=true*--nnapi_accelerator_name=google-edgetpu*) echo '{ON_NPU}';;
    *--use_nnapi=true*) echo 'ERROR: Failed to apply NNAPI delegate.';;
esac
cat <<'END'
{TIMED}END
"""
GPU = Setting(runtime="tflite", accelerator="gpu")
NPU = Setting(runtime="tflite", precision="int8", accelerator="npu")


@pytest.mark.adb
class TestAccelerators:
    @pytest.fixture(autouse=True)
    def tool(self, tmp_path: Path, device: Device) -> None:
        program(tmp_path / "benchmark_model", DELEGATES)

    def test_a_gpu_is_asked_for_before_xnnpack_and_what_it_takes_is_told(
        self, phone: Phone, device: Device, three: dict[str, Path]
    ) -> None:
        timed = list(time_models(device, GPU, three, rounds=2))
        placements = {str(one.measurement.placement) for one in timed}
        assert placements == {"on the GPU: 54 of 559 operators, in 3 partitions"}
        assert "--use_gpu=true --use_xnnpack=true" in "".join(phone.commands)

    def test_a_model_that_the_gpu_does_not_take_is_named_and_the_others_go_on(
        self, phone: Phone, device: Device, three: dict[str, Path], tmp_path: Path
    ) -> None:
        three["b"] = write_tflite(tmp_path / "lone.tflite")
        arrived, said = take(time_models(device, GPU, three, rounds=2))
        assert sorted(arrived) == ["a", "c"]
        assert "b: ToolError: the model must run on the gpu, by the delegate GPU; it was not applied" in said

    def test_a_tool_that_falls_back_to_the_cpu_times_nothing(
        self, phone: Phone, device: Device, three: dict[str, Path], tmp_path: Path
    ) -> None:
        program(tmp_path / "benchmark_model", PRINTS)
        arrived, said = take(time_models(device, GPU, three))
        assert arrived == []
        assert "nothing can be timed on pixel8, tflite-fp32-gpu-1t: the model must run on the gpu" in said
        unknown = PRINTS.replace("cat <<", "echo 'WARN: Unconsumed cmdline flags: --use_gpu=true'\ncat <<")
        program(tmp_path / "benchmark_model", unknown)
        assert "it leaves out --use_gpu=true, so its figures are" in take(time_models(device, GPU, three))[1]

    def test_an_npu_is_one_of_nnapis_by_name(self, phone: Phone, device: Device, three: dict[str, Path]) -> None:
        named = changed(device, nnapi_accelerator="google-edgetpu")
        timed = list(time_models(named, NPU, three, rounds=2))
        assert {str(one.measurement.placement) for one in timed} == {"on the NPU, by NNAPI: all 31 operators"}
        assert {one.measurement.placement.flags for one in timed if one.measurement.placement} == {
            ("nnapi_accelerator_name=google-edgetpu",)
        }
        assert "--disable_nnapi_cpu=true" in "".join(phone.commands)
        another = take(time_models(changed(device, nnapi_accelerator="another"), NPU, three))[1]
        assert "nothing can be timed on pixel8, tflite-int8-npu-1t: the model must run on the npu" in another
        with pytest.raises(
            DeviceError, match=r'Write nnapi_accelerator = "NAME" in devices/pixel8\.toml, one of those'
        ):
            read_conditions(device, NPU)


@pytest.mark.adb
class TestAPhoneThatGoesAway:
    def test_is_noticed_though_adb_shell_ends_well_and_what_came_before_is_kept(
        self, phone: Phone, device: Device, three: dict[str, Path], tmp_path: Path
    ) -> None:
        three["b"] = write_tflite(tmp_path / "slow.tflite")

        def kill(line: str) -> None:
            if "-slow.tflite" in line:
                time.sleep(0.3)
                phone.kill()

        phone.on_command = kill
        arrived, said = take(time_models(device, TFLITE, three, group=1))
        assert arrived == ["a"]
        assert "timing stopped before its end line on pixel8, tflite-fp32-1t; 1 of 3 models had arrived" in said
        assert f"phone {phone.serial} (device pixel8) must come to its end" in said
        assert "it was cut short (adb said status 0)" in said
        assert "See whether it is still there: adb devices" in said

    def test_between_two_models_is_noticed(self, phone: Phone, device: Device, three: dict[str, Path]) -> None:
        timed = time_models(device, TFLITE, three, group=1)
        assert next(timed).name == "a"
        phone.kill()
        arrived, said = take(timed)
        assert arrived == []
        assert "1 of 3 models had arrived" in said

    def test_before_it_is_asked_anything_is_not_ready(self, phone: Phone, device: Device) -> None:
        phone.kill()
        assert "must be ready; got 'offline': type `adb reconnect offline`" in refusal(device)

    def test_while_it_hangs_ends_within_its_limit(
        self, phone: Phone, device: Device, three: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adb, "_RUN_S", 1.0)
        monkeypatch.setattr(adb, "_CLOSE_S", 0.5)
        timed = time_models(device, TFLITE, three, group=1)
        assert next(timed).name == "a"
        phone.hung = True
        start = time.monotonic()
        arrived, said = take(timed)
        assert time.monotonic() - start < 5
        assert arrived == []
        assert "1 of 3 models had arrived" in said
        assert "device pixel8 must answer within 1 s; got nothing, and ended: adb -s" in said


@pytest.mark.adb
class TestChoosing:
    def test_several_phones_must_be_told_apart(self, attach: Callable[..., Phone], device: Device) -> None:
        serials = sorted(attach().serial for _ in range(2))
        said = refusal(device)
        assert f"several are attached; got none of {', '.join(serials)}" in said
        assert f'Write for instance serial = "{serials[0]}" in devices/pixel8.toml' in said
        for serial in serials:
            open_transport(changed(device, serial=serial)).close()

    def test_a_serial_that_is_not_attached_is_refused(self, phone: Phone, device: Device) -> None:
        said = refusal(changed(device, serial="9A251FFAZ"))
        assert f"the phone of device pixel8, 9A251FFAZ, must be attached; got {phone.serial}. Plug it in" in said

    def test_no_phone_is_refused(self, server: None, device: Device) -> None:
        assert "the phone of device pixel8, any, must be attached; got none. Plug it in" in refusal(device)

    def test_a_phone_that_has_not_allowed_it_is_refused(self, attach: Callable[..., Phone], device: Device) -> None:
        attach(authorised=False)
        assert "must be ready; got 'unauthorized': allow USB debugging on the phone's screen" in refusal(device)

    def test_a_command_that_is_not_there_is_named(self, device: Device) -> None:
        said = refusal(changed(device, adb="/no/adb"))
        assert "got /no/adb: No such file or directory. Install it (Debian: apt-get install adb), or correct" in said

    def test_a_folder_that_cannot_be_written_to_is_refused(self, phone: Phone, device: Device) -> None:
        said = refusal(changed(device, folder="/dev/null"))
        assert "`folder` must be one that files may be put into" in said
        assert "Not a directory" in said


@pytest.mark.adb
class TestWhatCannotBeTimed:
    @pytest.mark.parametrize(
        ("tool", "words"),
        [
            ("", 'must name TFLite\'s benchmark_model for its processor; got none. Write benchmark_model = "PATH"'),
            ("/no/tool", "must be a program here or on the phone; got /no/tool, which is neither. Correct it in dev"),
        ],
    )
    def test_the_tool_must_be_there(self, phone: Phone, device: Device, tool: str, words: str) -> None:
        with pytest.raises(DeviceError, match="nothing can be timed on pixel8") as error:
            read_conditions(changed(device, benchmark_model=tool), TFLITE)
        assert words in str(error.value)

    def test_another_runtime_is_refused(self, phone: Phone, device: Device) -> None:
        with pytest.raises(DeviceError, match=r"runtime must be tflite.*; got onnx\. Name another setting"):
            read_conditions(device, Setting(runtime="onnx"))

    def test_python_is_refused(self, phone: Phone, device: Device) -> None:
        with (
            open_transport(device) as transport,
            pytest.raises(DeviceError, match=r"Python must not be asked for on phone .*; got -c 'print\(1\)'"),
        ):
            next(transport.run(["-c", "print(1)"]))


@pytest.mark.adb
class TestFiles:
    def test_are_pushed_under_names_of_their_own_and_removed(
        self, phone: Phone, device: Device, tmp_path: Path
    ) -> None:
        there = []
        with open_transport(device) as transport:
            for text in ("one", "two"):
                (tmp_path / text).mkdir()
                (tmp_path / text / "a b.txt").write_text(text)
                there.append(Path(transport.put(tmp_path / text / "a b.txt")))
            assert [path.read_text() for path in there] == ["one", "two"]
        assert list((tmp_path / "phone").iterdir()) == []
        transport.close()

    def test_must_be_files(self, phone: Phone, device: Device, tmp_path: Path) -> None:
        with open_transport(device) as transport, pytest.raises(InputError, match=r"must be a file; got .*absent"):
            transport.put(tmp_path / "absent")

    def test_that_do_not_arrive_are_an_error(self, phone: Phone, device: Device, tmp_path: Path) -> None:
        with open_transport(device) as transport:
            shutil.rmtree(tmp_path / "phone")
            with pytest.raises(DeviceError, match=rf"a file must come to phone {phone.serial}.*No such file"):
                transport.put(tmp_path / "benchmark_model")


def test_a_phone_is_described_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "pixel8.toml").write_text(
        'name = "pixel8"\ntransport = "adb"\nserial = "9A"\nadb = "/opt/adb"\nbenchmark_model = "bm"\n'
        'folder = "/data/local/tmp/mine"\ncores = [4, 5]\n[[settings]]\nruntime = "tflite"\n'
    )
    device = read_device(tmp_path / "pixel8.toml")
    assert (device.serial, device.adb, device.cores) == ("9A", "/opt/adb", (4, 5))


@pytest.mark.parametrize(
    ("output", "report"),
    [
        (TIMED, Report(55.0432, 18.777, 64.791, MEMORY)),
        ("\n".join(f"INFO: {line}" for line in TIMED.splitlines()), Report(55.0432, 18.777, 64.791, MEMORY)),
        ("\n".join(f"I tflite  : {line}" for line in TIMED.splitlines()), Report(55.0432, 18.777, 64.791, MEMORY)),
        (TIMED.replace("std=1562", "std=1562 p5=53100 median=54500 p95=60000"), Report(54.5, 18.777, 64.791, MEMORY)),
        (TIMED.replace("std=1562", "std=1562 p50=54500"), Report(54.5, 18.777, 64.791, MEMORY)),
        (QUICK, Report(0.0034, 18.777, 64.791, MEMORY)),
        (QUICK.replace("std=1562", "std=1562 p5=3 median=3 p95=4"), Report(0.0034, 18.777, 64.791, MEMORY)),
        (TIMED.replace("55043.2", "2.95034e+06"), Report(2950.34, 18.777, 64.791, MEMORY)),
        (
            "count=1 curr=3512\n\ncount=50 curr=3(all same)\n\n"
            "Inference timings in us: Init: 17, First inference: 3512, Warmup (avg): 3512, Inference (avg): 3\n",
            Report(0.003, 0.017, 3.512),
        ),
        (
            "count=1 curr=0\ncount=50 curr=0(all same)\nInference timings in us: Init: 17, First inference: 0, ",
            Report(0.0005, 0.017, 0.0),
        ),
        (  # 2019
            "count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944\n\n"
            "count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39\n\n"
            "Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6\n",
            Report(66.7676, 9.933, 127.425),
        ),
    ],
    ids=["plain", "info", "logcat", "median", "p50", "quick", "quick-median", "exponent", "same", "zero", "2019"],
)
def test_the_output_of_many_versions_is_read(output: str, report: Report) -> None:
    assert read(0, output) == report


@pytest.mark.parametrize(
    ("status", "output", "words"),
    [
        (1, "ERROR: no model\n", "must end with status 0; got 1: ERROR: no model"),
        (137, "", "must end with status 0; got 137 (SIGKILL): nothing"),
        (0, "", "must write two lines"),
        (0, "\x00\x7fELF\x02", "must write two lines"),
        (0, '{"init_ms": 18.7, "warmup": 5, "avg": 55.0}\n', "as TFLite's does; got {"),  # litert-benchmark's
        (0, "Average latency: 55.04 ms (50 runs)\n", "as TFLite's does; got Average latency"),
        (0, TIMED[: TIMED.index("Running")], "must time calls after its warm-up; it ended with that: count=7"),
        (0, TIMED[: TIMED.index("Inference timings")], "at its end; its output is cut short"),
        (0, TIMED[: TIMED.index(" max=60727")], "at its end; its output is cut short"),
        (0, TIMED.replace("timings in us", "timings in ms"), "must tell times in us; got ms. Take TFLite's own tool"),
        (0, TIMED + TIMED, "must time one model a run; got 2 in one output"),
        (0, f"INFO: Loaded model a.tflite\nINFO: Loaded model b.tflite\n{TIMED}", "must time one model a run; got 2"),
        (0, TIMED[TIMED.index("Running") :], "must write two lines"),
        (0, TIMED.replace("avg=55043.2", "avg=-nan"), "must write two lines"),
        (0, TIMED.replace("avg=55043.2", "avg=-5"), "must write two lines"),
        (0, TIMED.replace("avg=55043.2", "avg=five"), "must write two lines"),
        (0, TIMED.replace("curr=53809", "count=0").replace("avg=55043.2", ""), "must write two lines"),
    ],
)
def test_other_output_is_an_error(status: int, output: str, words: str) -> None:
    with pytest.raises(ToolError) as error:
        read(status, output)
    assert words in str(error.value)


def on(delegate: str, takes: str, *lines: str, flags: str = "") -> str:
    """Return what the tool prints where this delegate was asked for; `takes` is how much, in the tool's words."""
    log = [
        "STARTING!",
        "Log parameter values verbosely: [0]",
        "Num threads: [2]",
        "Graph: [m.tflite]",
        *flags.split("|"),
    ]
    head = [*log, "Loaded model m.tflite", "Initialized TensorFlow Lite runtime."]
    told = "\n".join(f"INFO: {line}" for line in [*head, f"{delegate} delegate created."])
    return "\n".join([told, *lines, takes_it(delegate, takes), TIMED])


@pytest.mark.parametrize(
    ("processor", "output", "operators", "of", "partitions", "whole"),
    [
        ("cpu", on("XNNPACK", "completely", CPU_WHOLE), 58, 58, 1, True),
        ("cpu", on("XNNPACK", "partially", CPU_PART), 539, 548, 19, False),
        ("cpu", f"{CPU_PART}\n{TIMED}", 539, 548, 19, False),  # applied by default
        ("cpu", on("XNNPACK", "not"), 0, None, 1, False),  # all by TFLite's own kernels, on the CPU
        ("gpu", on("GPU", "completely", GPU_WHOLE), 49, 49, 1, True),
        ("gpu", on("GPU", "completely"), None, None, 1, True),
        ("gpu", on("GPU", "partially", GPU_PART, THE_REST), 54, 559, 3, False),
        ("gpu", on("GPU", "partially"), None, None, None, False),
        ("npu", on("NNAPI", "completely", EDGE_TPU, NPU_WHOLE), 31, 31, 1, True),
    ],
)
def test_what_the_tool_says_of_where_a_model_ran_is_read(
    processor: str, output: str, operators: int | None, of: int | None, partitions: int | None, whole: bool
) -> None:
    placement = read(0, output, processor=processor).placement
    assert placement is not None
    stated = (placement["operators"], placement["of"], placement["partitions"], placement["whole"])
    assert stated == (operators, of, partitions, whole)
    assert placement["processor"] == processor


def test_the_flags_that_the_tool_consumed_are_those_that_it_repeats() -> None:
    report = read(0, on("GPU", "completely", flags="Use gpu: [1]|Use NNAPI: [0]|Use xnnpack: [0]"), processor="gpu")
    assert report.placement is not None
    assert report.placement["flags"] == ["num_threads=2", "use_gpu=1"]


@pytest.mark.parametrize(
    ("processor", "output", "words"),
    [
        ("gpu", on("GPU", "not"), "must run on the gpu, by the delegate GPU; it was not applied"),
        ("gpu", f"WARN: GPU acceleration is unsupported on this platform.\n{TIMED}", "it was not applied"),
        ("gpu", on("XNNPACK", "completely", CPU_WHOLE), "must run on the gpu, by the delegate GPU; it was not applied"),
        ("gpu", TIMED, "must run on the gpu, by the delegate GPU; it was not applied"),
        ("gpu", on("NNAPI", "completely", NPU_WHOLE), "must run on the gpu; the delegate NNAPI was applied"),
        (
            "npu",
            on("NNAPI", "not", EDGE_TPU, NPU_WHOLE),
            "must run on the npu, by the delegate NNAPI; it was not applied",
        ),
        (
            "npu",
            on("NNAPI", "completely", "INFO: NNAPI accelerators available: [nnapi-reference]", NPU_WHOLE),
            "no accelerator there but nnapi-reference, which is the CPU. Name another setting",
        ),
        ("cpu", on("GPU", "completely", GPU_WHOLE), "must run on the cpu; the delegate GPU was applied"),
        ("cpu", f"ERROR: Failed to apply XNNPACK delegate.\n{TIMED}", "the delegate XNNPACK; it was not applied"),
        (
            "cpu",
            on("XNNPACK", "completely", CPU_PART),
            "XNNPACK must take all operators, as the tool says; it took 539 of 548",
        ),
        (
            "gpu",
            f"WARN: Unconsumed cmdline flags: --use_gpu=true\n{on('XNNPACK', 'completely', CPU_WHOLE)}",
            "it leaves out --use_gpu=true, so its figures are of something else. Take a newer one, or one that is",
        ),
    ],
)
def test_a_model_that_ran_elsewhere_than_asked_is_an_error(processor: str, output: str, words: str) -> None:
    with pytest.raises(ToolError) as error:
        read(0, output, processor=processor)
    assert words in str(error.value)


@pytest.mark.parametrize("processor", ["cpu", "gpu", "npu"])
def test_output_that_is_cut_anywhere_is_an_error_unless_all_figures_are_there(processor: str) -> None:
    output = {"cpu": on("XNNPACK", "partially", CPU_PART), "gpu": f"{ON_GPU}\n{TIMED}", "npu": f"{ON_NPU}\n{TIMED}"}
    whole = output[processor]
    last = whole.index("Init: 18777")
    for end in range(last):
        with pytest.raises(ToolError):
            read(0, whole[:end], processor=processor)
    assert read(0, whole, processor=processor).sample_ms == 55.0432


def test_flags_that_the_tool_does_not_know_are_named() -> None:
    with pytest.raises(ToolError, match=r"every flag .*; it leaves out --use_xnnpack=true --min_secs=1, so"):
        read(0, f"INFO: STARTING!\nWARN: Unconsumed cmdline flags: --use_xnnpack=true --min_secs=1 \n{TIMED}")


def test_numbers_of_hundreds_of_digits_are_no_figures() -> None:
    digits = "9" * 400
    assert read(0, TIMED.replace("overall=46.0859", f"overall={digits}")).peak_memory_bytes is None
    with pytest.raises(ToolError, match="must write two lines"):
        read(0, TIMED.replace("avg=55043.2", f"avg={digits}"))


@pytest.mark.skipif(os.name == "nt", reason="the command is a shell script")
@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_phone_that_never_stops_talking_is_an_error_that_names_the_device(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setattr("hwnas.device.transports._bounds.WORDS_BYTES", 10_000)
    talks = program(tmp_path / "adb", f"#!/bin/sh\nwhile :; do echo 0123456789 >&{stream} || exit; done")
    assert "at most 10000 bytes; got more from device pixel8" in refusal(changed(device, adb=str(talks)))


def test_the_command_quotes_paths() -> None:
    assert command("/a b/tool", "/c d.tflite", Job("tflite", [])).startswith("'/a b/tool' '--graph=/c d.tflite' --num")
