"""Pareto fronts of two objectives: accuracy up, latency down."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.latency import Budget
from hwnas.training import Curve, Look
from hwnas.errors import InputError
from hwnas.support import locked, read_json, write_bytes, write_json
from hwnas.latency import TimedNetwork
from hwnas.network import Architecture, Scale, ladder

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hwnas.datasets import Dataset

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau, spearmanr
from hwnas.runs.trial import Candidate


def front_of(candidates: list[Candidate]) -> list[Candidate]:
    """Return the Pareto front, accuracy against latency, by rising latency, of those that were trained to the end."""
    import numpy as np

    from hwnas.runs.front import front

    candidates = [candidate for candidate in candidates if candidate.stopped_after is None]
    if not candidates:
        return []
    accuracy, latency = np.array([(c.accuracy, c.latency_ms) for c in candidates]).T
    return [candidates[position] for position in front(accuracy, latency)]


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


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, equal values sharing their ranks; None where all are equal, or too few."""
    return float(spearmanr(one, other).statistic) if _can_be_ranked(one, other) else None


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b; None where all are equal, or too few."""
    return float(kendalltau(one, other).statistic) if _can_be_ranked(one, other) else None


def _can_be_ranked(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) > 1 and bool(np.ptp(one) > 0 and np.ptp(other) > 0)
