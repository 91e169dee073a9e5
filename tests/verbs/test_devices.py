"""Listing devices, saying what they lack, and adding new ones."""

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import SETTING
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended import interpreter, says
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.device.device import load_device
from hwnas.errors import InputError, UnknownNameError
from hwnas.verbs.devices import FoundDevice


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_emulated_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide its sysroot: to reach it takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def listed(name: str, **options: Any) -> FoundDevice:
    return next(device for device in hwnas.devices(**options) if device.name == name)


def test_a_device_that_runs_is_listed_with_its_runtime_and_the_command_that_profiles_it() -> None:
    hwnas.devices_add("here", setting=SETTING)
    (setting,) = listed("here").settings
    assert setting.reached
    assert setting.runtime.startswith("ai-edge-litert")
    assert (setting.table, setting.missing) == (None, "")
    assert setting.next == f"hwnas profile here --setting {SETTING}"


def test_a_table_that_does_not_fit_or_is_broken_is_said(workplace: Path) -> None:
    setting = listed("host").settings[0]
    assert setting.reached
    assert "was measured under other conditions: cpu was None" in setting.missing
    assert setting.next == f"hwnas profile host --setting {SETTING} --fresh"
    Path(str(setting.table)).write_text("{")
    assert "must be a latency table" in listed("host").settings[0].missing


@pytest.mark.skipif(os.name == "nt", reason="the interpreter is a shell script")
def test_a_python_without_numpy_is_told_how_to_get_it(folder: Path) -> None:
    python = interpreter(folder, f'exec "{sys.executable}" -I -S "$@"')
    hwnas.devices_add("bare", setting="onnx-fp32-1t", python=python)
    (setting,) = listed("bare").settings
    assert setting.reached is False
    assert "needs numpy, which cannot be imported" in setting.missing
    assert setting.next == f"{python} -m pip install numpy"


@pytest.mark.parametrize(
    ("error", "package"),
    [
        ("runtime tflite needs ai_edge_litert or tflite_runtime; neither can be imported", "ai-edge-litert"),
        ("runtime onnx needs onnxruntime, which cannot be imported: no", "onnxruntime"),
    ],
)
def test_a_missing_runtime_is_told_how_to_get_it(folder: Path, error: str, package: str) -> None:
    python = interpreter(folder, says({"error": error}) + "\nexit 3")
    hwnas.devices_add("lacking", setting=SETTING, python=python)
    assert listed("lacking").settings[0].next == f"{python} -m pip install {package}"


def test_a_python_that_is_not_there_is_named() -> None:
    hwnas.devices_add("gone", setting=SETTING, python="/no/python")
    (setting,) = listed("gone").settings
    assert "got /no/python: No such file" in setting.missing
    result = CliRunner().invoke(app, ["devices"])
    assert result.exit_code == 0
    assert f"{SETTING}: cannot run now; no table yet" in result.output


def test_a_device_that_does_not_answer_holds_up_nothing(folder: Path) -> None:
    python = interpreter(folder, "exec sleep 3")
    hwnas.devices_add("silent", setting=f"{SETTING},onnx-fp32-1t,tflite-int8-1t", python=python)
    first, *others = listed("silent", patience_s=0.05).settings
    assert [first.reached, *(other.reached for other in others)] == [False, None, None]
    assert first.missing == "device silent must answer within 0.05 s; nothing came"
    assert "hwnas devices --patience-s 0.2" in first.next


def test_nothing_is_reached_when_it_is_not_wanted(folder: Path) -> None:
    hwnas.devices_add("asked", setting=SETTING, python=interpreter(folder, "touch asked; exit 3"))
    result = CliRunner().invoke(app, ["devices", "--no-reach", "--json"])
    reached = [setting["reached"] for device in json.loads(result.output) for setting in device["settings"]]
    assert set(reached) == {None}
    assert not Path("asked").exists()
    assert listed("asked").settings[0].reached is False
    assert Path("asked").exists()
    with pytest.raises(InputError, match="--patience-s must be above 0; got 0"):
        hwnas.devices(patience_s=0)


def test_a_broken_file_hides_no_other_device(folder: Path) -> None:
    (folder / "devices").mkdir()
    (folder / "devices" / "broken.toml").write_text("name = ")
    assert "must be TOML" in listed("broken", reach=False).problem
    assert listed("host", reach=False).settings
    assert "must be TOML" in CliRunner().invoke(app, ["devices", "--no-reach"]).output


def test_the_users_own_file_is_listed_in_the_place_of_the_shipped_one(folder: Path) -> None:
    added = hwnas.devices_add("host", setting="onnx-fp32-2t")
    assert listed("host", reach=False).path == added.path == str(folder / "devices" / "host.toml")


# Adding.


def test_a_device_is_added_by_options(folder: Path) -> None:
    options = ["--setting", "tflite-fp32-4t, onnx-fp32-1t", "--python", "python3.9", "--set", "description=old = good"]
    result = CliRunner().invoke(app, ["devices", "add", "pi", *options])
    assert result.exit_code == 0, result.output
    assert tomllib.loads((folder / "devices" / "pi.toml").read_text()) == {
        "name": "pi",
        "description": "old = good",
        "transport": "local",
        "python": "python3.9",
        "settings": [
            {"runtime": "tflite", "precision": "fp32", "threads": 4},
            {"runtime": "onnx", "precision": "fp32", "threads": 1},
        ],
    }
    assert [setting.name for setting in load_device("pi").settings] == ["tflite-fp32-4t", "onnx-fp32-1t"]


def test_a_phones_gpu_and_npu_are_settings(folder: Path) -> None:
    names = ("tflite-fp32-gpu-1t", "tflite-int8-npu-1t", "tflite-fp32-1t")
    hwnas.devices_add("pixel8", setting=names, transport="adb", set=["nnapi_accelerator=google-edgetpu"], ask=False)
    device = load_device("pixel8")
    assert [setting.accelerator for setting in device.settings] == ["gpu", "npu", "cpu"]
    assert (tuple(setting.name for setting in device.settings), device.nnapi_accelerator) == (names, "google-edgetpu")


def test_settings_are_named_in_a_list_or_with_commas(folder: Path) -> None:
    names = ("tflite-fp32-1t", "onnx-fp32-2t")
    assert hwnas.devices_add("a", setting=names, ask=False).settings == names
    assert hwnas.devices_add("b", setting=list(names), python=Path("python3"), ask=False).settings == names
    assert hwnas.devices_add("c", setting=",".join(names), ask=False).settings == names


def test_a_device_is_added_by_asking(folder: Path) -> None:
    answers = "pi\n\n\npython3\nmy board\ndescription=my old board\n\n"
    result = CliRunner().invoke(app, ["devices", "add", "--ask"], input=answers)
    assert result.exit_code == 0, result.output
    device = load_device("pi")
    assert (device.transport, device.python, device.description) == ("local", "python3", "my old board")
    assert [setting.name for setting in device.settings] == ["tflite-fp32-1t"]


@settings(deadline=None, max_examples=50)  # files are flushed to the disk
@given(description=st.text(), python=st.text())
def test_any_text_is_written_as_it_is(tmp_path_factory: pytest.TempPathFactory, description: str, python: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("devices"))
        hwnas.devices_add("pi", setting=SETTING, description=description, python=python)
        device = load_device("pi")
        assert (device.description, device.python) == (description, python)


def test_the_same_command_may_be_typed_again(folder: Path) -> None:
    """As one that was stopped says, however much it has done."""
    added = hwnas.devices_add("pi", setting=SETTING)
    assert hwnas.devices_add("pi", setting=SETTING) == added


def test_a_file_that_exists_is_never_written_over(folder: Path) -> None:
    added = hwnas.devices_add("pi", setting=SETTING)
    before = Path(added.path).read_text()
    with pytest.raises(InputError, match=r"must not exist; .*pi\.toml does"):
        hwnas.devices_add("pi", setting="onnx-fp32-1t")
    assert Path(added.path).read_text() == before


def test_a_call_that_did_not_come_to_its_end_goes_on_when_it_is_typed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")  # of what was agreed to, when the device's file is there already

    with monkeypatch.context() as patch:
        patch.setattr("hwnas.device.transports.check_starts", full)
        with pytest.raises(InputError, match=r"No space left on device\. Make room, and type the same command again"):
            hwnas.devices_add("pi", setting=SETTING)
    assert hwnas.devices_add("pi", setting=SETTING).settings == (SETTING,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": None}, "a device must have a name; got none. Add it: hwnas devices add NAME"),
        ({"setting": None}, "must have a setting; got none. Add it: hwnas devices add pi --setting tflite-fp32-1t"),
        ({"name": "My Phone"}, "name: String should match pattern"),
        ({"setting": "tflite"}, "RUNTIME-PRECISION-THREADSt.*got 'tflite'"),
        ({"setting": "tflite-fp32-0t"}, "got 'tflite-fp32-0t': Input should be greater than or equal to 1"),
        ({"setting": "tflite-fp8-1t"}, "got 'tflite-fp8-1t': Input should be 'fp32'"),
        ({"set": ["adress=pi"]}, "adress: Extra inputs are not permitted, got 'pi'. The fields: name, "),
        ({"python": "\udcff"}, "must be text that TOML can hold"),
        ({"set": ["address"]}, "--set takes KEY=VALUE, each key once; got address"),
    ],
)
def test_what_is_missing_or_wrong_is_said_and_nothing_is_written(
    folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        hwnas.devices_add(**{"name": "pi", "setting": SETTING, "ask": False, **options})
    assert not (folder / "devices").exists()


def test_unknown_plug_ins_list_the_known_ones(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown transport 'pigeon'; known: .*local"):
        hwnas.devices_add("pi", setting=SETTING, transport="pigeon")
    with pytest.raises(UnknownNameError, match=r"unknown runtime 'tvm'; known: .*tflite"):
        hwnas.devices_add("pi", setting="tvm-fp32-1t")
    assert not (folder / "devices").exists()


def test_what_a_file_says_of_its_device_steers_no_terminal(folder: Path) -> None:
    hwnas.devices_add("mine", setting=SETTING, description="fine")
    path = folder / "devices" / "mine.toml"
    path.write_text(path.read_text().replace('"fine"', r'"fi\u001b[2Jne"'))
    printed = CliRunner().invoke(app, ["devices", "--no-reach"]).output
    assert "\x1b" not in printed
    assert "fi\ufffd[2Jne" in printed
