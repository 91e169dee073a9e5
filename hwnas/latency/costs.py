"""What candidates cost on the device: predicted latency, Mult-Adds and parameters, for many cells at many scales.

A layer's cost is looked up in the latency table; a network's is the sum over its layers, corrected. Sums over layers
split: cells that read their inputs in the same ways differ only in their branches. So the one walk is taken for a
representative of each way of reading, and branches are exchanged; the result equals the walk of every cell, at a
thousandth of the time.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hwnas import formats
from hwnas.errors import BudgetError
from hwnas.latency.budget import Budget
from hwnas.latency.correction import ALIGNMENT, KINDS, TERMS, Correction, Prediction, fit_correction
from hwnas.latency.measurement import Measurement, TimedNetwork
from hwnas.latency.table import LatencyTable
from hwnas.network import (
    Architecture,
    Block,
    Cell,
    CellNetwork,
    Graph,
    Layer,
    Scale,
    Shape,
    decode,
    executed,
    layer_mult_adds,
    layer_parameters,
    ops,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

    Array = NDArray[np.float64]

_BRANCH = re.compile(r"cell\d+\.block(\d+)\.(left|right)\b")
_BLOCK_RELU = re.compile(r"cell\d+\.block(\d+)\.relu")
_TERMS = len(TERMS)
_COSTS = _TERMS + 2  # and Mult-Adds, parameters
_SORTS = 3  # what reads a state: an operation that begins with a ReLU, a pooling, the identity


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of n cells at each of s scales: arrays [n, s]; `upper_ms` is the upper end of the predicted interval."""

    ms: "Array"
    upper_ms: "Array"
    mult_adds: "Array"
    parameters: "Array"

    def largest(self, budget: Budget, *, target_ms: "Array | float") -> "NDArray[np.int64]":
        """Return for each cell [n] the scale with the most Mult-Adds inside the caps and target, or -1."""
        fits = self.upper_ms <= np.reshape(target_ms, (-1, 1))
        if budget.max_mult_adds is not None:
            fits &= self.mult_adds <= budget.max_mult_adds
        if budget.max_parameters is not None:
            fits &= self.parameters <= budget.max_parameters
        best = np.where(fits, self.mult_adds, -1.0).argmax(axis=1)
        return np.where(fits.any(axis=1), best, -1)

    def calibrated(self, measured: Mapping[int, Measurement], *, canary_ms: float | None) -> "Costs":
        """Return one cell's costs, given what was measured of it at some scales: other scales are off by as much.

        Between measured scales the ratio of measured to predicted is interpolated. `upper_ms` is the upper end of what
        was measured; elsewhere it is the prediction itself, as a scale that may fit is worth measuring.
        """
        at = sorted(measured, key=lambda scale: float(self.ms[0, scale]))
        measured_ms = np.array([measured[scale].at(canary_ms) for scale in at])
        ratio = np.interp(self.ms, self.ms[0, at], measured_ms / self.ms[0, at]) if at else 1.0
        ms = self.ms * ratio
        upper_ms = ms.copy()
        ms[0, at], upper_ms[0, at] = measured_ms, [measured[scale].upper(canary_ms) for scale in at]
        return replace(self, ms=ms, upper_ms=upper_ms)


def largest_measured(
    costs: Costs,
    budget: Budget,
    measured: dict[int, Measurement],
    measure: Callable[[int], Measurement],
    *,
    target_ms: float,
    canary_ms: float | None,
    most: int,
) -> int:
    """Return the largest scale of one cell that is measured inside the target, or -1; measure `most` times at most.

    From the largest scale that is predicted to fit, it steps to larger and smaller ones as the measured ratio says.
    `measured` holds what is known already and is added to; the next step follows from it alone, so that a search that
    was stopped between two measurements goes on as if it had not been.
    """
    for _ in range(most):
        known = costs.calibrated(measured, canary_ms=canary_ms)
        largest = int(known.largest(budget, target_ms=target_ms)[0])
        if largest < 0 or largest in measured:
            break
        measured[largest] = measure(largest)
    inside = [scale for scale, found in measured.items() if found.upper(canary_ms) <= target_ms]
    return max(inside, key=lambda scale: float(costs.mult_adds[0, scale]), default=-1)


class CostModel:
    """Costs of networks on the device of a latency table; with `operations` also of many cells over them at once."""

    def __init__(self, table: LatencyTable, scales: Sequence[Scale], *, operations: Sequence[str] = ()) -> None:
        self.table = table
        self.scales = tuple(scales)
        self.operations = tuple(operations)
        self._format = formats.get(table.setting.runtime)
        self._found: dict[str, tuple[float, ...]] = {}  # the terms of the table's entries that were asked for
        self._totals: dict[Architecture, Array] = {}
        self._branches: dict[tuple[Scale, bool, bool], tuple[Array, Array]] = {}
        self._sort = np.array([_sort(operation) for operation in operations])
        self._further: tuple[TimedNetwork, ...] = ()  # beside the table's

    def lower(self, architecture: Architecture) -> Graph:
        """Return the layers that the table's runtime executes."""
        return self._format.lower(architecture.graph, without=self.table.setting.without)

    def predict(self, architecture: Architecture) -> Prediction:
        """Return the predicted latency of one network.

        Raises TableError where an entry is missing.
        """
        return self.correction.predict(self._total(architecture)[:_TERMS])

    def layer_ms(self, architecture: Architecture) -> list[tuple[str, float]]:
        """Return each executed layer's key and its latency in the table, in the order of execution."""
        return [(name, self.table.ms(name)) for name, _, _ in executed(self.lower(architecture))]

    @cached_property
    def correction(self) -> Correction:
        """The correction fitted to the table's timed networks, but for those that are held out, and to further ones."""
        networks = [network for network in (*self.table.networks, *self._further) if not network.held_out]
        terms = np.array([self._total(network.architecture)[:_TERMS] for network in networks])
        measured = np.array([self.table.stated_ms(network.measurement) for network in networks])
        return fit_correction(terms, measured)

    def corrected_by(self, networks: Sequence[TimedNetwork]) -> "CostModel":
        """Return this model with its correction fitted to further networks too; what was looked up is shared."""
        model = copy(self)
        vars(model).pop("correction", None)  # this one's, should it be known
        model._further = (*self._further, *networks)
        return model

    def of(self, codes: "Codes") -> Costs:
        """Return the costs of codes [n, blocks, 4] at every scale."""
        if not len(codes):
            empty = np.zeros((0, len(self.scales)))
            return Costs(empty, empty, empty, empty)
        return self._costs(np.stack([self._sums(codes, scale) for scale in self.scales], axis=1))

    def walked(self, networks: "Iterable[Sequence[Architecture]]") -> Costs:
        """Return the costs of networks, each given at every scale: arrays [networks, scales]."""
        return self._costs(np.array([[self._total(architecture) for architecture in one] for one in networks]))

    def _costs(self, totals: "Array") -> Costs:
        """Return the costs of totals [n, scales, _COSTS]."""
        ms = self.correction.ms(totals[..., :_TERMS])
        return Costs(ms, ms * (1 + self.correction.error), totals[..., _TERMS], totals[..., _TERMS + 1])

    def check_reachable(self, costs: Costs, budget: Budget) -> None:
        """Raise BudgetError, naming the smallest figures, where not one of a space's small networks fits the caps."""
        if (costs.largest(budget, target_ms=budget.max_latency_ms) >= 0).any():
            return
        at = np.unravel_index(costs.upper_ms.argmin(), costs.upper_ms.shape)
        raise BudgetError(
            f"nothing in the space fits the caps: the fastest network is predicted at {costs.ms[at]:.3g} ms, "
            f"{costs.upper_ms[at]:.3g} ms with its error ({self.scales[at[1]]}), and the smallest has "
            f"{costs.mult_adds.min():,.0f} Mult-Adds and {costs.parameters.min():,.0f} parameters. "
            f"Raise --max-latency-ms (got {budget.max_latency_ms:g}) or allow fewer --filters"
        )

    def _layer_costs(self, architecture: Architecture) -> "tuple[list[str], Array]":
        """Return names and costs [layers, _COSTS]: the correction's terms, Mult-Adds, parameters.

        The executed layers come first, with the terms; then the architecture's own, with Mult-Adds and parameters.
        """
        names, rows = [], []
        for name, layer, shapes in executed(self.lower(architecture)):
            names.append(layer.name)
            rows.append((*self._terms(name, layer, shapes), 0.0, 0.0))
        graph = architecture.graph
        for layer in graph.layers:
            shapes = graph.input_shapes(layer)
            names.append(layer.name)
            rows.append((*(0.0,) * _TERMS, layer_mult_adds(layer, shapes), layer_parameters(layer, shapes)))
        names.append("")
        rows.append((*(0.0,) * (_TERMS - 1), 1.0, 0.0, 0.0))  # the constant
        return names, np.array(rows)

    def _terms(self, name: str, layer: Layer, shapes: tuple[Shape, ...]) -> tuple[float, ...]:
        """Return what an executed layer adds to the terms of `correction.TERMS`."""
        if name not in self._found:
            kind, activations = _kind(layer), prod(layer.shape) + sum(map(prod, shapes))
            times = (self.table.ms(name) if kind == other else 0.0 for other in KINDS)
            sizes = (4e-6 * activations if kind == other else 0.0 for other in KINDS)
            self._found[name] = (*times, *sizes, 1.0, 4e-6 * layer_parameters(layer, shapes), 0.0)
        return self._found[name]

    def _total(self, architecture: Architecture) -> "Array":
        if architecture not in self._totals:
            self._totals[architecture] = self._layer_costs(architecture)[1].sum(axis=0)
        return self._totals[architecture]

    def _sums(self, codes: "Codes", scale: Scale) -> "Array":
        """Return [n, _COSTS]: each cell's costs at one scale, summed over the layers."""
        groups, representatives, group_of = np.unique(
            self._ways_of_reading(codes), return_index=True, return_inverse=True
        )
        own = self._own_costs(codes, scale)
        totals = np.empty((len(groups), _COSTS))
        for group, at in enumerate(representatives):
            (cell,) = decode(codes[at : at + 1], self.operations)
            totals[group] = self._total(CellNetwork(cell, scale)) - own[at]
        sums: Array = totals[group_of] + own
        return sums

    def _ways_of_reading(self, codes: "Codes") -> "NDArray[np.int64]":
        """Return a number [n] that is equal for cells whose inputs are read by the same sorts of operations."""
        flags = np.zeros((len(codes), 2, _SORTS), dtype=bool)
        for block in range(codes.shape[1]):
            for side in (0, 2):
                source, sort = codes[:, block, side + 1], self._sort[codes[:, block, side]]
                rows = np.flatnonzero(source < 2)
                flags[rows, source[rows], sort[rows]] = True
        return np.asarray(flags.reshape(len(codes), -1) @ (1 << np.arange(2 * _SORTS)), dtype=np.int64)

    def _own_costs(self, codes: "Codes", scale: Scale) -> "Array":
        """Return [n, _COSTS]: what the branches cost, and the ReLUs on blocks that operations read which need one."""
        reads_previous: NDArray[np.bool_] = (codes[:, :, 1::2] == 1).any(
            axis=(1, 2)
        )  # otherwise every other cell is skipped
        costs = np.zeros((len(codes), _COSTS))
        for flag in (False, True):
            rows = np.flatnonzero(reads_previous == flag)
            if not len(rows):
                continue
            branch, relu = self._branch_costs(scale, flag, alone=codes.shape[1] == 1)
            chosen = codes[rows]
            for side in (0, 2):
                costs[rows] += branch[chosen[:, :, side], np.minimum(chosen[:, :, side + 1], 2)].sum(axis=1)
            costs[rows] += self._blocks_with_relu(chosen)[:, None] * relu
        return costs

    def _blocks_with_relu(self, codes: "Codes") -> "NDArray[np.int64]":
        read = np.zeros((len(codes), codes.shape[1]), dtype=bool)
        for block in range(codes.shape[1]):
            for side in (0, 2):
                source = codes[:, block, side + 1]
                rows = np.flatnonzero((source >= 2) & (self._sort[codes[:, block, side]] == 0))
                read[rows, source[rows] - 2] = True
        return np.asarray(read.sum(axis=1), dtype=np.int64)

    def _branch_costs(self, scale: Scale, reads_previous: bool, *, alone: bool) -> "tuple[Array, Array]":
        """Return [operations, 3, _COSTS], a branch's cost on h[l-2], h[l-1] and a block, and a block's ReLU's.

        A block that is `alone` in its cell reads h[l-2] unsqueezed.
        """
        if (scale, reads_previous, alone) not in self._branches:
            branch, relu = np.zeros((len(self.operations), 3, _COSTS)), np.zeros(_COSTS)
            for index, operation in enumerate(self.operations):
                other = 1 if reads_previous else 0
                blocks = (Block((operation, 0), (operation, other)), Block((operation, 2), ("identity", other)))
                names, costs = self._layer_costs(CellNetwork(Cell(blocks[:1] if alone else blocks), scale))
                branch[index, 0] = _sum_of(costs, names, _BRANCH, "1", "left")
                branch[index, 1] = _sum_of(costs, names, _BRANCH, "1", "right")
                branch[index, 2] = _sum_of(costs, names, _BRANCH, "2", "left")
                if self._sort[index] == 0:
                    relu = _sum_of(costs, names, _BLOCK_RELU, "1")
            self._branches[scale, reads_previous, alone] = branch, relu
        return self._branches[scale, reads_previous, alone]


def _kind(layer: Layer) -> str:
    """Return which of `correction.KINDS` an executed layer is."""
    kinds = {"add": "addition", "max_pool": "pooling", "avg_pool": "pooling"}
    kind = kinds.get(layer.kind, "other")
    if layer.kind == "conv":
        kind = "depthwise" if layer.depthwise else "pointwise" if layer.kernel == (1, 1) else "convolution"
    return f"{kind}, aligned" if layer.shape[0] % ALIGNMENT == 0 else kind


def _sum_of(costs: "Array", names: Iterable[str], pattern: re.Pattern[str], *groups: str) -> "Array":
    chosen = [bool((match := pattern.match(name)) and match.groups() == groups) for name in names]
    total: Array = costs[np.array(chosen)].sum(axis=0)
    return total


def _sort(operation: str) -> int:
    if operation == ops.IDENTITY:
        return 2
    return 0 if ops.steps(operation)[0].kind == "relu" else 1
