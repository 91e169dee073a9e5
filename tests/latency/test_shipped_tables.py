"""The tables that hwnas ships: they fit their devices, need no tool for predictions, and stay as they are."""

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.device import load_device
from hwnas.device.transports import is_estimated, vela
from hwnas.errors import DeviceError
from hwnas.latency import estimating
from hwnas.latency.table import LatencyTable

FOLDER = Path(__file__).parents[2] / "latency_tables"
SHIPPED = sorted(path for path in FOLDER.glob("*/*.json") if path.parent.name != "host")
NPU = "ethos-u55-128"
MOST_BYTES = 600_000  # of a file: 30 KB in a wheel and in git


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user, in which are images as large as those of Fashion-MNIST, in ten classes."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(60) % 10
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return tmp_path


@pytest.fixture
def no_vela(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(vela.metadata, "version", missing)


def search(folder: Path, **options: object) -> hwnas.Searched:
    asked = {"device": NPU, "max_latency_ms": 5.0, "data": f"npz:{folder / 'images.npz'}", "estimator": "size"}
    asked |= {"strategy": "random", "fill": 0.0, "space": "pnas", "filters": (4, 8, 16, 32)}
    return hwnas.search(out=folder / "run", trials=2, **{**asked, **options})  # type: ignore[arg-type]


def own_tables(folder: Path) -> list[Path]:
    return list(folder.glob("latency_tables/*/*.json"))


def test_those_of_both_npus_are_shipped() -> None:
    assert {path.parent.name for path in SHIPPED} == {NPU, "ethos-u85-256"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_each_is_small_fits_its_device_and_says_how_well_it_predicts(path: Path) -> None:
    (checked,) = hwnas.tables_check([str(path)])
    assert checked.fine, checked.problem
    table, device = LatencyTable.read(path), load_device(path.parent.name)
    setting = device.setting(path.stem)
    assert set(setting.without) <= set(table.setting.without)
    assert table.setting.model_copy(update={"without": setting.without}) == setting
    config = [device.accelerator_config, device.system_config, device.memory_mode]
    assert is_estimated(device)
    assert table.conditions.cpu == ", ".join(config)
    assert table.estimated_by == "Vela 5.2.0"
    assert not table.sessions[-1].unfinished
    (shown,) = hwnas.tables_show(str(path))
    assert shown.validation is not None
    assert shown.validation.within_10 > 0.95
    assert path.stat().st_size < MOST_BYTES


def test_a_search_begins_at_once_and_writes_no_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*arguments: object, **options: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(estimating, "time_models", asked)
    assert not search(folder, plan=True).plan.lacking  # type: ignore[union-attr]
    assert search(folder).trained == 2
    assert not own_tables(folder)


def test_predictions_alone_need_no_vela(folder: Path, no_vela: None) -> None:
    searched = search(folder, predicted=True)
    assert searched.trained == 2
    assert not any(candidate.measured for candidate in searched.front)


def test_without_vela_a_search_that_asks_it_says_what_to_type(folder: Path, no_vela: None) -> None:
    with pytest.raises(DeviceError, match=r"Type: pip install 'hwnas\[npu\]'"):
        search(folder)


def test_what_a_search_lacks_is_added_in_the_users_folder(folder: Path) -> None:
    shipped = FOLDER / NPU / "tflite-int8-npu-1t.json"
    before = shipped.read_bytes()
    options = {"space": "mbconv", "cells": (1,), "filters": (4,)}
    assert "has not every operator" in search(folder, plan=True, **options).plan.lacking  # type: ignore[union-attr]
    search(folder, **options)
    (own,) = own_tables(folder)
    assert set(LatencyTable.read(own).entries) > set(LatencyTable.read(shipped).entries)
    assert shipped.read_bytes() == before


def test_what_is_measured_afresh_takes_nothing_of_a_shipped_one(folder: Path) -> None:
    hwnas.profile(NPU, cells=(1,), filters=(4,), networks=2, resolution=(8,), fresh=True)
    (own,) = own_tables(folder)
    assert len(LatencyTable.read(own).networks) == 2
