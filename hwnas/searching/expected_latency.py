"""The latency that is to be expected where choices are drawn by their probabilities, and how it depends on them.

L(p) is the mean, over candidates whose choices are drawn each by itself, of what the latency table predicts of them at
one scale. Its derivative by the probability of a choice is the mean over candidates that have this choice and are drawn
else; a look takes one drawn candidate and exchanges its choices, so its mean is the derivative.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwnas import spaces
from hwnas.latency import CellCosts, Costs
from hwnas.searching.strategies import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network import Architecture
    from hwnas.searching.candidates import SpaceCandidates

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]


class ExpectedLatency:
    """Predicted latencies of a space's candidates at the scale at a place; choices are known by their places."""

    def __init__(self, candidates: "SpaceCandidates", at: int) -> None:
        self._candidates, self._at = candidates, at
        self.scale = candidates.costs.scales[at]
        self.choices = {name: known.choices for name, known in candidates.space.distributions().items()}
        self.sizes = {name: len(choices) for name, choices in self.choices.items()}

    def parameters(self, places: "Sequence[int] | Numbers") -> Parameters:
        """Return what is chosen at places [parameters]."""
        return {name: choices[place] for (name, choices), place in zip(self.choices.items(), places, strict=True)}

    def architecture(self, chosen: Parameters) -> "Architecture":
        """Return the network of a choice at the scale; equal for choices that differ in what does not matter."""
        architecture: Architecture = self._candidates.space.architecture(chosen, self.scale)
        return architecture

    def costs(self, chosen: Sequence[Parameters]) -> Costs:
        """Return what choices are predicted to cost: arrays [n, 1]."""
        costs = self._candidates.costs
        if not isinstance(costs, CellCosts):
            return costs.walked([[self.architecture(one)] for one in chosen])
        parts = Costs(*(np.zeros((len(chosen), 1)) for _ in range(4)))
        codes = [self._candidates.space.code(one) for one in chosen]
        for blocks in {code.shape[1] for code in codes}:
            rows = [row for row, code in enumerate(codes) if code.shape[1] == blocks]
            known = costs.of(np.concatenate([codes[row] for row in rows]))
            for name in ("ms", "upper_ms", "mult_adds", "parameters"):
                getattr(parts, name)[rows, 0] = getattr(known, name)[:, self._at]
        return parts

    def ms(self, chosen: Sequence[Parameters]) -> "Array":
        """Return predicted latencies [n]; of choices that are one network one is looked at."""
        networks = [self.architecture(one) for one in chosen]
        first = dict(zip(networks, chosen, strict=True))
        known = dict(zip(first, self.costs(list(first.values())).ms[:, 0], strict=True))
        return np.array([known[network] for network in networks])

    def by_choice(self, places: "Sequence[int] | Numbers", *, rows: Sequence[int]) -> "Array":
        """Return the latencies [rows, choices] of a candidate with each choice of some parameters in place of its own.

        Where a parameter has fewer choices there are zeros.
        """
        exchanged = [
            (row, place, self.parameters([*places[:row], place, *places[row + 1 :]]))
            for row in rows
            for place in range(self._size(row))
        ]
        table = np.zeros((len(rows), max(self.sizes.values())))
        for (row, place, _), ms in zip(exchanged, self.ms([chosen for *_, chosen in exchanged]), strict=True):
            table[rows.index(row), place] = ms
        return table

    def _size(self, row: int) -> int:
        return list(self.sizes.values())[row]

    def drawn(self, probabilities: "Array", random: np.random.Generator) -> list[int]:
        """Return the places [parameters] of choices, each drawn by its probability [parameters, choices]."""
        beyond = random.random(len(probabilities))[:, None] >= probabilities.cumsum(1)
        places: list[int] = np.minimum(beyond.sum(1), np.array(list(self.sizes.values())) - 1).tolist()
        return places

    def looked(self, probabilities: "Array", *, parameters: int, seed: int) -> "Array":
        """Return one look at the derivatives [parameters, choices], at some parameters; not numbers where it was not.

        Which parameters are looked at is drawn, too, so each is looked at as often.
        """
        random = np.random.default_rng(seed)
        places = self.drawn(probabilities, random)
        rows = sorted(random.choice(len(places), size=min(parameters, len(places)), replace=False).tolist())
        derivatives = np.full((len(places), max(self.sizes.values())), np.nan)
        derivatives[rows] = self.by_choice(places, rows=rows)
        return derivatives

    @property
    def parameters_a_look(self) -> int:
        """How many parameters are looked at together: cells are summed up at once, other networks have to be walked."""
        return 4 if spaces.grows(self._candidates.space) else 1
