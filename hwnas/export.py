"""`hwnas export`: writes winners as ONNX and TFLite files, checks them against PyTorch, times them on the device.

An artefact that computes something else, or is over its cap, is not left under its final name.
"""

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas import artefact
from hwnas.artefact import CARD, CHECK, README, SCRIPT, Check, Checked
from hwnas.errors import InputError
from hwnas.options import RunFolder
from hwnas.progress import bar, say

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.datasets import Dataset
    from hwnas.device import Device, Setting
    from hwnas.errors import ExportError
    from hwnas.formats import Format, Model, Ranges, Weights
    from hwnas.graph import Graph
    from hwnas.module import Network
    from hwnas.runs import Run

_FILES = {  # runtime and precision
    "model.tflite": ("tflite", "fp32"),
    "model.onnx": ("onnx", "fp32"),
    "model.int8.tflite": ("tflite", "int8"),
    "model.fp16.tflite": ("tflite", "fp16"),
    "model.dynamic.tflite": ("tflite", "dynamic"),
    "model.int8.onnx": ("onnx", "int8"),
}
_BY_DEFAULT = ("model.tflite", "model.onnx", "model.int8.tflite")
_RECORD = {"trial", "architecture", "data", "training", "versions"}  # what a winner's record must have, among others
_RECORD |= {"test_accuracy", "search_accuracy", "predicted_ms", "predicted_error"}
_IMAGES = 64  # of the test set, on which fp32 is compared with PyTorch; check.npz holds them
_REDUCED_IMAGES = 10_000  # at most, on which reduced precision is
_CALIBRATION_IMAGES, _TRIED_IMAGES = 100, 200  # of the training set: on the others methods are compared
_METHODS = {"min-max": 1.0, "99.99 %": 0.9999}  # of calibration: the share of an image's values that a range holds
_BATCH = 64
_SAME = 1e-4  # difference of two means or deviations, of pixels from 0 to 1


def _file_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """Read `model.tflite,model.onnx`; raises InputError, which lists the known ones."""
    names = text.split(",") if isinstance(text, str) else tuple(text)
    if not names or not set(names) <= _FILES.keys():
        raise InputError(f"files must be some of {', '.join(_FILES)}; got {','.join(names)!r}")
    return tuple(name for name in _FILES if name in names)


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported winner: its card, as in card.json, and where its files are."""

    folder: str
    card: dict[str, Any]


def export(
    run: RunFolder,
    *,
    out: Annotated[str, typer.Option(help="folder for the artefacts: OUT/RUN/TRIAL/")] = "export",
    trial: Annotated[int | None, typer.Option(help="export this winner alone")] = None,
    files: Annotated[
        Sequence[str], typer.Option(parser=_file_names, metavar="NAME,...", help="the files to write")
    ] = _BY_DEFAULT,
    allow_over_cap: Annotated[
        bool, typer.Option("--allow-over-cap", help="keep an artefact whose measured latency is over the cap")
    ] = False,
) -> list[Exported]:
    """Export a run's trained winners as ONNX and TFLite (fp32 and int8), checked and timed on the run's device.

    Raises InputError where no winner was trained and where the folder cannot be written, and ExportError, with the
    figures, for an artefact that is refused.
    """
    from hwnas.device import load_device
    from hwnas.errors import ExportError
    from hwnas.runs import Run

    files = _file_names(files)
    opened = Run.open(run)
    settings = opened.settings
    records = sorted(opened.folder.glob("winners/*/winner.json"))
    if trial is not None:
        records = [path for path in records if path.parent == opened.winner_folder(trial)]
    if not records:
        what = "no trained winner" if trial is None else f"no trained winner {trial}"
        raise InputError(f"{opened.folder} has {what} to export. Type: hwnas train {opened.folder}")
    device = load_device(settings.device)
    exported, refused = [], []
    with opened.locked(), bar("exporting", len(records)) as exporting:
        for path in records:
            target = Path(out) / opened.folder.resolve().name / path.parent.name
            try:
                exported.append(_export_one(opened, path, target, device, files, allow_over_cap))
            except ExportError as error:
                refused.append(f"trial {path.parent.name}: {error}")
            exporting.advance()
    if refused:
        raise ExportError("\n".join(refused))
    return exported


def _export_one(
    run: "Run", record_path: Path, target: Path, device: "Device", names: Sequence[str], allow_over_cap: bool
) -> Exported:
    from hwnas import export_texts
    from hwnas.files import write_json, write_text

    record, weights = _read_record(record_path), record_path.with_name("weights.safetensors")
    weights_hash = _weights_hash(weights)
    if (card := artefact.whole_card(target, names)) and card.get("weights_sha256") == weights_hash:
        say(f"trial {record['trial']} is exported already, in {target}")
        return Exported(str(target), card)
    staging = target.with_name(f".{target.name}.part")
    try:
        with artefact.writing(target.parent):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        network = _load_network(record, weights)
        dataset = run.settings.dataset(network.graph.layers[0].shape[1])
        _refuse_other_data(record, dataset)
        files = _write_checked(network, dataset, staging, names, _metadata(record))
        _time_files(files, staging, device, run)
        check = _check(network, dataset)
        with artefact.writing(target.parent):
            card = _card(run, record, network, files, weights_hash) | {"check": check.write(staging / CHECK)}
        _refuse_over_cap(card, allow_over_cap)
        with artefact.writing(target.parent):
            write_json(staging / CARD, card)
            write_text(staging / README, export_texts.readme(card))
            write_text(staging / SCRIPT, export_texts.run_script(card))
            artefact.put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(str(target), card)


def _read_record(path: Path) -> dict[str, Any]:
    """Return a winner's record; raises InputError where it is broken."""
    from hwnas.files import read_json

    record = read_json(path, what="a winner's record")
    if not isinstance(record, dict) or not record.keys() >= _RECORD:
        lacks = sorted(_RECORD - record.keys()) if isinstance(record, dict) else [type(record).__name__]
        raise InputError(
            f"{path} must be a winner's record; it lacks {', '.join(lacks)}. "
            f"Delete {path.parent} and type `hwnas train` again"
        )
    return record


def _weights_hash(weights: Path) -> str:
    """Return the hash of the weights; raises ExportError where they cannot be read."""
    try:
        return artefact.sha256(weights)
    except OSError as error:
        raise _unreadable(weights, error.strerror or str(error)) from None


def _load_network(record: dict[str, Any], weights: Path) -> "Network":
    """Return the trained network; raises ExportError where the weights do not fit, or are no numbers."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from hwnas.module import Network
    from hwnas.networks import Architecture

    network = Network(Architecture.from_json(record["architecture"]).graph)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise _unreadable(weights, str(error)) from None
    for name, value in network.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise _unreadable(weights, f"{name} has numbers that are not finite")
    return network.eval()


def _refuse_other_data(record: dict[str, Any], dataset: "Dataset") -> None:
    """Raise InputError where a data set is not the one that a winner was trained on."""
    trained, found = record["data"], (len(dataset.classes), dataset.channels, dataset.resolution)
    wanted = (len(trained["classes"]), trained["channels"], trained["resolution"])
    statistics = [*zip(trained["mean"], dataset.mean, strict=False), *zip(trained["std"], dataset.std, strict=False)]
    if found != wanted or any(abs(one - other) > _SAME for one, other in statistics):
        raise InputError(
            f"{dataset.name} must be as it was when trial {record['trial']} was trained: classes, channels and "
            f"resolution {wanted}, mean {trained['mean']}; got {found}, mean {list(dataset.mean)}. Put the old images "
            "back, or search and train again with the new ones"
        )


def _unreadable(weights: Path, why: str) -> "ExportError":
    """Return the error for weights that are missing or broken."""
    from hwnas.errors import ExportError

    return ExportError(
        f"{weights} must hold the winner's weights; it cannot be read ({' '.join(why.split())}). "
        f"Delete {weights.parent} and type `hwnas train` again"
    )


def _write_checked(
    network: "Network", dataset: "Dataset", folder: Path, names: Sequence[str], metadata: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Write the named files into the folder and compare it with PyTorch; return the card's entries by file name."""
    from hwnas import formats
    from hwnas.files import write_bytes
    from hwnas.module import deployed_weights

    weights = deployed_weights(network)
    files: dict[str, dict[str, Any]] = {}
    for name in names:
        runtime, precision = _FILES[name]
        written = formats.get(runtime, precision=precision)
        lowered, path = written.lower(network.graph), folder / name
        with artefact.writing(folder.parent):
            ranges: Ranges | None = None
            how: dict[str, Any] = {}
            if precision == "int8":
                ranges, how = _calibrated(network, written, lowered, weights, dataset, path)
            content = written.write(lowered, weights, metadata=metadata, ranges=ranges, precision=precision)
            write_bytes(path, content)
        checked = _compare(network, written.load(path), dataset, _IMAGES if precision == "fp32" else _REDUCED_IMAGES)
        _refuse_other_outputs(name, precision, checked)
        files[name] = _entry(path, runtime, precision) | {**written.FACTS[precision], **how} | _told(checked, precision)
    return files


def _calibrated(
    network: "Network", written: "Format", lowered: "Graph", weights: "Weights", dataset: "Dataset", path: Path
) -> "tuple[Ranges, dict[str, Any]]":
    """Return the ranges of the better method, and what a card says of it; files beside `path` are written for trying.

    The better one is that whose logits are nearer to PyTorch's on further training images.
    """
    import numpy as np
    import torch

    from hwnas.estimators.training import normalise
    from hwnas.files import write_bytes

    rows = _spread(len(dataset.whole_train.labels), _CALIBRATION_IMAGES + _TRIED_IMAGES)
    images = normalise(dataset.whole_train.read(rows), dataset)
    calibrated = torch.zeros(len(rows), dtype=torch.bool)
    calibrated[_spread(len(rows), _CALIBRATION_IMAGES)] = True
    tried = images[~calibrated] if len(rows) > _CALIBRATION_IMAGES else images
    with torch.no_grad():
        wanted = network(tried).numpy()
    found = {}
    for number, (method, share) in enumerate(_METHODS.items()):
        ranges = written.calibrate(lowered, weights, images[calibrated].numpy(), share=share)
        file = path.with_name(f"{number}.{path.name}")  # one of its own: the runtime may still map the last one
        write_bytes(file, written.write(lowered, weights, ranges=ranges, precision="int8"))
        outputs = written.load(file)(tried.numpy())
        file.unlink()
        found[method] = float(np.sqrt(np.mean((outputs - wanted) ** 2)) / (wanted.std() or 1.0)), ranges
    best = min(found, key=lambda method: found[method][0])
    errors = {method: round(error, 5) for method, (error, _) in found.items()}
    told = {"images": int(calibrated.sum()), "of": "training set", "method": best, "rmse": errors}
    return found[best][1], {"calibration": told}


def _spread(length: int, most: int) -> "Tensor":
    """Return at most so many indices, evenly from 0 to `length`: a data set may be sorted by class."""
    import torch

    count = min(length, most)
    return torch.arange(count) * length // count


def _compare(network: "Network", model: "Model", dataset: "Dataset", most: int) -> Checked:
    """Compare a file's logits with PyTorch's on at most so many test images, a batch at a time."""
    import numpy as np
    import torch

    from hwnas.estimators.training import normalise

    indices = _spread(len(dataset.test.labels), most)
    outputs, expected = [], []
    for batch in torch.split(indices, _BATCH):
        images = normalise(dataset.test.read(batch), dataset)
        outputs.append(model(images.numpy()))
        with torch.no_grad():
            expected.append(network(images).numpy())
    return artefact.compare(np.concatenate(outputs), np.concatenate(expected), dataset.test.labels[indices].numpy())


def _check(network: "Network", dataset: "Dataset") -> Check:
    """Return test images from all over the test set, with what PyTorch computes of them."""
    import torch

    from hwnas.estimators.training import normalise

    indices = _spread(len(dataset.test.labels), _IMAGES)
    pixels = dataset.test.read(indices)
    with torch.no_grad():
        logits = network(normalise(pixels, dataset))
    return Check(pixels.numpy(), logits.numpy(), dataset.test.labels[indices].numpy())


def _refuse_other_outputs(name: str, precision: str, checked: Checked) -> None:
    """Raise ExportError where a file computes something else than PyTorch."""
    from hwnas.errors import ExportError

    figures = (
        f"got {checked.max_relative_error:.2g} on {checked.images} test images, and the same class for "
        f"{checked.agreement:.1%}."
    )
    fault = "a fault in hwnas: please report it with the architecture"
    if precision == "fp32" and not checked.max_relative_error <= artefact.MAX_RELATIVE_ERROR:
        raise ExportError(
            f"{name} must compute what PyTorch computes, to {artefact.MAX_RELATIVE_ERROR:g} of the largest output; "
            f"{figures} This is {fault}"
        )
    if not checked.agreement >= artefact.MIN_AGREEMENT:
        raise ExportError(
            f"{name} must find PyTorch's class for {artefact.MIN_AGREEMENT:.0%} of images at least; {figures} "
            f"Train the network longer, or leave the file out with --files; where it is accurate, this is {fault}"
        )


def _entry(path: Path, runtime: str, precision: str) -> dict[str, Any]:
    """Return what a card says of a file that is not timed yet."""
    return {
        "runtime": runtime,
        "precision": precision,
        "bytes": path.stat().st_size,
        "sha256": artefact.sha256(path),
        "tensors": artefact.tensors(path, runtime),
        "setting": None,
        "measured_ms": None,
    }


def _told(checked: Checked, precision: str) -> dict[str, Any]:
    """Return what a card says of a check; fp32's accuracy is the network's."""
    told = {"max_relative_error": checked.max_relative_error, "agreement": checked.agreement}
    return told if precision == "fp32" else {**told, "accuracy": checked.accuracy, "test_images": checked.images}


def _time_files(files: dict[str, dict[str, Any]], folder: Path, device: "Device", run: "Run") -> None:
    """Time each file whole on the device, in the setting of its runtime and precision.

    One that is over the cap, and would be refused, is measured once more, and all rounds count.
    """
    from hwnas import tables
    from hwnas.measure import time_beside

    for name, entry in files.items():
        setting = _setting_for(entry["runtime"], entry["precision"], device, run)
        if setting is None or run.settings.predicted:
            continue
        table = tables.find_table(device, setting)
        (timed,) = time_beside(table, device, setting, {name: folder / name})
        measured_ms = tables.stated_ms(timed.measurement, table)
        if setting.name == run.settings.setting and measured_ms > run.settings.max_latency_ms:
            (again,) = time_beside(table, device, setting, {name: folder / name})
            measured_ms = tables.stated_ms(again.measurement.after(timed.measurement), table)
        entry["setting"] = setting.name
        entry["measured_ms"] = measured_ms
        entry["first_inference_ms"] = timed.other.first_ms
        entry["load_ms"] = timed.other.load_ms
        entry["peak_memory_bytes"] = timed.other.peak_memory_bytes


def _setting_for(runtime: str, precision: str, device: "Device", run: "Run") -> "Setting | None":
    """Return the run's own setting if it is of these, otherwise the device's first that is, or has the runtime."""
    from hwnas.device import Setting

    own = Setting.model_validate({"runtime": runtime, "precision": precision, "threads": run.settings.threads})
    if own.name == run.settings.setting:
        return own
    known = [setting for setting in device.settings if setting.runtime == runtime]
    chosen = next((setting for setting in known if setting.precision == precision), known[0] if known else None)
    return chosen and chosen.model_copy(update={"precision": precision})


def _card(
    run: "Run", record: dict[str, Any], network: "Network", files: dict[str, dict[str, Any]], weights_hash: str
) -> dict[str, Any]:
    from importlib import metadata

    return {
        "version": 1,
        "run": run.folder.resolve().name,
        "trial": record["trial"],
        "device": run.settings.device,
        "setting": run.settings.setting,
        "cap_ms": run.settings.max_latency_ms,
        "predicted_ms": record["predicted_ms"],
        "predicted_error": record["predicted_error"],
        "accuracy": {"test": record["test_accuracy"], "search": record["search_accuracy"]},
        "mult_adds": network.graph.mult_adds,
        "parameters": network.graph.parameters,
        "peak_activation_bytes": network.graph.peak_activation_bytes,
        "architecture": record["architecture"],
        "data": record["data"],
        "training": record["training"],
        "files": files,
        "weights_sha256": weights_hash,
        "versions": {
            **record["versions"],
            **{name: metadata.version(name) for name in ("onnx", "onnxruntime", "ai-edge-litert")},
        },
    }


def _refuse_over_cap(card: dict[str, Any], allowed: bool) -> None:
    """Raise ExportError where the file of the run's own setting was measured over the cap."""
    from hwnas.errors import ExportError

    for name, entry in card["files"].items():
        over = entry["setting"] == card["setting"] and entry["measured_ms"] > card["cap_ms"]
        if over and not allowed:
            raise ExportError(
                f"{name} must run in {card['cap_ms']:g} ms on {card['device']} ({card['setting']}); measured "
                f"{entry['measured_ms']:.3f} ms. Export another trial (--trial), or keep it with --allow-over-cap"
            )


def _line_of_csv(names: Sequence[str]) -> str:
    """Return names with commas between them, in quotes where they have some of their own."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def _metadata(record: dict[str, Any]) -> dict[str, str]:
    """Return what is written into the files themselves."""
    data = record["data"]
    return {
        "hwnas_trial": str(record["trial"]),
        "classes": _line_of_csv(data["classes"]),
        "mean": ",".join(f"{value:.8g}" for value in data["mean"]),
        "std": ",".join(f"{value:.8g}" for value in data["std"]),
    }
