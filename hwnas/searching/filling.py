"""The last trials of a search: candidates like the most accurate ones, at sizes at which they use the whole cap.

The largest scale that fits often leaves a fifth of a cap unused. So one of the best is taken, each in turn, and where
its space has an order of choices it is made deeper and wider, step by step at its own scale (or less so at the next),
until it is predicted to use 95 to 99 % of the caps: what was measured of it says how far its prediction is off, and so
that of what is like it. Elsewhere a few of its choices are changed. What is then measured to use less is left out
(hwnas/searching/evaluation.py), and another proposed.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from hwnas.runs import TARGET, scale_of
from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer
from hwnas.spaces.auto import SPACE

if TYPE_CHECKING:
    from hwnas.searching.candidates import SpaceCandidates

_PARENTS = 3  # the most accurate ones
_CHANGES = 3  # choices that differ from a parent's, at most
_LEAST, _MOST = 0.95, 0.99  # shares of the caps that are to be used: a measurement counts with its spread
_WALKS, _STEPS = 12, 12  # ways on which a parent is made larger or smaller, and their steps at most
_SCALES = 3  # on which that is tried, from the parent's on
_DRAWS = 30  # different children of a parent, of which those that use less come last
_IN_VAIN = 10  # times as many draws, after which there may be no other child
_Child = tuple[float, Parameters]  # with the share of the caps that it is predicted to use


class FillingSampler(Proposer):
    """Proposes candidates that use the largest target, like the most accurate ones of the study.

    `is_measured` says that scales are measured: those whose prediction fits are tried, its error not included.
    """

    def __init__(self, candidates: "SpaceCandidates", *, is_measured: bool, seed: int) -> None:
        super().__init__(Context(candidates, trials=0), seed=seed)
        self._space, self._is_measured = candidates, is_measured
        self._changeable = [
            name for name, known in self._choices.items() if len(known) > 1 and name not in (TARGET, SPACE)
        ]

    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield children of the best, first those that are predicted to use the target, then by falling use."""
        best = sorted(complete, key=lambda trial: -trial.values[0])[:_PARENTS]
        first = len(complete) % max(len(best), 1)
        others: list[_Child] = []
        for parent in [*best[first:], *best[:first]]:
            for used, child in islice(self._children(parent), _DRAWS):
                if used >= _LEAST:
                    yield child
                else:
                    others.append((used, child))
        yield from (child for _, child in sorted(others, key=lambda other: -other[0]))

    def _children(self, parent: FrozenTrial) -> Iterator[_Child]:
        """Yield what a parent may become at the largest target: larger, as it is, or in a few choices another."""
        largest = {**parent.params, TARGET: max(self._space.targets)}
        if hasattr(self._space.space, "neighbours"):
            yield from self._grown(largest, parent)
        seen: list[Parameters] = []
        for drawn in self._changed(largest):
            child = self._candidates.without_ignored(drawn)
            if child not in seen:
                seen.append(child)
                yield self._space.share_used(child, is_measured=self._is_measured), child

    def _grown(self, chosen: Parameters, parent: FrozenTrial) -> Iterator[_Child]:
        """Yield what comes of a parent's choice by steps that fill the caps, at its scale and at the next ones."""
        at = scale_of(parent)
        if at is None:
            return
        slower = self._space.slowness(parent.params, at, parent.values[1]) if self._is_measured else 1.0
        places = range(len(self._space.costs.scales))[at : at + _SCALES]
        for place in islice(cycle(places), _WALKS):
            used, child = self._walked(chosen, place, slower=slower)
            if used <= _MOST:
                yield used, self._candidates.without_ignored(child)

    def _walked(self, chosen: Parameters, at: int, *, slower: float) -> _Child:
        """Return what comes of a choice by steps, at the scale of one place, towards the whole of the caps."""
        used = self._space.share_at(chosen, at, slower=slower)
        for _ in range(_STEPS):
            if _LEAST <= used <= _MOST:
                break
            neighbours = self._space.space.neighbours(chosen)
            steps = [(self._space.share_at(step, at, slower=slower), step) for step in neighbours]
            nearer = [step for step in steps if (step[0] < used if used > _MOST else used < step[0] <= _MOST)]
            if not nearer:
                break
            used, chosen = self.one_of(nearer)
        return used, chosen

    def _changed(self, parent: Parameters) -> Iterator[Parameters]:
        """Yield a parent, then with one to three other choices, so often that there may be no further one."""
        yield parent
        most = min(_CHANGES, len(self._changeable))
        for _ in range(_IN_VAIN * _DRAWS if most else 0):
            names = self._random.choice(self._changeable, size=self._random.integers(1, most + 1), replace=False)
            yield {**parent, **{name: self._another(name, parent[name]) for name in names.tolist()}}

    def _another(self, name: str, chosen: Any) -> Any:
        return self.one_of([choice for choice in self._choices[name] if choice != chosen])
