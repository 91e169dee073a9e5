"""Devices as people write them down: what a file may say, which setting is meant, where files are looked for."""

from pathlib import Path

import pytest

from hwnas.device.device import Device, Setting, asked_device, folders, load_device
from hwnas.errors import InputError, UnknownNameError

BOARD = """
name = "board"
transport = "ssh"
address = "board.example"
[[settings]]
runtime = "tflite"
[[settings]]
runtime = "onnx"
precision = "int8"
threads = 4
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a device in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    path = tmp_path / "devices" / "board.toml"
    path.write_text(BOARD)
    return path


def test_a_device_is_named_by_its_name_or_its_file(board: Path) -> None:
    assert load_device("board") == asked_device("board") == asked_device(board)
    assert [setting.name for setting in load_device("board").settings] == ["tflite-fp32-1t", "onnx-int8-4t"]


def test_a_setting_for_another_processor_has_it_in_its_name_and_record() -> None:
    gpu = Setting(runtime="tflite", accelerator="gpu")
    device = Device(name="pixel8", settings=(Setting(runtime="tflite"), gpu))
    assert device.setting("tflite-fp32-gpu-1t") == gpu
    assert device.setting("tflite-fp32-gpu-4t") == gpu.model_copy(update={"threads": 4})
    assert device.setting("tflite-fp32-4t").accelerator == "cpu"
    assert gpu.to_json()["accelerator"] == "gpu"
    assert "accelerator" not in Setting(runtime="tflite").to_json()


def test_a_setting_is_the_first_or_one_by_name_with_other_threads_if_wanted(board: Path) -> None:
    device = load_device("board")
    assert device.setting() == Setting(runtime="tflite")
    assert device.setting("onnx-int8-4t", threads=2) == Setting(runtime="onnx", precision="int8", threads=2)
    with pytest.raises(UnknownNameError, match=r"'tflite-int8-1t'; known: onnx-int8-4t, tflite-fp32-1t"):
        device.setting("tflite-int8-1t")
    with pytest.raises(InputError, match="threads must be at least 1; got 0"):
        device.setting(threads=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "board"', 'name = "table"'), "a device's name must be its file's name; .* says 'table'"),
        (("transport", "transprot"), "transprot"),
        (("threads = 4", "threads = 0"), r"settings\.1\.threads"),
        (('"int8"', '"int4"'), r"settings\.1\.precision"),
        (("[[settings]]", "[[sittings]]"), "settings"),
        (('name = "board"', "name = "), "must be TOML"),
    ],
)
def test_a_file_that_is_no_devices_is_refused_by_field(board: Path, change: tuple[str, str], message: str) -> None:
    board.write_text(BOARD.replace(*change))
    with pytest.raises(InputError, match=message) as caught:
        load_device("board")
    assert "board.toml" in str(caught.value)


def test_an_unknown_device_lists_the_known_ones(board: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown device 'boart'; known: .*board.*host"):
        load_device("boart")


def test_the_users_own_folder_comes_before_the_shipped_ones(board: Path) -> None:
    first, *shipped = folders("devices")
    assert first == board.parent
    assert any((folder / "host.toml").exists() for folder in shipped)
    assert isinstance(load_device("host"), Device)
