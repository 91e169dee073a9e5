"""Caps on what a network may cost, and how far a candidate is from each."""

from dataclasses import asdict, dataclass

from hwnas.errors import InputError


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

    def excesses(self, *, latency_ms: float, mult_adds: float, parameters: float) -> dict[str, float]:
        """Return for each cap by what share of it the cost is above; at most 0 is feasible, as for Optuna."""
        costs = {"latency": latency_ms, "mult_adds": mult_adds, "parameters": parameters}
        caps = {"latency": self.max_latency_ms, "mult_adds": self.max_mult_adds, "parameters": self.max_parameters}
        return {name: costs[name] / cap - 1.0 for name, cap in caps.items() if cap is not None}
