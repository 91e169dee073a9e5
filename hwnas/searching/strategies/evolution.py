"""Regularised evolution (Real et al., 2019, section 3): the oldest die, and the best of a few have children.

The population is the study's latest trained candidates. A child is the best of a sample, half of the time crossed with
another one so chosen, with one parameter changed. With several latency targets a child's is drawn evenly, and what
counts in a sample is how a parent stands among those of its own target: by accuracy alone the largest target, with the
largest networks, takes the whole population. So it does by Pareto rank with accuracy breaking ties, as the most
accurate of a sample is always on the sample's front.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from optuna.trial import FrozenTrial

from hwnas.runs import TARGET
from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CROSSED = 0.5  # share of children with two parents


def sampler(context: Context, *, seed: int) -> "EvolutionSampler":
    """Return the sampler: a fifth of the search's trials as population, between 4 and the paper's 100."""
    return EvolutionSampler(context, size=min(100, max(4, context.trials // 5)), seed=seed)


class EvolutionSampler(Proposer):
    """Lets chance choose until the population is complete, and then breeds."""

    def __init__(self, context: Context, *, size: int, seed: int) -> None:
        super().__init__(context, seed=seed)
        self._size = size
        self._sample = min(size, round(2.5 * size**0.5))  # the paper's 25 of 100, and most of a small population
        self._changeable = [name for name, known in self._choices.items() if len(known) > 1 and name != TARGET]

    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield children, once there is a population."""
        population = complete[-self._size :]
        if len(population) < self._size or not self._changeable:
            return
        standing = _standing(population)
        while True:
            yield self._child(population, standing)

    def _child(self, population: Sequence[FrozenTrial], standing: "NDArray[np.float64]") -> Parameters:
        one = self._best_of_some(population, standing)
        other = self._best_of_some(population, standing) if self._random.random() < _CROSSED else one
        child = {name: self.one_of((one[name], other[name])) for name in self._choices}
        changed = self.one_of(self._changeable)
        child[changed] = self.one_of([choice for choice in self._choices[changed] if choice != child[changed]])
        if TARGET in child:
            child[TARGET] = self.one_of(self._choices[TARGET])
        return child

    def _best_of_some(self, population: Sequence[FrozenTrial], standing: "NDArray[np.float64]") -> Parameters:
        some = self._random.choice(len(population), size=self._sample, replace=False)
        best: FrozenTrial = population[int(some[standing[some].argmax()])]
        return cast(Parameters, best.params)


def _standing(population: Sequence[FrozenTrial]) -> "NDArray[np.float64]":
    """Return the share [n] of those at the same target that each one is better than; its own place counts half."""
    accuracy = np.array([trial.values[0] for trial in population])
    target = np.array([trial.params.get(TARGET, 1.0) for trial in population])
    same = target[:, None] == target
    standing: NDArray[np.float64] = ((same & (accuracy[:, None] > accuracy)).sum(axis=1) + 0.5) / same.sum(axis=1)
    return standing
