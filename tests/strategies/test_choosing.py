"""Proposals over the caps, or known, cost no evaluation; where nothing is left the search ends."""

from itertools import product

import pytest
from optuna.trial import TrialState

from hwnas.searching.strategies import ExhaustedError
from strategies.known import Known, empty_study, propose

REJECTING = ["controller", "controller-reinforce", "evolution", "random"]


@pytest.mark.parametrize("strategy", REJECTING)
@pytest.mark.parametrize("listed", [False, True])
def test_every_candidate_that_fits_is_proposed_once_and_then_the_search_ends(strategy: str, listed: bool) -> None:
    known, study = Known(3, 3, listed=listed), empty_study()
    inside = {known.identity(one) for one in Known(3, 3, listed=True).every() or ()}
    proposed = []
    for _ in inside:
        trial = propose(study, known, strategy, trials=len(inside))
        proposed.append(known.identity(trial.params))
        study.tell(trial, [known.accuracy(trial.params), known.latency_ms(trial.params)])
    assert len(proposed) == len(set(proposed))
    assert set(proposed) == inside
    with pytest.raises(ExhaustedError, match=f"no candidate inside the caps is new: .* {len(inside)} are known"):
        propose(study, known, strategy, trials=len(inside))


def test_the_few_that_drawing_does_not_come_upon_are_found_where_candidates_can_be_listed() -> None:
    known, study = Known(5, 6, listed=True), empty_study()
    every = [dict(zip(known.names, letters, strict=True)) for letters in product(known.letters, repeat=5)]
    known.cap_ms = sorted(map(known.latency_ms, every))[1]
    for _ in range(2):  # of 7,776
        trial = propose(study, known, "random", trials=10)
        assert known.latency_ms(trial.params) <= known.cap_ms
        study.tell(trial, [0.0, 0.0])
    with pytest.raises(ExhaustedError):
        propose(study, known, "random", trials=10)


@pytest.mark.parametrize("strategy", REJECTING)
def test_what_failed_was_left_out_or_is_being_trained_elsewhere_is_not_proposed_again(strategy: str) -> None:
    known, study = Known(3, 3), empty_study()
    ends = [TrialState.FAIL, TrialState.PRUNED, None]
    proposed = []
    for number in range(9):
        trial = propose(study, known, strategy, trials=20)
        proposed.append(known.identity(trial.params))
        if ends[number % 3]:
            study.tell(trial, state=ends[number % 3])
    assert len(set(proposed)) == 9


@pytest.mark.parametrize("strategy", REJECTING)
def test_a_trial_that_was_cut_off_before_it_chose_is_no_hindrance(strategy: str) -> None:
    known, study = Known(), empty_study()
    study.ask()
    assert propose(study, known, strategy, trials=20).params


def test_a_parameter_that_is_not_of_the_candidates_is_refused() -> None:
    trial = propose(empty_study(), Known(), "random", trials=20)
    with pytest.raises(ValueError, match="'more' is not of them"):
        trial.suggest_categorical("more", [1, 2])
