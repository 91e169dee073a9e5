"""Timing models on a device: what arrives, and what is said when not everything does."""

import json
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pretended import ScriptedDevice, interpreter
from tiny_models import WRITERS, take, write_onnx, write_tflite

from hwnas.device.device import Device, Setting
from hwnas.device.transports import local
from hwnas.errors import DeviceError, InputError
from hwnas.latency import measure
from hwnas.latency.conditions import Conditions
from hwnas.latency.lines import Timed
from hwnas.latency.measure import read_conditions, time_models
from hwnas.latency.measurement import Measurement, OtherCosts
from hwnas.latency.placement import Placement
from hwnas.latency.table import LatencyTable
from hwnas.network.architecture import Architecture
from hwnas.network.scale import Scale
from hwnas.spaces import pnas, random_parameters

TFLITE = Setting(runtime="tflite")
HOST = Device(name="here", settings=(TFLITE, Setting(runtime="onnx")))
MODEL = {"name": "a", "rounds_ms": [[1.0, 2.0]], "attempts": 1, "unstable": True, "load_ms": 3.0, "first_ms": 4.0}
MODEL["peak_memory_bytes"] = 4096
CONDITIONS = {
    "cpu": "abacus",
    "cores": 2,
    "arch": "x86_64",
    "runtime": "tflite",
    "runtime_version": "ai-edge-litert 2.3.0",
    "threads": 1,
    "pinned": [1],
    "governor": None,
    "frequency_mhz": [2000.0],
    "load": 0.5,
    "others_busy": 0.1,
    "temperature_c": None,
    "python": "3.11.7",
    "numpy": "2.4.6",
    "date": "2026-01-01T00:00:00Z",
}


class Script(local.Transport):
    """A device whose runner writes given lines and ends well, as adb does even when the phone is gone."""

    lines: tuple[Any, ...] = ()

    def run(self, arguments: Any) -> Generator[str, None, None]:
        yield from (line if isinstance(line, str) else json.dumps(line) for line in self.lines)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> type[Script]:
    """Return a class whose `lines` are what the device's runner writes."""
    scripted = type("Scripted", (Script,), {})
    monkeypatch.setattr(measure, "open_transport", scripted)
    return scripted


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[str]]]:
    """Return the processes that the local transport starts."""
    processes: list[subprocess.Popen[str]] = []

    class Recorded(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr(local.subprocess, "Popen", Recorded)
    yield processes
    assert all(process.poll() is not None for process in processes)


@pytest.fixture
def three(tmp_path: Path) -> dict[str, Path]:
    return {name: write_tflite(tmp_path / f"{name}.tflite") for name in ("a", "b", "c")}


@pytest.mark.parametrize("setting", HOST.settings, ids=lambda setting: setting.runtime)
def test_every_model_arrives_with_its_samples_and_the_conditions_before_and_after(
    tmp_path: Path, setting: Setting
) -> None:
    write = WRITERS[setting.runtime]
    models = {name: write(tmp_path / f"{name}.{setting.runtime}") for name in ("a", "b", "c")}
    seen: list[Conditions] = []
    timed = list(time_models(HOST, setting, models, rounds=2, group=2, on_conditions=seen.append))
    assert sorted(one.name for one in timed) == ["a", "b", "c"]
    assert all(len(one.measurement.rounds_ms) == 2 and one.measurement.ms > 0 for one in timed)
    before, after = seen
    assert before.fingerprint == after.fingerprint
    assert before.date <= after.date


def test_a_broken_model_is_named_after_the_others_arrived(three: dict[str, Path]) -> None:
    three["a"].write_bytes(b"no model")
    arrived, said = take(time_models(HOST, TFLITE, three, rounds=1))
    assert sorted(arrived) == ["b", "c"]
    assert "here, tflite-fp32-1t; got 1 that did not\n  a: ValueError" in said


def test_a_killed_runner_leaves_what_has_arrived(three: dict[str, Path], started: list[subprocess.Popen[str]]) -> None:
    timed = time_models(HOST, TFLITE, three, rounds=100, group=1)
    assert next(timed).name == "a"
    started[0].kill()
    arrived, said = take(timed)
    assert arrived == []
    assert "stopped before its end line on here, tflite-fp32-1t; 1 of 3 models had arrived" in said
    assert "SIGKILL" in said
    assert "loading a" in said


def test_the_runner_ends_with_whoever_stops_listening(
    three: dict[str, Path], started: list[subprocess.Popen[str]]
) -> None:
    timed = time_models(HOST, TFLITE, three, rounds=100, group=1)
    next(timed)
    assert started[0].poll() is None
    timed.close()  # type: ignore[attr-defined]
    assert started[0].poll() is not None


def test_conditions_are_read_without_models() -> None:
    conditions = read_conditions(HOST, Setting(runtime="tflite", threads=2))
    assert (conditions.runtime, conditions.threads) == ("tflite", 2)
    assert set(conditions.fingerprint) == {"cpu", "cores", "arch", "runtime", "runtime_version", "threads"}
    assert Conditions.of_runner(json.loads(json.dumps(conditions.to_json()))) == conditions


def test_conditions_with_other_fields_are_refused() -> None:
    with pytest.raises(DeviceError, match="colour"):
        Conditions.of_runner({**CONDITIONS, "colour": "red"})


def test_a_whole_script_is_read(script: type[Script], tmp_path: Path) -> None:
    script.lines = ({"conditions": CONDITIONS}, MODEL, {"end": 1, "conditions": CONDITIONS}, "not read any more")
    seen: list[Conditions] = []
    models = {"a": write_tflite(tmp_path / "a.tflite")}
    (one,) = time_models(HOST, TFLITE, models, on_conditions=seen.append)
    other = OtherCosts(models["a"].stat().st_size, 4096, load_ms=3.0, first_ms=4.0)
    assert one == Timed("a", Measurement(((1.0, 2.0),), unstable=True), other)
    assert seen == [Conditions.of_runner(CONDITIONS)] * 2


@pytest.mark.parametrize(
    ("accelerator", "placement", "words"),
    [
        (
            "gpu",
            None,
            "a must run on the gpu, and the device must say so; got nothing of where it ran on here, tflite-",
        ),
        ("gpu", {"processor": "cpu", "whole": True}, "a must run on the gpu.*; got on the CPU: all operators on here"),
        ("cpu", {"processor": "gpu", "whole": True}, "a must run on the cpu.*; got on the GPU: all operators on here"),
    ],
)
def test_a_model_that_is_not_proved_to_have_run_as_asked_is_an_error(
    script: type[Script], tmp_path: Path, accelerator: str, placement: dict[str, Any] | None, words: str
) -> None:
    script.lines = ({"conditions": CONDITIONS}, {**MODEL, "placement": placement}, {"end": 1})
    setting = Setting.model_validate({"runtime": "tflite", "accelerator": accelerator})
    with pytest.raises(DeviceError, match=words):
        list(time_models(HOST, setting, {"a": write_tflite(tmp_path / "a.tflite")}))


@pytest.mark.parametrize(("taken", "is_said"), [(9, False), (0, True)])
def test_a_canary_that_xnnpack_does_not_take_whole_is_said_once(
    script: type[Script], tmp_path: Path, caplog: pytest.LogCaptureFixture, taken: int, is_said: bool
) -> None:
    caplog.set_level("INFO", "hwnas")
    placement = {"processor": "cpu", "delegate": "XNNPACK", "whole": taken == 9, "operators": taken, "of": 9}
    model = {**MODEL, "placement": placement}
    script.lines = ({"conditions": CONDITIONS}, {"canary": placement}, model, {"end": 1, "conditions": CONDITIONS})
    for _ in range(2):
        (one,) = time_models(HOST, TFLITE, {"a": write_tflite(tmp_path / "a.tflite")})
        assert one.measurement.placement == Placement.model_validate(placement)
    said = (
        "here, tflite-fp32-1t: a network of plain operators ran on the CPU, by XNNPACK: 0 of 9 operators. Its runtime"
    )
    assert caplog.text.count(said) == int(is_said)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([MODEL], "1 of 3 models had arrived. its output just ends"),
        ([MODEL, {"name": "b", "error": "broken"}], "1 of 3 models had arrived\n  b: broken"),
        ([MODEL, {"end": 3, "conditions": CONDITIONS}], "a line for each of 3 models; got 1"),
        ([MODEL, "INFO: hello"], "got 'INFO: hello'"),
        ([MODEL, '{"name": "b", "rou'], 'got \'{"name": "b", "rou\''),
        ([MODEL, {"weather": "fine"}], "weather"),
        ([MODEL, "3"], "got '3'"),
        ([MODEL, {"name": "b", "rounds_ms": [[1.0]]}], "unstable"),
        (
            [MODEL, {**MODEL, "name": "of somebody else"}],
            "asked for, once; got 'of somebody else' on here, tflite-fp32-1t",
        ),
        ([MODEL, MODEL], "asked for, once; got 'a' on here, tflite-fp32-1t"),
        ([MODEL, {"name": "of somebody else", "error": "no"}], "asked for, once; got 'of somebody else'"),
        ([MODEL, {"error": "no runtime"}], "nothing can be timed on here, tflite-fp32-1t: no runtime"),
    ],
)
def test_lines_that_do_not_end_well_are_an_error_after_what_arrived(
    script: type[Script], three: dict[str, Path], lines: list[Any], words: str
) -> None:
    script.lines = tuple(lines)
    arrived, said = take(time_models(HOST, TFLITE, three))
    assert arrived == ["a"]
    assert words in said


DEEP = "[" * 100_000
MANY_DIGITS = "9" * 5_000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (DEEP, "must write lines as"),
        (f'{{"name": "b", "rounds_ms": {DEEP}', "must write lines as"),
        (MANY_DIGITS, "must write lines as"),
        (f'{{"name": "b", "load_ms": {MANY_DIGITS}}}', "must write lines as"),
        ('{"waiting": NaN, "reason": ""}', "must write lines as"),
        ({"waiting": 1.0}, "reason: Field required"),
        ({"waiting": "long", "reason": ""}, "waiting: Input should be a valid number, got 'long'"),
        ({"waiting": -1.0, "reason": ""}, "waiting: Input should be greater than or equal to 0"),
        ({"end": 3, "pace": [1]}, "pace: Input should be a valid dictionary, got [1]"),
        ({"end": 3, "conditions": 5}, "conditions: Value error, conditions must have the fields of Conditions; got 5"),
        ({"conditions": {**CONDITIONS, "cores": 10**30}}, "conditions: Value error"),
        ({"conditions": {**CONDITIONS, "load": 1e300}}, "conditions: Value error"),
        ({"error": ["no"]}, "error: Input should be a valid string, got ['no']"),
        ({"name": ["b"], "error": "no"}, "name: Input should be a valid string, got ['b']"),
        ({**MODEL, "name": 7}, "name: Input should be a valid string, got 7"),
        ({**MODEL, "name": "b", "rounds_ms": []}, "rounds_ms: Tuple should have at least 1 item"),
        ({**MODEL, "name": "b", "rounds_ms": [[0.0]]}, "rounds_ms.0.0: Input should be greater than"),
        ({**MODEL, "name": "b", "rounds_ms": [["1"]]}, "rounds_ms.0.0: Input should be a valid number, got '1'"),
        ({**MODEL, "name": "b", "rounds_ms": [[1e300]]}, "rounds_ms.0.0: Input should be less than"),
        ({**MODEL, "name": "b", "canary_ms": [1.0, 1.0]}, "its rounds, and each its canary"),
        ({**MODEL, "name": "b", "unstable": "no"}, "unstable: Input should be a valid boolean, got 'no'"),
        ({**MODEL, "name": "b", "placement": {"processor": "tpu", "whole": True}}, "placement.processor: Input should"),
        ({**MODEL, "name": "b", "placement": {"processor": "gpu"}}, "placement.whole: Field required"),
        ({"canary": 5}, "canary: Input should be a valid dictionary or instance of Placement, got 5"),
        ({**MODEL, "name": "b", "peak_memory_bytes": -1}, "peak_memory_bytes: Input should be greater"),
        ({"name": "b", "outputs": [], "instructions": None}, "its rounds, and each its canary"),
    ],
)
def test_a_line_that_is_none_is_an_error_that_names_the_device(
    script: type[Script], three: dict[str, Path], line: Any, words: str
) -> None:
    script.lines = (MODEL, line)
    arrived, said = take(time_models(HOST, TFLITE, three))
    assert arrived == ["a"]
    assert words in said
    assert "on here, tflite-fp32-1t" in said
    assert len(said) < 1000


@pytest.mark.parametrize("lines", [[], [{"end": 0}], ["", ""]])
def test_a_device_that_says_nothing_of_itself_is_an_error_that_names_it(script: type[Script], lines: list[Any]) -> None:
    script.lines = tuple(lines)
    with pytest.raises(DeviceError, match="here, tflite-fp32-1t"):
        read_conditions(HOST, TFLITE)


def test_a_job_has_a_bounded_number_of_lines(script: type[Script], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.latency.lines._LINES", 3)
    script.lines = ({"waiting": 1.0, "reason": "it is hot"},) * 4
    with pytest.raises(DeviceError, match="must have at most 3 lines; got more on here"):
        read_conditions(HOST, TFLITE)


def test_a_line_has_a_bounded_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.device.transports._bounds.LINE_BYTES", 1000)
    endless = f'exec "{sys.executable}" -c "while True: print(1000 * chr(97), end=str())"'
    device = HOST.model_copy(update={"python": interpreter(tmp_path, endless)})
    with pytest.raises(DeviceError, match="at most 1000 bytes; got a longer one from device here"):
        read_conditions(device, TFLITE)


def test_what_a_device_says_steers_no_terminal(script: type[Script], three: dict[str, Path]) -> None:
    told: list[str] = []

    def heard(conditions: Conditions) -> None:
        told.append(conditions.cpu)

    script.lines = (
        {"conditions": {**CONDITIONS, "cpu": "fast\x1b[2J\x07 one"}},
        {"waiting": 1.0, "reason": "hot\r\x9b2J"},
        {"name": "a", "error": "\x1b]0;title\x07\u202egnorw"},
        MODEL,
    )
    with pytest.raises(DeviceError) as caught:
        list(time_models(HOST, TFLITE, three, on_conditions=heard, on_wait=lambda _, why: told.append(why)))
    assert told == ["fast\ufffd[2J\ufffd one", "hot\ufffd\ufffd2J"]
    script.lines = ({"error": "\x1b[31mno\u202e"},)
    with pytest.raises(DeviceError) as impossible:
        read_conditions(HOST, TFLITE)
    for said in (str(caught.value), str(impossible.value)):
        assert not any(one in said for one in "\x1b\x07\x9b\r\u202e")


OUTPUT = {"dtype": "float32", "shape": [1, 2], "base64": "AAAAAAAAAAA="}
COMPUTED = {"name": "a", "outputs": [OUTPUT], "instructions": 3}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"dtype": "object"}, "outputs.0.dtype: Input should be 'bool', 'int8'"),
        ({"shape": [-1]}, "outputs.0.shape.0: Input should be greater than or equal to 0"),
        ({"shape": [1] * 9}, "outputs.0.shape: Tuple should have at most 8 items"),
        ({"shape": [2**30, 2**30]}, "an output's bytes must fill its shape"),
        ({"shape": [3]}, "an output's bytes must fill its shape"),
        ({"base64": "?"}, "an output's bytes must fill its shape"),
        ({"base64": 3}, "outputs.0.base64: Input should be a valid string"),
    ],
)
def test_an_output_that_is_none_is_an_error_that_names_the_device(
    script: type[Script], tmp_path: Path, output: dict[str, Any], words: str
) -> None:
    models = {"a": write_tflite(tmp_path / "a.tflite")}
    script.lines = ({"conditions": CONDITIONS}, COMPUTED, {"end": 1})
    assert measure.compute_models(HOST, TFLITE, models)["a"].instructions == 3
    script.lines = ({"conditions": CONDITIONS}, {**COMPUTED, "outputs": [{**OUTPUT, **output}]})
    with pytest.raises(DeviceError) as caught:
        measure.compute_models(HOST, TFLITE, models)
    assert words in str(caught.value)
    assert "here, tflite-fp32-1t" in str(caught.value)


def test_a_runtime_that_the_runner_does_not_know_is_its_error(tmp_path: Path) -> None:
    models = {"a": write_onnx(tmp_path / "a.onnx")}
    arrived, said = take(time_models(HOST, Setting(runtime="abacus"), models))
    assert arrived == []
    assert "runtime must be one of onnx, tflite; got 'abacus'" in said


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a file; got .*absent\.tflite"):
        list(time_models(HOST, TFLITE, {"a": tmp_path / "absent.tflite"}))


def test_no_rounds_are_an_input_error() -> None:
    with pytest.raises(InputError, match="must be at least 1; got 0, 32 and 3"):
        list(time_models(HOST, TFLITE, {}, rounds=0))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_to_wait_that_is_none_is_an_input_error(share: float) -> None:
    with pytest.raises(InputError, match=f"max_wait must be a share of the time, from 0 to 1; got {share}"):
        list(time_models(HOST, TFLITE, {}, max_wait=share))


def test_pauses_are_told_and_the_pace_is_handed_on(script: type[Script], tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = []

    class Listens(script):  # type: ignore[misc, valid-type]
        def put(self, path: Path) -> str:
            if path.name == "job.json":
                jobs.append(json.loads(path.read_text()))
            return str(super().put(path))

    measure.open_transport = Listens  # type: ignore[assignment]  the fixture puts it back
    end = {"end": 1, "conditions": CONDITIONS, "pace": {"canary_ms": 0.2, "left_s": 1.5}}
    script.lines = ({"conditions": CONDITIONS}, {"waiting": 2.0, "reason": "it is hot"}, MODEL, end)
    models = {"a": write_tflite(tmp_path / "a.tflite")}
    pace: dict[str, float] = {}
    waits: list[tuple[float, str]] = []
    for _ in range(2):
        list(time_models(HOST, TFLITE, models, pace=pace, max_wait=0.5, on_wait=lambda *wait: waits.append(wait)))
    assert waits == [(2.0, "it is hot")] * 2
    assert [job["pace"] for job in jobs] == [{}, {"canary_ms": 0.2, "left_s": 1.5}]
    assert [job["max_wait"] for job in jobs] == [0.5, 0.5]
    assert len(list(time_models(HOST, TFLITE, models))) == 1


# A few models that caps are held against, beside networks that the table knows.


def table_of(networks: list[Architecture], *, ms: float) -> LatencyTable:
    """Return a table in which the networks take ms, 2 ms, ... with the canary at 0.1 ms."""
    table = LatencyTable(Path("table.json"), "here", TFLITE, Conditions())
    for number, network in enumerate(networks, start=1):
        table.set_network(network, Measurement(((number * ms,),), canary_ms=(0.1,)))
    return table


class Slows(ScriptedDevice):
    """Takes 3 ms for the model `a`, and what its table says for others; twice that after the first round.

    Its canary does not notice.
    """

    def __init__(self, table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.ms = {json.dumps(one.architecture.to_json()): table.stated_ms(one.measurement) for one in table.networks}
        self.canary_ms = (0.1, 0.1, 0.1)
        self.takes = lambda name: [factor * self.ms.get(name, 3.0) for factor in (1, 2, 2)]


PRETENDED = Device(name="here", transport="pretend", settings=(TFLITE,))


@pytest.mark.parametrize(("count", "references", "stated_ms"), [(24, 8, 3.0), (15, 0, 6.0)])
def test_a_lone_model_is_told_by_networks_that_the_table_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, references: int, stated_ms: float
) -> None:
    scale = Scale(cells=1, filters=4, resolution=8, classes=3, input_channels=1)
    chosen = random_parameters(pnas, count, seed=1)
    table = table_of([pnas.architecture(parameters, scale) for parameters in chosen], ms=0.5)
    slows = Slows(table, monkeypatch)
    (timed,) = measure.time_beside(table, PRETENDED, TFLITE, {"a": write_tflite(tmp_path / "a.tflite")})
    assert timed.name == "a"
    assert len(slows.timed) == 1 + references
    assert table.stated_ms(timed.measurement) == pytest.approx(stated_ms)
    assert all(slows.ms[name] <= 0.5 * count / 2 for name in slows.timed[1:])  # the faster half


def test_without_a_table_the_canary_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Slows(table_of([], ms=1.0), monkeypatch)
    (timed,) = measure.time_beside(None, PRETENDED, TFLITE, {"a": write_tflite(tmp_path / "a.tflite")})
    assert timed.measurement.canary_ms == (0.1, 0.1, 0.1)
