"""What many cells cost at once, at many scales: what strategies choose from whose cells grow block by block.

Sums over layers split: cells that read their inputs in the same ways differ only in their branches, and in which blocks
need a ReLU. So the one walk is taken for a representative of each way of reading, and branches are exchanged; the
result equals the walk of every cell, at a thousandth of the time. A cell's costs at all scales are a product: how often
it has each branch, times what each costs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from hwnas.latency.budget import Budget
from hwnas.latency.costs import COSTS, CostModel, Costs
from hwnas.latency.table import LatencyTable
from hwnas.network import Block, Branch, Cell, CellNetwork, Scale, Step, ops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]

_SORTS = 3  # what reads a state: an operation that begins with a ReLU, a pooling, the identity
_STATES = 3  # that branches differ by: h[l-2], h[l-1], a block
_CHUNK = 4096  # cells at once: some ten MiB for a search's scales


class CellCosts(CostModel):
    """Costs of networks, and of many cells over some operations at once."""

    def __init__(self, table: LatencyTable, scales: Sequence[Scale], *, operations: Sequence[str]) -> None:
        super().__init__(table, scales)
        self.operations = tuple(operations)
        self._sort = np.array([_sort(operation) for operation in operations])
        self._branches: dict[tuple[bool, bool], Array] = {}
        self._rests: dict[tuple[int, int], Array] = {}

    def of(self, codes: "Codes") -> Costs:
        """Return the costs of codes [n, blocks, 4] at every scale."""
        parts = [self._projected(chunk) for chunk in _chunks(codes)]
        return self._costs(np.concatenate([np.zeros((0, len(self.scales), 4)), *parts]))

    def largest_of(self, codes: "Codes", budget: Budget, targets_ms: Sequence[float]) -> "tuple[Numbers, Array]":
        """Return for each of codes [n, blocks, 4] and each target the largest scale that fits, or -1, and its latency.

        Both are arrays [n, targets]; the latency is predicted in ms, not a number where no scale fits. However many
        codes there are, it takes a few tens of MiB beside what it returns.
        """
        scales = np.full((len(codes), len(targets_ms)), -1, dtype=np.int64)
        ms = np.full(scales.shape, np.nan)
        done = 0
        for chunk in _chunks(codes):
            costs, rows = self.of(chunk), slice(done, done + len(chunk))
            for column, target_ms in enumerate(targets_ms):
                largest = costs.largest(budget, target_ms=target_ms)
                scales[rows, column] = largest
                ms[rows, column] = np.where(largest < 0, np.nan, costs.ms[np.arange(len(chunk)), largest])
            done += len(chunk)
        return scales, ms

    def _projected(self, codes: "Codes") -> "Array":
        """Return [n, scales, 4], the projected sums over each cell's layers at every scale."""
        projection, blocks = self._projection, codes.shape[1]
        ways, way_of = np.unique(self._ways_of_reading(codes), return_inverse=True)
        rests = np.array([self._rest(int(way), blocks) @ projection for way in ways])
        sums = rests.reshape(len(ways), -1)[way_of]
        counts, reads_previous = self._counts(codes), _reads_previous(codes)
        for flag in (False, True):
            rows = np.flatnonzero(reads_previous == flag)
            if len(rows):
                branches = self._branch_costs(flag, alone=blocks == 1) @ projection
                sums[rows] += counts[rows] @ branches.reshape(len(branches), -1)
        return sums.reshape(len(codes), len(self.scales), 4)

    def _ways_of_reading(self, codes: "Codes") -> "Numbers":
        """Return a number [n] whose bits say by which sorts of operations the two inputs are read."""
        ways = np.zeros(len(codes), dtype=np.int64)
        for side in (0, 2):
            sources, sorts = codes[:, :, side + 1], self._sort[codes[:, :, side]]
            bits = np.where(sources < 2, 1 << (np.minimum(sources, 1) * _SORTS + sorts), 0)
            ways |= np.bitwise_or.reduce(bits, axis=1)
        return ways

    def _rest(self, way: int, blocks: int) -> "Array":
        """Return [scales, COSTS]: what cells that read their inputs in a way cost beside branches and blocks' ReLUs."""
        if (way, blocks) not in self._rests:
            cell = self._representative(way, blocks)
            index = {operation: at for at, operation in enumerate(self.operations)}
            rows = [(index[b.left[0]], b.left[1], index[b.right[0]], b.right[1]) for b in cell.blocks]
            codes = np.array([rows])
            reads_previous = bool(_reads_previous(codes)[0])
            branches = self._branch_costs(reads_previous, alone=blocks == 1)
            exchanged = np.tensordot(self._counts(codes)[0], branches, axes=1)
            totals = np.array([self._total(CellNetwork(cell, scale)) for scale in self.scales])
            self._rests[way, blocks] = totals.reshape(-1, COSTS) - exchanged
        return self._rests[way, blocks]

    def _representative(self, way: int, blocks: int) -> Cell:
        """Return a cell that reads its inputs in a way, always the same: what is predicted tells no history."""
        first = [self.operations[int(np.flatnonzero(self._sort == sort)[0])] for sort in sorted({*self._sort.tolist()})]
        of_sort = {_sort(operation): operation for operation in first}
        reads: list[Branch] = [(of_sort[bit % _SORTS], bit // _SORTS) for bit in range(2 * _SORTS) if way >> bit & 1]
        branches = [reads[at % len(reads)] for at in range(2 * blocks)]
        return Cell(tuple(map(Block, branches[::2], branches[1::2])))

    def _counts(self, codes: "Codes") -> "Array":
        """Return [n, branches + 1]: how often a cell has each branch, and how many of its blocks need a ReLU."""
        branches = len(self.operations) * _STATES
        kinds = codes[:, :, 0::2] * _STATES + np.minimum(codes[:, :, 1::2], _STATES - 1)
        places = np.arange(len(codes))[:, None] * branches + kinds.reshape(len(codes), -1)
        counts = np.bincount(places.ravel(), minlength=len(codes) * branches).reshape(len(codes), branches)
        return np.column_stack([counts, self._blocks_with_relu(codes)]).astype(np.float64)

    def _blocks_with_relu(self, codes: "Codes") -> "Numbers":
        """Return how many blocks [n] are read by an operation that begins with a ReLU."""
        read = np.zeros((len(codes), codes.shape[1]), dtype=bool)
        for block in range(codes.shape[1]):
            for side in (0, 2):
                source = codes[:, block, side + 1]
                rows = np.flatnonzero((source >= 2) & (self._sort[codes[:, block, side]] == 0))
                read[rows, source[rows] - 2] = True
        return np.asarray(read.sum(axis=1), dtype=np.int64)

    def _branch_costs(self, reads_previous: bool, *, alone: bool) -> "Array":
        """Return [branches + 1, scales, COSTS]: what each branch costs, operation by operation, and a block's ReLU.

        A cell that does not read h[l-1] lets every other cell be skipped. A block that is `alone` in its cell reads
        h[l-2] unsqueezed.
        """
        if (reads_previous, alone) not in self._branches:
            by_scale = [self._branches_at(scale, reads_previous, alone) for scale in self.scales]
            shape = (len(self.operations) * _STATES + 1, len(self.scales), COSTS)
            self._branches[reads_previous, alone] = np.stack(by_scale, axis=1) if by_scale else np.zeros(shape)
        return self._branches[reads_previous, alone]

    def _branches_at(self, scale: Scale, reads_previous: bool, alone: bool) -> "Array":
        branch, relu = np.zeros((len(self.operations), _STATES, COSTS)), np.zeros(COSTS)
        other = 1 if reads_previous else 0
        for index, operation in enumerate(self.operations):
            blocks = (Block((operation, 0), (operation, other)), Block((operation, 2), ("identity", other)))
            origins, costs = self._layer_costs(CellNetwork(Cell(blocks[:1] if alone else blocks), scale))
            branch[index, 0] = _sum_of(costs, origins, ("block1", "left"))
            branch[index, 1] = _sum_of(costs, origins, ("block1", "right"))
            branch[index, 2] = _sum_of(costs, origins, ("block2", "left"))
            if self._sort[index] == 0:
                relu = _sum_of(costs, origins, ("block1", "relu"))
        return np.concatenate([branch.reshape(-1, COSTS), relu[None]])


def _chunks(codes: "Codes") -> "Iterator[Codes]":
    for at in range(0, len(codes), _CHUNK):
        yield codes[at : at + _CHUNK]


def _reads_previous(codes: "Codes") -> "NDArray[np.bool_]":
    """Say of each cell [n] whether it reads h[l-1]."""
    return np.asarray((codes[:, :, 1::2] == 1).any(axis=(1, 2)))


def _sum_of(costs: "Array", origins: Iterable[tuple[Step, ...]], place: tuple[Step, Step]) -> "Array":
    """Sum the costs [layers, COSTS] of the layers whose origins have these two steps, one right after the other."""
    total: Array = costs[np.array([place in pairwise(origin) for origin in origins])].sum(axis=0)
    return total


def _sort(operation: str) -> int:
    if operation == ops.IDENTITY:
        return 2
    return 0 if ops.steps(operation)[0].kind == "relu" else 1
