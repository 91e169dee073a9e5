"""`hwnas doctor`: what is installed, which devices answer, which tables fit, what a first run needs and what disturbs.

It loads nothing heavy, writes nothing, and waits for no device longer than a few seconds.
"""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hwnas.errors import HwnasError
from hwnas.support import Options, commands, counted, duration, root
from hwnas.verbs._installed import Check, installed
from hwnas.verbs._takes import takes
from hwnas.verbs.devices import FoundDevice, FoundSetting, found_devices

if TYPE_CHECKING:
    from hwnas.device import Device
    from hwnas.latency import Conditions

_HOST = "host"
_BUSY_S = 30.0  # for this machine to answer
_WATCHED_S = 0.3  # for how long other programs are watched
_GIB = 2**30
_MEMORY = 1.5 * _GIB  # that a run on Fashion-MNIST took: docs/log.md
_DISK = 0.25 * _GIB  # less is little: a table, a run and its artefacts took 3 MiB, and images, caches and logs grow


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was looked at; `runs_here` says whether nothing of it stops a run on this machine, `next` what to type."""

    runs_here: bool
    checks: list[Check]
    next: str


class DoctorOptions(Options):
    """The options of `hwnas doctor`."""

    data: str | None = Field(
        default=None,
        description="a data set to look at, such as folder:PATH: all its images, as `hwnas run` does first",
    )
    reach: bool = Field(default=True, description="see whether each device answers; emulated ones are left out")
    patience_s: float = Field(default=5.0, gt=0, description="seconds that another device has to answer")


@takes(DoctorOptions)
def doctor(options: DoctorOptions) -> Diagnosis:
    """Say what is installed, which devices answer, which latency tables fit, and what a run would stumble over.

    Devices are reached as `devices` reaches them. Raises InputError for a patience that is not above 0.
    """
    disturbances = _disturbances()  # before anything is started
    checks = [*installed(), _memory(), _room(), *disturbances]
    for device in found_devices(lambda device: _patience_s(options, device)):
        checks += _device(device)
    checks.append(_data(options.data))
    runs_here = not any(check.needed and check.state == "broken" for check in checks)
    return Diagnosis(runs_here, checks, str(commands.init() if runs_here else commands.doctor()))


# Devices and their tables.


def _patience_s(options: DoctorOptions, device: "Device") -> float | None:
    """Return for how long a device is waited for: this machine is slow where it is busy, and never off."""
    from hwnas.device.transports import is_emulated

    if not options.reach or is_emulated(device):
        return None
    return max(_BUSY_S, options.patience_s) if device.name == _HOST else options.patience_s


def _device(device: FoundDevice) -> Iterator[Check]:
    """Yield what is to be said of a device: which settings answer, which do not and why, and of its tables."""
    about = f"device {device.name}"
    if device.problem:
        yield Check(about, "broken", device.problem, needed=device.name == _HOST)
        return
    answering = [setting for setting in device.settings if setting.reached]
    runtimes = ", ".join(dict.fromkeys(setting.runtime for setting in answering))
    if answering:
        names = ", ".join(setting.name for setting in answering)
        yield Check(about, "fine", f"{names} ({runtimes}); {device.description or device.transport}")
    elif all(setting.reached is None for setting in device.settings):
        yield Check(about, "fine", f"not tried; {device.description or device.transport}")
    for setting in device.settings:
        needed = device.name == _HOST and setting is device.settings[0]
        if setting.reached is False:
            yield Check(about, "broken", f"{setting.name}: {setting.missing}", setting.next, needed)
        if setting.table:
            yield _table(device, setting, needed=needed)
    if answering and device.transport != "pretend":
        yield from _untabled(device)


def _table(device: FoundDevice, setting: FoundSetting, *, needed: bool) -> Check:
    about = f"table {device.name}"
    if setting.reached and setting.missing:
        return Check(about, "broken", f"{setting.name}: {setting.missing}", setting.next, needed)
    fits = "fits the device as it is now" if setting.reached else "whether it fits is told when the device answers"
    return Check(about, "fine", f"{setting.table}: {fits}{_took(Path(str(setting.table)))}")


def _took(path: Path) -> str:
    """Return how long a table took to measure, where it tells."""
    from hwnas.latency import LatencyTable

    try:
        passed = [session.seconds for session in LatencyTable.read(path).sessions]
    except HwnasError:
        return ""
    known = [seconds for seconds in passed if seconds]
    return f"; measured in {duration(sum(known))}" if known else ""


def _untabled(device: FoundDevice) -> Iterator[Check]:
    """Yield what is to be said of the settings that were not measured yet."""
    missing = [setting for setting in device.settings if not setting.table]
    if missing:
        words = f"not measured yet: {', '.join(setting.name for setting in missing)}; search and run do so first"
        yield Check(f"table {device.name}", "advice", words, missing[0].next)


# What a run needs.


def _room() -> Check:
    free = shutil.disk_usage(_existing(root())).free
    words = f"{free / _GIB:.1f} GiB free in {root()}"
    if free >= _DISK:
        return Check("disk", "fine", words)
    return Check("disk", "advice", f"{words}, which is little: tables, checkpoints and artefacts go there", "df -h .")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _memory() -> Check:
    """Say how many cores and how much memory there are; what the system does not tell is left out."""
    from hwnas.device.runner import read_text

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = [line.split()[1] for line in read_text("/proc/meminfo").splitlines() if line.startswith("MemAvailable:")]
    if not told:
        return Check("machine", "fine", counted(cores, "core"))
    free = int(told[0]) * 1024
    words = f"{counted(cores, 'core')}, {free / _GIB:.1f} GiB of memory available"
    if free >= _MEMORY:
        return Check("machine", "fine", words)
    return Check("machine", "advice", f"{words}; a run on Fashion-MNIST takes {_MEMORY / _GIB:g}", "free -h")


def _data(name: str | None) -> Check:
    """Say what a data set is, and whether all its images can be read."""
    if name is None:
        words = "not looked at; a run needs images, one folder a class"
        return Check("data", "fine", words, str(commands.doctor(data="folder:PATH")))
    from hwnas import datasets

    try:
        dataset = datasets.load(name)
        dataset.check()
    except HwnasError as error:
        return Check("data", "broken", str(error), needed=True)
    images = f"{len(dataset.whole_train.labels):,} images to train on and {len(dataset.test.labels):,} to test"
    size = f"{dataset.resolution}x{dataset.resolution} pixels"
    words = f"{name}: {len(dataset.classes)} classes, {images}, {size}"
    return Check("data", "advice" if dataset.imbalance else "fine", dataset.imbalance or words)


# What disturbs measurements.


def _disturbances() -> list[Check]:
    """Say what would make measurements on this machine unsteady now."""
    from hwnas.latency import foreseen

    causes = foreseen(_conditions())
    if not causes:
        return [Check("steady", "fine", "nothing that the system tells would disturb measurements on this machine")]
    return [Check("steady", "advice", f"measurements would be unsteady: {cause}", remedy) for cause, remedy in causes]


def _conditions() -> "Conditions":
    """Return how this machine is, as far as that disturbs."""
    from hwnas.device import runner
    from hwnas.latency import Conditions

    others, cores = runner.Others(), runner.all_cores()
    time.sleep(_WATCHED_S)
    governor = runner.cpu_text(cores[0], "cpufreq/scaling_governor") or None
    return Conditions(governor=governor, others_busy=others.share(), **runner.throttling(cores))
