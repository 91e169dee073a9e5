"""Progressive search where nothing grows: what it finds with few evaluations, and its Gaussian process."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from hwnas.searching.strategies import ExhaustedError
from hwnas.searching.surrogates import _gaussian_process as process
from hwnas.searching.surrogates._gaussian_process import Kernel, Points, Posterior
from strategies.known import Known, empty_study, propose, searched


def points(count: int, *, seed: int = 0) -> Points:
    random = np.random.default_rng(seed)
    return Points(random.integers(0, 4, (count, 3)), random.standard_normal((count, 2)), (4, 4, 4))


KERNEL = Kernel(np.log([0.5, 0.2, 1.5, 0.6, 0.4, 0.7, 1.1, 0.3, 0.05]))


@pytest.mark.parametrize("listed", [True, False])
def test_forty_evaluations_find_what_random_choice_does_not(listed: bool) -> None:
    found = {"progressive": [], "random": []}
    for strategy, bests in found.items():
        for seed in range(3):
            known = Known(5, 5, seed=seed, listed=listed)
            bests.append(max(known.worth(t.params) for t in searched(known, strategy, trials=40, seed=seed)))
    assert np.median(found["progressive"]) >= np.median(found["random"]) + 0.05


def test_all_candidates_are_proposed_once_and_then_there_is_none() -> None:
    known = Known(2, 3, listed=True)
    trials = searched(known, "progressive", trials=len(known.every() or ()))
    assert {known.identity(t.params) for t in trials} == {known.identity(one) for one in known.every() or ()}
    study = empty_study()
    study.add_trials(trials)
    with pytest.raises(ExhaustedError, match="no candidate left inside the caps"):
        propose(study, known, "progressive", trials=99)


def test_what_still_runs_is_not_proposed_again_and_need_not_be_waited_for() -> None:
    known, study = Known(3, 4, listed=True), empty_study()
    trials: list[optuna.Trial] = []
    for _ in range(12):
        trials.append(propose(study, known, "progressive", trials=30))
        if len(trials) > 4:  # four are always running
            done = trials[len(trials) - 5]
            study.tell(done, [known.accuracy(done.params), known.latency_ms(done.params)])
    assert len({known.identity(trial.params) for trial in trials}) == 12
    assert len(study.get_trials(states=(TrialState.RUNNING,))) == 4


def test_a_table_of_ties_ends() -> None:
    known = Known(2, 3, listed=True)
    study = empty_study()
    for _ in known.every() or ():
        study.tell(propose(study, known, "progressive", trials=9), [0.5, 1.0])
    assert len(study.trials) == len(known.every() or ())


def test_the_misfits_slope_is_that_of_its_differences() -> None:
    some, scores = points(12), np.random.default_rng(1).standard_normal(12)
    differ, apart = some.differ(some), some.apart(some)

    def misfit(logs: np.ndarray) -> float:
        return process._misfit(Kernel(logs), differ, apart, scores)[0]

    slope = process._misfit(KERNEL, differ, apart, scores)[1]
    steps = 1e-5 * np.eye(len(KERNEL.logs))
    expected = [(misfit(KERNEL.logs + step) - misfit(KERNEL.logs - step)) / 2e-5 for step in steps]
    assert slope == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_both_ways_to_the_covariance_agree() -> None:
    one, other = points(6), points(4, seed=1)
    differ = one.differ(other)
    distance = np.tensordot(KERNEL.weights, differ, axes=1)
    expected = sum(KERNEL.parts(1 - differ.mean(axis=0), distance, one.apart(other)))
    assert KERNEL.covariance(one, other) == pytest.approx(expected)
    assert np.diag(KERNEL.covariance(one, one)) == pytest.approx(KERNEL.variance)


def test_believing_equals_observing_the_mean() -> None:
    observed, asked, scores = points(8), points(5, seed=2), np.random.default_rng(3).standard_normal(8)
    believed = Posterior(KERNEL, observed, scores, asked)
    mean = believed.mean[2]
    believed.believe(2)
    both = Points(
        np.vstack([observed.choices, asked.choices[2:3]]), np.vstack([observed.numbers, asked.numbers[2:3]]), (4, 4, 4)
    )
    known = Posterior(KERNEL, both, np.append(scores, mean), asked)
    assert believed.mean == pytest.approx(known.mean)
    assert believed.spread == pytest.approx(known.spread)


def test_expected_improvement_is_the_integral_over_what_is_better() -> None:
    draws = 0.3 + 0.8 * np.random.default_rng(0).standard_normal(200_000)
    (found,) = process.expected_improvement(np.array([0.3]), np.array([0.8]), 0.9)
    assert found == pytest.approx(np.maximum(draws - 0.9, 0).mean(), rel=0.02)
