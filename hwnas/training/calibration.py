"""Calibration: an int8 file's weights and ranges, by the best of several methods; and how often such a file is right.

What is scored is what the runtime computes on this machine, of the very file: on 6,000 images that takes a quarter of
the time of rounding in torch (docs/log.md), and is no stand-in.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hwnas import formats
from hwnas.formats import Reading
from hwnas.support import temporary_folder, write_bytes
from hwnas.training.batches import normalise
from hwnas.training.equalisation import equalise
from hwnas.training.module import Network, deployed_weights
from hwnas.training.scoring import Scores

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images
    from hwnas.device import Setting
    from hwnas.formats import Ranges, Weights
    from hwnas.network import Graph

REDUCED_IMAGES = 10_000  # at most, on which files of reduced precision are scored
_CALIBRATION_IMAGES, _TRIED_IMAGES = 100, 200  # on the others methods are compared
_METHODS = {"min-max": 1.0, "99.99 %": 0.9999}  # the share of an image's values that a range holds
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What an int8 file is written with: weights in torch's layout and ranges, by layer, found on so many images.

    `method` is the best one, `errors` has each one's: the root mean square error of the logits by their deviation.
    """

    weights: "Weights"
    ranges: "Ranges"
    images: int
    method: str
    errors: dict[str, float]


def calibrate(
    network: Network,
    graph: "Graph",
    weights: "Weights",
    images: "Images",
    dataset: "Dataset",
    setting: "Setting",
    path: Path,
    *,
    reading: Reading,
    equalises: bool = True,
) -> Calibrated:
    """Return an int8 file's weights and ranges by the best method.

    The best one is that whose logits are nearest to PyTorch's on other `images` than it was calibrated on. Unless the
    weights are to stay as they are, each method is tried with equalised ones, too. Files beside `path` are written for
    trying. Raises ExportError for images of which no range can be taken.
    """
    format_ = formats.get(setting.runtime, precision="int8")
    pixels, tried = _calibration_pixels(images)
    with torch.no_grad():
        wanted = network(normalise(tried, dataset)).numpy()
    seen = reading.seen(pixels.numpy())
    lowered = format_.lower(graph, without=setting.without)
    write = partial(format_.write, lowered, precision="int8", uint8_input=reading.uint8, without=setting.without)
    ways = {"": weights}
    if equalises:
        ways["equalised, "] = equalise(network, weights, normalise(pixels, dataset))
    results: dict[str, tuple[float, Weights, Ranges]] = {}
    for (way, tried_weights), (method, share) in product(ways.items(), _METHODS.items()):
        ranges = format_.calibrate(lowered, tried_weights, seen, share=share)
        if reading.input_range:
            ranges = {**ranges, lowered.layers[0].name: reading.input_range}
        file = path.with_name(f"{len(results)}.{path.name}")  # one of its own: the runtime may still map the last one
        write_bytes(file, write(tried_weights, ranges=ranges))
        outputs = format_.load(file)(reading.read(tried.numpy()))
        file.unlink()
        error = float(np.sqrt(np.mean((outputs - wanted) ** 2)) / (wanted.std() or 1.0))
        results[f"{way}{method}"] = error, tried_weights, ranges
    best = min(results, key=lambda method: results[method][0])
    errors = {method: round(error, 5) for method, (error, _, _) in results.items()}
    _, weights, ranges = results[best]
    return Calibrated(weights, ranges, len(pixels), best, errors)


def quantised_scores(
    network: Network, images: "Images", dataset: "Dataset", setting: "Setting", *, calibrated_on: "Images"
) -> Scores:
    """Return how often a trained network is right in int8, calibrated and run by a setting's runtime on this machine.

    It is scored on `images`, or on 10,000 from all over them where there are more. The network is moved to the CPU.
    Raises ExportError for a network that the runtime does not take.
    """
    format_ = formats.get(setting.runtime, precision="int8")
    reading = Reading("normalised", dataset.mean, dataset.std, "int8")
    network, without = network.cpu().eval(), setting.without
    graph, weights = network.graph, deployed_weights(network)
    indices = spread(len(images.labels), REDUCED_IMAGES)
    with temporary_folder() as folder:
        path = folder / f"model{format_.SUFFIX}"
        best = calibrate(network, graph, weights, calibrated_on, dataset, setting, path, reading=reading)
        lowered = format_.lower(graph, without=without)
        write_bytes(path, format_.write(lowered, best.weights, ranges=best.ranges, precision="int8", without=without))
        model = format_.load(path)
        outputs = [model(reading.read(images.read(batch).numpy())) for batch in torch.split(indices, _BATCH)]
    return Scores.of(torch.from_numpy(np.concatenate(outputs)).argmax(1), images.labels[indices])


def _calibration_pixels(images: "Images") -> "tuple[Tensor, Tensor]":
    """Return images, from all over, to calibrate on, and others to try methods on if there are any."""
    rows = spread(len(images.labels), _CALIBRATION_IMAGES + _TRIED_IMAGES)
    pixels = images.read(rows)
    calibrated = torch.zeros(len(rows), dtype=torch.bool)
    calibrated[spread(len(rows), _CALIBRATION_IMAGES)] = True
    return pixels[calibrated], pixels[~calibrated] if len(rows) > _CALIBRATION_IMAGES else pixels


def spread(length: int, most: int) -> Tensor:
    """Return at most so many indices, evenly from 0 to `length`: a data set may be sorted by class."""
    count = min(length, most)
    return torch.arange(count) * length // count
