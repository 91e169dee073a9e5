"""Fine-tuning for int8: what it learns, that rounding is the file's own, and that it goes on from a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_images
from networks import network
from numpy.typing import NDArray

from hwnas import datasets
from hwnas.formats import tflite
from hwnas.formats._inputs import Reading
from hwnas.network.graph import Builder, Graph
from hwnas.training import fine_tuning
from hwnas.training.module import deployed_weights


def small() -> Graph:
    b = Builder((1, 8, 8))
    value = b.relu(b.window("conv", 0, name="first", filters=8, kernel=(3, 3), norm=True))
    value = b.add(
        value, b.window("conv", value, name="second", filters=8, kernel=(3, 3), groups=8, norm=True), name="sum"
    )
    value = b.concat([b.relu(value), b.window("max_pool", value, name="pool", kernel=(3, 3))], name="both")
    return b.finish(b.linear(b.mean(value, name="mean"), 3, name="classifier"))


@pytest.fixture
def data(tmp_path: Path) -> datasets.Dataset:
    write_images(tmp_path / "images.npz", train=300, test=60)
    return datasets.load(f"npz:{tmp_path / 'images.npz'}")


def file_outputs(weights: Any, ranges: Any, images: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    path.write_bytes(tflite.write(tflite.lower(small()), weights, ranges=ranges))
    return tflite.load(path)(images)


def test_it_rounds_as_the_file_does_and_comes_nearer_to_the_network(
    data: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "_RATE", 0.001)
    module = network(small())
    weights, lowered = deployed_weights(module), tflite.lower(small(), without=tuple(tflite.REWRITES))
    reading = Reading("normalised", data.mean, data.std)
    images = reading.seen(data.whole_train.read(torch.arange(300)).numpy())
    with torch.no_grad():
        weights["classifier"][1][:] -= module(torch.from_numpy(images)).mean(0).numpy()  # so that classes differ
    fine_tuning._take(module, {"classifier": weights["classifier"]})
    ranges = dict(tflite.calibrate(lowered, weights, images))
    ranges["first"] = (0.0, 100 * ranges["first"][1])  # far too wide: few steps are left
    with torch.no_grad():
        wanted = module(torch.from_numpy(images)).numpy()
    tuned = fine_tuning.fine_tune(module, lowered, weights, ranges, data, reading=reading, steps=100)
    rounded = fine_tuning._Rounded(lowered, ranges)
    fine_tuning._take(rounded, tuned)
    with torch.no_grad():
        own = rounded(torch.from_numpy(images)).numpy()
    before, after = (file_outputs(w, ranges, images, tmp_path / f"{i}.tflite") for i, w in enumerate((weights, tuned)))
    step, _ = rounded._scales["classifier"]
    assert np.abs(after - own).mean() < 0.5 * step
    probabilities = [np.exp(one) / np.exp(one).sum(1, keepdims=True) for one in (wanted, before, after)]
    lost_before, lost_after = (float(np.abs(one - probabilities[0]).mean()) for one in probabilities[1:])
    assert lost_after < 0.5 * lost_before


def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_stopped_and_begins_anew_where_that_is_anothers(
    data: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "_SAVE_EVERY_S", 0.0)
    module, path = network(small()), tmp_path / "checkpoint.safetensors"
    weights, lowered = deployed_weights(module), tflite.lower(small(), without=tuple(tflite.REWRITES))
    reading = Reading("normalised", data.mean, data.std)
    ranges = {layer.name: (-4.0, 4.0) for layer in lowered.layers}

    def tune(steps: list[int], *, stop: int = 0) -> Any:
        def on_step(step: int) -> None:
            steps.append(step)
            if step == stop:
                raise KeyboardInterrupt

        return fine_tuning.fine_tune(
            module, lowered, weights, ranges, data, reading=reading, steps=6, checkpoint=path, on_step=on_step
        )

    whole = tune([])
    path.unlink()
    first: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        tune(first, stop=4)
    cut_off = path.read_bytes()
    second: list[int] = []
    resumed = tune(second)
    assert (first, second) == ([1, 2, 3, 4], [4, 5, 6])  # what was not saved is done again
    assert all(np.array_equal(a, b) for name in whole for a, b in zip(whole[name], resumed[name], strict=True))
    path.write_bytes(cut_off)
    ranges["second"] = (-3.0, 3.0)  # as of files that read something else
    third: list[int] = []
    tune(third)
    assert third == [1, 2, 3, 4, 5, 6]
    path.write_bytes(b"no checkpoint")
    fourth: list[int] = []
    tune(fourth)
    assert fourth == [1, 2, 3, 4, 5, 6]
