"""How slow the device was in each round: found again from rounds that were made slower by known factors."""

import math
from pathlib import Path

import numpy as np
import pytest

from hwnas.device.device import Setting
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement
from hwnas.latency.slowness import fit_slowness
from hwnas.latency.table import LatencyTable

ROUNDS, MODELS = 6, 12


def measured(noise: float, *, canary_noise: float, models: int = MODELS) -> tuple[list[Measurement], list[float]]:
    """Return models' rounds in which the device was 1 to 3 times slower, and by how much it was."""
    random = np.random.default_rng(7)
    slowness = random.uniform(1.0, 3.0, ROUNDS)
    canaries = slowness * np.exp(canary_noise * random.standard_normal(ROUNDS))
    own = random.uniform(0.1, 50.0, models)
    rounds = own[:, None] * slowness * np.exp(noise * random.standard_normal((models, ROUNDS)))
    canary_ms = tuple(canaries.tolist())
    found = [Measurement(tuple((ms,) for ms in row.tolist()), canary_ms=canary_ms) for row in rounds]
    return found, slowness.tolist()


def test_what_all_models_tell_is_nearer_the_truth_than_a_noisy_canary() -> None:
    models, truth = measured(0.03, canary_noise=0.2)
    found = fit_slowness(models, 1.0)
    level = np.median([found[c] / slow for c, slow in zip(models[0].canary_ms, truth, strict=True)])
    for canary, slow in zip(models[0].canary_ms, truth, strict=True):
        assert found[canary] / level == pytest.approx(slow, rel=0.05)
    assert max(abs(c / slow - 1) for c, slow in zip(models[0].canary_ms, truth, strict=True)) > 0.1


def test_the_level_is_the_canarys() -> None:
    models, _ = measured(0.0, canary_noise=0.0)
    for canary, slow in fit_slowness(models, 1.5).items():
        assert slow == pytest.approx(canary / 1.5)


def test_a_model_that_is_disturbed_in_a_round_moves_no_other() -> None:
    models, _ = measured(0.0, canary_noise=0.0)
    disturbed = Measurement(((math.e * 1e3,), *models[0].rounds_ms[1:]), canary_ms=models[0].canary_ms)
    assert fit_slowness([disturbed, *models[1:]], 1.0) == pytest.approx(fit_slowness(models, 1.0))


def test_rounds_of_few_models_are_told_by_the_canary_alone() -> None:
    models, _ = measured(0.3, canary_noise=0.3, models=3)
    assert fit_slowness(models, 1.0) == pytest.approx({canary: canary for canary in models[0].canary_ms})


def test_without_a_canary_nothing_is_known() -> None:
    assert fit_slowness([], 1.0) == fit_slowness([Measurement(((1.0,), (2.0,)))], 1.0) == {}


def test_a_table_states_what_its_models_took_in_rounds_made_equally_fast(tmp_path: Path) -> None:
    models, _ = measured(0.02, canary_noise=0.2)
    entries = {str(number): model for number, model in enumerate(models)}
    table = LatencyTable(tmp_path / "table.json", "host", Setting(runtime="tflite"), Conditions(), entries)
    ratios = [table.ms(key) / entry.at(table.canary_ms) for key, entry in entries.items()]
    one, *others = [table.ms(key) / np.median(np.array(entry.round_medians_ms)) for key, entry in entries.items()]
    assert others == pytest.approx([one] * len(others), rel=0.05)
    assert np.std(ratios) < 0.1
