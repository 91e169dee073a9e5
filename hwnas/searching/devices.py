"""The devices of a search: their caps, what their tables predict, and what networks were measured to take there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.latency import MeasuredLatency, together
from hwnas.searching.checks import costs_of_run

if TYPE_CHECKING:
    from hwnas.device import Device
    from hwnas.latency import CostModel, TimedNetwork
    from hwnas.runs import DeviceCap, SearchSettings


@dataclass(frozen=True, slots=True)
class SearchDevice:
    """A device of a search with its cap, and what its table predicts."""

    machine: "Device"
    cap: "DeviceCap"
    costs: "CostModel"
    measured_as: str  # by which its measurements are known in the study: the first's by nothing

    @property
    def canary_ms(self) -> float | None:
        """The canary by which its table states latencies."""
        return self.costs.table.canary_ms


def devices_of_run(settings: "SearchSettings") -> list[SearchDevice]:
    """Return a run's devices, the first one first; raises TableError where one has no table."""
    from hwnas.device import load_device

    devices: list[SearchDevice] = []
    for alone, cap in zip(settings.by_device, settings.devices, strict=True):
        machine = load_device(cap.device)
        costs = costs_of_run(alone, machine, machine.setting(cap.setting, threads=cap.threads))
        devices.append(SearchDevice(machine, cap, costs, cap.name if devices else ""))
    return devices


def costs_on(
    devices: Sequence[SearchDevice], measured: "Mapping[str, Sequence[TimedNetwork]] | None" = None
) -> "CostModel":
    """Return the costs on devices together, corrected by what was measured on each, by `measured_as`."""
    models = [
        device.costs.corrected_by(measured[device.measured_as]) if measured else device.costs for device in devices
    ]
    return together(models, [device.cap.max_latency_ms for device in devices])


def worst(devices: Sequence[SearchDevice], latencies: Sequence[MeasuredLatency]) -> MeasuredLatency:
    """Return a network's latencies as one: of several devices the largest shares of a cap, of one device its own."""
    if len(devices) == 1:
        return latencies[0]
    caps_ms = [device.cap.max_latency_ms for device in devices]
    return MeasuredLatency(
        max(latency.ms / cap_ms for latency, cap_ms in zip(latencies, caps_ms, strict=True)),
        max(latency.upper_ms / cap_ms for latency, cap_ms in zip(latencies, caps_ms, strict=True)),
    )
