"""The candidates that probabilities of choices stand for: probable ones that use a latency target, 95 to 100 % of it.

Among those that are drawn, and those that differ from the best so far in one choice, candidates are ranked by how
probable they are; what is outside the band comes behind. Nothing is trained or measured.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from hwnas.searching.expected_latency import ExpectedLatency
from hwnas.searching.strategies import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.latency import Budget
    from hwnas.network import Architecture

    Array = NDArray[np.float64]

_BAND = 0.95  # share of the target that is to be used
_DRAWN = 32  # candidates, beside the most probable one
_NEIGHBOURS = 32  # of a candidate that are looked at
_ROUNDS = 24  # candidates whose neighbours are looked at
_IN_VAIN = 8  # of them without one nearer to the band: then there is none
_SPARE = 2  # times as many as are wanted: some may be measured over the cap
_LEAST = 1e-9  # probability of a choice that is as good as impossible


@dataclass(order=True, slots=True)
class _Known:
    """A candidate; the least is the best."""

    outside: float  # how far its share of the target is outside the band; beyond 1 where another cap is exceeded
    improbability: float
    places: tuple[int, ...]
    share: float = field(compare=False)


class _Derivation:
    def __init__(
        self, latency: ExpectedLatency, probabilities: "Array", budget: "Budget", target_ms: float, seed: int
    ) -> None:
        self.latency, self.budget, self.target_ms = latency, budget, target_ms
        self.probabilities = probabilities
        self.random = np.random.default_rng(seed)
        self.known: dict[Architecture, _Known] = {}
        self.ahead: list[_Known] = []  # whose neighbours were not looked at, a heap
        self.in_vain = 0  # looks in a row after which the nearest to the band was as far from it

    def look(self, drawn: Iterable[Sequence[int]]) -> None:
        """Look at what candidates cost."""
        chosen = {self.latency.architecture(self.latency.parameters(places)): tuple(places) for places in drawn}
        new = {network: places for network, places in chosen.items() if network not in self.known}
        if not new:
            return
        nearest = self._nearest()
        costs = self.latency.costs([self.latency.parameters(places) for places in new.values()])
        inside = np.broadcast_to(
            self.budget.inside(mult_adds=costs.mult_adds, parameters=costs.parameters), costs.ms.shape
        )
        for (network, places), ms, fits in zip(new.items(), costs.upper_ms[:, 0], inside[:, 0], strict=True):
            share = float(ms) / self.target_ms
            outside = max(_BAND - share, share - 1.0, 0.0) + (not fits)
            self.known[network] = one = _Known(outside, self.improbability(places), places, share)
            heapq.heappush(self.ahead, one)
        self.in_vain = self.in_vain + 1 if self._nearest() == nearest > 0 else 0

    def _nearest(self) -> float:
        return min((one.outside for one in self.known.values()), default=inf)

    @property
    def found(self) -> int:
        """How many candidates are inside the band."""
        return sum(not one.outside for one in self.known.values())

    def improbability(self, places: Sequence[int]) -> float:
        """Return how improbable a candidate is: minus the logarithm of its probability."""
        chosen = self.probabilities[np.arange(len(places)), list(places)]
        return float(-np.log(np.maximum(chosen, _LEAST)).sum())

    def neighbours(self, places: Sequence[int]) -> list[list[int]]:
        """Return some of what differs in one choice, probable ones rather than others."""
        neighbours = []
        for _ in range(_NEIGHBOURS):
            row = int(self.random.integers(len(places)))
            weights = np.sqrt(self.probabilities[row])
            at = int(self.random.choice(len(weights), p=weights / weights.sum()))
            neighbours.append([*places[:row], at, *places[row + 1 :]])
        return neighbours

    def ranked(self) -> list[_Known]:
        """Return the candidates that fit, the best first; where none does, the nearest: they may fit when smaller."""
        fit = [one for one in self.known.values() if one.share <= 1.0 and one.outside < 1.0]
        if not fit:
            return sorted(self.known.values())
        return sorted(fit, key=lambda one: (one.outside > 0, one.improbability, one.places))


def derive_candidates(
    latency: ExpectedLatency,
    probabilities: "Array",
    budget: "Budget",
    *,
    target: float,
    wanted: int,
    seed: int,
) -> Sequence[Parameters]:
    """Return candidates at a target, a share of the cap: first those that use 95 % of it, by falling probability.

    `probabilities` are [parameters, choices]. There are twice as many as are wanted, or as many as are found.
    """
    derivation = _Derivation(latency, probabilities, budget, target * budget.max_latency_ms, seed)
    likeliest: list[int] = probabilities.argmax(1).tolist()
    derivation.look([likeliest, *(latency.drawn(probabilities, derivation.random) for _ in range(_DRAWN))])
    for _ in range(_ROUNDS):
        if not derivation.ahead or derivation.found >= _SPARE * wanted or derivation.in_vain >= _IN_VAIN:
            break
        derivation.look(derivation.neighbours(heapq.heappop(derivation.ahead).places))
    best = derivation.ranked()[: _SPARE * wanted]
    return [{**latency.parameters(one.places), "target": target} for one in best]
