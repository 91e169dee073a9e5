"""Timing a run's networks after its search: with the same device, table and lock as its trials were timed with."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.searching.checks import check_table, costs_of_run
from hwnas.support import locked, private_folder

if TYPE_CHECKING:
    from hwnas.device import Device
    from hwnas.latency import LatencyTable
    from hwnas.network import Architecture
    from hwnas.runs import SearchSettings


def device_lock(device: "Device") -> Path:
    """Return the lock of whoever measures on a device: of all runs of a user, and of no other user."""
    return private_folder() / f"{device.name}.lock"


class Stopwatch:
    """Times networks on a run's device, which is asked for once one is to be timed."""

    def __init__(self, settings: "SearchSettings") -> None:
        self._settings = settings

    def time(self, network: "Architecture") -> tuple[float, float, str]:
        """Return a network's latency in ms, what is held against a cap: with the spread added, and who estimates it.

        Raises InputError, TableError and DeviceError where it cannot be timed as the search did.
        """
        from hwnas.latency import time_network

        device, table = self._device_and_table
        with locked(device_lock(device)):
            measurement = time_network(network.graph, device, table.setting, table=table, seed=self._settings.seed)
        return measurement.at(table.canary_ms), measurement.upper(table.canary_ms), measurement.estimated_by

    @cached_property
    def _device_and_table(self) -> "tuple[Device, LatencyTable]":
        from hwnas.device import load_device

        device = load_device(self._settings.device)
        setting = device.setting(self._settings.setting, threads=self._settings.threads)
        costs = costs_of_run(self._settings, device, setting)
        check_table(costs, self._settings, device, setting)
        return device, costs.table
