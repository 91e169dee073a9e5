"""Devices: what devices/NAME.toml says of a machine, and where such files and latency tables are looked for.

A device's settings (runtime, precision, threads) each have a latency table of their own.
"""

import os
import re
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PrivateAttr, ValidationError

from hwnas.errors import InputError, UnknownNameError, short
from hwnas.support import read_toml, reasons, root

_PACKAGE = Path(__file__).parent.parent
_SHIPPED = (_PACKAGE / "_shipped", _PACKAGE.parent)  # in a wheel; in a checkout


Accelerator = Literal["cpu", "gpu", "npu"]


class Setting(BaseModel):
    """How models are run on a device: one latency table belongs to each setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    precision: Literal["fp32", "fp16", "dynamic", "int8"] = "fp32"
    threads: int = Field(default=1, ge=1)
    accelerator: Accelerator = "cpu"  # another one than the CPU: adb, and vela, whose is the NPU
    without: tuple[str, ...] = ()  # rewrites that are slower there, as its table was measured to say

    @property
    def name(self) -> str:
        """The setting's name, as in `tflite-fp32-1t`, or `tflite-fp32-gpu-1t` where it is not for the CPU."""
        accelerator = "" if self.accelerator == "cpu" else f"-{self.accelerator}"
        return f"{self.runtime}-{self.precision}{accelerator}-{self.threads}t"

    def to_json(self) -> dict[str, Any]:
        """Return the setting as JSON values, which an older hwnas reads where it runs on the CPU."""
        return self.model_dump(mode="json", exclude={"accelerator"} if self.accelerator == "cpu" else None)


class Formula(BaseModel):
    """How long a pretended device takes for each operator of a file: its own time, its Mult-Adds, the bytes it moves.

    The defaults are about those of one core of a phone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    operator_us: float = Field(default=2.0, ge=0)
    convolution_ns: float = Field(default=0.05, ge=0)  # a Mult-Add of each kind, in floating point
    depthwise_ns: float = Field(default=0.2, ge=0)
    linear_ns: float = Field(default=0.2, ge=0)
    byte_ns: float = Field(default=0.05, ge=0)
    integer_share: float = Field(default=0.4, ge=0)  # of that time: a Mult-Add of 8-bit integers
    noise: float = Field(default=0.01, ge=0, le=1)  # a sample's standard deviation, as a share
    slow_every_s: float = Field(default=0.0, ge=0)  # every other stretch of so many seconds of work; 0: never
    slow_factor: float = Field(default=1.5, ge=1)  # is slower by this factor


class Board(BaseModel):
    """A microcontroller's memory, in which a model's arena and file must fit, and its clock; `source`: who says so."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ram_bytes: int = Field(ge=1)  # in one piece: an arena is
    flash_bytes: int = Field(ge=1)
    clock_mhz: float = Field(gt=0)  # for people
    source: str = ""


class Device(BaseModel):
    """A machine that models are timed on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")
    description: str = ""
    transport: str = "local"
    python: str = ""  # the interpreter that runs hwnas/device/runner.py there; empty: this one (local) or python3
    address: str = ""  # ssh: user@host or host
    port: int = Field(default=22, ge=1, le=65535)  # ssh
    known_hosts: Path = Path("~/.ssh/known_hosts")  # ssh: the file of host keys
    key: Path | None = None  # ssh: the user's private key; none: the agent's keys and the usual files
    folder: str = ""  # ssh, adb: where files are put there; empty: its temporary folder, /data/local/tmp
    serial: str = ""  # adb: which phone; empty: the only one that is attached
    adb: str = "adb"  # adb: the command
    benchmark_model: str = ""  # adb: TFLite's tool, a path here (it is pushed) or on the phone
    nnapi_accelerator: str = ""  # adb: which of the phone's NNAPI accelerators a setting's npu is
    cores: tuple[NonNegativeInt, ...] = ()  # adb: to pin to; empty: all
    formula: Formula = Formula()  # pretend
    accelerator_config: str = ""  # vela: the NPU, as in ethos-u55-128
    system_config: str = ""  # vela: its clock and memories, as in Ethos_U55_High_End_Embedded
    memory_mode: str = ""  # vela: what lies in which of them, as in Shared_Sram
    board: Board | None = None  # tflm; none: any memory will do
    settings: tuple[Setting, ...] = Field(min_length=1)
    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """The file that names all this; None for a device that hwnas ships or that was made in Python."""
        return self._file

    def setting(self, name: str | None = None, *, threads: int | None = None) -> Setting:
        """Return the setting of that name (the first one without a name), with another number of threads if given.

        Raises UnknownNameError, which lists the device's settings, and InputError for fewer than one thread.
        """
        chosen = self.settings[0] if name is None else self._named(name)
        if threads is None:
            return chosen
        if threads < 1:
            raise InputError(f"threads must be at least 1; got {threads}")
        return chosen.model_copy(update={"threads": threads})

    def _named(self, name: str) -> Setting:
        """Return the setting of that name, which may be one of the device's with another number of threads."""
        known = {setting.name: setting for setting in self.settings}
        kind, _, threads = name.rpartition("-")
        alike = next((setting for setting in self.settings if setting.name.rpartition("-")[0] == kind), None)
        if name in known:
            return known[name]
        if alike is None or not re.fullmatch("[1-9][0-9]{0,3}t", threads):
            raise UnknownNameError(f"setting of device {self.name}", name, known)
        return alike.model_copy(update={"threads": int(threads[:-1])})


def folders(kind: Literal["devices", "latency_tables", "export/zoo"]) -> list[Path]:
    """Return where files of this kind are looked for: the user's own folder first, then those that hwnas ships."""
    candidates = [root() / kind, *(shipped / kind for shipped in _SHIPPED)]
    return [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]


def load_device(name: str) -> Device:
    """Read devices/NAME.toml of the user's own folder or of those that hwnas ships; a path is no name.

    A record, such as a card or a run's settings, names a device: its file is never one that came with the record.
    Raises UnknownNameError, which lists the known devices, and InputError for a file that is not a device's.
    """
    known = {path.stem: path for folder in reversed(folders("devices")) for path in folder.glob("*.toml")}
    if name not in known:
        raise UnknownNameError("device", name, known, hint="A device is a file devices/NAME.toml")
    return read_device(known[name])


def asked_device(asked: str | PathLike[str]) -> Device:
    """Return the device that a user asks for: by its name, or by the path of its file, which ends in .toml.

    Raises what `load_device` does.
    """
    text = os.fspath(asked)
    return read_device(Path(text)) if text.endswith(".toml") and Path(text).is_file() else load_device(text)


def named_device(asked: str | PathLike[str]) -> Device:
    """Return the device that a user asks for, for a record that names it: later verbs find it by that name.

    Raises what `load_device` does, and InputError for a file that is not found so.
    """
    device = asked_device(asked)
    try:
        is_known = load_device(device.name).model_dump() == device.model_dump()
    except UnknownNameError:
        is_known = False
    if not is_known:
        raise InputError(
            f"a run and an artefact name their device by its name: {device.name} must stand for {asked}; it does not. "
            f"Copy that file to {root() / 'devices'}, or name the folder above its devices/ by HWNAS_ROOT"
        )
    return device


def read_device(path: Path) -> Device:
    """Read a device's file; raises InputError for one that is not."""
    try:
        device = Device.model_validate(read_toml(path, what="a device's file"))
    except ValidationError as error:
        raise InputError(
            f"a device's file must be TOML with name, transport and settings; {path}: {reasons(error)}"
        ) from None
    if device.name != path.stem:
        raise InputError(f"a device's name must be its file's name; {path} says {short(device.name)}")
    if path.absolute().parent not in [shipped / "devices" for shipped in _SHIPPED]:
        device._file = path.absolute()
    return device
