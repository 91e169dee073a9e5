"""The last trials of a search: candidates like the most accurate ones, at sizes at which they use the whole cap.

The largest scale that fits often leaves a fifth of a cap unused. So one of the best is taken, each in turn, and where
its space has an order of choices it is made larger, step by step at its own scale, until it is predicted to use 95 to
99 % of the caps: what was measured of it says how far its prediction is off, and so that of what is like it. Elsewhere
a few of its choices are changed. Measurements tell whether the cap is used.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
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
_GROWN = 12  # times that a parent is made larger, each on another way
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
        if hasattr(self._space.space, "larger"):
            yield from self._grown(largest, parent)
        seen: list[Parameters] = []
        for drawn in self._changed(largest):
            child = self._candidates.without_ignored(drawn)
            if child not in seen:
                seen.append(child)
                yield self._space.share_used(child, is_measured=self._is_measured), child

    def _grown(self, chosen: Parameters, parent: FrozenTrial) -> Iterator[_Child]:
        """Yield what comes of a parent's choice by steps that leave it within the caps at the parent's scale."""
        at = scale_of(parent)
        if at is None:
            return
        slower = parent.values[1] / float(self._space.costs_of(parent.params).ms[0, at]) if self._is_measured else 1.0

        def with_share(child: Parameters) -> _Child:
            return self._space.share_at(child, at, slower=slower), child

        for _ in range(_GROWN):
            used, child = with_share(chosen)
            while used < _LEAST:
                steps = map(with_share, self._space.space.larger(child))
                fitting = [step for step in steps if used < step[0] <= _MOST]
                if not fitting:
                    break
                used, child = self.one_of(fitting)
            yield used, self._candidates.without_ignored(child)

    def _changed(self, parent: Parameters) -> Iterator[Parameters]:
        """Yield a parent, then with one to three other choices, so often that there may be no further one."""
        yield parent
        most = min(_CHANGES, len(self._changeable))
        for _ in range(_IN_VAIN * _DRAWS if most else 0):
            names = self._random.choice(self._changeable, size=self._random.integers(1, most + 1), replace=False)
            yield {**parent, **{name: self._another(name, parent[name]) for name in names.tolist()}}

    def _another(self, name: str, chosen: Any) -> Any:
        return self.one_of([choice for choice in self._choices[name] if choice != chosen])
