"""Makes an artefact of a trained network: model files, card, README and code, checked and timed; whole or absent."""

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.artefacts.files import CARD, CHECK, FILES, README, SCRIPT, put_in_place, sha256, whole_card, writing
from hwnas.errors import InputError
from hwnas.formats import Form
from hwnas.support import say

if TYPE_CHECKING:
    from hwnas.artefacts.published import Published
    from hwnas.datasets import Dataset
    from hwnas.device import Device, Setting
    from hwnas.errors import ExportError
    from hwnas.runs import Run
    from hwnas.training import Network

_RECORD = {"trial", "architecture", "data", "training", "versions"}  # what a winner's record must have, among others
_RECORD |= {"test_accuracy", "search_accuracy", "predicted_ms", "predicted_error"}
_SAME = 1e-4  # difference of two means or deviations, of pixels from 0 to 1


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network: its card, as in card.json, and where its files are."""

    folder: str
    card: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of an artefact."""

    files: tuple[str, ...]
    form: Form
    explain: bool = False
    allow_over_cap: bool = False

    def there(self, folder: Path) -> dict[str, Any] | None:
        """Return the card of an artefact that is all of this already, whatever its weights."""
        card = whole_card(folder, self.files, self.form)
        return None if card and self.explain and _unexplained(card) else card


@dataclass(frozen=True, slots=True)
class _Trained:
    """A network with what its record says, and the data that it is checked on; random weights have no hash."""

    record: dict[str, Any]
    network: "Network"
    dataset: "Dataset"
    weights_hash: str | None


def export_winner(run: "Run", record_path: Path, target: Path, device: "Device", wanted: Wanted) -> Exported:
    """Export a trained winner by its record, unless that is done already."""
    record, weights = _read_record(record_path), record_path.with_name("weights.safetensors")
    weights_hash = _weights_hash(weights)
    card = wanted.there(target)
    if card and card.get("weights_sha256") == weights_hash:
        say(f"trial {record['trial']} is exported already, in {target}")
        return Exported(str(target), card)

    def load() -> _Trained:
        network = _load_network(record, weights)
        dataset = run.settings.dataset(network.graph.layers[0].shape[1])
        _refuse_other_data(record, dataset)
        return _Trained(record, network, dataset, weights_hash)

    return _write(run, load, target, device, wanted)


def export_published(asked: "Published", out: Path, wanted: Wanted) -> Exported:
    """Export a published network, unless that is done already."""
    from hwnas.artefacts import published
    from hwnas.device import load_device

    target, device = out / asked.name / str(asked.resolution), load_device(asked.settings.device)
    weights_hash = asked.weights_hash
    card = wanted.there(target)
    if card and asked.same(card):
        say(f"{asked.name} is exported already, in {target}")
        return Exported(str(target), card)

    def load() -> _Trained:
        return _Trained(*published.load(asked), weights_hash)

    return _write(asked, load, target, device, wanted)


def _write(
    run: "Run | Published", load: Callable[[], _Trained], target: Path, device: "Device", wanted: Wanted
) -> Exported:
    """Write an artefact's files, check and time them, and give the folder its final name."""
    from hwnas.artefacts import texts as export_texts
    from hwnas.artefacts.writing import take_check, write_checked
    from hwnas.support import write_json, write_text

    staging = target.with_name(f".{target.name}.part")
    try:
        with writing(target.parent):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        trained = load()
        record, network, dataset = trained.record, trained.network, trained.dataset
        files = write_checked(
            network,
            dataset,
            staging,
            {name: _written_in(*FILES[name], device, run) for name in wanted.files},
            _metadata(record),
            wanted.form,
            trusted=record["test_accuracy"] is not None,
            explain=wanted.explain,
            checkpoint=target.with_name(f".{target.name}.{(trained.weights_hash or '')[:8]}.fine-tuning"),
        )
        _time_files(files, staging, device, run, images=wanted.form.batch or 1)
        if wanted.explain:
            _explain(files, staging, device, run, images=wanted.form.batch or 1)
        check = take_check(network, dataset)
        with writing(target.parent):
            card = _card(run, record, network, files, trained.weights_hash)
            card |= {**wanted.form._asdict(), "check": check.write(staging / CHECK)}
        if not wanted.allow_over_cap:
            _refuse_over_cap(card)
        with writing(target.parent):
            write_json(staging / CARD, card)
            write_text(staging / README, export_texts.readme(card))
            write_text(staging / SCRIPT, export_texts.run_script(card))
            put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(str(target), card)


def _read_record(path: Path) -> dict[str, Any]:
    """Return a winner's record; raises InputError where it is broken."""
    from hwnas.support import read_json

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
        return sha256(weights)
    except OSError as error:
        raise _unreadable(weights, error.strerror or str(error)) from None


def _load_network(record: dict[str, Any], weights: Path) -> "Network":
    """Return the trained network; raises ExportError where the weights do not fit, or are no numbers."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from hwnas.network import Architecture
    from hwnas.training import Network

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


def _unexplained(card: dict[str, Any]) -> bool:
    """Whether a card has a file that was timed, but not without its rewrites."""
    timed = [entry for entry in card["files"].values() if entry["measured_ms"]]
    return any("ratio" not in found for entry in timed for found in entry.get("rewrites", {"": {}}).values())


def _explain(
    files: dict[str, dict[str, Any]], folder: Path, device: "Device", run: "Run | Published", *, images: int = 1
) -> None:
    """Time each file that was timed without each of its rewrites, and tell its entry what they save of an image."""
    from hwnas.artefacts.writing import variant
    from hwnas.latency import compare_rewrites

    for name, entry in files.items():
        variants = {rewrite: variant(folder / name, rewrite) for rewrite in entry["rewrites"]}
        setting = _setting_for(entry["runtime"], entry["precision"], device, run)
        if variants and setting and entry["measured_ms"]:
            for rewrite, worth in compare_rewrites(device, setting, folder / name, variants).items():
                shares = {"with_ms": worth.with_ms / images, "without_ms": worth.without_ms / images}
                entry["rewrites"][rewrite] |= {**shares, "ratio": worth.ratio}
        for path in variants.values():
            path.unlink()


def _time_files(
    files: dict[str, dict[str, Any]], folder: Path, device: "Device", run: "Run | Published", *, images: int = 1
) -> None:
    """Time each file whole on the device, in the setting of its runtime and precision; it takes `images` at once.

    What is stated is an image's share. One that is over the cap, and would be refused, is measured once more, and all
    rounds count.
    """
    from hwnas.latency import find_table, stated_ms, time_beside

    for name, entry in files.items():
        setting = _setting_for(entry["runtime"], entry["precision"], device, run)
        if setting is None or run.settings.predicted:
            continue
        table = find_table(device, setting)
        (timed,) = time_beside(table, device, setting, {name: folder / name})
        measured_ms = stated_ms(timed.measurement, table) / images
        if setting.name == run.settings.setting and measured_ms > run.settings.max_latency_ms:
            (again,) = time_beside(table, device, setting, {name: folder / name})
            measured_ms = stated_ms(again.measurement.after(timed.measurement), table) / images
        entry["setting"] = setting.name
        entry["measured_ms"] = measured_ms
        entry["first_inference_ms"] = timed.other.first_ms
        entry["load_ms"] = timed.other.load_ms
        entry["peak_memory_bytes"] = timed.other.peak_memory_bytes


def _setting_for(runtime: str, precision: str, device: "Device", run: "Run | Published") -> "Setting | None":
    """Return the run's own setting if it is of these, otherwise the device's first that is, or has the runtime."""
    from hwnas.device import Setting
    from hwnas.latency import as_measured

    own = Setting.model_validate({"runtime": runtime, "precision": precision, "threads": run.settings.threads})
    if own.name == run.settings.setting:
        return as_measured(device, own)
    known = [setting for setting in device.settings if setting.runtime == runtime]
    chosen = next((setting for setting in known if setting.precision == precision), known[0] if known else None)
    return chosen and as_measured(device, chosen.model_copy(update={"precision": precision}))


def _written_in(runtime: str, precision: str, device: "Device", run: "Run | Published") -> "Setting":
    """Return the setting that a file is timed in, or any where the device has none of its runtime."""
    from hwnas.device import Setting

    timed = _setting_for(runtime, precision, device, run)
    return timed or Setting.model_validate({"runtime": runtime, "precision": precision})


def _card(
    run: "Run | Published",
    record: dict[str, Any],
    network: "Network",
    files: dict[str, dict[str, Any]],
    weights_hash: str | None,
) -> dict[str, Any]:
    from importlib import metadata

    cap_ms = run.settings.max_latency_ms
    return {
        "version": 1,
        "run": run.name,
        "trial": record["trial"],
        "device": run.settings.device,
        "setting": run.settings.setting,
        "cap_ms": cap_ms if cap_ms < inf else None,
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


def _refuse_over_cap(card: dict[str, Any]) -> None:
    """Raise ExportError where the file of the run's own setting was measured over the cap, if there is one."""
    from hwnas.errors import ExportError

    cap_ms = inf if card["cap_ms"] is None else card["cap_ms"]
    for name, entry in card["files"].items():
        if entry["setting"] == card["setting"] and entry["measured_ms"] > cap_ms:
            raise ExportError(
                f"{name} must run in {cap_ms:g} ms on {card['device']} ({card['setting']}); measured "
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
    trial = {} if record["trial"] is None else {"hwnas_trial": str(record["trial"])}
    return trial | {
        "classes": _line_of_csv(data["classes"]),
        "mean": ",".join(f"{value:.8g}" for value in data["mean"]),
        "std": ",".join(f"{value:.8g}" for value in data["std"]),
    }
