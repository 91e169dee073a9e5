"""Caps that chance hardly meets: every strategy, and what shared weights learn by, finds candidates inside them."""

from pathlib import Path

import numpy as np
import pytest

from hwnas import spaces
from hwnas.latency import Budget, CellCosts, CostModel
from hwnas.network import ladder
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.descent import descended
from hwnas.searching.estimators._paths import fair_choices
from hwnas.searching.strategies import ExhaustedError, _choosing, _rejecting, _single_level
from hwnas.support import plugins
from hwnas.testing import pretend_table
from strategies.known import Known, empty_study, propose

STRATEGIES = ["controller", "evolution", "nsga2", "progressive", "random", "tpe"]
CELLS = {"mobile": (4,), "auto": (4,)}
TARGETS = (0.4, 0.8, 1.0)


def tight(space: str, folder: Path, *, factor: float, targets: tuple[float, ...] = TARGETS) -> SpaceCandidates:
    """Return candidates under a cap that is so many times the latency of the smallest network."""
    module, cells = plugins.load("spaces", space), CELLS.get(space, (1,))
    scales = ladder(cells, (8,), (8,), classes=3, channels=1)
    table = pretend_table(folder, space, cells=cells, filters=(8,))
    if spaces.grows(module):
        costs: CostModel = CellCosts(table, scales, operations=module.OPERATIONS)
    else:
        costs = CostModel(table, scales)
    if isinstance(costs, CellCosts):
        smallest = costs.of(module.first_level())
    else:
        smallest = costs.walked([[network] for network in module.cover(scales[0])])
    return SpaceCandidates(module, costs, Budget(factor * float(smallest.upper_ms.min())), targets)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so few be drawn that chance finds none."""
    monkeypatch.setattr(_choosing, "_DRAWS", 6)
    monkeypatch.setattr(_rejecting, "_MOST", 6)
    monkeypatch.setattr(_single_level, "_MOST_DRAWN", 6)
    monkeypatch.setattr(_single_level, "_DESCENTS", 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_finds_different_candidates_that_fit(tmp_path: Path, few_draws: None, strategy: str) -> None:
    candidates, study = tight("mobile", tmp_path, factor=1.3), empty_study()
    for number in range(7):
        trial = propose(study, candidates, strategy, trials=20)
        study.tell(trial, [0.5 + number / 100, 0.1])
    proposed = [trial.params for trial in study.get_trials()]
    assert candidates.fits(proposed).all()
    assert len({candidates.identity(chosen) for chosen in proposed}) == 7


@pytest.mark.parametrize("space", ["auto", "mbconv", "pnas"])
def test_descents_find_what_fits_in_any_space_and_are_the_seeds_own(tmp_path: Path, space: str) -> None:
    candidates = tight(space, tmp_path, factor=1.2)
    found, again, others = (list(descended(candidates, np.random.default_rng(seed), descents=4)) for seed in (0, 0, 1))
    assert found
    assert candidates.fits(found).all()
    assert found == again != others


def test_a_target_is_raised_only_where_nothing_fits_it(tmp_path: Path) -> None:
    candidates = tight("mobile", tmp_path, factor=2)
    targets = [chosen["target"] for chosen in descended(candidates, np.random.default_rng(0), descents=60)]
    assert set(targets) == {0.8, 1.0}
    assert targets.count(0.8) > targets.count(1.0)


def test_over_the_caps_by_nothing_is_what_fits(tmp_path: Path) -> None:
    candidates = tight("pnas", tmp_path, factor=3)
    chosen = [{**one, "target": 1.0} for one in spaces.random_parameters(candidates.space, 60, seed=0)]
    assert [candidates.excess(one) == 0 for one in chosen] == candidates.fits(chosen).tolist()
    assert 0 < candidates.fits(chosen).sum() < 60


def test_a_cap_that_leaves_one_network_is_found_by_shared_weights_too(tmp_path: Path, few_draws: None) -> None:
    candidates = tight("pnas", tmp_path, factor=1.0001, targets=(1.0,))
    paths = fair_choices(candidates, 30, seed=0)
    assert paths
    assert len({candidates.identity(chosen) for chosen in paths}) == 1
    study = empty_study()
    assert candidates.fits([propose(study, candidates, "evolution", trials=5).params]).all()
    with pytest.raises(ExhaustedError, match="no candidate inside the caps is new: 6 were drawn, 1 are known"):
        propose(study, candidates, "evolution", trials=5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_caps_that_nothing_meets_end_in_words(few_draws: None, strategy: str) -> None:
    known = Known()
    known.cap_ms = -1.0
    with pytest.raises(ExhaustedError, match=r"fits the caps|no candidate left inside the caps"):
        propose(empty_study(), known, strategy, trials=9)


def test_plain_draws_need_no_descent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpaceCandidates, "excess", lambda *_: pytest.fail("a descent was begun"))
    candidates = tight("mobile", tmp_path, factor=20)
    assert len(fair_choices(candidates, 20, seed=0)) == 20
    for strategy in ("evolution", "progressive", "random", "tpe"):
        assert propose(empty_study(), candidates, strategy, trials=20).params
