"""The correction of a sum of operators: what it learns from timed networks, and how well it says to know."""

import numpy as np
import pytest

from hwnas.latency import correction
from hwnas.latency.correction import TERMS, Correction, fit_correction


def terms_of(sums: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """Return the correction's terms of networks of one kind of operator."""
    terms = np.zeros((len(sums), len(TERMS)))
    terms[:, TERMS.index("pointwise: ms")], terms[:, TERMS.index("operators")] = sums, operators
    terms[:, TERMS.index("constant")] = 1.0
    return terms


def test_the_correction_finds_the_law_that_made_the_latencies() -> None:
    random = np.random.default_rng(0)
    sums, operators = random.uniform(0.1, 10, 40), random.integers(10, 200, 40).astype(float)
    fitted = fit_correction(terms_of(sums, operators), 1.1 * sums + 0.002 * operators + 0.05)
    assert fitted.error < 0.01
    (terms,) = terms_of(np.array([2.0]), np.array([100.0]))
    assert fitted.predict(terms).ms == pytest.approx(1.1 * 2 + 0.2 + 0.05, rel=0.01)


def test_the_error_is_that_of_networks_which_the_correction_has_not_seen() -> None:
    random = np.random.default_rng(0)
    sums = random.uniform(1, 10, 400)
    terms = terms_of(sums, np.full(400, 50.0))
    measured = sums * (1 + 0.1 * random.standard_normal(400))
    error = fit_correction(terms, measured).error
    assert error == pytest.approx(0.1645, rel=0.15)  # nine of ten of a normal distribution lie within 1.645 deviations
    assert Correction().error > error
    assert fit_correction(terms[:4], measured[:4]).networks == 4


@pytest.mark.parametrize("summed", [0, 1])
def test_leaving_a_network_out_is_fitting_to_the_others(summed: int) -> None:
    random = np.random.default_rng(1)
    terms = terms_of(random.uniform(1, 10, 12), random.uniform(10, 90, 12))
    measured = 1.2 * terms.sum(axis=1) * (1 + 0.1 * random.standard_normal(12))
    together = correction._summed()[summed]
    shares = terms @ together / measured[:, None]
    size = np.abs(shares).mean(axis=0) + 1e-12
    plain = np.array(correction.PLAIN_SUM) @ together / together.sum(axis=0) * size
    fits = list(correction._fits(shares, together))
    assert len(fits) == len(correction._PENALTIES)
    for penalty, fit in zip(correction._PENALTIES, fits, strict=True):
        assert fit.weights == pytest.approx(together @ (ridge(shares / size, plain, penalty) / size))
        for index in range(12):
            others = np.arange(12) != index
            weights = ridge((shares / size)[others], plain, penalty)
            assert fit.errors[index] == pytest.approx(1 / (shares[index] / size @ weights) - 1)


def ridge(shares: np.ndarray, plain: np.ndarray, penalty: float) -> np.ndarray:
    """Return weights that make the shares' sums 1, drawn towards the plain ones: the textbook's way."""
    gram = shares.T @ shares + penalty * np.eye(len(plain))
    return plain + np.linalg.solve(gram, shares.T @ (1.0 - shares @ plain))


def test_what_no_timed_network_has_counts_as_the_table_says() -> None:
    sums = np.linspace(1.0, 9.0, 30)
    weights = dict(zip(TERMS, fit_correction(terms_of(sums, np.full(30, 40.0)), 2.0 * sums).weights, strict=True))
    assert weights["pointwise: ms"] != 1.0
    assert weights["pooling: ms"] == weights["depthwise, aligned: ms"] == pytest.approx(1.0, abs=1e-12)
    assert weights["weight_mb"] == pytest.approx(0.0, abs=1e-12)


def test_what_alignment_costs_is_learnt_where_it_costs_something() -> None:
    random = np.random.default_rng(2)
    terms = terms_of(random.uniform(1, 10, 60), np.full(60, 20.0))
    aligned = random.uniform(1, 10, 60)
    terms[:, TERMS.index("pointwise, aligned: ms")] = aligned
    plain = terms[:, TERMS.index("pointwise: ms")]
    for slope in (1.0, 0.5):
        fitted = fit_correction(terms, plain + slope * aligned)
        assert fitted.error < 0.01
        found = dict(zip(TERMS, fitted.weights, strict=True))
        assert found["pointwise, aligned: ms"] == pytest.approx(slope, abs=0.05)


def test_few_networks_leave_the_sum_nearly_as_it_is() -> None:
    terms = terms_of(np.array([1.0, 2.0]), np.array([50.0, 60.0]))
    assert fit_correction(terms[:0], np.array([])) == Correction()
    assert fit_correction(terms, np.array([1.1, 2.2])).predict(terms[0]).ms == pytest.approx(1.1, rel=0.1)


def test_what_is_unlike_the_timed_networks_is_not_predicted_to_take_nothing() -> None:
    sums = np.linspace(5.0, 6.0, 10)
    fitted = fit_correction(terms_of(sums, np.full(10, 50.0)), 3.0 * sums - 10.0)
    (small,) = terms_of(np.array([0.01]), np.array([50.0]))
    assert small @ np.array(fitted.weights) < 0.0
    assert fitted.predict(small).ms == pytest.approx(0.0025)


def test_the_upper_end_is_above_the_prediction_by_the_error() -> None:
    (terms,) = terms_of(np.array([2.0]), np.array([10.0]))
    prediction = Correction(error=0.25).predict(terms)
    assert prediction.ms == 2.0
    assert prediction.upper_ms == 2.5
