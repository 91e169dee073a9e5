"""The user's own devices and tables lie in HWNAS_ROOT, or else in the current folder."""

from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.device import load_device
from hwnas.support import root

TINY: dict[str, Any] = {"space": "mbconv", "cells": (1,), "filters": (4,), "resolution": (8,), "classes": 3}


def test_the_root_is_the_current_folder_or_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HWNAS_ROOT", raising=False)
    assert root() == tmp_path
    monkeypatch.setenv("HWNAS_ROOT", "")
    assert root() == tmp_path
    monkeypatch.setenv("HWNAS_ROOT", "below")
    assert root() == tmp_path / "below"
    monkeypatch.setenv("HOME", "/home/of")
    monkeypatch.setenv("HWNAS_ROOT", "~/mine")
    assert root() == Path("/home/of/mine")


def test_devices_and_tables_are_written_and_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HWNAS_ROOT", str(mine))
    added = hwnas.devices_add("board", transport="pretend", setting="tflite-fp32-1t")
    assert Path(added.path) == mine / "devices" / "board.toml"
    assert load_device("board").transport == "pretend"
    (done,) = hwnas.profile("board", **TINY, networks=2)
    assert Path(done.table) == mine / "latency_tables" / "board" / "tflite-fp32-1t.json"
    assert [shown.device for shown in hwnas.tables_show("board")] == ["board"]
    assert not any(elsewhere.iterdir())
