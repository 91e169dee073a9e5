"""The latency of an artefact's files: each is timed whole on the device, and where that is wanted without rewrites."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hwnas.artefacts.writing import variant

if TYPE_CHECKING:
    from hwnas.artefacts.card import FileEntry
    from hwnas.artefacts.source import Purpose
    from hwnas.device import Device, Setting
    from hwnas.latency import Conditions


def time_files(
    files: "Mapping[str, FileEntry]", folder: Path, device: "Device", purpose: "Purpose", *, images: int = 1
) -> "dict[str, FileEntry]":
    """Return the entries with what each file takes, in the setting of its runtime and precision; it takes `images`.

    What is stated is an image's share. One that is over the cap, and would be refused, is measured once more, and all
    rounds count.
    """
    return {name: _timed(entry, folder / name, device, purpose, images=images) for name, entry in files.items()}


def _timed(entry: "FileEntry", path: Path, device: "Device", purpose: "Purpose", *, images: int) -> "FileEntry":
    from hwnas.latency import find_table, stated_ms, time_beside

    setting = setting_for(entry.runtime, entry.precision, device, purpose)
    if setting is None or purpose.predicted:
        return entry
    table = find_table(device, setting)
    seen: list[Conditions] = []
    (timed,) = time_beside(table, device, setting, {path.name: path}, on_conditions=seen.append)
    measured_ms = stated_ms(timed.measurement, table) / images
    if setting.name == purpose.setting and measured_ms > purpose.cap_ms:
        (again,) = time_beside(table, device, setting, {path.name: path})
        measured_ms = stated_ms(again.measurement.after(timed.measurement), table) / images
    return entry.timed(
        setting.name,
        measured_ms,
        first_ms=timed.other.first_ms,
        load_ms=timed.other.load_ms,
        peak_memory_bytes=timed.other.peak_memory_bytes,
        placement=timed.measurement.placement,
        cpu=seen[0].cpu,
    )


def explain_files(
    files: "Mapping[str, FileEntry]", folder: Path, device: "Device", purpose: "Purpose", *, images: int = 1
) -> "dict[str, FileEntry]":
    """Return the entries with what each rewrite of a file that was timed saves; what was written for that goes."""
    return {name: _explained(entry, folder / name, device, purpose, images=images) for name, entry in files.items()}


def _explained(entry: "FileEntry", path: Path, device: "Device", purpose: "Purpose", *, images: int) -> "FileEntry":
    from hwnas.latency import compare_rewrites

    variants = {rewrite: variant(path, rewrite) for rewrite in entry.rewrites}
    setting = setting_for(entry.runtime, entry.precision, device, purpose)
    if variants and setting and entry.measured_ms:
        for rewrite, worth in compare_rewrites(device, setting, path, variants).items():
            entry = entry.explained(
                rewrite, with_ms=worth.with_ms / images, without_ms=worth.without_ms / images, ratio=worth.ratio
            )
    for written in variants.values():
        written.unlink()
    return entry


def setting_for(runtime: str, precision: str, device: "Device", purpose: "Purpose") -> "Setting | None":
    """Return the run's own setting if it is of these, otherwise the device's first that is.

    Where there is none it is the first of the runtime on the CPU, in this precision.
    """
    from hwnas.device import Accelerator, Setting
    from hwnas.latency import as_measured

    for accelerator in get_args(Accelerator):
        fields = {"runtime": runtime, "precision": precision, "threads": purpose.threads, "accelerator": accelerator}
        asked = Setting.model_validate(fields)
        if asked.name == purpose.setting:
            return as_measured(device, asked)
    known = [setting for setting in device.settings if setting.runtime == runtime]
    fitting = [setting for setting in known if setting.precision == precision]
    chosen = next(iter(fitting or [setting for setting in known if setting.accelerator == "cpu"]), None)
    return chosen and as_measured(device, chosen.model_copy(update={"precision": precision}))


def written_in(runtime: str, precision: str, device: "Device", purpose: "Purpose") -> "Setting":
    """Return the setting that a file is timed in, or any where the device has none of its runtime."""
    from hwnas.device import Setting

    timed_in = setting_for(runtime, precision, device, purpose)
    return timed_in or Setting.model_validate({"runtime": runtime, "precision": precision})
