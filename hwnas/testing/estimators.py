"""What every estimator must keep to."""

import math
from pathlib import Path

import numpy as np
import pytest

from hwnas import datasets
from hwnas.datasets import Dataset
from hwnas.network import Architecture, Scale
from hwnas.searching.estimators import Estimator, Job
from hwnas.spaces import pnas, random_parameters

_JOB = Job(epochs=1, images=60, seed=0)


def _network(seed: int = 0) -> Architecture:
    (parameters,) = random_parameters(pnas, 1, seed=seed)
    return pnas.architecture(parameters, Scale(1, 4, 8, 3, 1))


class EstimatorContract:
    """Takes the fixture `estimator`: a module of hwnas/searching/estimators, or like one."""

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        """Grey images of 8 x 8 pixels and three classes that differ in brightness."""
        random = np.random.default_rng(0)
        labels = np.arange(90) % 3
        pixels = (random.integers(0, 60, (90, 8, 8)) + 60 * labels[:, None, None]).astype(np.uint8)
        np.savez(tmp_path / "images.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
        return datasets.load(f"npz:{tmp_path / 'images.npz'}")

    def test_the_seed_decides_an_accuracy(self, estimator: Estimator, dataset: Dataset) -> None:
        accuracies = [estimator.estimate(_network(), dataset, _JOB).accuracy for _ in range(2)]
        assert accuracies[0] == accuracies[1]
        assert 0 <= accuracies[0] <= 1

    def test_it_says_what_it_took(self, estimator: Estimator, dataset: Dataset) -> None:
        estimate = estimator.estimate(_network(), dataset, _JOB)
        assert estimate.seconds >= 0
        assert estimate.images_seen >= 0
        assert not estimate.stopped
        assert math.isfinite(estimate.accuracy)

    def test_a_word_or_two_say_what_its_figures_are_of(self, estimator: Estimator) -> None:
        assert 1 <= len(estimator.OF.split()) <= 2

    def test_a_caveat_is_a_text(self, estimator: Estimator) -> None:
        assert isinstance(estimator.CAVEAT, str)
