"""Where a device's latency tables are, and whether one was measured under the conditions at hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.device import Device, Setting, folders
from hwnas.errors import TableError
from hwnas.latency import LatencyTable


def own_path(device: Device, setting: Setting) -> Path:
    """Return where `profile` writes: ./latency_tables/NAME/SETTING.json."""
    return Path.cwd() / "latency_tables" / device.name / f"{setting.name}.json"


def open_table(device: Device, setting: Setting) -> LatencyTable:
    """Read the table of a device's setting, the user's own before one that hwnas ships.

    Raises TableError, with the command that makes one, where there is none.
    """
    for folder in folders("latency_tables"):
        path = folder / device.name / f"{setting.name}.json"
        if path.is_file():
            return LatencyTable.read(path)
    raise TableError(
        f"device {device.name} must be profiled in setting {setting.name} first; there is no "
        f"latency_tables/{device.name}/{setting.name}.json. Type: hwnas profile {device.name} --setting {setting.name}"
    )


def check_conditions(table: LatencyTable, now: Mapping[str, Any]) -> None:
    """Raise TableError, naming the fields, where a table's conditions are not those of the device now."""
    differing = [
        f"{name} was {table.conditions.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if table.conditions.get(name) != value
    ]
    if differing:
        raise TableError(
            f"{table.path} was measured under other conditions: {'; '.join(differing)}. "
            f"Measure anew: hwnas profile {table.device} --fresh"
        )
