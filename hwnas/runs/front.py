"""Pareto fronts of two objectives, accuracy up and latency down; winners of one; how far two lists agree in order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.runs.trial import Candidate

    Array = NDArray[np.float64]

_BEST = "best:"  # before a number of winners


def front_of(candidates: "Sequence[Candidate]") -> "list[Candidate]":
    """Return the Pareto front, accuracy against cost, by rising cost, of those that were trained to the end.

    The cost is the latency, or on several devices the largest share of a cap.
    """
    candidates = [candidate for candidate in candidates if candidate.stopped_after is None]
    if not candidates:
        return []
    accuracy, cost = np.array([(c.accuracy, c.cost) for c in candidates]).T
    return [candidates[position] for position in pareto_front(accuracy, cost)]


def winners_wanted(value: object) -> int | str:
    """Read which of a front are wanted: `2`, or `best:2`; raises ValueError for anything else."""
    text = str(value)
    number = text.removeprefix(_BEST)
    if isinstance(value, bool) or not number.isdecimal() or int(number) < 1:
        raise ValueError("must be a number of networks above 0, as in 2 or best:2")
    return text if text.startswith(_BEST) else int(text)


def number_wanted(wanted: int | str) -> int:
    """Return how many winners are wanted: 2 for `2` and for `best:2`."""
    return int(str(wanted).removeprefix(_BEST))


def winners_of(front: "Sequence[Candidate]", wanted: int | str) -> "list[Candidate]":
    """Return those of a front that are wanted: `2`, the most accurate and others at even steps down, or `best:2`."""
    falling, count = front[::-1], number_wanted(wanted)
    if str(wanted).startswith(_BEST):
        return list(falling[:count])
    count = min(count, len(front))
    return [falling[(index * len(front)) // count] for index in range(count)]


def pareto_front(accuracy: "Array", latency: "Array") -> "NDArray[np.int64]":
    """Return the positions of the non-dominated points of arrays [n], by rising latency; of equal points the first.

    What is not a number is on no front.
    """
    order = _by_latency(accuracy, latency)
    return order[_is_first_front(accuracy[order])]


def ranking(accuracy: "Array", latency: "Array", *, count: int) -> "NDArray[np.int64]":
    """Return up to `count` positions, front after front; of a front that is too long, evenly spaced points first.

    What is not a number is never among them.
    """
    left = _by_latency(accuracy, latency)  # once: every front is a pass over what is left of it
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        is_front = _is_first_front(accuracy[left])
        best = left[is_front]
        chosen += best[_spread(len(best), count - len(chosen))].tolist()
        left = left[~is_front]
    return np.array(chosen[:count], dtype=np.int64)


def _by_latency(accuracy: "Array", latency: "Array") -> "NDArray[np.int64]":
    """Return the positions of what can be compared, by rising latency, the most accurate of equal ones first."""
    order: NDArray[np.int64] = np.lexsort((-accuracy, latency))
    return order[np.isfinite(accuracy[order]) & np.isfinite(latency[order])]


def _is_first_front(accuracy: "Array") -> "NDArray[np.bool_]":
    """Say of each point [n], in the order of `_by_latency`, whether no other one dominates it."""
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(accuracy)[:-1]])
    return np.asarray(accuracy > best_before)


def _spread(length: int, wanted: int) -> "NDArray[np.int64]":
    """Return positions 0..length-1, `wanted` evenly spaced ones first, from the last on."""
    if wanted >= length:
        return np.arange(length)[::-1]
    first = np.unique(np.linspace(length - 1, 0, wanted).round().astype(np.int64))[::-1]
    return np.concatenate([first, np.setdiff1d(np.arange(length), first)])


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, equal values sharing their ranks; None where all are equal, or too few."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic) if _can_be_ranked(one, other) else None


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b; None where all are equal, or too few."""
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic) if _can_be_ranked(one, other) else None


def _can_be_ranked(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) > 1 and bool(np.ptp(one) > 0 and np.ptp(other) > 0)
