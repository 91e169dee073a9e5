"""Shared weights where there is next to nothing to share or to learn from: a clear end, or an error that says why."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_images
from optuna.distributions import CategoricalDistribution

import hwnas
from hwnas.errors import BudgetError, DataError, InputError
from hwnas.latency import Costs
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.estimators import supernet
from hwnas.searching.loop import Searched
from hwnas.searching.strategies import enas
from hwnas.spaces import pnas

TINY: dict[str, Any] = {
    "space": "pnas",
    "max_latency_ms": 50.0,
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": (4,),
    "predicted": True,
    "estimator": "supernet",
    "supernet": 2.0,
    "images": 32,
    "epochs": 1.0,
    "targets": (1.0,),
}
both = pytest.mark.parametrize("strategy", ["random", "enas"])


def searched(strategy: str, **options: Any) -> Searched:
    return hwnas.search(out="run", strategy=strategy, **{**TINY, "trials": 2, **options})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the space be cells of one block, an operation on each of its inputs: 8 candidates."""
    whole = pnas.distributions()
    fixed: dict[str, Any] = {name: known.choices[:1] for name, known in whole.items()}
    fixed |= {"block1_operation1": pnas.OPERATIONS, "block1_input2": (1,), "block1_operation2": ("identity",)}
    monkeypatch.setattr(
        pnas, "distributions", lambda: {name: CategoricalDistribution(known) for name, known in fixed.items()}
    )


def labelled(path: Path, labels: list[int], *, test: list[int]) -> None:
    """Write 8x8 images with these labels."""
    random = np.random.default_rng(0)
    x_train, x_test = (random.integers(0, 255, (len(part), 8, 8), dtype=np.uint8) for part in (labels, test))
    np.savez(path, x_train=x_train, y_train=np.array(labels), x_test=x_test, y_test=np.array(test))


@both
def test_a_space_of_one_architecture_is_one_trial(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    only = {name: CategoricalDistribution(known.choices[:1]) for name, known in pnas.distributions().items()}
    monkeypatch.setattr(pnas, "distributions", lambda: only)
    result = searched(strategy)
    assert result.trained == 1
    assert "no candidate inside the caps is new" in result.ended


@both
def test_caps_that_leave_three_candidates_are_three_trials(
    workplace: Path, few: None, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    costs_at, allowed = SpaceCandidates._costs_at, pnas.OPERATIONS[2:5]

    def few_fit(self: SpaceCandidates, chosen: Mapping[str, Any], scales: Any) -> Costs:
        costs = costs_at(self, chosen, scales)
        return costs if chosen["block1_operation1"] in allowed else replace(costs, upper_ms=costs.upper_ms + 1e9)

    monkeypatch.setattr(SpaceCandidates, "_costs_at", few_fit)
    result = searched(strategy, trials=20)
    assert result.trained == 3
    assert "no candidate inside the caps is new" in result.ended


@both
def test_caps_that_nothing_is_found_inside_are_refused_before_any_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(enas, "_FIRST_DRAWS", 2)
    monkeypatch.setattr("hwnas.latency.Costs.fits", lambda costs, *_, **__: np.zeros(costs.ms.shape, dtype=bool))
    monkeypatch.setattr("hwnas.latency.Costs.excess", lambda *_, **__: np.array([[1.0]]))
    monkeypatch.setattr("hwnas.verbs.search.check_reachable", lambda *_, **__: None)
    with pytest.raises(BudgetError, match=r"no candidate was found that fits the caps: raise --max-latency-ms \(got"):
        searched(strategy, images=64)
    assert not list(Path("run").glob("*.safetensors"))


@both
def test_two_images_a_class_and_a_single_step_are_enough(workplace: Path, strategy: str) -> None:
    labelled(workplace / "images.npz", [0, 0, 1, 1, 2, 2], test=[0, 1, 2])
    assert searched(strategy, images=None, supernet=0.001).trained == 2
    bank = supernet.bank_settings(1.0, None, 0.001, seed=0)
    assert bank.epochs * 3 < 1  # less than an image: one step


@both
@pytest.mark.parametrize("images", [12, 2])
def test_images_of_one_class_only_say_what_is_wrong(workplace: Path, strategy: str, images: int) -> None:
    labelled(workplace / "images.npz", [0] * images, test=[0])
    with pytest.raises((DataError, InputError)) as refused:
        searched(strategy)
    assert "class" in str(refused.value)


@both
def test_one_image_of_a_class_leaves_none_to_look_at_and_is_refused(workplace: Path, strategy: str) -> None:
    labelled(workplace / "images.npz", [0, 0, 1, 1, 2], test=[0, 1, 2])
    with pytest.raises(DataError, match="each class must have at least 2 images"):
        searched(strategy)


def test_two_workers_try_what_enas_has_derived(workplace: Path, few: None) -> None:
    write_images(workplace / "images.npz", train=30)
    assert searched("enas", trials=2, workers=2).trained == 2
    assert sorted(path.name for path in Path("run").glob("*.safetensors")) == [supernet.FILE]
