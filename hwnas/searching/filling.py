"""The last trials of a search: candidates like the most accurate ones, at sizes at which they use the whole cap.

The largest scale that fits often leaves a fifth of a cap unused. So one of the best is taken, each in turn, and made
larger step by step where its space knows how, or changed in a few choices; what is predicted to use 95 to 99 % of the
caps is proposed, and measurements tell whether it does. What was measured of the one that is taken says how far its
prediction is off, and so that of what is like it.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
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
_LEAST, _MOST = 0.95, 0.99  # shares of the caps that are to be used: noise, and what is measured is held with it
_DRAWS = 40  # children of a parent, of which those outside come last
_IN_VAIN = 10  # times as many draws, after which there may be no other child


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
        others: list[tuple[float, Parameters]] = []
        for parent in [*best[first:], *best[:first]]:
            slower = self._slower(parent)
            for child in islice(self._children(parent.params), _DRAWS):
                used = self._space.share_used(child, is_measured=self._is_measured, most=_MOST, slower=slower)
                if used >= _LEAST:
                    yield child
                else:
                    others.append((used, child))
        yield from (child for _, child in sorted(others, key=lambda other: -other[0]))

    def _slower(self, parent: FrozenTrial) -> float:
        """Return by what factor a trial's network was slower than is predicted of it now; 1 where nothing is measured.

        What is told of a trial that was not measured is a prediction, too: the factor is near 1.
        """
        at = scale_of(parent)
        if at is None or not self._is_measured:
            return 1.0
        return float(parent.values[1] / self._space.costs_of(parent.params).ms[0, at])

    def _children(self, parent: Parameters) -> Iterator[Parameters]:
        """Yield a parent at the largest target, and what it may become, each word for word once."""
        seen: list[Parameters] = []
        largest = {**parent, TARGET: max(self._space.targets)}
        for drawn in chain([largest], self._grown(largest), self._others(largest)):
            child = self._candidates.without_ignored(drawn)
            if child not in seen:
                seen.append(child)
                yield child

    def _grown(self, parent: Parameters) -> Iterator[Parameters]:
        """Yield what is one step larger, in any order, then what is two, and so on; nothing where no choice has one."""
        larger = getattr(self._space.space, "larger", lambda parameters: ())
        generation = [parent]
        while generation:
            children = {
                tuple(sorted(child.items())): child for parameters in generation for child in larger(parameters)
            }
            generation = [list(children.values())[at] for at in self._random.permutation(len(children))]
            yield from generation

    def _others(self, parent: Parameters) -> Iterator[Parameters]:
        """Yield a parent with one to three other choices, so often that there may be no further one."""
        most = min(_CHANGES, len(self._changeable))
        for _ in range(_IN_VAIN * _DRAWS if most else 0):
            names = self._random.choice(self._changeable, size=self._random.integers(1, most + 1), replace=False)
            yield {**parent, **{name: self._another(name, parent[name]) for name in names.tolist()}}

    def _another(self, name: str, chosen: Any) -> Any:
        return self.one_of([choice for choice in self._choices[name] if choice != chosen])
