"""Evolution must find better candidates than chance does, at every latency target, and lose its oldest."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from strategies.known import Known, empty_study, median_best, propose, searched


def test_it_finds_better_candidates_than_chance() -> None:
    assert median_best("evolution", trials=150, runs=3) > median_best("random", trials=150, runs=3) + 0.1


def test_each_target_has_its_share_of_trials_and_of_the_gain() -> None:
    known = Known(8, 6, targets=(0.4, 0.7, 1.0))
    trials = searched(known, "evolution", trials=240)
    for target in known.targets:
        worths = [known.worth(trial.params) for trial in trials if trial.params["target"] == target]
        assert len(worths) > 50
        assert np.mean(worths[-20:]) > np.mean(worths[:20]) + 0.2


def add(study: optuna.Study, known: Known, letters: str, accuracy: float) -> None:
    """Add a trained candidate to the study."""
    params = {**dict(zip(known.names, letters, strict=True)), "ignored": False}
    distributions = known.distributions()
    study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=[accuracy, 0.1]))


@pytest.mark.parametrize("seed", range(5))
def test_a_child_is_a_parent_of_the_population_but_for_one_choice_however_good_those_before_were(seed: int) -> None:
    known, study = Known(6, 5), empty_study()
    known.cap_ms = 1.0
    add(study, known, "eeeeee", 0.9)  # too old: the population of 20 trials is 4
    for letters in ("aaaaaa", "aaaaab", "aaaaba", "aaaabb"):
        add(study, known, letters, 0.5)
    child = "".join(propose(study, known, "evolution", trials=20, seed=seed).params[name] for name in known.names)
    assert sum(letter not in "ab" for letter in child) <= 1
    assert child[:4].count("a") >= 3


def test_nothing_breaks_where_there_is_nothing_to_change_but_the_target() -> None:
    known = Known(1, 1, targets=(0.5, 1.0))
    distributions = {**known.distributions(), "ignored": CategoricalDistribution((False,))}
    known.distributions = lambda: distributions  # type: ignore[method-assign]
    assert {trial.params["target"] for trial in searched(known, "evolution", trials=2)} == {0.5, 1.0}
