"""`hwnas train --finalists`: who is trained how long, who is left, and that nothing is done twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pretended import PretendedDevice
from winners import searched_run

import hwnas
from hwnas import training
from hwnas.errors import DivergedError, InputError, TrainingError
from hwnas.runs import FinalistsFolder
from hwnas.runs.run import Run
from hwnas.searching import Stopwatch
from hwnas.support import write_json
from hwnas.training import Scores
from hwnas.verbs import train as train_verb
from hwnas.verbs._finalists import Validated


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run of seven trials: the later the more accurate, but for the last; all of them are as fast."""
    return searched_run(tmp_path, [0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.501])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Pretend accuracies of finalists: the later in the search's order the better; return who was trained how long."""
    asked: list[tuple[int, float]] = []

    def validated(run: Run, candidate: Any, settings: Any, dataset: Any, checkpoint: Path, teacher: Any) -> Validated:
        asked.append((candidate.trial, settings.epochs))
        return Validated(0.9 - candidate.accuracy)

    monkeypatch.setattr(train_verb, "_validated", validated)
    return asked


def train(run: Run, **options: Any) -> list[int]:
    done = hwnas.train(str(run.folder), **{"epochs": 3.0, "batch_size": 32, "accelerator": "cpu", **options})
    return [winner.trial for winner in done]


def test_the_better_half_goes_on_and_the_best_are_trained_whole(run: Run, trained: list[tuple[int, float]]) -> None:
    assert train(run, finalists=5, winners="best:1") == [1]
    first, second = pytest.approx(0.3), pytest.approx(1.0)
    assert trained == [*((trial, first) for trial in (5, 4, 3, 2, 1)), *((trial, second) for trial in (1, 2, 3))]


def test_as_many_as_are_wanted_are_winners(run: Run, trained: list[tuple[int, float]]) -> None:
    assert train(run, finalists=3, winners=2) == [3, 4]
    assert [trial for trial, _ in trained] == [5, 4, 3]  # the better half are as many


def test_what_is_done_is_not_done_again_and_other_settings_are(
    run: Run, trained: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    validated = train_verb._validated

    def cut_off(*arguments: Any) -> Validated:
        if len(trained) == 2:
            raise KeyboardInterrupt
        return validated(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(train_verb, "_validated", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(run, finalists=3, winners="best:1")
    assert train(run, finalists=3, winners="best:1") == [3]
    assert [trial for trial, _ in trained] == [5, 4, 3, 3, 4]
    train(run, finalists=3, winners="best:1", label_smoothing=0.0)
    assert len(trained) == 10


def test_one_whose_loss_is_not_finite_comes_last(
    run: Run, trained: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validated = train_verb._validated

    def diverges(run: Run, candidate: Any, *rest: Any) -> Validated:
        if candidate.trial == 3:  # the best, had it learned
            raise DivergedError("the loss must stay finite")
        return validated(run, candidate, *rest)

    monkeypatch.setattr(train_verb, "_validated", diverges)
    assert train(run, finalists=3, winners="best:1") == [4]
    assert "finalist trial 3 comes last: the loss must stay finite" in capsys.readouterr().err


def test_a_checkpoint_of_other_settings_is_no_finalists_fault(
    run: Run, trained: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any) -> Validated:
        raise TrainingError("the checkpoint is of another training")

    monkeypatch.setattr(train_verb, "_validated", refused)
    with pytest.raises(TrainingError, match="of another training"):
        train(run, finalists=3, winners="best:1")
    assert not list((run.folder / "finalists").glob("*-0.3.json"))


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), lambda path: path.write_text('{"accuracy": 2}')])
def test_a_damaged_figure_is_made_again(
    run: Run, trained: list[tuple[int, float]], damage: Callable[[Path], Any]
) -> None:
    train(run, finalists=2, winners="best:1")
    damage(run.folder / "finalists" / "0005-0.3.json")
    train(run, finalists=2, winners="best:1")
    assert [trial for trial, _ in trained] == [5, 4, 5]


def test_finalists_are_trained_without_the_validation_part_and_leave_no_checkpoint(run: Run) -> None:
    (winner,) = train(run, finalists=3, winners="best:1", epochs=4.0)
    kept = {path.name: json.loads(path.read_text()) for path in (run.folder / "finalists").iterdir()}
    first, second = ({name for name in kept if name.endswith(end)} for end in ("-0.4.json", "-1.33333.json"))
    assert first == {"0003-0.4.json", "0004-0.4.json", "0005-0.4.json"}
    assert len(second) == 2
    assert first | second == set(kept)
    assert kept[f"{winner:04d}-1.33333.json"]["accuracy"] == max(kept[name]["accuracy"] for name in second)


def test_where_int8_ships_the_best_in_int8_are_winners_and_what_they_lose_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = searched_run(tmp_path, [0.5, 0.51, 0.52])
    settings = run.settings.model_copy(update={"device": "pretend", "setting": "tflite-int8-1t"})
    write_json(run.folder / "settings.json", settings.model_dump(mode="json"))
    accuracies = iter([0.7, 0.9, 0.8, *[0.5] * 10])
    monkeypatch.setattr(training, "quantised_scores", lambda *_, **__: Scores(next(accuracies), 0.5))
    hwnas.train(str(run.folder), finalists=3, winners="best:1", epochs=2.0, batch_size=32, accelerator="cpu")
    kept = {record.trial: record for record in FinalistsFolder.of(run.folder).records() if record.training.epochs < 0.5}
    assert {trial: record.accuracy for trial, record in kept.items()} == {2: 0.7, 1: 0.9, 0: 0.8}
    assert all(record.precision == "int8" and record.fp32_accuracy is not None for record in kept.values())
    second = {record.trial for record in FinalistsFolder.of(run.folder).records() if record.training.epochs > 0.5}
    assert second == {1, 0}
    said = capsys.readouterr().err
    assert "finalist trial 1: 0.9000 of the validation images right in int8 (" in said
    assert "0.5000 of the test images right in int8, " in said
    winner = run.folder / "winners" / "0001" / "winner.json"
    assert json.loads(winner.read_text())["test_int8_accuracy"] == 0.5


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_figure_in_another_precision_is_none(run: Run, trained: list[tuple[int, float]], precision: str) -> None:
    train(run, finalists=2, winners="best:1")
    for path in (run.folder / "finalists").glob("*-0.3.json"):
        write_json(path, json.loads(path.read_text()) | {"precision": precision})
    train(run, finalists=2, winners="best:1")
    assert len(trained) == (2 if precision == "fp32" else 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"finalists": 2, "winners": 2}, r"more than the winners, 2; got 2; take 6"),
        ({"finalists": 3, "trial": 1}, r"--finalists is for winners, and --trial names one: leave one of them out"),
    ],
)
def test_what_does_not_go_together_is_refused(run: Run, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train(run, **options)


def test_fewer_than_are_asked_for_are_said(
    run: Run, trained: list[tuple[int, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(run, finalists=100, winners="best:1") == [0]
    assert len(trained) == 7 + 4
    assert "finalists: 7 and not 100: all that the search trained to the end" in capsys.readouterr().err
    train(run, finalists=100, winners=8)
    assert "finalists: no more than the winners that are wanted, 8; all of them are" in capsys.readouterr().err


def test_it_is_said_what_a_finalists_figure_is_of(
    run: Run, trained: list[tuple[int, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    train(run, finalists=2, winners="best:1")
    said = r"finalist trial 5: 0.3500 of the validation images right after 0.3 epochs at deployed scale, N=1 F=4"
    assert said in capsys.readouterr().err


class TestOnlyPredicted:
    """Finalists of a run that measured those alone that could be on its front: here none is measured."""

    @pytest.fixture
    def run(self, run: Run) -> Run:
        write_json(run.folder / "settings.json", run.settings.model_copy(update={"predicted": False}).model_dump())
        return Run.open(run.folder)

    def test_they_are_measured_first_and_once_and_those_over_the_cap_are_none(
        self,
        run: Run,
        trained: list[tuple[int, float]],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        best, networks = run.candidates()[5].architecture, []

        def time(stopwatch: Any, network: Any) -> tuple[float, float, str]:
            assert not trained
            networks.append(network)
            return 4.9, 5.1 if network == best else 5.0, ""  # with the spread; the cap is 5 ms

        monkeypatch.setattr("hwnas.searching.Stopwatch.time", time)
        train(run, finalists=3, winners="best:1")
        assert {trial for trial, _ in trained} == {4, 3, 2}
        assert len(networks) == 4
        said = capsys.readouterr().err
        assert "trial 5 was only predicted; measured: 4.900 ms, over the cap of 5 ms, no finalist" in said
        assert "trial 4 was only predicted; measured: 4.900 ms, inside the cap" in said
        train(run, finalists=3, winners="best:1")
        assert len(networks) == 4
        trained.clear()
        train(run, finalists=9, winners="best:1")
        assert "finalists: 6 and not 9: all that the search trained to the end, but for 1 over the cap" in (
            capsys.readouterr().err
        )

    def test_where_the_device_is_away_they_take_part_by_their_predictions_which_is_said_once(
        self, run: Run, trained: list[tuple[int, float]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(run, finalists=3, winners="best:1")
        assert {trial for trial, _ in trained} == {5, 4, 3}
        said = capsys.readouterr().err
        assert said.count("finalists that were only predicted cannot be measured now; they take part by") == 1


def test_a_stopwatch_times_as_the_search_did(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = PretendedDevice(workplace, monkeypatch, filters=(4, 6), factor=1.25)
    options = {
        "space": "pnas",
        "max_latency_ms": 2.0,
        "data": "npz:images.npz",
        "cells": (1,),
        "filters": (4, 6),
        "trials": 1,
    }
    hwnas.search(out="run", device="pretend", estimator="size", strategy="random", **options)  # type: ignore[arg-type]
    (candidate,) = Run.open("run").candidates()
    count = len(device.timed)
    measured_ms, upper_ms, estimated_by = Stopwatch(Run.open("run").settings).time(candidate.architecture)
    assert measured_ms == pytest.approx(candidate.latency_ms)
    assert measured_ms <= upper_ms
    assert estimated_by == ""
    assert len(device.timed) > count
