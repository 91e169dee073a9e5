"""What a study came to as a whole: its hypervolume over trials, which choices mattered, what operations were worth."""

import warnings
from bisect import insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.runs import Candidate, Trials

_FEWEST = 20  # candidates, of which Optuna calls the best tenth good


def hypervolumes(candidates: "Sequence[Candidate]", *, cap: float) -> list[tuple[int, float]]:
    """Return the hypervolume after each candidate that was trained to its end, by its trial.

    It is a share of the rectangle from a cost of 0 to the cap and from no image right to all of them: what in it costs
    more and is less accurate than some candidate so far. The cost is the latency in ms, or of several devices the
    largest share of a cap.
    """
    front: list[tuple[float, float]] = []  # cost and accuracy, both rising
    volumes, volume = [], 0.0
    for candidate in candidates:
        if candidate.stopped_after is not None:
            continue
        cost, accuracy = candidate.cost, candidate.accuracy
        if cost < cap and not any(other[0] <= cost and other[1] >= accuracy for other in front):
            front = [other for other in front if other[0] < cost or other[1] > accuracy]
            insort(front, (cost, accuracy))
            volume = sum((after[0] - at[0]) * at[1] for at, after in pairwise([*front, (cap, 0.0)])) / cap
        volumes.append((candidate.trial, volume))
    return volumes


def importances(trials: "Trials") -> list[tuple[str, float]]:
    """Return each choice's share in what makes candidates accurate, the largest first; none of fewer than 20.

    By PED-ANOVA (Watanabe et al., 2023): how the choices of the most accurate tenth differ from those of all.
    """
    from optuna.importance import get_param_importances

    if len(trials.in_state("trained")) < _FEWEST:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one says that the smallest values count as the best, as they are to here
        shares = get_param_importances(trials.study, target=lambda trial: -trial.values[0])
    known = [(name, share) for name, share in shares.items() if share > 0]
    return sorted(known, key=lambda one: -one[1])


@dataclass(frozen=True, slots=True)
class OperationWorth:
    """By the blocks of the normal cell: how many candidates have an operation in a cell, and their mean accuracy."""

    name: str
    by_blocks: dict[int, tuple[int, float]]


def operation_worths(candidates: "Sequence[Candidate]") -> list[OperationWorth]:
    """Return what candidates of cells came to by the operations that they contain; none of other networks."""
    accuracies: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for candidate in candidates:
        if not (cells := candidate.architecture.cells):
            continue
        blocks = chain.from_iterable(cell.blocks for cell in cells.values())
        for name in {operation for block in blocks for operation, _ in (block.left, block.right)}:
            accuracies[name][len(cells["normal"].blocks)].append(candidate.accuracy)
    return [
        OperationWorth(name, {level: (len(some), fmean(some)) for level, some in sorted(levels.items())})
        for name, levels in sorted(accuracies.items())
    ]
