"""The main path for an NPU: a table, a search, an artefact and a page of estimates, which say so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_images

import hwnas
from hwnas.cli.show_runs import show_exported, show_searched
from hwnas.cli.show_tables import show_profiled, show_tables
from hwnas.device import load_device
from hwnas.device.transports import vela
from hwnas.errors import TableError
from hwnas.latency import Measurement, Placement, Profiled, estimating, find_table, what_is_due
from hwnas.latency.measure import time_models
from hwnas.latency.table import LatencyTable
from hwnas.verbs.profile import ProfileOptions, task_of

NAME = "ethos-u55-128"
TOOL = f"Vela {vela.vela_version()}"
LABEL = f"estimated by {TOOL}"
SPACE: dict[str, Any] = {"space": "pnas", "cells": (1,), "filters": (4, 6)}
IMAGES: dict[str, Any] = {"resolution": (8,), "classes": 3, "channels": 1}
CAP_MS = 0.25


def profile(**options: Any) -> Profiled:
    (done,) = hwnas.profile(NAME, **{"networks": 8, "validate": 8, **SPACE, **IMAGES, **options})
    return done


def table() -> LatencyTable:
    device = load_device(NAME)
    found = find_table(device, device.setting())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, and a table that was stopped once and then filled."""
    folder = tmp_path_factory.mktemp("npu")
    write_images(folder / "images.npz", train=300, test=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def profiled(workplace: Path) -> Profiled:
    def stopped(*arguments: Any, **options: Any) -> Any:
        if table_is_begun():
            raise KeyboardInterrupt
        return time_models(*arguments, **options)

    def table_is_begun() -> bool:
        return bool(list(workplace.glob(f"latency_tables/{NAME}/*.json"))) and bool(table().entries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimating, "_CHUNK", 8)
        patch.setattr(estimating, "time_models", stopped)
        with pytest.raises(KeyboardInterrupt):
            profile(fresh=True)  # nothing of the table that hwnas ships
    assert table().sessions[-1].unfinished
    assert len(table().networks) == 8
    return profile()


def test_a_table_is_filled_from_whole_networks_and_predicts_others(profiled: Profiled) -> None:
    filled = table()
    assert not filled.sessions[-1].unfinished
    assert len(filled.networks) == 16
    assert {entry.estimated_by for entry in filled.entries.values()} == {TOOL}
    assert {network.measurement.estimated_by for network in filled.networks} == {TOOL}
    assert profiled.validation is not None
    assert profiled.validation.within_10 >= 0.75
    assert profiled.validation.spearman > 0.9
    assert any(len(entry.rounds_ms) > 1 for entry in filled.entries.values())  # an operator in several networks


def test_what_is_there_is_not_estimated_again(profiled: Profiled, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*arguments: Any, **options: Any) -> Any:
        raise AssertionError(arguments)

    monkeypatch.setattr(estimating, "time_models", asked)
    before = table().text()
    assert profile().measured_now == 0
    assert table().text() == before


def test_what_is_to_be_done_is_counted_without_the_device(profiled: Profiled) -> None:
    device = load_device(NAME)
    task = task_of(ProfileOptions(device=NAME, networks=11, **SPACE, **IMAGES))
    due = what_is_due(device, device.setting(), task)
    assert str(due) == "0 operators and 3 whole networks, estimated once"


def test_profile_and_table_say_who_estimated(profiled: Profiled, capsys: pytest.CaptureFixture[str]) -> None:
    show_profiled([profiled])
    said = capsys.readouterr().out
    assert f"operators ({profiled.measured_now} new, " in said
    assert f"nothing was measured: {LABEL}, whose figures are the same each time" in said
    show_tables(hwnas.tables_show(NAME))
    assert f"nothing was measured: {LABEL}" in capsys.readouterr().out


def test_another_version_of_vela_asks_for_another_table(profiled: Profiled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "vela_version", lambda: "5.2.99")
    with pytest.raises(TableError, match=r"runtime_version was .* and is 'ethos-u-vela 5\.2\.99'.*--fresh"):
        profile()


def test_of_estimates_the_mean_is_stated_and_no_round_is_taken_for_disturbed() -> None:
    estimate = Placement(processor="npu", whole=True, estimated_by=TOOL)
    rounds = ((1.0,), (1.0, 1.0), (5.0,))
    assert Measurement(rounds, placement=estimate).ms == 2.0
    assert Measurement(rounds, placement=estimate).after(Measurement(((7.0,),), placement=estimate)).ms == 3.0
    assert Measurement(rounds).ms == 1.0


def test_the_way_from_a_search_to_a_page_keeps_the_cap_and_never_says_measured(
    profiled: Profiled, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = f"npz:{workplace / 'images.npz'}", workplace / "runs/a"
    searched = hwnas.search(
        device=NAME, max_latency_ms=CAP_MS, data=data, out=out, estimator="size", trials=2, resolution=(8,), **SPACE
    )
    show_searched(searched)
    assert all(candidate.how == LABEL for candidate in searched.front)
    hwnas.train(out, winners=1, epochs=2, batch_size=32)
    (exported,) = hwnas.export(out, out=workplace / "export", files=("model.int8.tflite",))
    show_exported([exported])
    said = capsys.readouterr().out
    assert f"latency ms ({LABEL})" in said.replace("\n", " ")
    entry = exported.card.files["model.int8.tflite"]
    assert entry.how == LABEL
    assert entry.measured_ms is not None
    assert entry.measured_ms <= CAP_MS
    assert entry.first_inference_ms is entry.load_ms is None
    assert f" ms ({LABEL}) in tflite-int8-npu-1t on the NPU: all " in said
    readme = (Path(exported.folder) / "README.md").read_text()
    assert f" ms, {LABEL} on the NPU: all " in readme
    assert exported.card.timed_on == table().conditions.cpu
    assert f"| latencies are of | {exported.card.timed_on} |" in readme
    page = Path(hwnas.report(out, export_folder=workplace / "export").page).read_text()
    assert f"Predicted against {LABEL}" in page
    for text in (said, page, readme):
        assert "measured" not in text.replace("not measured", "")
