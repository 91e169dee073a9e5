"""The devices of a search, each with a cap on the latency there: how they are typed, and what a run keeps of them.

--device pixel8=12ms,pi4/tflite-int8-4t=40ms
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hwnas.errors import InputError, short

if TYPE_CHECKING:
    from hwnas.device import Device, Setting
    from hwnas.support import AnyPath

_UNIT = "ms"
_RULE = "--device must be a name, or caps as NAME=MSms or NAME/SETTING=MSms, such as pixel8=12ms,pi4=40ms"


def _without_folder(name: str) -> str:
    """Return the name of a device that a record names by its file, as an older hwnas wrote it."""
    return Path(name).stem if name.endswith(".toml") else name


DeviceField = Annotated[str, AfterValidator(_without_folder)]  # of a record: the device's name, never its file


class DeviceCap(BaseModel):
    """A device and its setting, by their names, and the cap on the latency there, in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    device: DeviceField
    setting: str
    threads: int = Field(ge=1)
    max_latency_ms: float = Field(gt=0)

    @property
    def name(self) -> str:
        """The device and its setting, as in `pixel8/tflite-fp32-1t`."""
        return f"{self.device}/{self.setting}"

    def __str__(self) -> str:
        return f"{self.name}={repr(self.max_latency_ms).removesuffix('.0')}{_UNIT}"

    __repr__ = __str__  # in errors


@dataclass(frozen=True, slots=True)
class CappedDevice:
    """A device that is asked for, its setting, and the cap on the latency there in milliseconds."""

    machine: "Device"
    setting: "Setting"
    max_latency_ms: float

    @property
    def record(self) -> DeviceCap:
        """What a run keeps of it."""
        return DeviceCap(
            device=self.machine.name,
            setting=self.setting.name,
            threads=self.setting.threads,
            max_latency_ms=self.max_latency_ms,
        )


def has_caps(device: "AnyPath") -> bool:
    """Say whether caps stand behind the devices; a file's path may have an equals sign."""
    text = os.fspath(device)
    return "=" in text and not Path(text).is_file()


def capped_devices(
    device: "AnyPath", *, setting: str | None, threads: int | None, max_latency_ms: float | None
) -> list[CappedDevice]:
    """Return the devices that are asked for, the first one first: by caps in `device`, or by one cap beside it.

    Raises InputError where neither or both are given, for what is no cap, for two caps of one setting, and for a
    `setting` or `threads` of several devices; and what `named_device` raises.
    """
    from hwnas.device import named_device

    devices = []
    for name, of_device, cap_ms in _asked(os.fspath(device), setting, threads, max_latency_ms):
        machine = named_device(name)
        devices.append(CappedDevice(machine, machine.setting(of_device, threads=threads), cap_ms))
    (most, count), *_ = Counter(capped.record.name for capped in devices).most_common(1)
    if count > 1:
        raise InputError(f"a device's setting may have one cap; got {count} of {most} in --device {short(device)}")
    return devices


def _asked(
    text: str, setting: str | None, threads: int | None, max_latency_ms: float | None
) -> list[tuple[str, str | None, float]]:
    """Return name, setting and cap in milliseconds of each device; raises InputError as `capped_devices` says."""
    if not has_caps(text):
        if max_latency_ms is None:
            raise InputError(
                "--max-latency-ms must be given, or a cap behind the device; got neither. Add --max-latency-ms MS, or "
                f"type: --device {text}=MS{_UNIT}"
            )
        return [(text, setting, max_latency_ms)]
    if max_latency_ms is not None:
        raise InputError(
            f"--max-latency-ms is the cap of a device without one; got {max_latency_ms:g} beside --device "
            f"{short(text)}. Leave one of them out"
        )
    asked = list(_read(text))
    if (setting, threads) != (None, None) and (len(asked) > 1 or asked[0][1]):
        raise InputError(
            f"--setting and --threads are of one device that names no setting; got them beside --device {short(text)}. "
            "Leave them out, and write NAME/SETTING=MSms"
        )
    return [(name, of_device or setting, cap_ms) for name, of_device, cap_ms in asked]


def _read(text: str) -> Iterator[tuple[str, str | None, float]]:
    """Yield name, setting and cap in milliseconds of each device; raises InputError for what is none."""
    for part in text.split(","):
        asked, _, cap = (word.strip() for word in part.rpartition("="))
        name, _, setting = ("", "", asked) if asked.endswith(".toml") else asked.rpartition("/")
        cap_ms = _milliseconds(cap)
        if not asked or cap_ms is None or (name and not setting):
            raise InputError(f"{_RULE}; got {short(part)}")
        yield (name, setting, cap_ms) if name else (asked, None, cap_ms)


def _milliseconds(cap: str) -> float | None:
    """Return a cap as in `12ms`, or None for what is none."""
    try:
        ms = float(cap.removesuffix(_UNIT)) if cap.endswith(_UNIT) else 0.0
    except ValueError:
        return None
    return ms if 0 < ms < inf else None
