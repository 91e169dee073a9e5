"""Short training: with a setting of int8 the accuracy is that in int8, and the network's own is kept."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_images
from networks import random_cells

from hwnas import datasets
from hwnas.datasets import Dataset
from hwnas.device import Setting
from hwnas.network import CellNetwork, Scale
from hwnas.searching.estimators import Job, training
from hwnas.training import Scores, Watch

INT8 = Setting(runtime="tflite", precision="int8", without=("split-depthwise",))
NETWORK = CellNetwork(random_cells(1, seed=0)[0], Scale(1, 4, 8, 3, 1))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_images(tmp_path / "images.npz")
    return datasets.load(f"npz:{tmp_path / 'images.npz'}")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Pretend scores in int8; return the images, the setting and those it is calibrated on, of each call."""
    calls: list[Any] = []

    def quantised_scores(network: Any, images: Any, data: Any, setting: Any, *, calibrated_on: Any) -> Scores:
        calls.append((images, setting, calibrated_on))
        return Scores(0.125, 0.25)

    monkeypatch.setattr(training, "quantised_scores", quantised_scores)
    return calls


def test_in_int8_that_accuracy_counts_and_the_networks_own_is_kept(dataset: Dataset, asked: list[Any]) -> None:
    whole = training.estimate(NETWORK, dataset, Job(epochs=1, images=60, seed=0))
    assert (asked, whole.fp32_accuracy) == ([], None)
    in_int8 = training.estimate(NETWORK, dataset, Job(epochs=1, images=60, seed=0, int8=INT8))
    assert (in_int8.accuracy, in_int8.balanced, in_int8.fp32_accuracy) == (0.125, 0.25, whole.accuracy)
    ((images, setting, calibrated_on),) = asked
    assert images.labels.equal(dataset.validation.labels)
    assert calibrated_on.labels.equal(dataset.train.labels)
    assert setting == INT8


def test_what_is_stopped_is_not_quantised(dataset: Dataset, asked: list[Any]) -> None:
    job = Job(epochs=2, images=60, seed=0, int8=INT8, watch=Watch((1.0,), lambda look: True))
    assert training.estimate(NETWORK, dataset, job).stopped
    assert not asked
