"""The largest scale (N, F, resolution) at which given cells fit caps: from the costs alone, nothing is trained.

Mult-Adds and parameters are polynomials of the second degree in F, so three walks give them at every F of one N and one
resolution. Latencies have no such rule: networks are walked from the largest down until one is inside the cap.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, assert_never

from hwnas.errors import BudgetError
from hwnas.network import Scale

if TYPE_CHECKING:
    from hwnas.formats import Memory
    from hwnas.latency.budget import Budget
    from hwnas.latency.correction import Prediction
    from hwnas.network import CellNetwork

_POINTS = 3  # that a polynomial of the second degree goes through
_Costs = tuple[int, int]  # Mult-Adds and parameters


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest scale that fits, its costs, among how many scales it was found, and how long that took.

    The latencies are predicted, `upper_ms` is the upper end of the interval; without a device there are none.
    """

    scale: Scale
    mult_adds: int
    parameters: int
    latency_ms: float | None
    upper_ms: float | None
    scales: int
    milliseconds: float


def largest(
    network: "CellNetwork",
    scales: Sequence[Scale],
    budget: "Budget",
    *,
    predict: "Callable[[CellNetwork], Prediction] | None" = None,
    memory_of: "Callable[[CellNetwork], Memory] | None" = None,
) -> Largest:
    """Return the scale with the most Mult-Adds at which a network's cells are inside the caps.

    `predict` gives the latency, `memory_of` the memory; without them these have no cap. Raises BudgetError where no
    scale fits, InputError where an image is too small, TableError where the latency of an operator is not known.
    """
    started = time.perf_counter()
    costs = scale_costs(network, scales)
    inside = [scale for scale, (m, p) in costs.items() if budget.inside(mult_adds=m, parameters=p)]
    if memory_of:
        inside = _with_room(inside, lambda scale: bool(budget.inside(**memory_of(network.at(scale)).in_kib)))
    fastest: tuple[float, Scale] | None = None
    for scale in sorted(inside, key=lambda scale: -costs[scale][0]):
        latency = predict(network.at(scale)) if predict else None
        mult_adds, parameters = costs[scale]
        upper_ms = latency.upper_ms if latency else None
        if budget.inside(latency_ms=upper_ms, mult_adds=mult_adds, parameters=parameters):
            return Largest(
                scale=scale,
                mult_adds=mult_adds,
                parameters=parameters,
                latency_ms=latency.ms if latency else None,
                upper_ms=upper_ms,
                scales=len(costs),
                milliseconds=round(1e3 * (time.perf_counter() - started), 3),
            )
        fastest = min(fastest or (inf, scale), (upper_ms or inf, scale), key=lambda latency: latency[0])
    raise _nothing_fits(costs, budget, fastest)


def _with_room(scales: Sequence[Scale], has_room: Callable[[Scale], bool]) -> list[Scale]:
    """Return the scales whose memory is inside the caps, as if it never fell as F rises: so few are looked at."""
    by_filters: dict[Scale, list[Scale]] = defaultdict(list)
    for scale in sorted(scales, key=lambda scale: scale.filters):
        by_filters[scale.with_filters(1)].append(scale)
    return [
        scale
        for members in by_filters.values()
        for scale in members[: bisect_left(members, True, key=lambda scale: not has_room(scale))]
    ]


def scale_costs(network: "CellNetwork", scales: Sequence[Scale]) -> dict[Scale, _Costs]:
    """Return the Mult-Adds and the parameters of a network's cells at each scale."""
    alike: dict[Hashable, list[Scale]] = defaultdict(list)
    for scale in scales:
        alike[_polynomial(network, scale)].append(scale)
    walked: dict[Scale, _Costs] = {}
    for members in alike.values():
        points = {scale.filters: _walked(network, scale) for scale in members[:_POINTS]}
        walked |= {scale: points.get(scale.filters) or _interpolated(points, scale.filters) for scale in members}
    return {scale: walked[scale] for scale in scales}


def _polynomial(network: "CellNetwork", scale: Scale) -> Hashable:
    """Return what the scales have in common whose costs are on one polynomial in F; a scale on none is by itself.

    Filters are divided by four in ImageNet's stem cells and in bottlenecks, and rounded down: F that leave the same
    rest belong together. Where ImageNet's stem, of constant filters, happens to have those of a cell, that cell has
    convolutions less.
    """
    blocks = [block for cell in network.cells.values() for block in cell.blocks]
    narrow = any(operation.endswith("_bottleneck") for block in blocks for operation, _ in (block.left, block.right))
    match scale.skeleton:
        case "cifar":
            divisor = 4**narrow
            alone = (scale.stem_multiplier or 3) * scale.filters % 1 != 0
        case "imagenet":
            divisor = 4 ** (1 + narrow)
            stem = round(32 * (scale.stem_multiplier or 1))
            alone = stem in (scale.filters // 2, scale.filters // 4)
        case _:
            assert_never(scale.skeleton)
    alone |= scale.filters < divisor  # rounded up to one filter
    return scale.with_filters(1), scale.filters % divisor, scale.filters if alone else None


def _walked(network: "CellNetwork", scale: Scale) -> _Costs:
    graph = network.at(scale).graph
    return graph.mult_adds, graph.parameters


def _interpolated(points: Mapping[int, _Costs], filters: int) -> _Costs:
    """Return the values, at F, of the polynomials through points (Lagrange), without rounding."""
    sums = [Fraction(0), Fraction(0)]
    for known, values in points.items():
        weight = Fraction(1)
        for other in points:
            if other != known:
                weight *= Fraction(filters - other, known - other)
        sums = [total + weight * value for total, value in zip(sums, values, strict=True)]
    return int(sums[0]), int(sums[1])


def _nothing_fits(costs: Mapping[Scale, _Costs], budget: "Budget", fastest: tuple[float, Scale] | None) -> BudgetError:
    if fastest:
        return BudgetError(
            f"these cells must run in {budget.max_latency_ms:g} ms at some scale inside the other caps; the fastest is "
            f"predicted at {fastest[0]:.3g} ms with its error ({fastest[1]}). "
            "Raise --max-latency-ms, or allow smaller --cells, --filters or --resolution"
        )
    small, (mult_adds, parameters) = min(costs.items(), key=lambda pair: pair[1])
    return BudgetError(
        f"these cells must be inside the caps at some scale; of {len(costs)} the smallest, {small}, has "
        f"{mult_adds:,} Mult-Adds and {parameters:,} parameters. "
        "Raise the caps, or allow smaller --cells, --filters or --resolution"
    )
