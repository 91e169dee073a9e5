"""The report of a table on networks that nothing was fitted to."""

from pathlib import Path

import numpy as np
import pytest
from conftest import FILTERS, pretend_table

from hwnas import spaces
from hwnas.latency.costs import CostModel
from hwnas.latency.measurement import Measurement
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import Validation, validate
from hwnas.network.scale import ladder
from hwnas.spaces import pnas

SCALES = ladder((1,), FILTERS, (8,), classes=3, channels=1)


def table_with_networks(folder: Path, *, noise: float, held_out: int = 40, law: float = 1.3) -> LatencyTable:
    """Return a table of 60 networks that take `law` times the sum of their operators, with so much noise a round."""
    table = pretend_table(folder)
    random = np.random.default_rng(0)
    model = CostModel(table, SCALES)
    for index, parameters in enumerate(spaces.random_parameters(pnas, 60, seed=0)):
        architecture = pnas.architecture(parameters, SCALES[index % len(SCALES)])
        ms = law * sum(ms for _, ms in model.layer_ms(architecture))
        rounds = tuple((float(ms * np.exp(noise * random.standard_normal())),) for _ in range(6))
        table.set_network(architecture, Measurement(rounds), held_out=index < held_out)
    return table


def validated(table: LatencyTable) -> Validation:
    found = validate(CostModel(table, SCALES))
    assert found is not None
    return found


def test_a_law_that_the_correction_can_learn_predicts_networks_it_has_not_seen(tmp_path: Path) -> None:
    report = validated(table_with_networks(tmp_path, noise=0.0))
    assert report.networks == len(
        {str(n.architecture) for n in table_with_networks(tmp_path, noise=0.0).networks if n.held_out}
    )
    assert report.within_5 == report.within_10 == 1.0
    assert report.spearman == pytest.approx(1.0, abs=0.01)
    assert report.sum_within_10 == 0.0
    assert report.mult_adds_within_10 < 0.7
    assert report.noise_within_5 == 1.0
    assert "shares predicted within 5 and 10 %: 100%, 100%" in str(report)


def test_noise_is_told_from_errors(tmp_path: Path) -> None:
    report = validated(table_with_networks(tmp_path, noise=0.2))
    assert report.noise_within_10 < 0.7
    assert report.within_10 < 1.0


def test_what_is_held_out_is_fitted_to_by_nothing(tmp_path: Path) -> None:
    table = table_with_networks(tmp_path, noise=0.0)
    before = CostModel(table, SCALES).correction
    for index, network in enumerate([network for network in table.networks if network.held_out]):
        table.set_network(network.architecture, Measurement(((99.0 + index,),)), held_out=True)
    assert CostModel(table, SCALES).correction == before
    assert validated(table).within_10 == 0.0


def test_held_out_networks_stay_so_in_the_file(tmp_path: Path) -> None:
    table = table_with_networks(tmp_path, noise=0.0, held_out=3)
    table.save()
    assert LatencyTable.read(table.path).networks == table.networks


def test_without_held_out_networks_there_is_no_report(tmp_path: Path) -> None:
    assert validate(CostModel(table_with_networks(tmp_path, noise=0.0, held_out=0), SCALES)) is None
