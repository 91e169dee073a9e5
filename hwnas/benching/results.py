"""Tables of known results: a space and an estimator at once, for judging strategies without training.

A row of a CSV file is a network: its choices, the accuracy that a search sees, the true one, and what it costs.
"""

import csv
import gzip
import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.errors import BudgetError, InputError, cut, quoted, short
from hwnas.searching.strategies import Parameters
from hwnas.support import check_file

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.distributions import CategoricalDistribution

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Rows = NDArray[np.int64]

_ABSENT = -1  # the row of a combination of choices that the table does not have


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """The rows [n] of a table: choices, accuracies in percentage points, the cost under the cap, further costs."""

    parameters: list[dict[str, Any]]  # the choices of each row
    choices: dict[str, tuple[Any, ...]]  # of each column: texts, or integers where all of it are
    seen: "Array"  # the accuracy that the search sees [n]
    truth: "Array"  # the accuracy that is wanted [n]
    latency: "Array"  # or what else the cap is on [n], above 0
    costs: "Array"  # further ones, of which nothing is asked [n, costs]
    left_out: int  # rows without some figure, and second ones of the same network
    _key: Callable[[Parameters], Hashable]
    _rows: dict[Hashable, int]

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        choices: Sequence[str],
        accuracy: Sequence[str],
        latency: str,
        costs: Sequence[str] = (),
    ) -> "Results":
        """Read a CSV file, or one that gzip packed, by the names of its columns.

        `accuracy` is the column that the search sees and, where it is another, the true one: shares or percentages.
        Rows with an empty cell or a figure that is not finite are left out. Raises InputError.
        """
        figures = [accuracy[0], accuracy[-1], latency, *costs]
        every = _read(Path(path), [*choices, *figures])
        lines = [line for line in every if all(line[name] for name in choices)]
        numbers = np.array([[_number(line[name], name) for name in figures] for line in lines])
        numbers = numbers.reshape(-1, len(figures))
        known = [at for at in range(len(lines)) if np.isfinite(numbers[at]).all()]
        if not known:
            raise InputError(f"a table must have a row with all of {', '.join(figures)}; {path} has none")
        columns = {name: _typed([lines[at][name] for at in known]) for name in choices}
        parameters = [dict(zip(columns, chosen, strict=True)) for chosen in zip(*columns.values(), strict=True)]
        return cls._of(path, parameters, numbers[known], read=len(every))

    @classmethod
    def _of(cls, path: str | Path, parameters: list[dict[str, Any]], numbers: "Array", *, read: int) -> "Results":
        key: Callable[[Parameters], Hashable] = itemgetter(*parameters[0])
        rows = _distinct(path, [key(one) for one in parameters], numbers)
        parameters, numbers = [parameters[row] for row in rows], numbers[rows]
        if (numbers[:, 2] <= 0).any():
            raise InputError(f"what the cap is on must be above 0; {path} has {numbers[:, 2].min():g}")
        return cls(
            parameters,
            {name: tuple(sorted({one[name] for one in parameters})) for name in parameters[0]},
            _points(numbers[:, 0]),
            _points(numbers[:, 1]),
            numbers[:, 2],
            numbers[:, 3:],
            read - len(rows),
            key,
            {key(one): row for row, one in enumerate(parameters)},
        )

    def rows(self, chosen: Sequence[Parameters]) -> "Rows":
        """Return the row of each [n], -1 where the table has none."""
        return np.array([self._rows.get(self._key(one), _ABSENT) for one in chosen], dtype=np.int64)


def _read(path: Path, wanted: Sequence[str]) -> list[Mapping[str, str]]:
    """Return the lines of a CSV file; raises InputError where it is none or lacks a wanted column."""
    try:
        check_file(path, what="a table")
        opened = gzip.open if path.suffix == ".gz" else Path.open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:  # editors put a byte order mark first
            lines: list[Mapping[str, str]] = list(csv.DictReader(file))
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:  # ValueError: what is no text
        raise InputError(f"a table must be a CSV file, or one packed by gzip; {path}: {quoted(error)}") from None
    if not lines:
        raise InputError(f"a table must have a header and rows; {path} has none")
    for name in wanted:
        if name not in lines[0]:
            raise InputError(f"{path} has no column {name!r}; its columns: {cut(', '.join(map(str, lines[0])))}")
    return lines


def _number(text: str | None, column: str) -> float:
    """Return a figure, NaN for an empty cell."""
    try:
        return float(text or "nan")
    except ValueError:
        raise InputError(f"the column {column!r} must hold numbers; got {short(text)}") from None


def _typed(column: list[str]) -> list[Any]:
    """Return a column of choices as integers where all of them are."""
    try:
        return [int(text) for text in column]
    except ValueError:
        return list(column)


def _distinct(path: str | Path, keys: list[Hashable], numbers: "Array") -> list[int]:
    """Return the first row of each combination of choices; raises InputError where another one differs."""
    first: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        if (other := first.setdefault(key, row)) != row and (numbers[other] != numbers[row]).any():
            raise InputError(
                f"a table must say one thing of a combination of choices; {path} has two rows for {key} that differ. "
                "Name further columns in --choices, or keep one of such rows"
            )
    return list(first.values())


def _points(accuracy: "Array") -> "Array":
    return accuracy * 100 if accuracy.max() <= 1 else accuracy


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """How a run has gone, after each of its evaluations [n]; regrets in percentage points.

    The incumbent is the best seen; `regret` is its true accuracy below the best, `regret_seen` its seen one.
    The hypervolume is that between the median seen accuracy of the table, the cap, the best and the fastest: 0 to 1.
    """

    best_seen: "Array"
    regret_seen: "Array"
    regret: "Array"
    hypervolume: "Array"


@dataclass(frozen=True, slots=True, eq=False)
class ResultsCandidates:
    """The networks of a table that are under a cap: `strategies.Candidates`, and what is best of them."""

    results: Results
    cap: float
    inside: "Rows"  # the rows under the cap
    _parameters: list[Parameters]
    _costs: "Array"  # of all rows, see `known_costs`

    @classmethod
    def under(cls, results: Results, cap: float) -> "ResultsCandidates":
        """Return the rows whose cost is at most `cap`; raises BudgetError where there are none."""
        inside = np.flatnonzero(results.latency <= cap)
        if not len(inside):
            raise BudgetError(
                f"a cap must leave some row of the table; {cap:g} leaves none, the lowest cost is "
                f"{results.latency.min():g}. Raise --caps"
            )
        costs = np.column_stack([np.log(results.latency), results.costs])
        return cls(results, cap, inside, [results.parameters[row] for row in inside], costs)

    def distributions(self) -> "dict[str, CategoricalDistribution]":
        """Return the columns of choices."""
        from optuna.distributions import CategoricalDistribution

        return {name: CategoricalDistribution(choices) for name, choices in self.results.choices.items()}

    def fits(self, chosen: Sequence[Parameters]) -> "Flags":
        """Say of each [n] whether it is in the table and under the cap."""
        rows = self.results.rows(chosen)
        fitting: Flags = (rows != _ABSENT) & (self.results.latency[rows] <= self.cap)
        return fitting

    def excess(self, chosen: Parameters) -> float:
        """Return by what share of the cap a network is over it; of what is not in the table, infinity."""
        row = int(self.results.rows([chosen])[0])
        return max(0.0, float(self.results.latency[row]) / self.cap - 1.0) if row != _ABSENT else math.inf

    def identity(self, chosen: Parameters) -> Hashable:
        """Return the network's row; of what is not in the table, its choices."""
        row = int(self.results.rows([chosen])[0])
        return row if row != _ABSENT else tuple(sorted(chosen.items()))

    def without_ignored(self, chosen: Parameters) -> Parameters:
        """Return the choices as they are: none is ignored."""
        return chosen

    def known_costs(self, chosen: Sequence[Parameters]) -> "Array":
        """Return the logarithm of the capped cost, then the further ones [n, costs]; medians of what is absent."""
        rows = self.results.rows(chosen)
        return np.where((rows == _ABSENT)[:, None], np.median(self._costs, axis=0), self._costs[rows])

    def every(self) -> list[Parameters]:
        """Return all that are under the cap."""
        return self._parameters

    @property
    def floor(self) -> float:
        """The regret of the network that looks best: what a search that ends well comes to, in percentage points."""
        seen, truth = self.results.seen[self.inside], self.results.truth[self.inside]
        return float(truth.max() - truth[seen.argmax()])

    def curves(self, rows: "Sequence[int] | Rows") -> Curves:
        """Return how a run has gone that evaluated these rows [n] in their order."""
        results, inside = self.results, self.inside
        evaluated = np.asarray(rows, dtype=np.int64)
        seen = results.seen[evaluated]
        best = np.maximum.accumulate(seen)
        is_new = np.append(True, seen[1:] > best[:-1])[: len(seen)]
        incumbent = evaluated[np.maximum.accumulate(np.where(is_new, np.arange(len(seen)), 0))]
        low, high = np.median(results.seen), results.seen[inside].max()
        fastest = results.latency[inside].min()
        return Curves(
            best_seen=best,
            regret_seen=high - best,
            regret=results.truth[inside].max() - results.truth[incumbent],
            hypervolume=hypervolumes(
                _shares(seen - low, of=high - low),
                _shares(results.latency[evaluated] - fastest, of=self.cap - fastest),
            ),
        )


def _shares(values: "Array", *, of: float) -> "Array":
    """Return values as shares of the largest, 0 where that is none or they are below 0."""
    return np.maximum(values, 0) / of if of > 0 else np.zeros(len(values))


def hypervolumes(gain: "Array", latency: "Array") -> "Array":
    """Return the area that the first 1, 2, ... n points dominate, in the square between 0 and 1; arrays [n].

    Of each point the gain, which is to be large, and the latency, which is to be small. The front is kept, by rising
    latency, so that a point costs a search in it and, once, its own removal: O(n log n) for all.
    """
    latencies: list[float] = []
    gains: list[float] = []
    area, areas = 0.0, np.empty(len(gain))
    for number, (height, left) in enumerate(zip(gain.tolist(), latency.tolist(), strict=True)):
        begin = bisect_right(latencies, left)
        covered = gains[begin - 1] if begin else 0.0  # by what is as fast, or faster
        if height > covered:
            end, at = begin, left
            while end < len(gains) and gains[end] <= height:
                area += (latencies[end] - at) * (height - covered)
                at, covered, end = latencies[end], gains[end], end + 1
            area += ((latencies[end] if end < len(gains) else 1.0) - at) * (height - covered)
            begin -= begin > 0 and latencies[begin - 1] == left
            latencies[begin:end], gains[begin:end] = [left], [height]
        areas[number] = area
    return areas
