"""The candidates of a level of growing cells: a cell at a latency target, of which there may be millions.

A cell is held by its canonical key, eight bytes, and written out a chunk at a time: cells are grown, priced and left
out in parts, so that a level takes some 30 bytes a candidate.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwnas.network import canonical_keys, from_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.latency import Budget, CellCosts
    from hwnas.network.cell import Codes

    Numbers = NDArray[np.int64]

_CHUNK = 65_536  # candidates that are written out at once


@dataclass(frozen=True, slots=True)
class Tried:
    """What trials had of a level: cells by their keys, at which target, and at which scale they were trained or -1."""

    keys: "Numbers"
    targets: "Numbers"
    scales: "Numbers"

    def among(self, keys: "Numbers", scale: "Numbers") -> "NDArray[np.bool_]":
        """Return [n, targets]: which of cells [n] were tried, at a target or as a network, whose scale is given."""
        known = np.unique(self.keys)
        if not len(known):
            return np.zeros(scale.shape, dtype=bool)
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        own = np.searchsorted(known, self.keys)
        at_target = np.zeros((len(known), scale.shape[1]), dtype=bool)
        at_target[own, self.targets] = True
        at_scale = np.zeros((len(known), int(max(scale.max(initial=0), self.scales.max())) + 2), dtype=bool)
        at_scale[own, self.scales] = True  # -1 is the last place, which no scale has
        at_scale[:, -1] = False
        is_known = known[place] == keys
        return np.asarray(is_known[:, None] & (at_target[place] | at_scale[place[:, None], scale]))


@dataclass(frozen=True, slots=True)
class Level:
    """Candidates [n], by rising key and target: the cell's canonical key, which target, the predicted ms there."""

    keys: "Numbers"
    targets: "Numbers"
    ms: "NDArray[np.float64]"
    blocks: int
    operations: int

    @classmethod
    def of(
        cls,
        parts: "Iterable[Codes]",
        costs: "CellCosts",
        budget: "Budget",
        targets_ms: Sequence[float],
        *,
        tried: Tried,
        blocks: int,
    ) -> "Level":
        """Return what fits of canonical cells, in parts [m, blocks, 4], and was not tried: each network once."""
        operations = len(costs.operations)
        seen = np.zeros(0, dtype=np.int64)
        keys, targets, ms = [seen], [seen], [np.zeros(0)]
        for codes in parts:
            every = canonical_keys(codes, operations=operations)
            is_new = ~np.isin(every, seen)
            part, codes = every[is_new], codes[is_new]
            seen = np.union1d(seen, part)
            scale, scale_ms = costs.largest_of(codes, budget, targets_ms)
            scale[tried.among(part, scale)] = -1
            rows, columns = _first_of_equals(scale)
            keys.append(part[rows])
            targets.append(columns)
            ms.append(scale_ms[rows, columns])
        key, target = np.concatenate(keys), np.concatenate(targets)
        order = np.lexsort((target, key))
        return cls(key[order], target[order], np.concatenate(ms)[order], blocks, operations)

    def __len__(self) -> int:
        return len(self.keys)

    def codes(self, chosen: "Numbers | slice") -> "Codes":
        """Return the codes [m, blocks, 4] of some of them."""
        return from_keys(self.keys[chosen], blocks=self.blocks, operations=self.operations)

    def chunks(self) -> Iterator[slice]:
        """Yield places that are written out together."""
        for at in range(0, len(self), _CHUNK):
            yield slice(at, at + _CHUNK)


def _first_of_equals(scale: "Numbers") -> "tuple[Numbers, Numbers]":
    """Return rows and columns of what fits, of scales [n, targets] or -1; of one scale in a row the first target."""
    rows, columns = np.nonzero(scale >= 0)
    _, first = np.unique(np.stack([rows, scale[rows, columns]], axis=1), axis=0, return_index=True)
    first.sort()
    return rows[first], columns[first]
