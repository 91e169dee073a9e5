"""How fast a candidate learns: a tenth of a short training, and what its loss comes to."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_cells

from hwnas import datasets
from hwnas.datasets import Dataset
from hwnas.network import Block, Cell, CellNetwork, Scale
from hwnas.searching.estimators import Job, training_speed
from hwnas.training import loop

JOB = Job(epochs=2, images=6000, seed=0)
NETWORK = CellNetwork(random_cells(1, seed=0)[0], Scale(1, 4, 8, 3, 1))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Noise, of three classes that differ in where it is brighter."""
    random = np.random.default_rng(0)
    labels = np.arange(600) % 3
    pixels = random.integers(0, 120, (600, 8, 8))
    for label in range(3):
        pixels[labels == label, 2 * label : 2 * label + 3] += 25
    bytes_ = pixels.astype(np.uint8)
    arrays = {"x_train": bytes_, "y_train": labels, "x_test": bytes_, "y_test": labels}
    np.savez(tmp_path / "images.npz", **arrays)
    return datasets.load(f"npz:{tmp_path / 'images.npz'}")


def test_it_takes_a_tenth_of_a_short_training(dataset: Dataset) -> None:
    assert training_speed.estimate(NETWORK, dataset, JOB).images_seen == pytest.approx(1200, abs=16)


def test_it_is_of_the_loss_in_the_last_third_by_a_power_of_the_parameters(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    step = loop.Training._train_step

    def seen(self: Any, *arguments: Any) -> Any:
        losses.append(float(loss := step(self, *arguments)))
        return loss

    monkeypatch.setattr(loop.Training, "_train_step", seen)
    accuracy = training_speed.estimate(NETWORK, dataset, JOB).accuracy
    third = losses[50:]  # of 75 steps; an epoch of 400 images ends with the step that comes to them
    assert len(losses) == 75
    counts = (1e5 / NETWORK.graph.parameters) ** 0.07
    assert counts > 1.1  # it is small
    assert accuracy == pytest.approx(math.exp(-counts * sum(third) / len(third)))
    assert accuracy > math.exp(-counts * sum(losses) / len(losses))


def test_of_two_that_learn_alike_the_larger_is_before(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Training, "_train_step", lambda self, pixels, labels: torch.tensor(0.7))
    wide = replace(NETWORK, scale=replace(NETWORK.scale, filters=8))
    figures = [training_speed.estimate(network, dataset, JOB).accuracy for network in (NETWORK, wide)]
    assert figures[0] < figures[1] < 1


def test_what_learns_is_before_what_does_not(dataset: Dataset) -> None:
    blind = Cell((Block(("max_pool_3x3", 0), ("max_pool_3x3", 0)),))
    sees = Cell((Block(("separable_3x3", 0), ("separable_3x3", 1)),))
    figures = [training_speed.estimate(replace(NETWORK, normal=cell), dataset, JOB).accuracy for cell in (blind, sees)]
    assert figures[0] < figures[1] - 0.01
