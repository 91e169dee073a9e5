"""Which programs and hosts hwnas starts or reaches because a file names them, and when it may."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from pretended import interpreter
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.device import Device, Setting, asked_device, load_device, named_device, read_device
from hwnas.device.transports import check_starts, open_transport
from hwnas.errors import DeviceError, InputError, UnknownNameError

ARTEFACT = Path(__file__).parent.parent / "data" / "before" / "export" / "a" / "0000"
SETTING = Setting(runtime="tflite")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with nothing agreed to and without a terminal."""
    monkeypatch.delenv("HWNAS_TRUST")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, **fields: str) -> Path:
    """Write a device's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"name": path.stem, **fields}.items()]
    path.write_text("\n".join([*lines, "[[settings]]", 'runtime = "tflite"', ""]))
    return path


def watched(folder: Path) -> str:
    """Return an interpreter that leaves the file `started`."""
    return interpreter(folder, f'touch "{folder}/started"; exec "{sys.executable}" "$@"')


def brought(folder: Path, device: str) -> Path:
    """Return an artefact that brings a device's file, and whose card names this device."""
    artefact = Path(shutil.copytree(ARTEFACT, folder / "artefact"))
    write(artefact / "devices" / "evil.toml", python=watched(folder))
    card = json.loads((artefact / "card.json").read_text())
    (artefact / "card.json").write_text(json.dumps({**card, "device": device}))
    return artefact


@pytest.mark.parametrize("name", ["artefact/devices/evil.toml", "evil"])
def test_an_artefact_starts_no_program_that_it_brings(folder: Path, name: str) -> None:
    artefact = brought(folder, name)
    with pytest.raises(UnknownNameError, match=r"unknown device 'evil'; known: .*host"):
        hwnas.verify(str(artefact))
    assert not (folder / "started").exists()


def test_nor_from_inside_its_folder_unless_that_is_agreed_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(brought(folder, "evil"))
    with pytest.raises(InputError, match=r"evil\.toml names .*its-python"):
        hwnas.verify(".")
    assert not (folder / "started").exists()
    result = CliRunner().invoke(app, ["verify", ".", "--trust"])
    assert result.exit_code == 0, result.output
    assert (folder / "started").exists()
    assert hwnas.verify(".")


@pytest.mark.parametrize("call", ["devices", "profile", "tables_check"])
def test_no_verb_starts_what_a_device_of_the_current_folder_names(
    folder: Path, call: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "devices" / "host.toml", python=watched(folder))
    calls = {"devices": ["devices"], "profile": ["profile", "host"], "tables_check": ["tables", "check"]}
    result = CliRunner().invoke(app, calls[call])
    assert "agreed to" in result.output + str(result.exception) or call == "tables_check"
    assert not (folder / "started").exists()


def test_devices_says_what_to_type_and_lists_the_others(folder: Path) -> None:
    write(folder / "devices" / "mine.toml", python=watched(folder))
    write(folder / "devices" / "formula.toml", transport="pretend")
    known = {device.name: device.settings[0] for device in hwnas.devices()}
    assert known["mine"].reached is False
    assert "type the same command with --trust" in known["mine"].missing
    assert known["mine"].next == "hwnas devices --trust"
    assert known["formula"].reached
    assert known["host"].reached
    assert CliRunner().invoke(app, ["devices", "--trust"]).exit_code == 0
    assert {device.name: device.settings[0] for device in hwnas.devices()}["mine"].reached


def test_a_device_that_was_added_by_typing_it_is_agreed_to(folder: Path) -> None:
    hwnas.devices_add("mine", setting="tflite-fp32-1t", python=watched(folder), ask=False)
    assert not (folder / "started").exists()
    assert next(device for device in hwnas.devices() if device.name == "mine").settings[0].reached
    write(folder / "devices" / "mine.toml", python=str(shutil.copy(sys.executable, folder / "another")))
    with pytest.raises(InputError, match=r"mine\.toml names .*another"):
        check_starts(load_device("mine"))


def test_a_program_that_has_changed_since_is_asked_for_again(folder: Path) -> None:
    path = write(folder / "devices" / "mine.toml", python=watched(folder))
    CliRunner().invoke(app, ["devices", "--trust"])
    check_starts(read_device(path))
    interpreter(folder, "exit 1")
    with pytest.raises(InputError, match=r"mine\.toml names"):
        open_transport(read_device(path))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"python": sys.executable}, ""),
        ({}, ""),
        ({"transport": "pretend"}, ""),
        ({"transport": "qemu"}, ""),
        ({"transport": "qemu", "folder": "/brought"}, "/brought/python"),
        ({"transport": "adb", "adb": "/brought/adb"}, "/brought/adb"),
        ({"transport": "ssh", "address": "me@board"}, "ssh me@board, port 22"),
        ({"python": "/brought/python"}, "/brought/python"),
    ],
)
def test_what_is_asked_of_each_transport(folder: Path, fields: dict[str, str], named: str) -> None:
    device = read_device(write(folder / "devices" / "mine.toml", **fields))
    if not named:
        check_starts(device)
        return
    with pytest.raises(InputError, match=f"mine.toml names {named}"):
        open_transport(device)


def test_a_plug_in_that_does_not_say_what_it_starts_is_asked_for_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas.device.transports import pretend

    monkeypatch.delattr(pretend, "starts")
    with pytest.raises(InputError, match=r"mine\.toml names transport pretend"):
        open_transport(read_device(write(folder / "devices" / "mine.toml", transport="pretend")))


@pytest.mark.parametrize("name", ["host", "pretend", "arm64-qemu"])
def test_the_shipped_devices_are_trusted(name: str) -> None:
    check_starts(load_device(name))


def test_a_device_that_was_made_in_python_is_trusted(folder: Path) -> None:
    with (
        open_transport(Device(name="mine", python="/no/python", settings=(SETTING,))) as transport,
        pytest.raises(DeviceError, match="No such file"),
    ):
        next(transport.run(["-c", ""]))


def test_a_device_is_asked_for_by_name_or_path_and_kept_by_name(folder: Path) -> None:
    elsewhere = write(folder / "elsewhere" / "mine.toml")
    assert asked_device(elsewhere) == read_device(elsewhere)
    with pytest.raises(UnknownNameError):
        load_device(str(elsewhere))
    with pytest.raises(InputError, match=r"by its name: mine must stand for .*Copy that file to .*devices"):
        named_device(str(elsewhere))
    shutil.copytree(folder / "elsewhere", folder / "devices")
    assert named_device(str(elsewhere)).name == "mine"


def test_a_run_keeps_its_devices_name(workplace: Path) -> None:
    write(workplace / "devices" / "mine.toml", transport="pretend")
    hwnas.profile("mine", space="pnas", cells=(1,), filters=(4,), resolution=(8,), classes=3, networks=0)
    fields = {
        "space": "pnas",
        "max_latency_ms": 5.0,
        "data": "npz:images.npz",
        "cells": (1,),
        "filters": (4,),
        "estimator": "size",
    }
    asked = {**fields, "out": "run", "trials": 1, "strategy": "random", "predicted": True}
    hwnas.search(device="devices/mine.toml", **asked)
    settings = json.loads(Path("run/settings.json").read_text())
    assert settings["device"] == "mine"
    settings["device"] = "devices/mine.toml"  # as an older hwnas kept it
    Path("run/settings.json").write_text(json.dumps(settings))
    assert hwnas.search(device="mine", **asked).trained == 1
