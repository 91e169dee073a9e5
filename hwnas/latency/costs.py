"""What networks cost on the device: predicted latency, Mult-Adds and parameters.

A layer's cost is looked up in the latency table; a network's is the sum over its layers, corrected by what whole
networks took. Of cells there is a faster way, for many at once: cell_costs.py.
"""

from collections import deque
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
from hwnas.latency.measurement import MeasuredLatency, TimedNetwork
from hwnas.latency.table import LatencyTable
from hwnas.network import (
    Architecture,
    Graph,
    Layer,
    Scale,
    Shape,
    Step,
    executed,
    layer_mult_adds,
    layer_parameters,
)
from hwnas.support.commands import Command

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

COSTS = len(TERMS) + 2  # of a layer: and Mult-Adds, parameters
_KEPT = 2  # corrections: to the table's networks, and to those that a search has measured so far


@dataclass(frozen=True, slots=True)
class _Evidence:
    """A network that was timed, its terms and the latency that the table states of it."""

    network: TimedNetwork
    terms: "Array"
    ms: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of n cells at each of s scales: arrays [n, s]; `upper_ms` is the upper end of the predicted interval.

    Memory in KiB is there where it was looked at.
    """

    ms: "Array"
    upper_ms: "Array"
    mult_adds: "Array"
    parameters: "Array"
    file_kib: "Array | None" = None
    activation_kib: "Array | None" = None

    def largest(self, budget: Budget, *, target_ms: "Array | float") -> "NDArray[np.int64]":
        """Return for each cell [n] the scale with the most Mult-Adds inside the caps and target, or -1."""
        fits = self.fits(budget, target_ms=np.reshape(target_ms, (-1, 1)))
        best = np.where(fits, self.mult_adds, -1.0).argmax(axis=1)
        return np.where(np.any(fits, axis=1), best, -1)

    def fits(self, budget: Budget, *, target_ms: "Array | float") -> "NDArray[np.bool_]":
        """Say of each cell and scale [n, scales] whether it is inside the caps and target."""
        inside = budget.inside(
            latency_ms=self.upper_ms,
            mult_adds=self.mult_adds,
            parameters=self.parameters,
            file_kib=self.file_kib,
            activation_kib=self.activation_kib,
            target_ms=target_ms,
        )
        return np.asarray(inside)

    def excess(self, budget: Budget, *, target_ms: float) -> "Array":
        """Return by what share costs [n, scales] are over the caps and target, summed over these; 0 inside them."""
        over = replace(budget, max_latency_ms=target_ms).excesses(
            latency_ms=self.upper_ms,
            mult_adds=self.mult_adds,
            parameters=self.parameters,
            file_kib=self.file_kib,
            activation_kib=self.activation_kib,
        )
        return np.asarray(sum(np.maximum(share, 0.0) for share in over.values()))

    def expected(self) -> "Costs":
        """Return the costs without the predictions' error: where scales are measured, one that may fit is tried."""
        return replace(self, upper_ms=self.ms)

    def calibrated(self, measured: Mapping[int, MeasuredLatency]) -> "Costs":
        """Return one cell's costs, given what was measured of it at some scales: other scales are off by as much.

        Between measured scales the ratio of measured to predicted is interpolated. `upper_ms` is the upper end of what
        was measured; elsewhere it is the prediction itself, as a scale that may fit is worth measuring.
        """
        at = sorted(measured, key=lambda scale: float(self.ms[0, scale]))
        measured_ms = np.array([measured[scale].ms for scale in at])
        ratio = np.interp(self.ms, self.ms[0, at], measured_ms / self.ms[0, at]) if at else 1.0
        ms = self.ms * ratio
        upper_ms = ms.copy()
        ms[0, at], upper_ms[0, at] = measured_ms, [measured[scale].upper_ms for scale in at]
        return replace(self, ms=ms, upper_ms=upper_ms)


def largest_measured(
    costs: Costs,
    budget: Budget,
    measured: dict[int, MeasuredLatency],
    measure: Callable[[int], MeasuredLatency],
    *,
    target_ms: float,
    most: int,
) -> int:
    """Return the largest scale of one cell that is measured inside the target, or -1; measure `most` times at most.

    From the largest scale that is predicted to fit, it steps to larger and smaller ones as the measured ratio says.
    `measured` holds what is known already and is added to; the next step follows from it alone, so that a search that
    was stopped between two measurements goes on as if it had not been.
    """
    for _ in range(most):
        known = costs.calibrated(measured)
        largest = int(known.largest(budget, target_ms=target_ms)[0])
        if largest < 0 or largest in measured:
            break
        measured[largest] = measure(largest)
    inside = [scale for scale, latency in measured.items() if latency.upper_ms <= target_ms]
    return max(inside, key=lambda scale: float(costs.mult_adds[0, scale]), default=-1)


class CostModel:
    """Costs of networks on the device of a latency table."""

    def __init__(self, table: LatencyTable, scales: Sequence[Scale]) -> None:
        self.table = table
        self.scales = tuple(scales)
        self._format = formats.get(table.setting.runtime)
        self._terms_of_entries: dict[str, tuple[float, ...]] = {}  # that were asked for
        self._totals: dict[Architecture, Array] = {}
        self._further: tuple[TimedNetwork, ...] = ()  # beside the table's
        self._evidence: dict[int, _Evidence] = {}  # by the network's id
        self._fitted: deque[tuple[tuple[TimedNetwork, ...], Correction]] = deque(maxlen=_KEPT)

    @property
    def models(self) -> "tuple[CostModel, ...]":
        """The model of each device: of one it is this."""
        return (self,)

    @property
    def error(self) -> float:
        """The share by which nine of ten predictions are wrong at most."""
        return self.correction.error

    def lower(self, architecture: Architecture) -> Graph:
        """Return the layers that the table's runtime executes."""
        return self._format.lower(architecture.graph, without=self.table.setting.without)

    def has(self, architectures: Iterable[Architecture]) -> bool:
        """Say whether the table has the entries of all these networks."""
        return not any(
            self.table.missing(name for name, _, _ in executed(self.lower(architecture)))
            for architecture in architectures
        )

    def require(self, architectures: Iterable[Architecture], *, command: Command) -> None:
        """Raise TableError, with the command that measures them, where the table lacks entries of these networks."""
        for architecture in architectures:
            self.table.require((name for name, _, _ in executed(self.lower(architecture))), command=command)

    def predict(self, architecture: Architecture) -> Prediction:
        """Return the predicted latency of one network.

        Raises TableError where an entry is missing.
        """
        return self.correction.predict(self._total(architecture)[: len(TERMS)])

    def layer_ms(self, architecture: Architecture) -> list[tuple[str, float]]:
        """Return each executed layer's key and its latency in the table, in the order of execution."""
        return [(name, self.table.ms(name)) for name, _, _ in executed(self.lower(architecture))]

    @cached_property
    def correction(self) -> Correction:
        """The correction fitted to the table's timed networks, but for those that are held out, and to further ones.

        To the same networks it is fitted once.
        """
        networks = tuple(network for network in (*self.table.networks, *self._further) if not network.held_out)
        for known, correction in self._fitted:
            if known == networks:
                return correction
        evidence = [self._evidence_of(network) for network in networks]
        correction = fit_correction(np.array([e.terms for e in evidence]), np.array([e.ms for e in evidence]))
        self._fitted.append((networks, correction))
        return correction

    def _evidence_of(self, network: TimedNetwork) -> "_Evidence":
        known = self._evidence.get(id(network))
        if known is None:
            terms = self._total(network.architecture)[: len(TERMS)]
            known = _Evidence(network, terms, self.table.stated_ms(network.measurement))
            self._evidence[id(network)] = known
        return known

    def corrected_by(self, networks: Sequence[TimedNetwork]) -> "CostModel":
        """Return this model with its correction fitted to further networks too; what was looked up is shared."""
        model = copy(self)
        vars(model).pop("correction", None)  # this one's, should it be known
        model._further = (*self._further, *networks)
        return model

    def walked(self, networks: "Iterable[Sequence[Architecture]]") -> Costs:
        """Return the costs of networks, each given at every scale: arrays [networks, scales]."""
        totals = np.array([[self._total(architecture) for architecture in at_scales] for at_scales in networks])
        return self._costs(totals @ self._projection)

    @property
    def _projection(self) -> "Array":
        """[COSTS, 4]: from sums over layers to the two that latencies come from, Mult-Adds and parameters."""
        projection = np.zeros((COSTS, 4))
        projection[: len(TERMS), :2] = self.correction.projection
        projection[len(TERMS), 2] = projection[len(TERMS) + 1, 3] = 1.0
        return projection

    def _costs(self, projected: "Array") -> Costs:
        """Return the costs of projected sums [n, scales, 4]."""
        ms = self.correction.projected_ms(projected[..., :2])
        return Costs(ms, ms * (1 + self.error), projected[..., 2], projected[..., 3])

    def check_reachable(self, costs: Costs, budget: Budget) -> None:
        """Raise BudgetError where not one of a space's small networks fits the caps.

        It names the smallest figures, and the caps that all of them are over, or all caps where there is none such.
        """
        if (costs.largest(budget, target_ms=budget.max_latency_ms) >= 0).any():
            return
        at = np.unravel_index(costs.upper_ms.argmin(), costs.upper_ms.shape)
        raise BudgetError(
            f"nothing in the space fits the caps: the fastest network is predicted at {costs.ms[at]:.3g} ms, "
            f"{costs.upper_ms[at]:.3g} ms with its error ({self.scales[at[1]]}), and the smallest has "
            f"{costs.mult_adds.min():,.0f} Mult-Adds and {costs.parameters.min():,.0f} parameters. "
            f"{_raise(costs, budget)} or allow fewer --filters"
        )

    def _layer_costs(self, architecture: Architecture) -> "tuple[list[tuple[Step, ...]], Array]":
        """Return origins and costs [layers, COSTS]: the correction's terms, Mult-Adds, parameters.

        The executed layers come first, with the terms; then the architecture's own, with Mult-Adds and parameters.
        """
        origins, rows = [], []
        for name, layer, shapes in executed(self.lower(architecture)):
            origins.append(layer.origin)
            rows.append((*self._terms(name, layer, shapes), 0.0, 0.0))
        graph = architecture.graph
        for layer in graph.layers:
            shapes = graph.input_shapes(layer)
            origins.append(layer.origin)
            rows.append((*(0.0,) * len(TERMS), layer_mult_adds(layer, shapes), layer_parameters(layer, shapes)))
        origins.append(())
        rows.append((*(0.0,) * (len(TERMS) - 1), 1.0, 0.0, 0.0))  # the constant
        return origins, np.array(rows)

    def _terms(self, name: str, layer: Layer, shapes: tuple[Shape, ...]) -> tuple[float, ...]:
        """Return what an executed layer adds to the terms of `correction.TERMS`."""
        if name not in self._terms_of_entries:
            kind, activations = _kind(layer), prod(layer.shape) + sum(map(prod, shapes))
            times = (self.table.ms(name) if kind == other else 0.0 for other in KINDS)
            sizes = (4e-6 * activations if kind == other else 0.0 for other in KINDS)
            self._terms_of_entries[name] = (*times, *sizes, 1.0, 4e-6 * layer_parameters(layer, shapes), 0.0)
        return self._terms_of_entries[name]

    def _total(self, architecture: Architecture) -> "Array":
        if architecture not in self._totals:
            self._totals[architecture] = self._layer_costs(architecture)[1].sum(axis=0)
        return self._totals[architecture]


def _raise(costs: Costs, budget: Budget) -> str:
    """Return which caps are to be raised, where no costs are inside all of them."""
    over = budget.excesses(latency_ms=costs.upper_ms, mult_adds=costs.mult_adds, parameters=costs.parameters)
    if too_low := [name for name, share in over.items() if (share > 0).all()]:
        return f"Raise {budget.options(too_low, joined_by=' and ')}"
    return f"Some network is inside each cap, but none inside all: raise {budget.options()}"


def _kind(layer: Layer) -> str:
    """Return which of `correction.KINDS` an executed layer is."""
    kinds = {"add": "addition", "max_pool": "pooling", "avg_pool": "pooling"}
    kind = kinds.get(layer.kind, "other")
    if layer.kind == "conv":
        kind = "depthwise" if layer.depthwise else "pointwise" if layer.kernel == (1, 1) else "convolution"
    return f"{kind}, aligned" if layer.shape[0] % ALIGNMENT == 0 else kind
