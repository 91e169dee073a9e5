"""What `hwnas doctor` finds, what it leaves alone, and when a run on this machine can be done."""

import json
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from conftest import SETTING, write_images
from pretended import interpreter
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.verbs import _installed
from hwnas.verbs import doctor as verb

NO_REACH: dict[str, Any] = {"reach": False}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, and wait for nobody else's programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "_WATCHED_S", 0.0)
    return tmp_path


def checks(about: str, **options: Any) -> list[hwnas.Check]:
    return [check for check in hwnas.doctor(**options).checks if check.about == about]


def install(folder: Path, name: str, *, modules: str) -> None:
    """Make a package that is installed, as far as its metadata tell."""
    info = folder / "site" / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(modules)


def test_a_run_can_be_done_here_and_what_answers_is_said() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert any(line.startswith("fine    device host") and f"{SETTING}, " in line for line in lines)
    assert any(line.startswith("advice  table host") and "not measured yet" in line for line in lines)
    assert f"type: hwnas profile host --setting {SETTING}" in result.stdout
    assert lines[-1] == "a run on this machine can be done. next: hwnas init"


def test_its_json_has_every_check_and_whether_a_run_can_be_done() -> None:
    diagnosis = json.loads(CliRunner().invoke(app, ["doctor", "--no-reach", "--json"]).stdout)
    assert diagnosis["runs_here"] is True
    assert {check["state"] for check in diagnosis["checks"]} <= {"fine", "advice", "broken"}
    assert {"hwnas", "packages", "torch", "machine", "disk", "data", "device host"} <= {
        check["about"] for check in diagnosis["checks"]
    }


def test_nothing_heavy_is_loaded_and_nothing_is_written(folder: Path) -> None:
    code = "import sys, hwnas; hwnas.doctor(); print(*{'torch', 'optuna', 'onnxruntime', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert list(folder.iterdir()) == []


@pytest.mark.alone
def test_it_takes_less_than_three_seconds() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "hwnas.cli", "doctor"], check=True, capture_output=True)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 3.0


# What is installed.


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("no-such-package>=1", "hwnas needs no-such-package>=1; got none"),
        ("numpy<1", "hwnas needs numpy<1; got "),
    ],
)
def test_a_package_that_is_missing_or_of_another_version_stops_a_run(
    wanted: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = ["typer>=0.16", "not-here; extra == 'dev'", "nor-this; python_version < '3'"]
    monkeypatch.setattr(_installed.metadata, "requires", lambda name: [wanted, *others])
    result = CliRunner().invoke(app, ["doctor", "--no-reach"])
    assert result.exit_code == 1
    package = wanted.partition("<")[0].partition(">")[0]
    assert words in result.stdout
    assert f"type: {sys.executable} -m pip install '{wanted}'" in result.stdout
    assert f"cannot be done: {package}. When that is mended: hwnas doctor" in result.stdout.splitlines()[-1]
    assert "not-here" not in result.stdout
    assert "nor-this" not in result.stdout


def test_another_package_of_the_same_import_name_is_told_and_how_to_remove_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _installed.namesake() is None
    install(folder, "slimnet", modules="hwnas\n")
    install(folder, "other", modules="hwnas_other\n")
    monkeypatch.syspath_prepend(str(folder / "site"))
    diagnosis = hwnas.doctor(**NO_REACH)
    (check,) = [check for check in diagnosis.checks if (check.about, check.state) == ("hwnas", "broken")]
    assert check.words.startswith("slimnet installs a package `hwnas` as well")
    assert check.next == f"{sys.executable} -m pip uninstall --yes slimnet, then install hwnas again"
    assert diagnosis.runs_here  # as long as these are hwnas's own files


def test_a_package_that_has_replaced_our_own_file_is_told_by_every_verb(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwnas.cli import main

    install(folder, "slimnet", modules="hwnas\n")
    monkeypatch.syspath_prepend(str(folder / "site"))
    monkeypatch.delitem(vars(hwnas), "__getattr__")
    with pytest.raises(SystemExit) as exit_:
        main.main()
    assert exit_.value.code == 2
    assert "__init__.py must be hwnas's own; slimnet installs a package `hwnas` as well" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gpus", "cuda", "code", "state", "words"),
    [
        ([], "13.0", "", "fine", "built for CUDA 13.0; there is no NVIDIA GPU"),
        ([], None, "", "fine", "built without CUDA; there is no NVIDIA GPU"),
        (["nvidia0"], None, "", "advice", "built without CUDA, beside an NVIDIA GPU, which training cannot use"),
        (["nvidia0"], "13.0", "print(True)", "fine", "built for CUDA 13.0; training takes the GPU"),
        (["nvidia0"], "13.0", "print(False)", "advice", "does not reach the NVIDIA GPU that is there: 'its driver may"),
        (["nvidia0"], "13.0", "raise SystemExit('old driver')", "advice", "that is there: 'old driver'"),
        (["nvidia0"], "13.0", "import time; time.sleep(9)", "advice", "must be loaded within 0.5 s; nothing came"),
    ],
)
def test_torch_and_the_gpu_are_held_against_each_other(
    gpus: list[str], cuda: str | None, code: str, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_installed, "_gpus", lambda: [Path("/dev") / name for name in gpus])
    monkeypatch.setattr(_installed, "_torch_version", lambda: {"cuda": cuda})
    monkeypatch.setattr(_installed, "_HAS_GPU", code)
    monkeypatch.setattr(_installed, "_LOADING_S", 0.5 if "sleep" in code else 30.0)
    (check,) = checks("torch", **NO_REACH)
    assert check.state == state
    assert words in check.words
    if gpus and not cuda:
        assert "-m pip install --force-reinstall 'torch<" in check.next
        assert "'torchvision<" in check.next


def test_what_torch_was_built_for_is_what_torch_itself_says() -> None:
    import torch

    assert _installed._torch_version()["cuda"] == torch.version.cuda


def test_what_some_verbs_need_is_told_with_what_it_is_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    missing = {check.about: check for check in hwnas.doctor(**NO_REACH).checks if "not installed" in check.words}
    assert {"adb", "qemu-aarch64", "g++", "cc"} <= missing.keys()
    assert missing["g++"].words == "not installed; it is only for `--compile` when the CPU trains"
    assert missing["adb"].next == "apt-get install adb"
    assert all(check.state == "advice" for check in missing.values())
    monkeypatch.setenv("CXX", sys.executable)
    (compiler,) = checks(sys.executable, **NO_REACH)
    assert compiler.state == "fine"


# Devices and their tables.


def test_a_device_that_does_not_answer_is_told_soon_and_stops_no_run_here(folder: Path) -> None:
    hwnas.devices_add("silent", setting=f"{SETTING},onnx-fp32-1t", python=interpreter(folder, "exec sleep 100"))
    started = time.monotonic()
    diagnosis = hwnas.doctor(patience_s=2.0)
    assert time.monotonic() - started < 90.0
    (check,) = [check for check in diagnosis.checks if check.about == "device silent"]
    assert (check.state, check.needed) == ("broken", False)
    assert check.words == f"{SETTING}: device silent must answer within 2 s; nothing came"


def test_this_machine_is_waited_for_where_it_is_slow(folder: Path) -> None:
    python = interpreter(folder, f'sleep 1; exec "{sys.executable}" "$@"')
    (folder / "devices").mkdir()
    text = f'name = "host"\npython = "{python}"\n[[settings]]\nruntime = "tflite"\n'
    (folder / "devices" / "host.toml").write_text(text)
    diagnosis = hwnas.doctor(patience_s=0.2)
    assert diagnosis.runs_here
    assert [check.state for check in diagnosis.checks if check.about == "device host"] == ["fine"]


def test_a_host_that_cannot_run_networks_stops_a_run(folder: Path) -> None:
    python = interpreter(folder, f'exec "{sys.executable}" -I -S "$@"')
    (folder / "devices").mkdir()
    (folder / "devices" / "host.toml").write_text(
        f'name = "host"\npython = "{python}"\n[[settings]]\nruntime = "onnx"\n'
    )
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "needs numpy, which cannot be imported" in result.stdout
    assert f"type: {python} -m pip install numpy" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("a run on this machine cannot be done: device host.")


def test_a_program_of_a_device_s_file_is_not_started_without_consent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "devices").mkdir()
    python = interpreter(folder, f'touch "{folder}/started"; exec "{sys.executable}" "$@"')
    (folder / "devices" / "evil.toml").write_text(
        f'name = "evil"\npython = "{python}"\n[[settings]]\nruntime = "tflite"\n'
    )
    monkeypatch.delenv("HWNAS_TRUST")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (check,) = checks("device evil")
    assert check.state == "broken"
    assert "is started or reached only once that was agreed to" in check.words
    assert check.next == "hwnas devices --trust"
    assert not (folder / "started").exists()
    assert CliRunner().invoke(app, ["doctor", "--trust"]).exit_code == 0
    assert (folder / "started").exists()


def test_a_file_that_is_no_device_s_is_told(folder: Path) -> None:
    (folder / "devices").mkdir()
    (folder / "devices" / "odd.toml").write_text("name = 3\n")
    (check,) = checks("device odd", **NO_REACH)
    assert (check.state, check.needed) == ("broken", False)
    assert "a device's file must be TOML with name, transport and settings" in check.words


def test_a_table_of_this_machine_that_does_not_fit_stops_a_run_until_it_is_measured_anew(workplace: Path) -> None:
    diagnosis = hwnas.doctor()
    (broken,) = [check for check in diagnosis.checks if check.about == "table host" and check.state == "broken"]
    assert "was measured under other conditions" in broken.words
    assert broken.next == f"hwnas profile host --setting {SETTING} --fresh"
    assert not diagnosis.runs_here


def test_a_table_that_fits_is_told_with_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    hwnas.profile("pretend", setting=SETTING, space="mbconv", cells=1, filters=4, resolution=8, networks=2)
    monkeypatch.setattr("hwnas.latency.Session.seconds", 600.0)
    (check,) = checks("table pretend")
    assert check.state == "fine"
    assert check.words.endswith(f"pretend/{SETTING}.json: fits the device as it is now; measured in 10 min")


# What a run needs, and what disturbs.


def test_a_data_set_is_looked_at_where_it_is_named(folder: Path) -> None:
    write_images(folder / "images.npz")
    (unseen,) = checks("data", **NO_REACH)
    assert unseen.next == "hwnas doctor --data folder:PATH"
    (check,) = checks("data", data="npz:images.npz", **NO_REACH)
    assert check.state == "fine"
    assert check.words == "npz:images.npz: 3 classes, 60 images to train on and 70 to test, 8x8 pixels"


def test_images_that_cannot_be_read_stop_a_run(folder: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--no-reach", "--data", "npz:nothing.npz"])
    assert result.exit_code == 1
    assert "nothing.npz" in result.stdout
    for number in range(24):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    assert not hwnas.doctor(data="folder:photos", **NO_REACH).runs_here


def test_little_room_and_little_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(verb.shutil, "disk_usage", lambda path: usage(2**20))
    monkeypatch.setattr("hwnas.device.runner.read_text", lambda path: "MemTotal: 9 kB\nMemAvailable: 1048576 kB")
    (disk,), (machine,) = checks("disk", **NO_REACH), checks("machine", **NO_REACH)
    assert (disk.state, machine.state) == ("advice", "advice")
    assert disk.words.startswith("0.0 GiB free in ")
    assert "1.0 GiB of memory available; a run on Fashion-MNIST takes 1.5" in machine.words


def test_what_would_disturb_measurements_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.device.runner.Others.share", lambda others: 0.5)
    monkeypatch.setattr("hwnas.device.runner.cpu_text", lambda core, name: "powersave" if "governor" in name else "")
    busy, clock = checks("steady", **NO_REACH)
    assert busy.words == "measurements would be unsteady: other programs take 50% of its cores"
    assert busy.next == "stop other programs (`top` lists them)"
    assert "the governor is powersave; `cpupower frequency-set -g performance`" in clock.next
    monkeypatch.setattr("hwnas.device.runner.Others.share", lambda others: 0.05)
    monkeypatch.setattr("hwnas.device.runner.cpu_text", lambda core, name: "")
    (quiet,) = checks("steady", **NO_REACH)
    assert quiet.state == "fine"
