"""Two latency tables side by side, for `hwnas tables diff`: what differs in their heads, and by how much entries do."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hwnas.latency.merge import Difference, differences_of
from hwnas.latency.table import LatencyTable

_LARGEST = 10  # differences that are listed
_NOTABLE = 1.1  # a ratio, or its inverse, that counts as a difference


@dataclass(frozen=True, slots=True)
class EntryDifference:
    """One operator that both tables have; `ratio` is b / a."""

    key: str
    a_ms: float
    b_ms: float
    ratio: float
    a_spread: float
    b_spread: float


@dataclass(frozen=True, slots=True)
class ComparedTables:
    """Two tables side by side: ratios are b / a, over the entries that both have; None without such entries."""

    a: str
    b: str
    differences: list[Difference]
    only_a: list[str]
    only_b: list[str]
    common: int
    ratio_lower_quartile: float | None
    ratio_median: float | None
    ratio_upper_quartile: float | None
    beyond_10_percent: int
    a_median_spread: float | None
    b_median_spread: float | None
    largest: list[EntryDifference]


def compared(a: LatencyTable, b: LatencyTable) -> ComparedTables:
    """Compare two tables: entries of only one, and the ratios b / a of those in both."""
    common = [_entry_difference(key, a, b) for key in sorted(a.entries.keys() & b.entries.keys())]
    quartiles = _quartiles([entry.ratio for entry in common])
    return ComparedTables(
        a=str(a.path),
        b=str(b.path),
        differences=differences_of(a, b),
        only_a=sorted(a.entries.keys() - b.entries.keys()),
        only_b=sorted(b.entries.keys() - a.entries.keys()),
        common=len(common),
        ratio_lower_quartile=quartiles[0],
        ratio_median=quartiles[1],
        ratio_upper_quartile=quartiles[2],
        beyond_10_percent=sum(_distance(entry) > math.log(_NOTABLE) for entry in common),
        a_median_spread=_median([entry.a_spread for entry in common]),
        b_median_spread=_median([entry.b_spread for entry in common]),
        largest=sorted(common, key=_distance, reverse=True)[:_LARGEST],
    )


def _entry_difference(key: str, a: LatencyTable, b: LatencyTable) -> EntryDifference:
    a_ms, b_ms = a.ms(key), b.ms(key)
    return EntryDifference(key, a_ms, b_ms, b_ms / a_ms, a.entries[key].spread, b.entries[key].spread)


def _distance(entry: EntryDifference) -> float:
    """Return how far a ratio is from 1, alike in both directions."""
    return abs(math.log(entry.ratio))


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _quartiles(values: list[float]) -> Sequence[float | None]:
    if len(values) < 2:
        return [_median(values)] * 3
    return statistics.quantiles(values, n=4, method="inclusive")
