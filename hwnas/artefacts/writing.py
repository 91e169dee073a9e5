"""An artefact's model files: written, int8 calibrated and where need be fine-tuned, and compared with PyTorch.

A file that computes something else is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.artefacts.comparison import MAX_RELATIVE_ERROR, MIN_AGREEMENT, Comparison, compare_logits
from hwnas.artefacts.files import Check, sha256, tensors, writing
from hwnas.formats import AS_USUAL, Form, Reading
from hwnas.support import bar, say

if TYPE_CHECKING:
    from hwnas.artefacts.card import Calibration, FileEntry, FineTuning
    from hwnas.datasets import Dataset
    from hwnas.device import Setting
    from hwnas.formats import Model, Ranges, Weights
    from hwnas.network import Graph
    from hwnas.training import Calibrated, Network

_IMAGES = 64  # of the test set, on which fp32 is compared with PyTorch; check.npz holds them
_MOST_LOST = 0.005  # of the accuracy in int8: from there on a network is fine-tuned
_BATCH = 64
_NOT_COMPARED = Comparison(0, 0.0, 0.0, 0.0)  # as long as there is no file


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
) -> "dict[str, FileEntry]":
    """Write files into the folder, each for its setting, compare with PyTorch; return the card's entries by file name.

    With `explain` there is, beside each, what it is without each of its rewrites: `variant`. An int8 file that loses
    more than half a point of accuracy is fine-tuned, with a `checkpoint` while that lasts. Unless weights are
    `trusted`, as random ones are not, files of reduced precision may find other classes.
    """
    from hwnas.formats import rewritten_layers, without_rewrite
    from hwnas.support import write_bytes
    from hwnas.training import deployed_weights

    weights = deployed_weights(network)
    files: dict[str, FileEntry] = {}
    for name, setting in settings.items():
        model = _write_model(network, weights, dataset, setting, folder / name, metadata, form)
        if trusted and setting.precision == "int8" and model.comparison.lost > _MOST_LOST:
            model = _fine_tuned(model, network, dataset, metadata, checkpoint)
        if trusted or setting.precision == "fp32":
            refuse_other_outputs(name, setting.precision, model.comparison)
        layers = rewritten_layers(model.graph, setting)
        with writing(folder.parent):
            for rewrite in layers if explain else ():
                less = without_rewrite(setting, rewrite)
                write_bytes(variant(model.path, rewrite), _content(model, less, metadata))
        files[name] = _entry(model).rewritten(layers).compared(model.comparison)
    return files


@dataclass(frozen=True, slots=True)
class _Model:
    """A model file, what it was written from and how, and how it compares with PyTorch."""

    path: Path
    setting: "Setting"
    form: Form
    reading: Reading
    graph: "Graph"  # that computes of what the file reads
    weights: "Weights"
    ranges: "Ranges | None" = None
    calibration: "Calibration | None" = None
    fine_tuning: "FineTuning | None" = None
    comparison: Comparison = _NOT_COMPARED


def _write_model(
    network: "Network",
    weights: "Weights",
    dataset: "Dataset",
    setting: "Setting",
    path: Path,
    metadata: dict[str, str],
    form: Form,
    *,
    baked: bool = False,
) -> _Model:
    """Write a file and compare it with PyTorch; weights that are `baked` compute of what the file reads already."""
    from hwnas import formats
    from hwnas.support import write_bytes
    from hwnas.training import REDUCED_IMAGES, calibrate

    format_ = formats.get(setting.runtime, precision=setting.precision)
    reading = Reading(form.input, dataset.mean, dataset.std, setting.precision)
    graph, fitting = reading.bake(network.graph, weights)
    model = _Model(path, setting, form, reading, graph, weights if baked else fitting)
    with writing(path.parent.parent):
        if setting.precision == "int8":
            found = calibrate(
                network,
                graph,
                model.weights,
                dataset.whole_train,
                dataset,
                setting,
                path,
                reading=reading,
                equalises=not baked,
            )
            model = replace(model, weights=found.weights, ranges=found.ranges, calibration=_stated(found))
        write_bytes(path, _content(model, setting, metadata))
    most = _IMAGES if setting.precision == "fp32" else REDUCED_IMAGES
    return replace(model, comparison=_compare(network, format_.load(path), dataset, most, reading=reading))


def _stated(found: "Calibrated") -> "Calibration":
    """Return what a card says of a calibration."""
    from hwnas.artefacts.card import Calibration

    return Calibration(images=found.images, of="training set", method=found.method, rmse=found.errors)


def _content(model: _Model, setting: "Setting", metadata: dict[str, str]) -> bytes:
    """Return a file as it is written for a setting."""
    from hwnas import formats

    format_ = formats.get(setting.runtime, precision=setting.precision)
    return format_.write(
        format_.lower(model.graph, without=setting.without),
        model.weights,
        metadata=metadata | model.reading.left | model.form.entries,
        ranges=model.ranges,
        precision=setting.precision,
        uint8_input=model.reading.uint8,
        batch=model.form.batch,
        without=setting.without,
    )


def _fine_tuned(
    model: _Model, network: "Network", dataset: "Dataset", metadata: dict[str, str], checkpoint: Path | None
) -> _Model:
    """Fine-tune an int8 file in which accuracy is lost; return it, or the one that there was if it loses no more."""
    from hwnas.artefacts.card import FineTuning
    from hwnas.training import fine_tuning

    name = model.path.name
    checkpoint = checkpoint and checkpoint.with_name(f"{checkpoint.name}.{name}.safetensors")
    say(f"{name} loses {model.comparison.lost:.2%} of the accuracy: it is fine-tuned")
    weights = _fine_tuned_weights(model, network, dataset, checkpoint)
    path = model.path.with_name(f"tuned.{name}")  # one of its own: the runtime may still map the other
    tuned = _write_model(network, weights, dataset, model.setting, path, metadata, model.form, baked=True)
    is_better = tuned.comparison.lost < model.comparison.lost
    stated = FineTuning(
        steps=fine_tuning.STEPS,
        lost_before=model.comparison.lost,
        lost_after=tuned.comparison.lost,
        kept=is_better,
    )
    if is_better:
        path.replace(model.path)
    else:
        path.unlink()
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    chosen = replace(tuned, path=model.path) if is_better else model
    return replace(chosen, fine_tuning=stated)


def _fine_tuned_weights(model: _Model, network: "Network", dataset: "Dataset", checkpoint: Path | None) -> "Weights":
    from hwnas import formats
    from hwnas.training import fine_tuning

    assert model.ranges is not None  # int8 has ranges
    format_ = formats.get(model.setting.runtime)
    with bar(f"fine-tuning {model.path.name}", fine_tuning.STEPS) as steps:
        return fine_tuning.fine_tune(
            network,
            format_.lower(model.graph, without=tuple(format_.REWRITES)),
            model.weights,
            model.ranges,
            dataset,
            reading=model.reading,
            highest_weight=format_.HIGHEST_WEIGHT,
            checkpoint=checkpoint,
            on_step=steps.at,
        )


def variant(path: Path, rewrite: str) -> Path:
    """Return where a file without one of its rewrites is while they are compared."""
    return path.with_name(f"{rewrite}.{path.name}")


def _compare(network: "Network", model: "Model", dataset: "Dataset", most: int, *, reading: Reading) -> Comparison:
    """Compare a file's logits with PyTorch's on at most so many test images, a batch at a time."""
    import numpy as np
    import torch

    from hwnas.training import normalise, spread

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

    from hwnas.training import normalise, spread

    indices = spread(len(dataset.test.labels), _IMAGES)
    pixels = dataset.test.read(indices)
    with torch.no_grad():
        logits = network(normalise(pixels, dataset))
    return Check(pixels.numpy(), logits.numpy(), dataset.test.labels[indices].numpy())


def refuse_other_outputs(name: str, precision: str, comparison: Comparison) -> None:
    """Raise ExportError where a file computes something else than PyTorch."""
    from hwnas.errors import ExportError

    figures = (
        f"got {comparison.max_relative_error:.2g} on {comparison.images} test images, and the same class for "
        f"{comparison.agreement:.1%}."
    )
    fault = "a fault in hwnas: please report it with the architecture"
    if precision == "fp32" and not comparison.max_relative_error <= MAX_RELATIVE_ERROR:
        raise ExportError(
            f"{name} must compute what PyTorch computes, to {MAX_RELATIVE_ERROR:g} of the largest output; "
            f"{figures} This is {fault}"
        )
    if not comparison.agreement >= MIN_AGREEMENT:
        raise ExportError(
            f"{name} must find PyTorch's class for {MIN_AGREEMENT:.0%} of images at least; {figures} "
            f"Train the network longer, or leave the file out with --files; where it is accurate, this is {fault}"
        )


def _entry(model: _Model) -> "FileEntry":
    """Return what a card says of a file that is not timed yet, of how it was made."""
    from hwnas import formats
    from hwnas.artefacts.card import FileEntry

    runtime, precision = model.setting.runtime, model.setting.precision
    entry = FileEntry(
        runtime=runtime,
        precision=precision,
        bytes=model.path.stat().st_size,
        arena_bytes=formats.get(runtime).arena_bytes(model.path),
        sha256=sha256(model.path),
        tensors=tensors(model.path, runtime),
        setting=None,
        measured_ms=None,
    ).in_form(model.form, formats.get(runtime, precision=precision).FACTS[precision])
    entry = entry.calibrated(model.calibration) if model.calibration else entry
    return entry.fine_tuned(model.fine_tuning) if model.fine_tuning else entry
