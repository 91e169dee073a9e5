"""The largest scale that fits is the one that brute force finds."""

import zlib
from dataclasses import replace
from math import inf

import pytest
from networks import random_cells

from hwnas.errors import BudgetError, InputError
from hwnas.latency.budget import Budget
from hwnas.latency.correction import Prediction
from hwnas.latency.largest_scale import largest, scale_costs
from hwnas.network.cell import Block, Cell
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale, all_scales

CELLS = [
    Cell((Block(("max_pool_3x3", 0), ("separable_3x3", 1)), Block(("zero", 0), ("avg_pool_3x3", 2)))),
    Cell((Block(("conv_3x3_bottleneck", 0), ("max_pool_3x3", 1)), Block(("conv_1x7_7x1_bottleneck", 2), ("zero", 0)))),
    Cell((Block(("max_pool_5x5", 0), ("identity", 1), "concat"), Block(("identity", 2), ("conv_1x1", 0))), "loose"),
    Cell((Block(("identity", 0), ("max_pool_3x3", 0)),)),
    *random_cells(2, seed=3),
]
SKELETONS = [
    Scale(1, 8, 32, 10, skeleton="imagenet"),
    Scale(1, 8, 32, 10, skeleton="imagenet", stem_multiplier=0.5, reductions="extra"),
    Scale(1, 8, 9, 10, input_channels=1),
    Scale(1, 8, 8, 10, stem_multiplier=1.3),
]
FILTERS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 31, 32, 33, 48, 64, 65, 66, 67, 80, 128)
NETWORK = CellNetwork(CELLS[0], SKELETONS[2])
LADDER = all_scales(NETWORK.scale, cells=(3, 1, 2), filters=(4, 8, 12, 16, 20, 24), resolutions=(8, 12, 9))


def walked(network: CellNetwork, scale: Scale) -> tuple[int, int]:
    graph = network.at(scale).walk()
    return graph.mult_adds, graph.parameters


@pytest.mark.parametrize("scale", SKELETONS, ids=str)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_costs_at_every_scale_equal_the_walk(cell: Cell, scale: Scale) -> None:
    """Filters divided by four or rounded, and stems that happen to have the filters of a cell, among them."""
    for reduction in (None, CELLS[0]):
        network = CellNetwork(cell, scale, reduction)
        found = scale_costs(network, all_scales(scale, cells=[2], filters=FILTERS, resolutions=[scale.resolution]))
        for one, costs in found.items():
            assert costs == walked(network, one), one


def test_a_ladder_has_every_scale_once_and_keeps_all_else() -> None:
    assert len(LADDER) == len(set(LADDER)) == 3 * 6 * 3
    assert {replace(scale, cells=1, filters=8, resolution=9) for scale in LADDER} == {NETWORK.scale}


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.55, 1.0])
@pytest.mark.parametrize("capped", ["mult_adds", "parameters", "both"])
def test_the_largest_scale_is_the_one_of_brute_force(capped: str, share: float) -> None:
    costs = {scale: walked(NETWORK, scale) for scale in LADDER}
    most_mult_adds, most_parameters = (share * max(cost[index] for cost in costs.values()) for index in (0, 1))
    budget = Budget(
        inf,
        most_mult_adds if capped != "parameters" else None,
        most_parameters if capped != "mult_adds" else None,
    )
    inside = [
        cost
        for cost in costs.values()
        if cost[0] <= (budget.max_mult_adds or inf) and cost[1] <= (budget.max_parameters or inf)
    ]
    found = largest(NETWORK, LADDER, budget)
    assert found.mult_adds == max(inside)[0]
    assert (found.mult_adds, found.parameters) == costs[found.scale]
    assert found.scales == len(LADDER)
    assert found.milliseconds > 0
    assert found.latency_ms is None


def pretend(network: CellNetwork) -> Prediction:
    """Return a latency that rises with the size, but not always."""
    noise = zlib.crc32(str(network.scale).encode()) % 100 / 100
    return Prediction(network.graph.mult_adds / 1e6 * (0.5 + noise), 0.1)


@pytest.mark.parametrize("cap_ms", [0.1, 0.2, 0.5, 1.0, 5.0])
def test_latencies_that_do_not_rise_with_the_filters_are_searched_exactly(cap_ms: float) -> None:
    budget = Budget(cap_ms, max_parameters=40_000)
    inside = [
        walked(NETWORK, scale)[0]
        for scale in LADDER
        if pretend(NETWORK.at(scale)).upper_ms <= cap_ms and walked(NETWORK, scale)[1] <= 40_000
    ]
    found = largest(NETWORK, LADDER, budget, predict=pretend)
    assert found.mult_adds == max(inside)
    assert found.upper_ms == pytest.approx(1.1 * (found.latency_ms or 0))
    assert (found.upper_ms or inf) <= cap_ms


def test_where_nothing_fits_the_smallest_figures_are_named() -> None:
    smallest = min(walked(NETWORK, scale) for scale in LADDER)
    with pytest.raises(BudgetError, match=rf"N=1 F=4 8x8, has {smallest[0]:,} Mult-Adds and {smallest[1]:,} param"):
        largest(NETWORK, LADDER, Budget(inf, max_mult_adds=10))
    with pytest.raises(
        BudgetError, match=r"must run in 0.0001 ms .* fastest is predicted at .* Raise --max-latency-ms"
    ):
        largest(NETWORK, LADDER, Budget(1e-4), predict=pretend)


def test_an_image_that_is_too_small_is_an_error() -> None:
    network = CellNetwork(CELLS[0], SKELETONS[0])
    scales = all_scales(network.scale, cells=[1], filters=[4], resolutions=[1])
    with pytest.raises(InputError, match="too small"):
        largest(network, scales, Budget(inf, max_mult_adds=1e9))
