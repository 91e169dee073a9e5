"""Caps on what a network may cost: whether costs are inside them, and how far they are above each. Nobody else asks."""

from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

from hwnas.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

_OPTIONS = {"latency": "--max-latency-ms", "mult_adds": "--max-mult-adds", "parameters": "--max-parameters"}
_Cost = TypeVar("_Cost", float, "Array")  # one network's, or those of many


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps on the deployed network: latency in milliseconds, and if wanted Mult-Adds and parameters."""

    max_latency_ms: float
    max_mult_adds: float | None = None
    max_parameters: float | None = None

    def __post_init__(self) -> None:
        for name, cap in asdict(self).items():
            if cap is not None and not cap > 0:
                raise InputError(f"{name.replace('_', '-')} must be above 0; got {cap:g}")

    def options(self, names: Container[str] = _OPTIONS, *, joined_by: str = " or ") -> str:
        """Return the options of the caps that there are, or of some by the names of `excesses`, with what was got."""
        caps = {"latency": self.max_latency_ms, "mult_adds": self.max_mult_adds, "parameters": self.max_parameters}
        got = [f"{_OPTIONS[name]} (got {cap:.10g})" for name, cap in caps.items() if name in names and cap is not None]
        return joined_by.join(got)

    def excesses(self, *, latency_ms: _Cost, mult_adds: _Cost, parameters: _Cost) -> dict[str, _Cost]:
        """Return for each cap by what share of it the cost is above; at most 0 is feasible, as for Optuna."""
        compared = self._compared(latency_ms, mult_adds, parameters)
        return {name: (cost - cap) / cap for name, cost, cap in compared}  # 0 for exactly the cap

    def inside(
        self,
        *,
        mult_adds: _Cost,
        parameters: _Cost,
        latency_ms: _Cost | None = None,
        target_ms: "Array | float | None" = None,
    ) -> "bool | Flags":
        """Say whether costs, those that are given, are inside the caps; `target_ms` is in place of the latency's."""
        within: bool | Flags = True
        for name, cost, cap in self._compared(latency_ms, mult_adds, parameters):
            within = within & (cost <= (target_ms if name == "latency" and target_ms is not None else cap))
        return within

    def _compared(
        self, latency_ms: _Cost | None, mult_adds: _Cost, parameters: _Cost
    ) -> Iterator[tuple[str, _Cost, float]]:
        """Yield each cost that is known and has a cap, by name, with its cap."""
        if latency_ms is not None:
            yield "latency", latency_ms, self.max_latency_ms
        if self.max_mult_adds is not None:
            yield "mult_adds", mult_adds, self.max_mult_adds
        if self.max_parameters is not None:
            yield "parameters", parameters, self.max_parameters
