"""The costs of many cells at once equal the walk of each."""

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import random_cells

from hwnas.device.device import Setting
from hwnas.errors import BudgetError, TableError
from hwnas.latency.budget import Budget
from hwnas.latency.cell_costs import CellCosts
from hwnas.latency.conditions import Conditions
from hwnas.latency.correction import TERMS, Correction, fit_correction
from hwnas.latency.costs import Costs, largest_measured
from hwnas.latency.measurement import MeasuredLatency, Measurement, TimedNetwork
from hwnas.latency.table import LatencyTable
from hwnas.network.cell import encode
from hwnas.network.graph import executed
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.spaces import pnas

SCALES = [Scale(cells, filters, 12, 10, 1) for cells in (1, 2) for filters in (4, 6)]


def pretend_ms(name: str) -> float:
    """Return a latency for a key: any, but always the same."""
    return 0.001 + zlib.crc32(name.encode()) % 1000 / 1e4


@pytest.fixture(scope="module", params=["tflite", "onnx"])
def model(request: pytest.FixtureRequest) -> CellCosts:
    setting = Setting(runtime=request.param)
    table = LatencyTable(Path("table.json"), "host", setting, Conditions())
    costs = CellCosts(table, SCALES, operations=pnas.OPERATIONS)
    for scale in SCALES:
        for architecture in pnas.cover(scale):
            for name, _, _ in executed(costs.lower(architecture)):
                table.entries[name] = Measurement(((pretend_ms(name),),))
    return costs


def test_every_random_cell_finds_its_operators_in_the_cover_and_its_costs_equal_its_own_walk(model: CellCosts) -> None:
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


def test_the_costs_of_every_cell_of_one_block_equal_its_own_walk(model: CellCosts) -> None:
    codes = pnas.first_level()
    networks = [[CellNetwork(cell, scale) for scale in SCALES] for cell in pnas.cells(codes)]
    together, walked = model.of(codes), model.walked(networks)
    assert together.ms == pytest.approx(walked.ms, rel=1e-9)
    assert (together.mult_adds == walked.mult_adds).all()
    assert (together.parameters == walked.parameters).all()


def one_cell(*ms: float) -> Costs:
    """Return the costs of a cell at scales that take so long by prediction, the more Mult-Adds the longer."""
    predicted = np.array([ms])
    return Costs(predicted, predicted * 1.5, predicted * 1e6, predicted)


def timed(ms: float, *, spread: float = 0.0) -> Measurement:
    return Measurement(((ms,), (ms,), (ms * (1 + spread),), (ms * (1 + spread),), (ms * (1 + spread),)))


@pytest.mark.parametrize(("factor", "scale", "measured"), [(1.0, 9, 1), (0.8, 11, 2), (1.3, 6, 2), (40.0, -1, 1)])
def test_steps_by_the_measured_ratio_lead_to_the_largest_scale_inside_the_target(
    factor: float, scale: int, measured: int
) -> None:
    costs = one_cell(*np.linspace(0.1, 1.5, 15))
    known: dict[int, MeasuredLatency] = {}
    found = largest_measured(
        costs,
        Budget(1.01),
        known,
        lambda at: timed(factor * float(costs.ms[0, at])).latency(1.0),
        target_ms=1.01,
        most=4,
    )
    assert found == scale
    assert len(known) == measured


def test_what_is_known_of_a_cell_is_not_measured_again() -> None:
    costs = one_cell(1.0, 2.0, 3.0)
    known = {1: timed(2.0).latency(1.0), 2: timed(3.0).latency(1.0)}
    found = largest_measured(costs, Budget(2.5), known, pytest.fail, target_ms=2.5, most=4)
    assert found == 1


def test_between_measured_scales_the_ratio_is_interpolated_and_beyond_them_kept() -> None:
    measured = {1: timed(2.2).latency(1.0), 3: timed(5.2, spread=0.1).latency(1.0)}
    calibrated = one_cell(1.0, 2.0, 3.0, 4.0).calibrated(measured)
    assert calibrated.ms[0] == pytest.approx([1.1, 2.2, 3.6, 5.2])
    assert calibrated.upper_ms[0] == pytest.approx([1.1, 2.2, 3.6, 5.72])


def test_networks_that_a_search_measured_correct_the_model_and_leave_the_tables_own_as_it_is(model: CellCosts) -> None:
    cells = random_cells(20, seed=3)
    networks = [CellNetwork(cell, SCALES[-1]) for cell in cells]
    others = [TimedNetwork(network, timed(1.5 * model.predict(network).ms)) for network in networks[:-1]]
    before = model.predict(networks[-1]).ms
    assert model.corrected_by(others).predict(networks[-1]).ms == pytest.approx(1.5 * before, rel=0.02)
    assert model.predict(networks[-1]).ms == before


def test_the_largest_scale_is_the_one_with_most_mult_adds_inside_all_caps(model: CellCosts) -> None:
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


def test_the_largest_scales_of_many_cells_are_those_of_their_costs(
    model: CellCosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = pnas.grow(pnas.first_level()[:40])
    costs = model.of(codes)
    targets_ms = [float(np.quantile(costs.upper_ms, share)) for share in (0.0, 0.1, 0.5, 1.0)]
    budget = Budget(targets_ms[-1], max_mult_adds=float(np.quantile(costs.mult_adds, 0.7)))
    for cells_at_once in (7, len(codes), 4096):
        monkeypatch.setattr("hwnas.latency.cell_costs._CHUNK", cells_at_once)
        scales, ms = model.largest_of(codes, budget, targets_ms)
        assert scales.shape == ms.shape == (len(codes), len(targets_ms))
        for column, target_ms in enumerate(targets_ms):
            expected = costs.largest(budget, target_ms=target_ms)
            assert (scales[:, column] == expected).all()
            fits = expected >= 0
            assert ms[fits, column] == pytest.approx(costs.ms[np.flatnonzero(fits), expected[fits]], rel=1e-12)
            assert np.isnan(ms[~fits, column]).all()
    assert {*scales[:, -1].tolist()} > {-1, 0}
    assert [part.shape for part in model.largest_of(codes[:0], budget, targets_ms)] == [(0, 4), (0, 4)]


def test_the_memory_that_it_takes_does_not_grow_with_the_cells(
    model: CellCosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.tile(pnas.grow(pnas.first_level()), (5, 1, 1))  # 158,100

    def peak_mib() -> float:
        """Return the most that it takes at once, beside what it returns."""
        model.largest_of(codes[:1], Budget(1.0), [0.5, 1.0])
        tracemalloc.start()
        returned = model.largest_of(codes, Budget(1.0), [0.5, 1.0])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return (peak - sum(part.nbytes for part in returned)) / 2**20

    assert peak_mib() < 16
    monkeypatch.setattr("hwnas.latency.cell_costs._CHUNK", len(codes))
    assert peak_mib() > 60


def test_a_correction_is_fitted_when_something_was_measured_and_terms_are_computed_once(
    model: CellCosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = [
        TimedNetwork(CellNetwork(cell, SCALES[-1]), timed(0.01 + at)) for at, cell in enumerate(random_cells(9, seed=4))
    ]
    fitted: list[int] = []
    stated: list[Measurement] = []

    def fit(terms: Any, ms: Any) -> Correction:
        fitted.append(len(terms))
        return fit_correction(terms, ms)

    def state(table: LatencyTable, measurement: Measurement) -> float:
        stated.append(measurement)
        return measurement.ms

    monkeypatch.setattr("hwnas.latency.costs.fit_correction", fit)
    monkeypatch.setattr(LatencyTable, "stated_ms", state)
    corrected = model.corrected_by(networks[:8])
    again = model.corrected_by([*networks[:8]])
    assert again.correction is corrected.correction
    assert model.corrected_by(networks[:8]).corrected_by([]).correction is corrected.correction
    assert fitted == [8]
    more = model.corrected_by(networks)
    assert more.correction is not corrected.correction
    assert more.correction == fit_correction(*map(np.array, zip(*map(evidence(model), networks), strict=True)))
    assert fitted == [8, 9]
    assert len([m for m in stated if m in [n.measurement for n in networks]]) == 2 * 9  # 9 of them in `evidence`


def evidence(model: CellCosts) -> Callable[[TimedNetwork], tuple[Any, float]]:
    return lambda n: (model._total(n.architecture)[: len(TERMS)], model.table.stated_ms(n.measurement))


def test_an_impossible_cap_ends_with_the_smallest_latency_that_the_space_can_reach(model: CellCosts) -> None:
    costs = model.of(pnas.first_level())
    with pytest.raises(BudgetError, match=rf"fastest network is predicted at {costs.ms.min():.3g} ms"):
        model.check_reachable(model.of(pnas.first_level()), Budget(costs.ms.min() / 2))
    model.check_reachable(model.of(pnas.first_level()), Budget(float(costs.upper_ms.min())))


@pytest.mark.parametrize(
    ("caps", "remedy"),
    [
        ({"max_parameters": 10.0}, r"Raise --max-parameters \(got 10\) or allow"),
        ({"max_mult_adds": 10.0}, r"Raise --max-mult-adds \(got 10\) or allow"),
        (
            {"max_latency_ms": 1e-9, "max_parameters": 10.0},
            r"Raise --max-latency-ms \(got 1e-09\) and --max-parameters",
        ),
    ],
)
def test_an_impossible_cap_is_named(model: CellCosts, caps: dict[str, float], remedy: str) -> None:
    with pytest.raises(BudgetError, match=remedy):
        model.check_reachable(model.of(pnas.first_level()), Budget(**{"max_latency_ms": 1e6, **caps}))


def test_caps_that_only_different_networks_meet_are_all_named(model: CellCosts) -> None:
    fast_or_small = Costs(*(np.array([[[1.0, 9.0]], [[1.0, 9.0]], [[1.0, 1.0]], [[9.0, 1.0]]])))
    with pytest.raises(BudgetError, match=r"none inside all: raise --max-latency-ms \(got 5\) or --max-parameters"):
        model.check_reachable(fast_or_small, Budget(5.0, None, 5.0))


def test_a_missing_entry_is_an_error_that_names_it_and_the_command(model: CellCosts) -> None:
    table = LatencyTable(Path("empty.json"), "host", model.table.setting, Conditions())
    empty = CellCosts(table, SCALES, operations=pnas.OPERATIONS)
    with pytest.raises(TableError, match=r"empty\.json has no entry 'conv .*hwnas profile host"):
        empty.of(pnas.first_level())
