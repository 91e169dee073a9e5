"""Shared weights as an estimator: trained once for a run, taken up where they were cut off, looked at by trials."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SETTING, pretend_table
from cutting import PREDICTED, cut_off
from optuna.distributions import CategoricalDistribution

import hwnas
from hwnas import datasets
from hwnas.errors import BudgetError, InputError, SharedWeightsError
from hwnas.runs import DeviceCap, SearchOptions, SearchSettings
from hwnas.runs.run import Run
from hwnas.searching.estimators import supernet
from hwnas.searching.loop import Searched
from hwnas.support import plugins
from hwnas.training import shared
from hwnas.training.checkpoint import write_tensors

TINY: dict[str, Any] = {
    **PREDICTED,
    "estimator": "supernet",
    "supernet": 4.0,
    "images": 32,
    "epochs": 1.0,
}


def searched(out: Path, **options: Any) -> Searched:
    return hwnas.search(out=str(out), **{**TINY, "strategy": "evolution", "trials": 6, **options})


def accuracies(out: Path) -> list[float]:
    return [record.values[0] for record in Run.open(out).trials().records if record.values]


def bank(out: Path) -> dict[str, torch.Tensor]:
    return dict(shared.read_bank(out / supernet.FILE).named_parameters())


@pytest.mark.parametrize("space", plugins.names("spaces"))
def test_every_space_is_searched_with_weights_that_are_trained_once(workplace: Path, space: str) -> None:
    if space != "pnas":
        pretend_table(workplace, space)
    result = searched(workplace / "run", space=space, strategy="random", trials=3, max_latency_ms=50.0)
    assert result.trained == 3
    assert all(0 <= accuracy <= 1 for accuracy in accuracies(workplace / "run"))
    before = (workplace / "run" / supernet.FILE).stat().st_mtime_ns
    assert searched(workplace / "run", space=space, strategy="random", trials=4, max_latency_ms=50.0).trained == 4
    assert (workplace / "run" / supernet.FILE).stat().st_mtime_ns == before


def test_a_training_that_is_cut_off_at_any_step_goes_on_as_if_it_had_not_been(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(workplace / "whole")
    cut_off(monkeypatch, shared, at=(1, 2))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(workplace / "cut")
        assert not (workplace / "cut" / supernet.FILE).exists()
    searched(workplace / "cut")
    whole, cut = bank(workplace / "whole"), bank(workplace / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert accuracies(workplace / "whole") == accuracies(workplace / "cut")
    assert sorted(path.name for path in (workplace / "cut").glob("supernet*")) == [supernet.FILE]


def test_two_workers_look_with_the_weights_that_one_process_has_trained(workplace: Path) -> None:
    assert searched(workplace / "run", workers=2).trained == 6
    searched(workplace / "other", trials=1)
    ours, theirs = bank(workplace / "run"), bank(workplace / "other")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("space", "filters", "is_said"), [("pnas", (4, 6), True), ("pnas", (4,), False), ("mbconv", (4, 6), False)]
)
def test_what_is_against_shared_weights_of_many_scales_is_said(
    workplace: Path, capsys: pytest.CaptureFixture[str], space: str, filters: tuple[int, ...], is_said: bool
) -> None:
    pretend_table(workplace, space)
    searched(workplace / "run", space=space, filters=filters, trials=1)
    assert ("take --estimator training-speed" in " ".join(capsys.readouterr().err.split())) == is_said


def test_a_cap_that_leaves_no_candidate_says_so(workplace: Path) -> None:
    searched(workplace / "run", trials=1)
    settings = Run.open(workplace / "run").settings

    class Nothing:
        """Candidates of which none fits."""

        space = plugins.load("spaces", "pnas")

        def distributions(self) -> Any:
            return {**self.space.distributions(), "target": CategoricalDistribution((1.0,))}

        def fitting_targets(self, chosen: Any) -> list[float]:
            return []

        def excess(self, chosen: Any) -> float:
            return 1.0

        def identity(self, chosen: Any) -> Any:
            return tuple(chosen.values())

        def without_ignored(self, chosen: Any) -> Any:
            return chosen

    with pytest.raises(BudgetError, match=r"no candidate was found that fits the caps: raise --max-latency-ms \(got"):
        supernet.drawn_paths(settings, Nothing(), count=4)  # type: ignore[arg-type]


def test_a_file_that_is_none_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no weights")
    with pytest.raises(SharedWeightsError, match=r"must be shared weights that hwnas wrote.*Delete it, and type the"):
        shared.read_bank(tmp_path / "x")


def test_weights_that_an_older_hwnas_shared_otherwise_are_not_read(tmp_path: Path) -> None:
    metadata = {"bank": json.dumps({"version": 1, "seed": 0})}
    write_tensors(tmp_path / "x", {"stem:weight:": torch.zeros(1)}, metadata=metadata)
    with pytest.raises(SharedWeightsError, match=r"it is of version 1, and 3 is read.*Delete it, and type the"):
        shared.read_bank(tmp_path / "x")


def text_of(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def in_whole_numbers(file: Path) -> None:
    metadata = {"bank": json.dumps({"version": 2, "seed": 0})}
    write_tensors(file, {"stem:weight:": torch.zeros(1, dtype=torch.int64)}, metadata=metadata)


def another_ones(file: Path) -> None:
    """Write smaller weights of the same names, as an older hwnas did, which did not say whose they are."""
    bank = shared.read_bank(file)
    smaller = shared.Bank(seed=0)
    for name, weights in bank.named_parameters():
        smaller.register_parameter(name, torch.nn.Parameter(weights[:1].clone()))
    shared.write_bank(smaller, file)


@pytest.mark.parametrize("damage", [cut_short, emptied, in_whole_numbers, another_ones, Path.unlink])
def test_a_bank_that_cannot_be_used_ends_a_search_and_costs_no_candidate(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    searched(workplace / "run", trials=1)
    whole, file = bank(workplace / "run"), workplace / "run" / supernet.FILE
    damage(file)
    with monkeypatch.context() as patch:
        if not file.exists():  # it is lost while candidates are looked at
            patch.setattr("hwnas.searching.estimators.prepare", lambda *_: None)
        with pytest.raises(SharedWeightsError, match=r"[Tt]ype the search again to train them anew"):
            searched(workplace / "run", trials=3)
    trials = Run.open(workplace / "run").trials()
    assert (trials.trained, trials.left_out) == (1, 0)
    file.unlink(missing_ok=True)
    assert searched(workplace / "run", trials=3).trained == 3
    again = bank(workplace / "run")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_bank_that_was_cut_short_is_found_before_a_trial_is_begun(workplace: Path) -> None:
    searched(workplace / "run", trials=1)
    cut_short(workplace / "run" / supernet.FILE)
    with pytest.raises(SharedWeightsError, match="cannot be read"):
        searched(workplace / "run", trials=3)
    assert len(Run.open(workplace / "run").trials()) == 1


@pytest.mark.parametrize(
    ("options", "differs"),
    [({"filters": (4,)}, "scales"), ({"seed": 1}, "seed"), ({"proxy_filters": 1.0}, "proxy filters")],
)
def test_another_runs_bank_is_refused_before_a_trial_is_begun(
    workplace: Path, options: dict[str, Any], differs: str
) -> None:
    searched(workplace / "run", trials=1)
    searched(workplace / "other", trials=1, **options)
    (workplace / "other" / supernet.FILE).replace(workplace / "run" / supernet.FILE)
    said = rf"must be the shared weights of its own run; got .* differs in: {differs}\. Delete it, and type the search"
    with pytest.raises(SharedWeightsError, match=said):
        searched(workplace / "run", trials=3)
    assert len(Run.open(workplace / "run").trials()) == 1
    with pytest.raises(SharedWeightsError, match=said):
        hwnas.train(str(workplace / "run"), winners=1, epochs=0.1, from_supernet=True)


@pytest.mark.parametrize(
    ("space", "options", "advice"),
    [
        ("pnas", {}, "--cells 1 --filters 8"),
        ("auto", {}, "--cells 1 --filters 8"),
        ("mobile", {}, "--filters 8"),
        ("mobile", {"cells": (2, 4), "filters": (16,)}, "--cells 2"),
        ("pnas", {"cells": (2,), "filters": (12, 24)}, "--filters 12"),
    ],
)
def test_the_advice_on_scales_is_of_those_that_were_asked_for(
    workplace: Path, capsys: pytest.CaptureFixture[str], space: str, options: dict[str, Any], advice: str
) -> None:
    asked = SearchOptions(out="run", **{**TINY, "space": space, "cells": None, "filters": None, **options})
    dataset = datasets.load("npz:images.npz", seed=0)
    host = DeviceCap(device="host", setting=SETTING, threads=1, max_latency_ms=asked.max_latency_ms or 0.0)
    settings = SearchSettings.of(asked, devices=[host], dataset=dataset)
    supernet.say_scales(settings)
    assert text_of(capsys).endswith(f"or one scale, as by {advice}")
    chosen = dict(zip(*[iter(advice.replace("--", "").split())] * 2, strict=True))
    supernet.say_scales(settings.model_copy(update={name: (int(choice),) for name, choice in chosen.items()}))
    assert not text_of(capsys)


@pytest.mark.parametrize("strategy", ["random", "enas"])
def test_few_paths_and_a_strategy_that_trains_the_bank_keep_nothing_back(
    workplace: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    pretend_table(workplace, "pnas", filters=(4, 6, 8, 12))
    searched(workplace / "run", strategy=strategy, filters=(4, 6, 8, 12), supernet=0.01, trials=1, max_latency_ms=50.0)
    assert "these are of 4, of which few learn enough" in text_of(capsys)


def test_how_long_it_takes_is_said_before_in_words(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched(workplace / "run", trials=1, supernet=1.0)
    said = text_of(capsys)
    assert "shared weights: they are trained before the first trial, as long as 1 training of one candidate" in said
    assert "shared weights: one candidate learns in 1 step" in said
    searched(workplace / "other", trials=1)
    said = text_of(capsys)
    assert "before the first trial, as long as 4 trainings of one candidate" in said
    assert "shared weights: 4 candidates take turns in 4 steps" in said


@pytest.mark.parametrize("options", [{"estimator": "training"}, {"estimator": "size", "strategy": "random"}])
def test_a_length_of_shared_weights_that_there_are_not_is_refused(workplace: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"--supernet is how long shared weights train; got 4, and with --estimator"):
        searched(workplace / "run", **options)
    assert not (workplace / "run").exists()


@pytest.mark.parametrize("estimator", ["supernet", "training-speed"])
@pytest.mark.parametrize(("options", "named"), [({"pruner": "halving"}, "--pruner"), ({"inherit": True}, "--inherit")])
def test_options_of_trainings_that_there_are_not_are_refused(
    workplace: Path, options: dict[str, Any], named: str, estimator: str
) -> None:
    with pytest.raises(InputError, match=f"{named} is for candidates that each go through a whole short training"):
        searched(workplace / "run", **{**options, "estimator": estimator})
    assert not (workplace / "run").exists()
