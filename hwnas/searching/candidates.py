"""The candidates of a search space at latency targets: what `hwnas search` lets strategies choose from."""

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from hwnas.latency import Budget, CellCosts, CostModel, Costs
from hwnas.searching.strategies import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.distributions import CategoricalDistribution

    from hwnas.network import Architecture, Scale

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

    def excess(self, chosen: Parameters) -> float:
        """Return by what share a choice is over its target and the caps, summed, at the scale where that is least.

        As in `fits`, networks that have to be walked are walked at the smallest scale.
        """
        costs = self._costs_at(chosen, self.costs.scales[:1])
        return float(costs.excess(self.budget, target_ms=chosen["target"] * self.budget.max_latency_ms).min())

    def fitting_targets(self, chosen: Parameters) -> list[float]:
        """Return the targets that a choice fits at some scale, and the caps; as `fits`, whichever its own target is."""
        costs = self._costs_at(chosen, self.costs.scales[:1])
        return [target for target in self.targets if self._largest(costs, target) >= 0]

    def _fits(self, chosen: Parameters) -> bool:
        return self._largest(self._costs_at(chosen, self.costs.scales[:1]), chosen["target"]) >= 0

    def _largest(self, costs: Costs, target: float) -> int:
        """Return the place of the largest scale inside a target and the caps, or -1."""
        return int(costs.largest(self.budget, target_ms=target * self.budget.max_latency_ms)[0])

    def largest(self, chosen: Parameters) -> "tuple[Scale, float] | None":
        """Return the largest scale at which a choice fits its target and the caps, and the predicted latency in ms.

        Networks that have to be walked are walked at a few scales, as if larger ones never cost less.
        """
        if isinstance(self.costs, CellCosts):
            costs = self.costs_of(chosen)
            at = self._largest(costs, chosen["target"])
            return (self.costs.scales[at], float(costs.ms[0, at])) if at >= 0 else None

        def exceeds(scale: "Scale") -> bool:
            return self._largest(self._costs_at(chosen, [scale]), chosen["target"]) < 0

        networks: dict[Architecture, Scale] = {}  # each once: of some N does not matter
        for scale in sorted(self.costs.scales, key=lambda scale: scale.cells * (scale.filters * scale.resolution) ** 2):
            networks.setdefault(self.space.architecture(chosen, scale), scale)
        scales = list(networks.values())
        if not (fitting := bisect_left(scales, True, key=exceeds)):
            return None
        scale = scales[fitting - 1]
        return scale, float(self._costs_at(chosen, [scale]).ms[0, 0])

    def share_used(self, chosen: Parameters, *, is_measured: bool) -> float:
        """Return the largest share of its target and of the caps that a choice is predicted to use; 0 where none fits.

        That is at the scale that is measured first, or, where nothing is measured, at the one that is deployed.
        """
        costs = self.costs_of(chosen)
        costs = costs.expected() if is_measured else costs
        if (at := self._largest(costs, chosen["target"])) < 0:
            return 0.0
        target = replace(self.budget, max_latency_ms=chosen["target"] * self.budget.max_latency_ms)
        over = target.excesses(
            latency_ms=costs.upper_ms[0, at], mult_adds=costs.mult_adds[0, at], parameters=costs.parameters[0, at]
        )
        return 1.0 + float(max(over.values()))

    def costs_of(self, chosen: Parameters) -> Costs:
        """Return what a choice is predicted to cost at every scale: arrays [1, scales]."""
        return self._costs_at(chosen, self.costs.scales)

    def _costs_at(self, chosen: Parameters, scales: "Sequence[Scale]") -> Costs:
        """Return what a choice is predicted to cost at some scales, or at all of them where cells grow."""
        if isinstance(self.costs, CellCosts):
            return self.costs.of(self.space.code(chosen))
        return self.costs.walked([[self.space.architecture(chosen, scale) for scale in scales]])

    def identity(self, chosen: Parameters) -> Hashable:
        """Return the network at one scale, and the target: two choices may stand for one network.

        It is one of the most cells: fewer may leave out what was chosen.
        """
        most = self.costs.scales[-1].cells  # they rise
        scale = next(scale for scale in self.costs.scales if scale.cells == most)
        return self.space.architecture(chosen, scale), chosen["target"]

    def without_ignored(self, chosen: Parameters) -> Parameters:
        """Return the same candidate with the first choice of all that is ignored, where the space knows it."""
        same: Parameters = getattr(self.space, "without_ignored", dict)(chosen)
        return same

    def known_costs(self, chosen: Sequence[Parameters]) -> "Array":
        """Return the targets [n, 1]: the scale is the largest that the target allows."""
        return np.array([[one["target"]] for one in chosen]).reshape(-1, 1)

    def every(self) -> None:
        """Return nothing: the spaces are too large to be listed."""
        return
