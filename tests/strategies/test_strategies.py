"""What every strategy must do; a new file in hwnas/strategies is tested here by its name alone."""

import zlib
from pathlib import Path
from typing import Any

import pytest
from conftest import FILTERS, pretend_table
from optuna.trial import TrialState

from hwnas import spaces
from hwnas.latency.budget import Budget
from hwnas.latency.cell_costs import CellCosts
from hwnas.latency.costs import CostModel
from hwnas.network.scale import ladder
from hwnas.searching.candidates import SpaceCandidates
from hwnas.support import plugins
from strategies.known import empty_study, propose

STRATEGIES = plugins.names("strategies")
REJECTING = ["controller", "controller-reinforce", "evolution", "random"]


def candidates_of(space: str, folder: Path) -> SpaceCandidates:
    module = plugins.load("spaces", space)
    table = pretend_table(folder, space)
    scales = ladder((1,), FILTERS, (8,), classes=3, channels=1)
    grows = spaces.grows(module)
    costs = CellCosts(table, scales, operations=module.OPERATIONS) if grows else CostModel(table, scales)
    return SpaceCandidates(module, costs, Budget(max_latency_ms=1.0), targets=(0.5, 1.0))


def pretended(chosen: dict[str, Any]) -> list[float]:
    """Return an accuracy and a latency that are the choice's own."""
    noise = zlib.crc32(repr(sorted(chosen.items())).encode()) % 1000 / 1e4
    return [0.5 + noise + 0.1 * chosen["target"], chosen["target"] * (0.9 + noise)]


@pytest.mark.parametrize("space", ["pnas", "mbconv"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_strategy_searches_any_space_and_a_new_sampler_on_the_same_study_proposes_the_same(
    tmp_path: Path, strategy: str, space: str
) -> None:
    candidates = candidates_of(space, tmp_path)
    one, again = empty_study(), empty_study()
    for number in range(13):  # Optuna's GP begins after ten that are trained
        trials = [propose(study, candidates, strategy, trials=20) for study in (one, again)]
        assert trials[0].params == trials[1].params
        assert trials[0].params.keys() == candidates.distributions().keys()
        for study, trial in zip((one, again), trials, strict=True):
            if number % 5 == 3:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, pretended(trial.params))
    if strategy in REJECTING:
        proposed = [trial.params for trial in one.get_trials()]
        assert candidates.fits(proposed).all()
        assert len({candidates.identity(chosen) for chosen in proposed}) == 13
