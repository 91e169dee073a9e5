"""The candidates of a search space at latency targets: what `hwnas search` lets strategies choose from.

Memory takes some ten milliseconds a network, and is looked at last, of what is inside the other caps: whether a choice
fits it at all at the smallest scale, the largest scale by halving, as if larger ones never took less.
"""

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from hwnas.latency import Budget, CellCosts, CostModel, Costs, MemoryModel
from hwnas.searching.strategies import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.distributions import CategoricalDistribution

    from hwnas.network import Architecture, Scale

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SpaceCandidates:
    """Networks of a space, each at the largest scale that its latency target, a share of the cap, allows.

    Caps on memory are kept where `memory` is known.
    """

    space: ModuleType
    costs: CostModel
    budget: Budget
    targets: tuple[float, ...]
    memory: MemoryModel | None = None

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
        over = float(costs.excess(self.budget, target_ms=chosen["target"] * self.budget.max_latency_ms).min())
        return over + sum(max(share, 0.0) for share in self._memory_excesses(chosen, self.costs.scales[0]).values())

    def fitting_targets(self, chosen: Parameters) -> list[float]:
        """Return the targets that a choice fits at some scale, and the caps; as `fits`, whichever its own target is."""
        costs = self._costs_at(chosen, self.costs.scales[:1])
        fitting = [target for target in self.targets if self._places(costs, target)]
        return fitting if fitting and self._has_room(chosen, self.costs.scales[0]) else []

    def _fits(self, chosen: Parameters) -> bool:
        costs, smallest = self._costs_at(chosen, self.costs.scales[:1]), self.costs.scales[0]
        return bool(self._places(costs, chosen["target"])) and self._has_room(chosen, smallest)

    def _places(self, costs: Costs, target: float) -> list[int]:
        """Return the places of the scales inside a target and the caps, but for those on memory; the largest last."""
        fits = costs.fits(self.budget, target_ms=target * self.budget.max_latency_ms)[0]
        return sorted(np.flatnonzero(fits).tolist(), key=lambda place: (costs.mult_adds[0, place], -place))

    def _memory_excesses(self, chosen: Parameters, scale: "Scale") -> dict[str, float]:
        """Return for each cap on memory by what share a choice is above it at a scale."""
        if self.memory is None or not self.budget.has_memory:
            return {}
        return self.budget.excesses(**self.memory.of(self.space.architecture(chosen, scale)).in_kib)

    def _has_room(self, chosen: Parameters, scale: "Scale") -> bool:
        return max(self._memory_excesses(chosen, scale).values(), default=0.0) <= 0

    def _largest(self, chosen: Parameters, costs: Costs) -> int:
        """Return the place of the largest scale of all inside a choice's target and the caps, or -1."""
        places = self._places(costs, chosen["target"])
        if places and self._has_room(chosen, self.costs.scales[places[-1]]):
            return places[-1]
        fitting = bisect_left(places, True, key=lambda place: not self._has_room(chosen, self.costs.scales[place]))
        return places[fitting - 1] if fitting else -1

    def largest(self, chosen: Parameters) -> "tuple[Scale, float] | None":
        """Return the largest scale at which a choice fits its target and the caps, and the predicted latency in ms.

        Networks that have to be walked are walked at a few scales, as if larger ones never cost less.
        """
        if isinstance(self.costs, CellCosts):
            costs = self.costs_of(chosen)
            at = self._largest(chosen, costs)
            return (self.costs.scales[at], float(costs.ms[0, at])) if at >= 0 else None

        def exceeds(scale: "Scale") -> bool:
            costs = self._costs_at(chosen, [scale])
            return not (self._places(costs, chosen["target"]) and self._has_room(chosen, scale))

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
        at = self._largest(chosen, costs)
        return self._share(chosen, self.costs.scales[at], costs, at) if at >= 0 else 0.0

    def share_at(self, chosen: Parameters, at: int, *, slower: float) -> float:
        """Return what `share_used` does, at the scale of a place, of what is so many times slower than is predicted."""
        scale = self.costs.scales[at]
        costs = self._costs_at(chosen, [scale])
        slowed = replace(costs, upper_ms=slower * costs.ms)
        return self._share(chosen, scale, slowed, at if isinstance(self.costs, CellCosts) else 0)

    def slowness(self, chosen: Parameters, at: int, cost: float) -> float:
        """Return by what factor a choice that costs so much at the scale of a place is slower than is predicted."""
        return cost / float(self.costs_of(chosen).ms[0, at])

    def _share(self, chosen: Parameters, scale: "Scale", costs: Costs, at: int) -> float:
        target = replace(self.budget, max_latency_ms=chosen["target"] * self.budget.max_latency_ms)
        over = target.excesses(
            latency_ms=costs.upper_ms[0, at], mult_adds=costs.mult_adds[0, at], parameters=costs.parameters[0, at]
        )
        over |= self._memory_excesses(chosen, scale)
        return 1.0 + float(max(over.values()))

    def costs_of(self, chosen: Parameters) -> Costs:
        """Return what a choice is predicted to cost at every scale, but for memory: arrays [1, scales]."""
        return self._costs_at(chosen, self.costs.scales)

    def costs_with_memory(self, chosen: Parameters) -> Costs:
        """Return what a choice is predicted to cost at every scale, of memory where it has caps: arrays [1, scales]."""
        costs = self.costs_of(chosen)
        if self.memory is None or not self.budget.has_memory:
            return costs
        known = [self.memory.of(self.space.architecture(chosen, scale)).in_kib for scale in self.costs.scales]
        arrays = {name: np.array([[one[name] for one in known]], dtype=float) for name in known[0]}
        return replace(costs, **arrays)

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
