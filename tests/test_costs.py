"""The costs of many cells at once equal the walk of each."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from networks import random_cells

from hwnas.budget import Budget
from hwnas.cell import encode
from hwnas.costs import CostModel
from hwnas.errors import BudgetError, TableError
from hwnas.graph import executed
from hwnas.latency import LatencyTable, Measurement
from hwnas.networks import Scale
from hwnas.networks.cells import CellNetwork
from hwnas.spaces import pnas

SCALES = [Scale(cells, filters, 12, 10, 1) for cells in (1, 2) for filters in (4, 6)]


def pretend_ms(name: str) -> float:
    """Return a latency for a key: any, but always the same."""
    return 0.001 + zlib.crc32(name.encode()) % 1000 / 1e4


@pytest.fixture(scope="module", params=["tflite", "onnx"])
def model(request: pytest.FixtureRequest) -> CostModel:
    setting = {"runtime": request.param, "precision": "fp32", "threads": 1}
    table = LatencyTable(Path("table.json"), "host", setting, {})
    costs = CostModel(table, SCALES, operations=pnas.OPERATIONS)
    for scale in SCALES:
        for architecture in pnas.cover(scale):
            for name, _, _ in executed(costs.lower(architecture)):
                table.entries[name] = Measurement(((pretend_ms(name),),))
    return costs


def test_every_random_cell_finds_its_operators_in_the_cover_and_its_costs_equal_its_own_walk(model: CostModel) -> None:
    for blocks in range(1, pnas.MAX_BLOCKS + 1):
        cells = [cell for cell in random_cells(60, seed=blocks) if len(cell.blocks) == blocks]
        costs = model.of(encode(cells, pnas.OPERATIONS))
        for row, cell in enumerate(cells):
            for column, scale in enumerate(SCALES):
                architecture = CellNetwork(cell, scale)
                expected = sum(ms for _, ms in model.layer_ms(architecture))
                assert costs.ms[row, column] == pytest.approx(expected, rel=1e-9)
                assert costs.mult_adds[row, column] == architecture.graph.mult_adds
                assert costs.parameters[row, column] == architecture.graph.parameters
                assert model.predict(architecture).ms == pytest.approx(expected, rel=1e-9)


def test_the_largest_scale_is_the_one_with_most_mult_adds_inside_all_caps(model: CostModel) -> None:
    codes = encode([cell for cell in random_cells(60, seed=9) if len(cell.blocks) == 3], pnas.OPERATIONS)
    costs = model.of(codes)
    cap_ms, cap_mult_adds = float(np.median(costs.upper_ms)), float(np.median(costs.mult_adds))
    chosen = costs.largest(Budget(cap_ms, max_mult_adds=cap_mult_adds), target_ms=cap_ms)
    for row, scale in enumerate(chosen):
        inside = [
            (costs.mult_adds[row, s], s)
            for s in range(len(SCALES))
            if costs.upper_ms[row, s] <= cap_ms and costs.mult_adds[row, s] <= cap_mult_adds
        ]
        assert scale == (max(inside)[1] if inside else -1)


def test_an_impossible_cap_ends_with_the_smallest_latency_that_the_space_can_reach(model: CostModel) -> None:
    costs = model.of(pnas.first_level())
    with pytest.raises(BudgetError, match=rf"fastest network is predicted at {costs.ms.min():.3g} ms"):
        model.check_reachable(model.of(pnas.first_level()), Budget(costs.ms.min() / 2))
    model.check_reachable(model.of(pnas.first_level()), Budget(float(costs.upper_ms.min())))


def test_a_missing_entry_is_an_error_that_names_it_and_the_command(model: CostModel) -> None:
    table = LatencyTable(Path("empty.json"), "host", model.table.setting, {})
    empty = CostModel(table, SCALES, operations=pnas.OPERATIONS)
    with pytest.raises(TableError, match=r"empty\.json has no entry 'conv .*hwnas profile host"):
        empty.of(pnas.first_level())
