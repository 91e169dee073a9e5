"""The candidates of a search space at latency targets: what `hwnas search` lets strategies choose from."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from hwnas.latency import Budget, CellCosts, CostModel, Costs
from hwnas.searching.strategies import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.distributions import CategoricalDistribution

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SpaceCandidates:
    """Networks of a space, each at the largest scale that its latency target, a share of the cap, allows."""

    space: ModuleType
    costs: CostModel
    budget: Budget
    targets: tuple[float, ...]

    def distributions(self) -> "dict[str, CategoricalDistribution]":
        """Return the space's parameters and the target."""
        from optuna.distributions import CategoricalDistribution

        return {**self.space.distributions(), "target": CategoricalDistribution(self.targets)}

    def fits(self, chosen: Sequence[Parameters]) -> "Flags":
        """Say of each [n] whether it fits its target and the caps at some scale.

        Networks whose cells do not grow have to be walked; they are, at the smallest scale.
        """
        return np.array([self._fits(parameters) for parameters in chosen], dtype=bool)

    def _fits(self, chosen: Parameters) -> bool:
        return self._largest(chosen, self.costs_of(chosen, smallest=True)) >= 0

    def largest(self, chosen: Parameters) -> tuple[int, float] | None:
        """Return the place of the largest scale that a choice's target allows, and the predicted latency in ms there.

        Nothing is returned where it does not fit.
        """
        costs = self.costs_of(chosen, smallest=True)
        if self._largest(chosen, costs) < 0:
            return None
        if costs.ms.shape[1] < len(self.costs.scales):
            costs = self.costs_of(chosen)
        at = self._largest(chosen, costs)
        return at, float(costs.ms[0, at])

    def _largest(self, chosen: Parameters, costs: Costs) -> int:
        return int(costs.largest(self.budget, target_ms=chosen["target"] * self.budget.max_latency_ms)[0])

    def costs_of(self, chosen: Parameters, *, smallest: bool = False) -> Costs:
        """Return what a choice is predicted to cost at every scale, or the first: arrays [1, scales]."""
        if isinstance(self.costs, CellCosts):
            return self.costs.of(self.space.code(chosen))
        scales = self.costs.scales[:1] if smallest else self.costs.scales
        return self.costs.walked([[self.space.architecture(chosen, scale) for scale in scales]])

    def identity(self, chosen: Parameters) -> Hashable:
        """Return the network at one scale, and the target: two choices may stand for one network."""
        return self.space.architecture(chosen, self.costs.scales[0]), chosen["target"]

    def known_costs(self, chosen: Sequence[Parameters]) -> "Array":
        """Return the targets [n, 1]: the scale is the largest that the target allows."""
        return np.array([[one["target"]] for one in chosen]).reshape(-1, 1)

    def every(self) -> None:
        """Return nothing: the spaces are too large to be listed."""
        return
