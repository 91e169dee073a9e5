"""Records of an older hwnas (tests/data/before, with how they were made): today's verbs read them and go on with them.

Nothing but the public functions is used, so that this holds wherever the code behind them is.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hwnas

RUN, WINNER, ARTEFACT = Path("runs/a"), Path("runs/a/winners/0000"), Path("export/a/0000")
TRAINING = {"augment": False, "batch_size": 16, "accelerator": "cpu", "precision": "fp32"}
SEARCH = {
    "space": "pnas",
    "strategy": "progressive",
    "epochs": 2.0,
    "max_latency_ms": 0.15,
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": (4,),
    "targets": (0.7, 1.0),
}
PREDICTED = {**SEARCH, "out": "runs/b", "surrogate": "gp", "estimator": "size", "predicted": True}
FRONT = [(0, 0.3085), (1, 0.3301), (2, 0.3559)]  # trials of runs/b and what stands for their accuracies
TABLE = {"table": "table.csv", "choices": ["a", "b"], "accuracy": ["seen", "truth"], "latency": "ms", "caps": [3.5]}
BENCH = {**TABLE, "out": "bench", "strategies": ["random"], "evaluations": 5, "jobs": 1}


@pytest.fixture(autouse=True)
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a copy of the records."""
    shutil.copytree(Path(__file__).parent / "data" / "before", tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def begun(run: str) -> int:
    """Return how many trials a run's journal has."""
    return sum(json.loads(line)["op_code"] == 4 for line in Path(run, "journal.log").read_text().splitlines())


def test_a_latency_table_is_shown_and_fine() -> None:
    (shown,) = hwnas.tables_show("host", entries=True)
    assert (shown.setting, shown.problem) == ("tflite-fp32-1t", "")
    assert sum(shown.entries.values()) == len(shown.rows) == 149
    assert all(row.rounds >= 6 and row.ms > 0 for row in shown.rows)
    assert (shown.networks, shown.held_out) == (6, 2)
    assert all(network.other.load_ms for network in shown.network_rows)
    assert 0 < shown.prediction_error < 1
    assert set(shown.rewrites) == {"split-depthwise"}
    assert shown.conditions.runtime_version.startswith("ai-edge-litert")
    (checked,) = hwnas.tables_check(["host/tflite-fp32-1t"])
    assert checked.fine, checked.problem


def test_a_latency_table_merged_with_itself_is_the_same() -> None:
    (path,) = Path("latency_tables/host").iterdir()
    shutil.copy(path, "same.json")
    merged = hwnas.tables_merge(str(path), "same.json", out="merged.json")
    assert (merged.entries, merged.common_entries, merged.common_networks) == (149, 149, 6)
    compared = hwnas.tables_diff(str(path), "merged.json")
    assert (compared.common, compared.differences, compared.ratio_median) == (149, [], 1.0)


def test_devices_are_listed_with_their_tables() -> None:
    known = {device.name: device for device in hwnas.devices(reach=False)}
    board = known["board"]
    assert (board.transport, board.problem) == ("ssh", "")
    assert [setting.name for setting in board.settings] == ["tflite-fp32-1t", "onnx-fp32-2t"]
    assert known["host"].settings[0].table is not None


def test_a_run_is_reported_with_its_winner_and_what_was_left_out() -> None:
    page = Path(hwnas.report(str(RUN)).page).read_text()
    assert "1 winner under the cap of 0.15 ms; the best has 100.0 % on the test set" in page
    assert "predicted over its target at the smallest scale" in page
    assert "stopped by the pruner halving before the end" in page
    assert "latency, exported file measured" in page
    assert page.count("<svg") >= 4


def test_a_run_of_predictions_is_reported() -> None:
    page = Path(hwnas.report("runs/b").page).read_text()
    assert "3 candidates trained under the cap of 0.15 ms" in page


def test_a_search_that_has_ended_says_the_same_again() -> None:
    searched = hwnas.search(**PREDICTED, trials=3)
    assert (searched.trained, searched.stopped, searched.left_out, searched.ended) == (3, 0, 0, "")
    assert [(one.trial, round(one.accuracy, 4)) for one in searched.front] == FRONT
    assert [level.blocks for level in searched.surrogate] == [2, 3]
    assert begun("runs/b") == 3


@pytest.mark.slow
def test_a_search_goes_on_for_more_trials() -> None:
    searched = hwnas.search(**PREDICTED, trials=4)
    assert searched.trained == 4
    assert begun("runs/b") >= 4
    assert {(one.trial, round(one.accuracy, 4)) for one in searched.front if one.trial < 3} <= set(FRONT)


def test_a_trained_winner_is_not_trained_again(capsys: pytest.CaptureFixture[str]) -> None:
    record, files = read(WINNER / "winner.json"), contents(WINNER)
    (winner,) = hwnas.train(str(RUN), winners=1, epochs=8, **TRAINING)
    assert "trial 0 is trained already" in said(capsys)
    assert (winner.trial, winner.test_accuracy) == (0, record["test_accuracy"])
    now = contents(WINNER)
    assert now.pop(str(WINNER / "scores.json"))  # which an older hwnas did not keep
    assert now == files


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on() -> None:
    from safetensors import safe_open

    folder = RUN / "winners" / "0003"
    with safe_open(folder / "checkpoint.safetensors", framework="np") as file:
        kept = json.loads(file.metadata()["state"])["history"]
    (winner,) = hwnas.train(str(RUN), trial=3, epochs=10, **TRAINING)
    record = read(folder / "winner.json")
    assert record["history"][: len(kept)] == kept
    assert (winner.trial, record["images_seen"]) == (3, 10 * 120)


def test_an_artefact_is_not_exported_again(capsys: pytest.CaptureFixture[str]) -> None:
    files = contents(ARTEFACT)
    (exported,) = hwnas.export(str(RUN), trial=0)
    assert "trial 0 is exported already" in said(capsys)
    assert exported.card.to_json() == read(ARTEFACT / "card.json")
    assert contents(ARTEFACT) == files


def test_an_artefact_is_verified() -> None:
    verified = hwnas.verify(str(ARTEFACT))
    assert {one.file for one in verified} == {"model.tflite", "model.onnx", "model.int8.tflite"}
    assert all(one.fine and one.check_images == 60 for one in verified)


@pytest.mark.parametrize("folder", [ARTEFACT, WINNER])
def test_a_record_is_described(folder: Path) -> None:
    described = hwnas.describe(str(folder), picture="network.svg")
    record = read(next(path for path in folder.iterdir() if path.name in ("card.json", "winner.json")))
    assert (described.parameters, described.mult_adds) == (record["parameters"], record["mult_adds"])
    assert Path("network.svg").stat().st_size > 1000


def test_a_cells_file_is_described() -> None:
    described = hwnas.describe("cell.toml")
    assert described.parameters == 10431
    assert described.layers[0].shape == (1, 12, 12)


def test_a_comparison_goes_on_beside_its_runs() -> None:
    kept = contents(Path("bench/runs"))
    benched = hwnas.bench(**BENCH, seeds=2)
    assert [(one.strategy, one.runs) for one in benched.compared] == [("random", 2)]
    runs = contents(Path("bench/runs"))
    assert len(runs) == 2
    assert {name: runs[name] for name in kept} == kept
    first = next(line.split(",") for line in Path("bench/comparison.csv").read_text().splitlines()[1:])
    assert (first[0], first[5]) == ("random", str(read(Path("bench/runs/random_3.5_0.json"))["rows"][-1]))
