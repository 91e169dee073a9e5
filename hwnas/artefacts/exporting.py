"""Makes an artefact of a trained network: model files, card, README and code, checked and timed; whole or absent."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.artefacts.files import (
    CARD,
    CHECK,
    FILES,
    README,
    SCRIPT,
    again,
    put_in_place,
    settle,
    sha256,
    whole_card,
    writing,
)
from hwnas.errors import ExportError, InputError
from hwnas.formats import MEDIAPIPE, Form, Input, Memory, MetadataReader, checked_form
from hwnas.support import say

if TYPE_CHECKING:
    from hwnas.artefacts.card import Card, CheckEntry, FileEntry
    from hwnas.artefacts.published import Published
    from hwnas.artefacts.source import Purpose, TrainedNetwork
    from hwnas.device import Device
    from hwnas.runs import Run, WinnerFolder


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network: its card, as in card.json, and where its files are."""

    folder: str
    card: "Card"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of an artefact."""

    files: tuple[str, ...]
    form: Form
    explain: bool = False
    allow_over_cap: bool = False

    @classmethod
    def of(
        cls,
        files: tuple[str, ...],
        *,
        input: Input,
        batch: int | None,
        metadata: MetadataReader,
        explain: bool,
        allow_over_cap: bool,
    ) -> "Wanted":
        """Return what is asked for; raises InputError where the form of the files' inputs cannot be."""
        return cls(files, checked_form(input, batch, metadata), explain, allow_over_cap)

    def there(self, folder: Path) -> "Card | None":
        """Return the card of an artefact that is all of this already, whatever its weights."""
        card = whole_card(folder, self.files, self.form)
        return None if card and self.explain and not card.is_explained else card


def export_winner(
    run: "Run", folder: "WinnerFolder", target: Path, device: "Device", wanted: Wanted, *, place: int = 0
) -> Exported:
    """Export a trained winner for the device at a place of the run's, unless that is done already.

    Raises ExportError where it is refused, or its record or weights cannot be read, and InputError where the data have
    changed or the target cannot be written.
    """
    from hwnas.artefacts.source import Purpose, hash_weights, load_winner, read_record

    record, weights_sha256 = read_record(folder), hash_weights(folder)
    if place:
        record = record.on(run.settings.devices[place].name)
    with writing(target.parent):
        settle(target)
    _refuse_other_run(target, run)
    card = wanted.there(target)
    if card and card.weights_sha256 == weights_sha256 and not card.differs_from(record):
        say(f"trial {record.trial} is exported already, in {target}")
        return Exported(str(target), card)
    load = partial(load_winner, run, folder, record, weights_sha256)
    return _write(Purpose.of(run, place), load, target, device, wanted)


def _refuse_other_run(target: Path, run: "Run") -> None:
    """Raise InputError where the target is the artefact of another run, whose folder has the same name."""
    from hwnas.artefacts.card import Card

    try:
        study = Card.read(target / CARD, again=again(target)).study
    except InputError:  # there is none, or it is broken: it is written anew
        return
    if study not in (None, run.identity.study):
        raise InputError(
            f"{target} has an artefact of another run that is named {run.name}, and would be lost. Move it away, or "
            "choose another folder with --out"
        )


def export_published(published: "Published", out: Path, wanted: Wanted) -> Exported:
    """Export a published network, unless that is done already; raises what `export_winner` does."""
    from hwnas.artefacts.published import load_published
    from hwnas.device import load_device

    purpose = published.purpose
    target, device = out / purpose.name / str(published.resolution), load_device(purpose.device)
    weights_sha256 = published.weights_sha256
    with writing(target.parent):
        settle(target)
    card = wanted.there(target)
    if card and published.is_of(card):
        say(f"{purpose.name} is exported already, in {target}")
        return Exported(str(target), card)
    return _write(purpose, partial(load_published, published, weights_sha256), target, device, wanted)


def _write(
    purpose: "Purpose", load: "Callable[[], TrainedNetwork]", target: Path, device: "Device", wanted: Wanted
) -> Exported:
    """Write an artefact's folder beside its final name, and give it that name once all of it is there."""
    staging = target.with_name(f".{target.name}.part")
    try:
        with writing(target.parent):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        card = _fill(staging, target, purpose, load(), device, wanted)
        with writing(target.parent):
            put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(str(target), card)


def _fill(
    folder: Path, target: Path, purpose: "Purpose", trained: "TrainedNetwork", device: "Device", wanted: Wanted
) -> "Card":
    """Write an artefact's files, check and time them; return the card."""
    from hwnas.artefacts import texts
    from hwnas.artefacts.timing import explain_files, time_files, written_in
    from hwnas.artefacts.writing import take_check, write_checked
    from hwnas.support import write_text

    _refuse_unfit_for_mediapipe(trained.data.channels, wanted)
    images = wanted.form.batch or 1
    settings = {name: written_in(*FILES[name], device, purpose) for name in wanted.files}
    files = write_checked(
        trained.network,
        trained.dataset,
        folder,
        settings,
        trained.data.metadata(trained.trial),
        wanted.form,
        trusted=trained.is_trusted,
        explain=wanted.explain,
        checkpoint=target.with_name(f".{target.name}.{(trained.weights_sha256 or '')[:8]}.fine-tuning"),
    )
    if not wanted.allow_over_cap:
        own = {name: files[name] for name, setting in settings.items() if setting.name == purpose.setting}
        _refuse_over_memory(own, purpose)
    files = time_files(files, folder, device, purpose, images=images)
    if wanted.explain:
        files = explain_files(files, folder, device, purpose, images=images)
    check = take_check(trained.network, trained.dataset)
    with writing(target.parent):
        card = _card(purpose, trained, files, wanted.form, check.write(folder / CHECK))
        if not wanted.allow_over_cap:
            _refuse_over_cap(card)
        write_text(folder / README, texts.readme(card))
        write_text(folder / SCRIPT, texts.run_script(card))
        card = card.sealed({name: sha256(folder / name) for name in (README, SCRIPT)})
        card.write(folder / CARD)
    return card


def _refuse_unfit_for_mediapipe(channels: int, wanted: Wanted) -> None:
    """Raise InputError for what MediaPipe would not take, where files are to be for it."""
    if wanted.form.metadata != MEDIAPIPE:
        return
    if channels != 3:
        raise InputError(
            f"MediaPipe takes networks of images in colour; got {channels} channel{'s' * (channels > 1)}. Leave "
            "--metadata out, or train on images in colour"
        )
    integers = [name for name in wanted.files if FILES[name] == ("tflite", "int8")]
    if integers and wanted.form.input != "uint8":
        raise InputError(
            f"MediaPipe takes int8 files of bytes alone; got --input {wanted.form.input} for {', '.join(integers)}. "
            "Take --input uint8, or leave the file out with --files"
        )


def _card(
    purpose: "Purpose",
    trained: "TrainedNetwork",
    files: "dict[str, FileEntry]",
    form: Form,
    check: "CheckEntry",
) -> "Card":
    from importlib import metadata

    from hwnas.artefacts.card import Card

    graph = trained.network.graph
    writers = {name: metadata.version(name) for name in ("onnx", "onnxruntime", "ai-edge-litert")}
    return Card(
        version=Card.VERSION,
        run=purpose.name,
        trial=trained.trial,
        device=purpose.device,
        setting=purpose.setting,
        cap_ms=purpose.cap_ms if purpose.cap_ms < inf else None,
        max_file_kib=purpose.max_file_kib,
        max_activation_kib=purpose.max_activation_kib,
        predicted_ms=trained.predicted_ms,
        predicted_error=trained.predicted_error,
        accuracy=trained.accuracy,
        mult_adds=graph.mult_adds,
        parameters=graph.parameters,
        peak_activation_bytes=graph.peak_activation_bytes,
        architecture=trained.architecture,
        data=trained.data,
        training=trained.training,
        files=files,
        weights_sha256=trained.weights_sha256,
        versions={**trained.versions, **writers},
        input=form.input,
        batch=form.batch,
        metadata=form.metadata,
        check=check,
        study=purpose.study,
    )


def _refuse_over_memory(files: "Mapping[str, FileEntry]", purpose: "Purpose") -> None:
    """Raise ExportError where a file of the run's own setting is over a cap on memory."""
    for name, entry in files.items():
        known = Memory(entry.bytes, entry.arena_bytes).in_kib
        for cap, share in purpose.budget.excesses(**known).items():
            if share > 0:
                what = {"file_kib": "it", "activation_kib": "the arena of its activations"}[cap]
                raise ExportError(
                    f"{name} must be inside {purpose.budget.options([cap])}; {what} has {known[cap]:.1f} KiB. Export "
                    "another trial (--trial), or keep it with --allow-over-cap"
                )


def _refuse_over_cap(card: "Card") -> None:
    """Raise ExportError where the file of the run's own setting was measured over the cap, if there is one."""
    if card.cap_ms is None:
        return
    for name, entry in card.files.items():
        if entry.setting == card.setting and entry.measured_ms is not None and entry.measured_ms > card.cap_ms:
            raise ExportError(
                f"{name} must run in {card.cap_ms:g} ms on {card.device} ({card.setting}); {entry.how}: "
                f"{entry.measured_ms:.3f} ms. Export another trial (--trial), or keep it with --allow-over-cap"
            )
