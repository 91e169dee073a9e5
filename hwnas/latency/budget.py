"""Caps on what a network may cost: whether costs are inside them, and how far they are above each. Nobody else asks."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

from hwnas.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

CAPS = {  # by the names of `excesses`: the option of each
    "latency": "--max-latency-ms",
    "mult_adds": "--max-mult-adds",
    "parameters": "--max-parameters",
    "file_kib": "--max-file-kib",
    "activation_kib": "--max-activation-kib",
}
_Cost = TypeVar("_Cost", float, "Array")  # one network's, or those of many


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps on the deployed network: latency in milliseconds, and if wanted Mult-Adds, parameters and memory in KiB.

    The file is the exported one of the run's setting, without options of the export; of activations it is the arena of
    hwnas/formats/_tflite_arena.py. With several `devices`, their caps in words, the latency is the largest share of one
    of these, and its cap 1.
    """

    max_latency_ms: float
    max_mult_adds: float | None = None
    max_parameters: float | None = None
    max_file_kib: float | None = None
    max_activation_kib: float | None = None
    devices: str = ""

    def __post_init__(self) -> None:
        for name, cap in asdict(self).items():
            if name != "devices" and cap is not None and not cap > 0:
                raise InputError(f"{name.replace('_', '-')} must be above 0; got {cap:g}")

    @property
    def caps(self) -> Mapping[str, float]:
        """The caps that there are, by the names of `excesses`."""
        caps = (
            *(self.max_latency_ms, self.max_mult_adds, self.max_parameters),
            *(self.max_file_kib, self.max_activation_kib),
        )
        return {name: cap for name, cap in zip(CAPS, caps, strict=True) if cap is not None}

    @property
    def has_memory(self) -> bool:
        """Whether there is a cap on the file or on the activations."""
        return self.max_file_kib is not None or self.max_activation_kib is not None

    def options(self, names: Container[str] = CAPS, *, joined_by: str = " or ") -> str:
        """Return the options of the caps that there are, or of some by the names of `excesses`, with what was got."""
        options = {name: f"{CAPS[name]} (got {cap:.10g})" for name, cap in self.caps.items() if name in names}
        if self.devices and "latency" in options:
            options["latency"] = f"the caps in --device (got {self.devices})"
        return joined_by.join(options.values())

    def excesses(
        self,
        *,
        latency_ms: _Cost | None = None,
        mult_adds: _Cost | None = None,
        parameters: _Cost | None = None,
        file_kib: _Cost | None = None,
        activation_kib: _Cost | None = None,
    ) -> dict[str, _Cost]:
        """Return for each cap by what share the cost, if given, is above; at most 0 is feasible, as for Optuna."""
        compared = self._compared(latency_ms, mult_adds, parameters, file_kib, activation_kib)
        return {name: (cost - cap) / cap for name, cost, cap in compared}  # 0 for exactly the cap

    def inside(
        self,
        *,
        mult_adds: _Cost | None = None,
        parameters: _Cost | None = None,
        latency_ms: _Cost | None = None,
        file_kib: _Cost | None = None,
        activation_kib: _Cost | None = None,
        target_ms: "Array | float | None" = None,
    ) -> "bool | Flags":
        """Say whether costs, those that are given, are inside the caps; `target_ms` is in place of the latency's."""
        within: bool | Flags = True
        for name, cost, cap in self._compared(latency_ms, mult_adds, parameters, file_kib, activation_kib):
            within = within & (cost <= (target_ms if name == "latency" and target_ms is not None else cap))
        return within

    def _compared(self, *costs: _Cost | None) -> Iterator[tuple[str, _Cost, float]]:
        """Yield each cost that is known and has a cap, by name, with its cap; they are in the order of CAPS."""
        caps = self.caps
        for name, cost in zip(CAPS, costs, strict=True):
            if cost is not None and name in caps:
                yield name, cost, caps[name]
