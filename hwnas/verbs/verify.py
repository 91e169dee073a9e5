"""`hwnas verify`: checks an artefact's files against PyTorch, and what a device computes against this machine.

It needs the files alone, and no torch: check.npz holds test images and what PyTorch computed of them.
On an emulated device, which has no latency, it also says how many instructions an inference executes.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hwnas.artefacts import CARD, MAX_RELATIVE_ERROR, MIN_AGREEMENT, compare_logits, read_check
from hwnas.errors import InputError
from hwnas.support import MAX_SEED, AnyPath, Options, commands
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.artefacts import Comparison, FileEntry
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
    `same_runtime` tells whether the device's runtime is this machine's, in the same version.
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

    @property
    def fine(self) -> bool:
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

    artefact: AnyPath = Field(kw_only=False, description="an artefact's folder: export/RUN/TRIAL")
    device: AnyPath | None = Field(
        default=None, description="device: a file devices/NAME.toml, or its path; without it the run's"
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="seed of every random choice")


@takes(VerifyOptions)
def verify(options: VerifyOptions) -> list[Verified]:
    """Check an artefact's files: their SHA-256, what they compute here beside PyTorch, and on a device beside here.

    Each file is run in the device's first setting of its runtime; files of other runtimes are left out. Raises
    InputError for a folder without a card or check.npz, for missing files and for a device with none of the runtimes,
    ExportError for files that were changed, and DeviceError.
    """
    from hwnas import formats
    from hwnas.artefacts import Card, again
    from hwnas.device import load_device

    folder = Path(options.artefact)
    card = Card.read(folder / CARD, again=again(folder))
    check = read_check(folder, card)
    machine = load_device(str(options.device or card.device))
    _check_computes(machine, folder)
    settings = _settings(card.files, folder, machine)
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
    return [
        _with_check(verified, beside_pytorch[verified.file]) if verified.file in beside_pytorch else verified
        for setting, files in settings.items()
        for verified in verify_files(files, machine, setting, seed=options.seed)
    ]


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
    """Return a card's files by the setting that they are run in: the device's first of their runtime."""
    first = {setting.runtime: setting for setting in reversed(device.settings)}
    by_setting: dict[Setting, dict[str, Path]] = {}
    for name, entry in entries.items():
        if entry.runtime in first:
            setting = first[entry.runtime].model_copy(update={"precision": entry.precision})  # it is read from the file
            by_setting.setdefault(setting, {})[name] = folder / name
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
    from hwnas.latency import compute_models

    this = Device(name="this-machine", python=sys.executable, settings=(setting,))
    here = compute_models(this, setting, files, seed=seed)
    there = compute_models(device, setting, files, seed=seed)
    return [_compare(here[name], there[name], device, setting) for name in files]


def _compare(here: "Computed", there: "Computed", device: "Device", setting: "Setting") -> Verified:
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
        same_runtime=here.runtime == there.runtime,
    )


def _relative_error(expected: "Array", got: "Array") -> float:
    wanted: Any = expected.astype(float)
    return float(abs(wanted - got).max() / (abs(wanted).max() or 1.0))
