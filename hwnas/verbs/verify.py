"""`hwnas verify`: checks an artefact's files against PyTorch, and what a device computes against this machine.

It needs the files alone, and no torch: check.npz holds test images and what PyTorch computed of them.
On an emulated device, which has no latency, it also says how many instructions an inference executes; for a
microcontroller the arena that a file needs, and whether it fits in the board's memory, which the card keeps.
A model file by itself, and a network that is not trained yet, are compared between the device and this machine alone.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hwnas.artefacts import CARD, MAX_RELATIVE_ERROR, MIN_AGREEMENT, compare_logits, read_check
from hwnas.errors import DeviceError, InputError
from hwnas.support import MAX_SEED, AnyPath, Options, commands, plugins, say, temporary_folder
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.artefacts import Card, Comparison, FileEntry
    from hwnas.device import Device, Setting
    from hwnas.latency import Computed
    from hwnas.latency.measure import Array

_MAX_RELATIVE_ERROR = 1e-4  # of floating-point outputs; what is aimed at is 1e-5
_MAX_ROUNDING = 0.05  # of floating-point outputs of what computes in int8: another machine may round the other way
_MAX_STEPS = 2  # of integer outputs, in quantisation steps
_MAX_STEPS_ELSEWHERE = 12  # where the device's runtime is another one: LiteRT and tflite-runtime 2.14 differ by up to 8


@dataclass(frozen=True, slots=True)
class Verified:
    """One file on one device beside the same file here, both on the inputs that the seed makes.

    `relative_error` is the largest of a floating-point output's, relative to the largest output; `steps` the largest
    difference of an integer one's. `instructions` are those of one inference, None where the device does not count.
    `same_runtime` tells whether the device's runtime is this machine's, in the same version, or has its reference
    kernels, which then compute here, too. `arena_bytes` are those of the smallest arena that a microcontroller runs the
    file in, and `lacking` says what its board's memory lacks; empty where nothing does. `runtime` is the device's.
    `check_...` compare the file here with PyTorch, on the images of check.npz: the largest error of the logits relative
    to the largest one, and the shares of images whose class is PyTorch's, and the right one; None for a lone file.
    """

    file: str
    device: str
    setting: str
    relative_error: float | None
    steps: int | None
    instructions: int | None
    same_runtime: bool
    check_images: int | None = None
    check_error: float | None = None
    check_agreement: float | None = None
    check_accuracy: float | None = None
    arena_bytes: int | None = None
    lacking: str = ""
    runtime: str = ""

    @property
    def fine(self) -> bool:
        """Whether the file fits in the device's memory, and is computed as it should be."""
        return self.computes and not self.lacking

    @property
    def computes(self) -> bool:
        """Whether the device computes what this machine does, and this machine what PyTorch did; a NaN is not fine."""
        allowed = _MAX_ROUNDING if self.precision in ("int8", "dynamic") else _MAX_RELATIVE_ERROR
        steps = _MAX_STEPS if self.same_runtime else _MAX_STEPS_ELSEWHERE
        same = (self.relative_error or 0.0) <= allowed and (self.steps or 0) <= steps
        return same and self.as_pytorch

    @property
    def precision(self) -> str:
        """The file's precision, as in fp32."""
        return self.setting.split("-")[1]

    @property
    def as_pytorch(self) -> bool:
        """Whether this machine computes what PyTorch did: fp32 to 1e-4, others as a rule; true where none is known."""
        if self.precision == "fp32":
            return (self.check_error or 0.0) <= MAX_RELATIVE_ERROR
        return self.check_agreement is None or self.check_agreement >= MIN_AGREEMENT


class VerifyOptions(Options):
    """The options of `hwnas verify`."""

    artefact: AnyPath = Field(
        kw_only=False,
        description="an artefact's folder: export/RUN/TRIAL; one of its files, or any .tflite or .onnx; or a network "
        "that `hwnas describe` reads, which gets random weights and need not be trained",
    )
    device: AnyPath | None = Field(
        default=None, description="device: a file devices/NAME.toml, or its path; without it the run's, or host"
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="seed of every random choice")


@takes(VerifyOptions)
def verify(options: VerifyOptions) -> list[Verified]:
    """Check an artefact's files: their SHA-256, what they compute here beside PyTorch, and on a device beside here.

    Each file is run in the device's first setting of its runtime; files of other runtimes are left out, and on a
    microcontroller those of other precisions than its settings'. Raises InputError for a folder without a card or
    check.npz, for missing files and for a device with none of the runtimes, ExportError for files that were changed,
    and DeviceError.
    """
    path = Path(options.artefact)
    if _is_model(path) and (path.parent / CARD).exists():
        return _verify_artefact(path.parent, options, only=path.name)
    if _is_model(path):
        return _verify_lone(path, options)
    if _is_network(path):
        return _verify_network(path, options)
    return _verify_artefact(path, options)


def _is_model(path: Path) -> bool:
    return path.suffix in [plugins.load("formats", name).SUFFIX for name in plugins.names("formats")]


def _is_network(path: Path) -> bool:
    from hwnas.network import PUBLISHED

    return path.suffix in (".toml", ".json") or (not path.exists() and str(path) in PUBLISHED)


def _verify_artefact(folder: Path, options: VerifyOptions, *, only: str | None = None) -> list[Verified]:
    """Check an artefact's files, or the `only` one that is asked for."""
    from hwnas import formats
    from hwnas.artefacts import Card, again
    from hwnas.device import asked_device, load_device

    card = Card.read(folder / CARD, again=again(folder))
    check = read_check(folder, card)
    machine = asked_device(options.device) if options.device else load_device(card.device)
    _check_computes(machine, folder)
    settings = _settings(_asked_files(card, folder, only), folder, machine)
    images = check.images(card)
    beside_pytorch = {
        name: compare_logits(formats.get(setting.runtime).load(path)(images), check.logits, check.labels)
        for setting, files in settings.items()
        for name, path in files.items()
    }
    if not card.is_trained:  # random weights: in reduced precision their classes say nothing
        beside_pytorch = {
            name: comparison for name, comparison in beside_pytorch.items() if card.files[name].precision == "fp32"
        }
    found = [
        _with_check(verified, beside_pytorch[verified.file]) if verified.file in beside_pytorch else verified
        for setting, files in settings.items()
        for verified in verify_files(files, machine, setting, seed=options.seed)
    ]
    _keep(folder, card, found)
    return found


def _asked_files(card: "Card", folder: Path, only: str | None) -> "Mapping[str, FileEntry]":
    """Return a card's files, or the `only` one; raises InputError where it is none of them."""
    if only is None:
        return card.files
    if only not in card.files:
        raise InputError(
            f"a file beside {folder / CARD} must be one of the artefact's, {', '.join(card.files)}; got {only}. "
            f"Copy it elsewhere, or type: {commands.verify(folder)}"
        )
    return {only: card.files[only]}


def _keep(folder: Path, card: "Card", found: list[Verified]) -> None:
    """Keep in the card what was found to be fine for a microcontroller."""
    from hwnas.artefacts import MicroEntry, keep_verified
    from hwnas.formats import tflite

    kept = {
        verified.file: MicroEntry(
            device=verified.device,
            runtime=verified.runtime,
            arena_bytes=verified.arena_bytes,
            operators=tflite.operators_in(folder / verified.file),
            steps=verified.steps,
            relative_error=verified.relative_error,
        )
        for verified in found
        if verified.arena_bytes is not None and verified.fine
    }
    keep_verified(folder, card, kept)


def _verify_lone(path: Path, options: VerifyOptions) -> list[Verified]:
    """Compare a model file by itself on a device with here."""
    from hwnas.artefacts import FileEntry
    from hwnas.device import asked_device
    from hwnas.formats import tflite

    if not path.is_file():
        raise InputError(f"a model file must exist; got {path}")
    machine = asked_device(options.device or "host")
    _check_computes(machine, path)
    suffixes = {plugins.load("formats", name).SUFFIX: name for name in plugins.names("formats")}
    runtime = suffixes[path.suffix]
    precision = tflite.precision_of(path) if runtime == "tflite" else "fp32"
    entry = FileEntry(runtime=runtime, precision=precision, bytes=path.stat().st_size)
    ((setting, files),) = _settings({path.name: entry}, path.parent, machine).items()
    return verify_files(files, machine, setting, seed=options.seed)


def _verify_network(path: Path, options: VerifyOptions) -> list[Verified]:
    """Write a network with random weights for a device's first setting; compare the device with here."""
    from hwnas import formats
    from hwnas.device import asked_device
    from hwnas.latency import write_models
    from hwnas.verbs.describe import read_architecture

    machine = asked_device(options.device or "host")
    _check_computes(machine, path)
    setting, architecture = machine.setting(), read_architecture(path)
    lowered = formats.get(setting.runtime).lower(architecture.graph, without=setting.without)
    name = f"{path.name} (random weights)"
    with temporary_folder() as folder:
        files = write_models({name: lowered}, setting, folder, seed=options.seed)
        return verify_files(files, machine, setting, seed=options.seed)


def _check_computes(device: "Device", folder: Path) -> None:
    """Raise InputError, with the command that checks the files here, for a device without Python."""
    from hwnas.device.transports import runs_python

    if not runs_python(device):
        raise InputError(
            f"outputs come from a device with Python; {device.name} ({device.transport}) has none. "
            f"To check the files on this machine: {commands.verify(folder, device='host')}"
        )


def _with_check(verified: Verified, comparison: "Comparison") -> Verified:
    return replace(
        verified,
        check_images=comparison.images,
        check_error=comparison.max_relative_error,
        check_agreement=comparison.agreement,
        check_accuracy=comparison.accuracy,
    )


def _settings(entries: "Mapping[str, FileEntry]", folder: Path, device: "Device") -> "dict[Setting, dict[str, Path]]":
    """Return files by the setting that they are run in: the device's first of their runtime.

    A microcontroller runs files in the precisions of its settings alone.
    """
    from hwnas.device.transports import kernels_of

    first = {setting.runtime: setting for setting in reversed(device.settings)}
    known = {(setting.runtime, setting.precision) for setting in device.settings}
    left = [
        name
        for name, entry in entries.items()
        if entry.runtime in first and kernels_of(device) == "micro" and (entry.runtime, entry.precision) not in known
    ]
    by_setting: dict[Setting, dict[str, Path]] = {}
    for name, entry in entries.items():
        if entry.runtime in first and name not in left:
            setting = first[entry.runtime].model_copy(update={"precision": entry.precision})  # it is read from the file
            by_setting.setdefault(setting, {})[name] = folder / name
    settings = ", ".join(setting.name for setting in device.settings)
    if left and not by_setting:
        raise InputError(
            f"{device.name} runs files of its settings alone, {settings}; got {', '.join(left)}. TensorFlow Lite Micro "
            f"takes fp32 and int8. Export one: {commands.export(options={'files': 'model.int8.tflite'})}"
        )
    if left:
        say(f"left out, as {device.name} runs files of {settings} alone: {', '.join(left)}")
    if not by_setting:
        wanted = ", ".join(sorted({entry.runtime for entry in entries.values()}))
        raise InputError(
            f"{device.name} must have a setting of one of the artefact's runtimes, {wanted}; it has "
            f"{', '.join(first)}. Add one to devices/{device.name}.toml"
        )
    return by_setting


def verify_files(files: Mapping[str, Path], device: "Device", setting: "Setting", *, seed: int = 0) -> list[Verified]:
    """Run files (by name) of a setting's runtime on a device and here; return how they compare.

    Raises InputError for a missing file, and DeviceError.
    """
    from hwnas.device import Device
    from hwnas.device.transports import kernels_of
    from hwnas.latency import compute_models

    this = Device(name="this-machine", python=sys.executable, settings=(setting,))
    is_micro = kernels_of(device) == "micro"
    there = compute_models(device, setting, files, seed=seed)
    here = compute_models(this, setting, files, seed=seed, reference=is_micro)
    return [
        replace(
            _compare(here[name], there[name], device, setting, same_kernels=is_micro),
            lacking=_lacking(device, path.stat().st_size, there[name].arena_bytes or 0),
        )
        for name, path in files.items()
    ]


def _lacking(device: "Device", file_bytes: int, arena_bytes: int) -> str:
    """Return, in words, which of a board's memories a file or its arena does not fit in."""
    board = device.board
    if board is None:
        return ""
    needs = {
        "arena takes": (arena_bytes, board.ram_bytes, "RAM", "fewer --filters or a lower --resolution"),
        "file takes": (file_bytes, board.flash_bytes, "flash", "fewer --max-parameters"),
    }
    return "; ".join(
        f"the {what} {needed:,} bytes, and {device.name} has {there:,} of {memory}: search with {remedy}"
        for what, (needed, there, memory, remedy) in needs.items()
        if needed > there
    )


def _compare(
    here: "Computed", there: "Computed", device: "Device", setting: "Setting", *, same_kernels: bool = False
) -> Verified:
    if [_form(output) for output in here.outputs] != [_form(output) for output in there.outputs]:
        raise DeviceError(
            f"{here.name} must have the outputs on {device.name} that it has here, {_forms(here)}; got {_forms(there)}"
        )
    pairs = list(zip(here.outputs, there.outputs, strict=True))
    errors = [_relative_error(expected, got) for expected, got in pairs if expected.dtype.kind == "f"]
    steps = [int(abs(expected.astype(int) - got).max()) for expected, got in pairs if expected.dtype.kind != "f"]
    return Verified(
        file=here.name,
        device=device.name,
        setting=setting.name,
        relative_error=max(errors, default=None),
        steps=max(steps, default=None),
        instructions=there.instructions,
        same_runtime=same_kernels or here.runtime == there.runtime,
        arena_bytes=there.arena_bytes,
        runtime=there.runtime,
    )


def _form(output: "Array") -> tuple[object, ...]:
    return (output.dtype.name, *output.shape)


def _forms(computed: "Computed") -> str:
    return " and ".join(" x ".join(map(str, _form(output))) for output in computed.outputs) or "none"


def _relative_error(expected: "Array", got: "Array") -> float:
    wanted: Any = expected.astype(float)
    return float(abs(wanted - got).max() / (abs(wanted).max() or 1.0))
