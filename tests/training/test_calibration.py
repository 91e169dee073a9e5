"""Scores in int8: those of the runtime's file, calibrated on the images that are given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_images
from networks import network
from winners import fitted

from hwnas import datasets
from hwnas.artefacts.writing import write_checked
from hwnas.datasets import Dataset
from hwnas.device import Setting
from hwnas.formats import tflite
from hwnas.network import Scale
from hwnas.spaces import pnas, random_parameters
from hwnas.training import Network, calibration, quantised_scores, scores

RUNTIMES = {"tflite": "model.int8.tflite", "onnx": "model.int8.onnx"}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    write_images(tmp_path / "images.npz", train=300, test=90)
    return datasets.load(f"npz:{tmp_path / 'images.npz'}")


@pytest.fixture
def trained(data: Dataset) -> Network:
    module = network(pnas.architecture(random_parameters(pnas, 1, seed=0)[0], Scale(1, 4, 8, 3, 1)).graph)
    module.load_state_dict(fitted(module, data))
    return module.eval()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_scores_in_int8_what_its_exported_file_does(
    runtime: str, data: Dataset, trained: Network, tmp_path: Path
) -> None:
    setting = Setting(runtime=runtime, precision="int8")
    found = quantised_scores(trained, data.test, data, setting, calibrated_on=data.whole_train)
    name = RUNTIMES[runtime]
    assert found.accuracy == write_checked(trained, data, tmp_path, {name: setting}, {})[name].accuracy
    assert found.accuracy > 0.8


def test_what_int8_cannot_hold_is_seen_in_its_score(data: Dataset, trained: Network) -> None:
    """Beside an output that is far from the others, and that no image chooses, these are all rounded to one number."""
    (classifier,) = (module for module in trained.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        classifier.bias[0] -= 1e5
    whole = scores(trained, data.test, data).accuracy
    setting = Setting(runtime="tflite", precision="int8")
    assert whole > 0.5  # of the two other classes
    assert quantised_scores(trained, data.test, data, setting, calibrated_on=data.train).accuracy < whole - 0.2


def test_scores_are_of_at_most_so_many_images_from_all_over(
    data: Dataset, trained: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    load = tflite.load

    def counted(path: Path) -> object:
        model = load(path)

        def run(images: "np.ndarray") -> object:
            seen.append(len(images))
            return model(images)

        return run

    monkeypatch.setattr(tflite, "load", counted)
    monkeypatch.setattr(calibration, "REDUCED_IMAGES", 30)
    setting = Setting(runtime="tflite", precision="int8")
    found = quantised_scores(trained, data.test, data, setting, calibrated_on=data.train)
    assert seen[-1] == 30
    assert found.accuracy * 30 == pytest.approx(round(found.accuracy * 30))
