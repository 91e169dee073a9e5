"""Pareto fronts of two objectives: accuracy up, latency down."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def front(accuracy: "Array", latency: "Array") -> "NDArray[np.int64]":
    """Return the positions of the non-dominated points of arrays [n], by rising latency; of equal points the first."""
    import numpy as np

    order = np.lexsort((-accuracy, latency))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(accuracy[order])[:-1]])
    found: NDArray[np.int64] = order[accuracy[order] > best_before]
    return found


def ranking(accuracy: "Array", latency: "Array", *, count: int) -> "NDArray[np.int64]":
    """Return up to `count` positions, front after front; of a front that is too long, evenly spaced points first."""
    import numpy as np

    left = np.arange(len(accuracy))
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        best = front(accuracy[left], latency[left])
        chosen += left[best[_spread(len(best), count - len(chosen))]].tolist()
        left = np.delete(left, best)
    return np.array(chosen[:count], dtype=np.int64)


def _spread(length: int, wanted: int) -> "NDArray[np.int64]":
    """Return positions 0..length-1, `wanted` evenly spaced ones first, from the last on."""
    import numpy as np

    if wanted >= length:
        return np.arange(length)[::-1]
    first = np.unique(np.linspace(length - 1, 0, wanted).round().astype(np.int64))[::-1]
    return np.concatenate([first, np.setdiff1d(np.arange(length), first)])
