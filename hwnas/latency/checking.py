"""Whether a latency table's file is fine, for `hwnas tables check`, and whether it fits this machine as it is now."""

from dataclasses import dataclass
from pathlib import Path

from hwnas.device import load_device
from hwnas.errors import HwnasError, TableError
from hwnas.latency.table import LatencyTable
from hwnas.latency.where import check_conditions
from hwnas.network import UnreadableArchitecture
from hwnas.support import commands


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """Whether a table's file is fine, and else what is wrong; `fits_now` is None where the device was not asked."""

    path: str
    fine: bool
    problem: str = ""
    fits_now: bool | None = None
    remark: str = ""


def checked(path: Path) -> CheckedTable:
    """Return whether a table's file is fine, and whether it fits this machine where it is of it."""
    try:
        table = LatencyTable.read(path)
        _check_place(table)
        _check_networks(table)
    except HwnasError as error:
        return CheckedTable(str(path), fine=False, problem=str(error))
    fits_now, remark = _fits_now(table)
    return CheckedTable(str(path), fine=True, fits_now=fits_now, remark=remark)


def _check_place(table: LatencyTable) -> None:
    """Raise TableError where a table lies in the folder of another device or under another setting's name."""
    inside = f"{table.device}/{table.setting.name}.json"
    if table.path.absolute().parts[-3] == "latency_tables" and not table.path.absolute().match(inside):
        raise TableError(
            f"{table.path} must be what its path says; it is of device {table.device} in setting "
            f"{table.setting.name}. Move it to latency_tables/{inside}"
        )


def _check_networks(table: LatencyTable) -> None:
    for number, network in enumerate(table.networks):
        if isinstance(network.architecture, UnreadableArchitecture):
            raise TableError(
                f"{table.path}: network {number} must be an architecture: {network.architecture.size}. "
                f"Delete its line and measure another: {table.again()}"
            )


def _fits_now(table: LatencyTable) -> tuple[bool | None, str]:
    """Return whether the table of a device that is this machine fits it now, and what to say of it."""
    from hwnas.latency.measure import read_conditions

    try:
        device = load_device(table.device)
        if device.transport != "local":
            return None, f"whether it fits {device.name} as it is now: {commands.devices()}"
        now = read_conditions(device, table.setting).fingerprint
    except HwnasError as error:
        return None, str(error)
    try:
        check_conditions(table, now)
    except TableError as error:
        return False, str(error)
    return True, "it fits this machine"
