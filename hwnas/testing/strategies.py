"""What every strategy must keep to."""

import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import Trial, TrialState

from hwnas import spaces
from hwnas.latency import Budget, CellCosts, CostModel
from hwnas.network import ladder
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.strategies import Context
from hwnas.support import plugins
from hwnas.testing.tables import pretend_table

_TRIALS = 12  # one is pruned; Optuna's GP begins after ten that are trained
_FILTERS = (4, 6)


def _candidates(space: str, folder: Path) -> SpaceCandidates:
    module = plugins.load("spaces", space)
    scales = ladder((1,), _FILTERS, (8,), classes=3, channels=1)
    table = pretend_table(folder, space, filters=_FILTERS)
    grows = spaces.grows(module)
    costs = CellCosts(table, scales, operations=module.OPERATIONS) if grows else CostModel(table, scales)
    return SpaceCandidates(module, costs, Budget(max_latency_ms=1.0), targets=(0.5, 1.0))


def _outcome(chosen: dict[str, Any]) -> list[float]:
    """Return an accuracy and a latency that are the choice's own."""
    noise = zlib.crc32(repr(sorted(chosen.items())).encode()) % 1000 / 1e4
    return [0.5 + noise + 0.1 * chosen["target"], chosen["target"] * (0.9 + noise)]


def _ask(study: Study, strategy: ModuleType, candidates: SpaceCandidates) -> Trial:
    """Ask as `search` does: by a sampler of its own, its seed from the trial's number."""
    number = len(study.get_trials(deepcopy=False))
    study.sampler = strategy.sampler(Context(candidates, trials=20), seed=number)
    return study.ask(dict(candidates.distributions()))


class StrategyContract:
    """Takes the fixture `strategy`: a module of hwnas/searching/strategies, or like one.

    One that proposes nothing twice, and nothing that is predicted to be over a cap, says so by `rejects`.
    """

    rejects = False

    @pytest.fixture(params=["pnas", "mbconv"])
    def space(self, request: pytest.FixtureRequest) -> str:
        """A space that grows, and one that does not."""
        return str(request.param)

    def test_it_searches_any_space_and_a_new_sampler_on_the_same_study_proposes_the_same(
        self, strategy: ModuleType, space: str, tmp_path: Path
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        candidates = _candidates(space, tmp_path)
        studies = [optuna.create_study(directions=["maximize", "minimize"]) for _ in range(2)]
        for number in range(_TRIALS):
            trials = [_ask(study, strategy, candidates) for study in studies]
            assert trials[0].params == trials[1].params
            assert trials[0].params.keys() == candidates.distributions().keys()
            for study, trial in zip(studies, trials, strict=True):
                if number == 3:
                    study.tell(trial, state=TrialState.PRUNED)
                else:
                    study.tell(trial, _outcome(trial.params))
        if self.rejects:
            proposed = [trial.params for trial in studies[0].get_trials()]
            assert candidates.fits(proposed).all()
            assert len({candidates.identity(chosen) for chosen in proposed}) == _TRIALS
