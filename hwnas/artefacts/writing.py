"""An artefact's model files: written, int8 calibrated and where need be fine-tuned, and compared with PyTorch.

A file that computes something else is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.artefacts.files import (
    MAX_RELATIVE_ERROR,
    MIN_AGREEMENT,
    Check,
    Checked,
    compare_logits,
    sha256,
    tensors,
    writing,
)
from hwnas.formats import AS_USUAL, Form, Reading
from hwnas.support import bar, say

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.datasets import Dataset
    from hwnas.device import Setting
    from hwnas.formats import Model, Ranges, Weights
    from hwnas.network import Graph
    from hwnas.training import Network

_IMAGES = 64  # of the test set, on which fp32 is compared with PyTorch; check.npz holds them
_REDUCED_IMAGES = 10_000  # at most, on which reduced precision is
_CALIBRATION_IMAGES, _TRIED_IMAGES = 100, 200  # of the training set: on the others methods are compared
_MOST_LOST = 0.005  # of the accuracy in int8: from there on a network is fine-tuned
_METHODS = {"min-max": 1.0, "99.99 %": 0.9999}  # of calibration: the share of an image's values that a range holds
_BATCH = 64


def write_checked(
    network: "Network",
    dataset: "Dataset",
    folder: Path,
    settings: "Mapping[str, Setting]",
    metadata: dict[str, str],
    form: Form = AS_USUAL,
    *,
    trusted: bool = True,
    explain: bool = False,
    checkpoint: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Write files into the folder, each for its setting, compare with PyTorch; return the card's entries by file name.

    With `explain` there is, beside each, what it is without each of its rewrites: `variant`. An int8 file that loses
    more than half a point of accuracy is fine-tuned, with a `checkpoint` while that lasts. Unless weights are
    `trusted`, as random ones are not, files of reduced precision may find other classes.
    """
    from hwnas.formats import rewritten_layers, without_rewrite
    from hwnas.support import write_bytes
    from hwnas.training import deployed_weights

    weights = deployed_weights(network)
    files: dict[str, dict[str, Any]] = {}
    for name, setting in settings.items():
        made = _make(network, weights, dataset, setting, folder / name, metadata, form)
        if trusted and setting.precision == "int8" and made.checked.lost > _MOST_LOST:
            made = _fine_tuned(made, network, dataset, metadata, checkpoint)
        if trusted or setting.precision == "fp32":
            refuse_other_outputs(name, setting.precision, made.checked)
        found = rewritten_layers(made.graph, setting)
        with writing(folder.parent):
            for rewrite in found if explain else ():
                less = without_rewrite(setting, rewrite)
                write_bytes(variant(made.path, rewrite), _content(made, less, metadata))
        told = {**made.how, "rewrites": {rewrite: {"layers": layers} for rewrite, layers in found.items()}}
        files[name] = _entry(made.path, setting.runtime, setting.precision) | told
        files[name] |= _told(made.checked, setting.precision)
    return files


@dataclass(frozen=True, slots=True)
class _Made:
    """A file, what it was made of, how it compares with PyTorch, and what a card says of how it was made."""

    path: Path
    setting: "Setting"
    form: Form
    reading: Reading
    graph: "Graph"  # that computes of what the file reads
    weights: "Weights"
    ranges: "Ranges | None"
    checked: Checked
    how: dict[str, Any]


def _make(
    network: "Network",
    weights: "Weights",
    dataset: "Dataset",
    setting: "Setting",
    path: Path,
    metadata: dict[str, str],
    form: Form,
    *,
    baked: bool = False,
) -> _Made:
    """Write a file and compare it with PyTorch; weights that are `baked` compute of what the file reads already."""
    from hwnas import formats
    from hwnas.support import write_bytes

    written = formats.get(setting.runtime, precision=setting.precision)
    reading = Reading(form.input, dataset.mean, dataset.std, setting.precision)
    graph, fitting = reading.bake(network.graph, weights)
    fitting = weights if baked else fitting
    how = _facts(written.FACTS[setting.precision], form)
    with writing(path.parent.parent):
        ranges: Ranges | None = None
        if setting.precision == "int8":
            fitting, ranges, told = calibrate(
                network, graph, fitting, dataset, setting, path, reading=reading, equalises=not baked
            )
            how |= told
        unchecked = _Made(path, setting, form, reading, graph, fitting, ranges, Checked(0, 0.0, 0.0, 0.0), how)
        write_bytes(path, _content(unchecked, setting, metadata))
    most = _IMAGES if setting.precision == "fp32" else _REDUCED_IMAGES
    return replace(unchecked, checked=_compare(network, written.load(path), dataset, most, reading=reading))


def _content(made: _Made, setting: "Setting", metadata: dict[str, str]) -> bytes:
    """Return a file as it is written for a setting."""
    from hwnas import formats

    written = formats.get(setting.runtime, precision=setting.precision)
    return written.write(
        written.lower(made.graph, without=setting.without),
        made.weights,
        metadata=metadata | made.reading.left,
        ranges=made.ranges,
        precision=setting.precision,
        uint8_input=made.reading.uint8,
        batch=made.form.batch,
        without=setting.without,
    )


def _fine_tuned(
    made: _Made, network: "Network", dataset: "Dataset", metadata: dict[str, str], checkpoint: Path | None
) -> _Made:
    """Fine-tune an int8 file in which accuracy is lost; return it, or the one that there was if it loses no more."""
    from hwnas import formats
    from hwnas.training import fine_tuning as quantised_training

    written, name = formats.get(made.setting.runtime), made.path.name
    checkpoint = checkpoint and checkpoint.with_name(f"{checkpoint.name}.{name}.safetensors")
    say(f"{name} loses {made.checked.lost:.2%} of the accuracy: it is fine-tuned")
    assert made.ranges is not None  # int8 has ranges
    with bar(f"fine-tuning {name}", quantised_training.STEPS) as steps:
        weights = quantised_training.fine_tune(
            network,
            written.lower(made.graph, without=tuple(written.REWRITES)),
            made.weights,
            made.ranges,
            dataset,
            reading=made.reading,
            checkpoint=checkpoint,
            on_step=steps.at,
        )
    tried = made.path.with_name(f"tuned.{name}")  # one of its own: the runtime may still map the other
    tuned = _make(network, weights, dataset, made.setting, tried, metadata, made.form, baked=True)
    better = tuned.checked.lost < made.checked.lost
    told = {"steps": quantised_training.STEPS, "lost_before": made.checked.lost, "lost_after": tuned.checked.lost}
    if better:
        tried.replace(made.path)
    else:
        tried.unlink()
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    chosen = replace(tuned, path=made.path) if better else made
    return replace(chosen, how={**chosen.how, "fine_tuning": {**told, "kept": better}})


def _facts(facts: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """Return what a card says of a file of some form, from its format's facts."""
    layout, number = facts["input"].split()
    number = "uint8" if form.input == "uint8" else number
    return {**facts, "input": f"{layout} {number}", "batch": form.batch or facts["batch"]}


def variant(path: Path, rewrite: str) -> Path:
    """Return where a file without one of its rewrites is while they are compared."""
    return path.with_name(f"{rewrite}.{path.name}")


def calibrate(
    network: "Network",
    graph: "Graph",
    weights: "Weights",
    dataset: "Dataset",
    setting: "Setting",
    path: Path,
    *,
    reading: Reading,
    equalises: bool = True,
) -> "tuple[Weights, Ranges, dict[str, Any]]":
    """Return an int8 file's weights and ranges by the best method, and what a card says of it.

    The best one is that whose logits are nearest to PyTorch's on further training images. Unless the weights are to
    stay as they are, each method is tried with equalised ones, too. Files beside `path` are written for trying.
    """
    import numpy as np
    import torch

    from hwnas import formats
    from hwnas.support import write_bytes
    from hwnas.training import equalise, normalise

    written = formats.get(setting.runtime, precision="int8")
    pixels, tried = _calibration_pixels(dataset)
    with torch.no_grad():
        wanted = network(normalise(tried, dataset)).numpy()
    seen = reading.seen(pixels.numpy())
    lowered = written.lower(graph, without=setting.without)
    write = partial(written.write, lowered, precision="int8", uint8_input=reading.uint8, without=setting.without)
    ways = {"": weights}
    if equalises:
        ways["equalised, "] = equalise(network, weights, normalise(pixels, dataset))
    found: dict[str, tuple[float, Weights, Ranges]] = {}
    for (way, tried_weights), (method, share) in product(ways.items(), _METHODS.items()):
        ranges = written.calibrate(lowered, tried_weights, seen, share=share)
        if reading.input_range:
            ranges = {**ranges, lowered.layers[0].name: reading.input_range}
        file = path.with_name(f"{len(found)}.{path.name}")  # one of its own: the runtime may still map the last one
        write_bytes(file, write(tried_weights, ranges=ranges))
        outputs = written.load(file)(reading.read(tried.numpy()))
        file.unlink()
        error = float(np.sqrt(np.mean((outputs - wanted) ** 2)) / (wanted.std() or 1.0))
        found[f"{way}{method}"] = error, tried_weights, ranges
    best = min(found, key=lambda method: found[method][0])
    errors = {method: round(error, 5) for method, (error, _, _) in found.items()}
    told = {"images": len(pixels), "of": "training set", "method": best, "rmse": errors}
    return *found[best][1:], {"calibration": told}


def _calibration_pixels(dataset: "Dataset") -> "tuple[Tensor, Tensor]":
    """Return training images, from all over, to calibrate on, and others to try methods on if there are any."""
    import torch

    rows = spread(len(dataset.whole_train.labels), _CALIBRATION_IMAGES + _TRIED_IMAGES)
    pixels = dataset.whole_train.read(rows)
    calibrated = torch.zeros(len(rows), dtype=torch.bool)
    calibrated[spread(len(rows), _CALIBRATION_IMAGES)] = True
    return pixels[calibrated], pixels[~calibrated] if len(rows) > _CALIBRATION_IMAGES else pixels


def spread(length: int, most: int) -> "Tensor":
    """Return at most so many indices, evenly from 0 to `length`: a data set may be sorted by class."""
    import torch

    count = min(length, most)
    return torch.arange(count) * length // count


def _compare(network: "Network", model: "Model", dataset: "Dataset", most: int, *, reading: Reading) -> Checked:
    """Compare a file's logits with PyTorch's on at most so many test images, a batch at a time."""
    import numpy as np
    import torch

    from hwnas.training import normalise

    indices = spread(len(dataset.test.labels), most)
    outputs, expected = [], []
    for batch in torch.split(indices, _BATCH):
        pixels = dataset.test.read(batch)
        outputs.append(model(reading.read(pixels.numpy())))
        with torch.no_grad():
            expected.append(network(normalise(pixels, dataset)).numpy())
    return compare_logits(np.concatenate(outputs), np.concatenate(expected), dataset.test.labels[indices].numpy())


def take_check(network: "Network", dataset: "Dataset") -> Check:
    """Return test images from all over the test set, with what PyTorch computes of them."""
    import torch

    from hwnas.training import normalise

    indices = spread(len(dataset.test.labels), _IMAGES)
    pixels = dataset.test.read(indices)
    with torch.no_grad():
        logits = network(normalise(pixels, dataset))
    return Check(pixels.numpy(), logits.numpy(), dataset.test.labels[indices].numpy())


def refuse_other_outputs(name: str, precision: str, checked: Checked) -> None:
    """Raise ExportError where a file computes something else than PyTorch."""
    from hwnas.errors import ExportError

    figures = (
        f"got {checked.max_relative_error:.2g} on {checked.images} test images, and the same class for "
        f"{checked.agreement:.1%}."
    )
    fault = "a fault in hwnas: please report it with the architecture"
    if precision == "fp32" and not checked.max_relative_error <= MAX_RELATIVE_ERROR:
        raise ExportError(
            f"{name} must compute what PyTorch computes, to {MAX_RELATIVE_ERROR:g} of the largest output; "
            f"{figures} This is {fault}"
        )
    if not checked.agreement >= MIN_AGREEMENT:
        raise ExportError(
            f"{name} must find PyTorch's class for {MIN_AGREEMENT:.0%} of images at least; {figures} "
            f"Train the network longer, or leave the file out with --files; where it is accurate, this is {fault}"
        )


def _entry(path: Path, runtime: str, precision: str) -> dict[str, Any]:
    """Return what a card says of a file that is not timed yet."""
    return {
        "runtime": runtime,
        "precision": precision,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "tensors": tensors(path, runtime),
        "setting": None,
        "measured_ms": None,
    }


def _told(checked: Checked, precision: str) -> dict[str, Any]:
    """Return what a card says of a check; fp32's accuracy is the network's."""
    told = {"max_relative_error": checked.max_relative_error, "agreement": checked.agreement}
    return told if precision == "fp32" else {**told, "accuracy": checked.accuracy, "test_images": checked.images}
