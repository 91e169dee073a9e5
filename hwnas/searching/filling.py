"""The last trials of a search: candidates like the most accurate ones, at sizes at which they use the whole cap.

The largest scale that fits often leaves a fifth of a cap unused. So of what differs from one of the best in a few
choices, that is proposed which is predicted to use 96 to 100 % of the caps; measurements tell whether it does.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from hwnas.runs import TARGET
from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer
from hwnas.spaces.auto import SPACE

if TYPE_CHECKING:
    from hwnas.searching.candidates import SpaceCandidates

_PARENTS = 4  # the most accurate ones
_CHANGES = 3  # choices that differ from a parent's, at most
_BAND = 0.96  # share of the caps that is to be used
_DRAWS = 30  # different children, of which those outside the band come last
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
        parents = sorted(complete, key=lambda trial: -trial.values[0])[:_PARENTS]
        others: list[tuple[float, Parameters]] = []
        for child in self._children([parent.params for parent in parents]):
            used = self._space.share_used(child, is_measured=self._is_measured)
            if used >= _BAND:
                yield child
            else:
                others.append((used, child))
        yield from (child for _, child in sorted(others, key=lambda other: -other[0]))

    def _children(self, parents: Sequence[Parameters]) -> Iterator[Parameters]:
        """Yield the parents at the largest target, and what differs from one of them: each word for word once."""
        seen: list[Parameters] = []
        for drawn in range(_IN_VAIN * _DRAWS if parents else 0):
            parent = parents[drawn] if drawn < len(parents) else self._changed(self.one_of(parents))
            child = self._candidates.without_ignored({**parent, TARGET: max(self._space.targets)})
            if child not in seen:
                seen.append(child)
                yield child
            if len(seen) == _DRAWS:
                return

    def _changed(self, parent: Parameters) -> Parameters:
        """Return a parent with one to three other choices."""
        most = min(_CHANGES, len(self._changeable))
        count = int(self._random.integers(1, most + 1)) if most else 0
        names = self._random.choice(self._changeable, size=count, replace=False).tolist() if count else []
        others = {name: [choice for choice in self._choices[name] if choice != parent[name]] for name in names}
        return {**parent, **{name: self.one_of(choices) for name, choices in others.items()}}
