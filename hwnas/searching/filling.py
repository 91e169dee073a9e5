"""The last trials of a search: candidates like the most accurate ones, at sizes at which they use the whole cap.

The largest scale that fits often leaves a fifth of a cap unused. So of what differs from one of the best in a few
choices, that is proposed which is predicted to use 96 to 100 % at some scale; measurements tell whether it does.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from hwnas.runs import TARGET
from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer

if TYPE_CHECKING:
    from hwnas.searching.candidates import SpaceCandidates

_PARENTS = 4  # the most accurate ones
_CHANGES = 3  # choices that differ from a parent's, at most
_BAND = 0.96  # share of the cap that is to be used
_DRAWS = 50  # children, of which those outside the band come last


class FillingSampler(Proposer):
    """Proposes candidates that use the largest target, like the most accurate ones of the study."""

    def __init__(self, candidates: "SpaceCandidates", trials: int, *, seed: int) -> None:
        super().__init__(Context(candidates, trials), seed=seed)
        self._use, self._target = candidates.use, max(candidates.targets)
        self._changeable = [name for name, known in self._choices.items() if len(known) > 1 and name != TARGET]

    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield children of the best, first those that are predicted to use the target, then by falling use."""
        parents = sorted(complete, key=lambda trial: -trial.values[0])[:_PARENTS]
        others: list[tuple[float, Parameters]] = []
        for _ in range(_DRAWS if parents else 0):
            child = self._child(self.one_of(parents).params)
            if (use := self._use(child)) >= _BAND:
                yield child
            else:
                others.append((use, child))
        yield from (child for _, child in sorted(others, key=lambda other: -other[0]))

    def _child(self, parent: Parameters) -> Parameters:
        child = {**parent, TARGET: self._target}
        count = self._random.integers(min(_CHANGES, len(self._changeable)) + 1)
        for name in self._random.choice(self._changeable, size=count, replace=False) if count else ():
            child[name] = self.one_of(self._choices[name])
        return self._candidates.without_ignored(child)
