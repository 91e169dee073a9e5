"""Scores of zero-cost proxies on their way to the surrogate: those that are no numbers spoil nothing."""

import numpy as np
import pytest

from hwnas.searching import surrogates
from hwnas.searching.strategies.progressive import _standardised
from hwnas.searching.surrogates import Evaluated
from hwnas.spaces import pnas

NONE = [np.nan, np.inf, -np.inf]


def test_scores_are_counted_in_deviations_from_their_proxys_mean() -> None:
    scores = np.array([[1.0, 500.0], [3.0, 100.0], [5.0, 300.0]])
    standardised = _standardised(scores)
    assert standardised.mean(axis=0) == pytest.approx([0.0, 0.0])
    assert standardised.std(axis=0) == pytest.approx([1.0, 1.0])
    assert (standardised.argsort(axis=0) == scores.argsort(axis=0)).all()


@pytest.mark.parametrize("nothing", NONE)
def test_a_score_that_is_no_number_is_the_mean_and_changes_no_other(nothing: float) -> None:
    scores = np.array([[1.0, 7.0], [nothing, 8.0], [3.0, 9.0], [8.0, 4.0]])
    standardised = _standardised(scores)
    assert standardised[1, 0] == 0.0
    others = [0, 2, 3]
    assert standardised[others, 0] == pytest.approx(_standardised(scores[others])[:, 0])
    assert standardised[:, 1] == pytest.approx(_standardised(scores[:, 1:])[:, 0])


@pytest.mark.parametrize("same", [2.5, *NONE])
def test_a_proxy_that_says_the_same_of_all_or_nothing_of_any_says_nothing(same: float) -> None:
    standardised = _standardised(np.array([[same, 1.0], [same, 2.0]]))
    assert standardised.tolist() == [[0.0, -1.0], [0.0, 1.0]]


@pytest.mark.parametrize("surrogate", ["gp", "mlp"])
def test_a_surrogate_predicts_numbers_from_scores_of_which_some_are_none(surrogate: str) -> None:
    codes = pnas.first_level()[:24]
    scores = np.random.default_rng(0).standard_normal((24, 3)) * [1.0, 1e6, 0.0]
    scores[:3, 0], scores[20, 1], scores[:, 2] = NONE, np.inf, np.nan
    standardised, targets = _standardised(scores), np.full(24, 0.5)
    known = Evaluated(codes[:16], targets[:16], np.linspace(0.6, 0.9, 16), standardised[:16])
    fitted = surrogates.fit(surrogate, [known], operations=len(pnas.OPERATIONS), seed=0)
    mean, spread = fitted.predict(codes[16:], targets[16:], standardised[16:])
    assert np.isfinite(mean).all()
    assert np.isfinite(spread).all()
