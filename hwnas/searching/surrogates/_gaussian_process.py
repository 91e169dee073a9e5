"""A Gaussian process over choices: how accurate are candidates that nobody evaluated, and how sure is that?

The covariance of two candidates is a sum of what they have in common choice by choice (main effects), of how near
their numbers are (latency, as far as it is known before), and of both together: exp(-sum of the weights of the choices
in which they differ), the Hamming kernel with a weight for each choice, which is what makes some choices matter more.
Accuracies are replaced by their normal scores, so that a few broken networks do not set the scale. The weights
maximise the posterior probability (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 5).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]

_MOST = 400  # observations that the posterior uses: the best half and others at random
_MOST_FITTED = 150  # observations that the weights are fitted to
_STEPS = 20
_JITTER = 1e-6
_PRIOR = {"differ": 0.3, "main": 0.5, "numbers": 0.5, "both": 0.5, "near": 1.0, "near_both": 0.3, "noise": 0.05}
_BOUNDS = (-5.0, 4.0)  # of the logarithms


@dataclass(frozen=True, slots=True)
class Points:
    """Choices by number [n, parameters], and standardised numbers that are known before an evaluation [n, numbers]."""

    choices: "Numbers"
    numbers: "Array"
    sizes: tuple[int, ...]  # how many choices each parameter has

    def __len__(self) -> int:
        """Return n."""
        return len(self.choices)

    def at(self, rows: "Numbers | slice") -> "Points":
        """Return some of them."""
        return Points(self.choices[rows], self.numbers[rows], self.sizes)

    def differ(self, others: "Points") -> "Array":
        """Return [parameters, n, m]: 1 where a choice differs."""
        return np.array(self.choices.T[:, :, None] != others.choices.T[:, None, :], dtype=np.float64)

    def shared(self, others: "Points", weights: "Array") -> "Array":
        """Return the summed weights [n, m] of the parameters in which the choices are the same."""
        ours, theirs = (
            [choices[:, None] == np.arange(size) for choices, size in zip(one.choices.T, self.sizes, strict=True)]
            for one in (self, others)
        )
        if not ours:
            return np.zeros((len(self), len(others)))
        weighted = np.concatenate([weight * one for weight, one in zip(weights, ours, strict=True)], axis=1)
        return np.asarray(weighted @ np.concatenate(theirs, axis=1).T.astype(np.float64))

    def apart(self, others: "Points") -> "Array":
        """Return the squared distances [n, m] of the numbers."""
        squares = [(a[:, None] - b[None]) ** 2 for a, b in zip(self.numbers.T, others.numbers.T, strict=True)]
        return np.asarray(sum(squares, np.zeros((len(self), len(others)))))


@dataclass(frozen=True, slots=True)
class Kernel:
    """The logarithms of the kernel's weights: one of each parameter's, then those of `_PRIOR` after `differ`."""

    logs: "Array"

    @property
    def weights(self) -> "Array":
        """The weights of the parameters [parameters]."""
        return np.asarray(np.exp(self.logs[: 1 - len(_PRIOR)]))

    def parts(self, common: "Array", distance: "Array", apart: "Array") -> "tuple[Array, Array, Array]":
        """Return the summands of the covariance, each [n, m].

        `common` is the share of the choices that are the same, `distance` the weights of the others, summed.
        """
        main, numbers, both, near, near_both, _ = np.exp(self.logs[1 - len(_PRIOR) :])
        return main * common, numbers * np.exp(-near * apart), both * np.exp(-distance - near_both * apart)

    def covariance(self, one: Points, other: Points) -> "Array":
        """Return the covariance [n, m]."""
        weights = self.weights
        common = one.shared(other, np.full(len(weights), 1 / max(1, len(weights))))
        distance = weights.sum() - one.shared(other, weights)
        main, numbers, both = self.parts(common, distance, one.apart(other))
        return main + numbers + both

    @property
    def variance(self) -> float:
        """The covariance of any candidate with itself."""
        return float(np.exp(self.logs[1 - len(_PRIOR) :][:3]).sum())

    @property
    def noise(self) -> float:
        """The variance of what is observed of one candidate."""
        return float(np.exp(self.logs[-1])) + _JITTER


def normal_scores(values: "Array") -> "Array":
    """Return the quantiles of the normal distribution at the values' ranks: [n]."""
    return np.asarray(ndtri((rankdata(values) - 0.5) / len(values)))


def fit_kernel(points: Points, scores: "Array", *, seed: int) -> Kernel:
    """Return the most probable weights, given points and their scores [n]."""
    if len(points) > _MOST_FITTED:
        rows = np.random.default_rng(seed).permutation(len(points))[:_MOST_FITTED]
        points, scores = points.at(rows), scores[rows]
    differ, apart = points.differ(points), points.apart(points)
    expected = np.log(_expected(len(differ)))

    def loss(logs: "Array") -> "tuple[float, Array]":
        found, slope = _misfit(Kernel(logs), differ, apart, scores)
        return found + 0.5 * float(((logs - expected) ** 2).sum()), slope + logs - expected

    found = minimize(
        loss, expected, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}, bounds=[_BOUNDS] * len(expected)
    )
    return Kernel(np.asarray(found.x))


def _expected(parameters: int) -> list[float]:
    return [_PRIOR["differ"]] * parameters + [value for name, value in _PRIOR.items() if name != "differ"]


def _misfit(kernel: Kernel, differ: "Array", apart: "Array", scores: "Array") -> "tuple[float, Array]":
    """Return the negative logarithm of the scores' probability, but for a constant, and its slope by each logarithm."""
    weights = np.exp(kernel.logs)
    common = 1.0 - differ.mean(axis=0) if len(differ) else np.ones_like(apart)
    main, numbers, both = kernel.parts(common, np.tensordot(kernel.weights, differ, axes=1), apart)
    covariance = main + numbers + both + kernel.noise * np.eye(len(scores))
    try:
        factor = cho_factor(covariance, lower=True)
    except LinAlgError:
        return 1e12, np.zeros_like(weights)
    inverse = cho_solve(factor, np.eye(len(scores)))
    solved = inverse @ scores
    inner = 0.5 * (inverse - np.outer(solved, solved))  # the slope is its product with the covariance's, summed
    by_both = inner * both
    near, near_both = weights[-3], weights[-2]
    slopes = [
        *(-kernel.weights * np.tensordot(differ, by_both, axes=2)),
        (inner * main).sum(),
        (inner * numbers).sum(),
        by_both.sum(),
        -near * (inner * numbers * apart).sum(),
        -near_both * (by_both * apart).sum(),
        weights[-1] * np.trace(inner),
    ]
    found = 0.5 * scores @ solved + np.log(np.diag(factor[0])).sum()
    return float(found), np.array(slopes)


class Posterior:
    """What is to be expected of points, given observed ones; `believe` adds one as if it had come out as expected."""

    def __init__(self, kernel: Kernel, observed: Points, scores: "Array", asked: Points) -> None:
        self._kernel, self._asked = kernel, asked
        factor = cho_factor(kernel.covariance(observed, observed) + kernel.noise * np.eye(len(observed)), lower=True)
        between = kernel.covariance(observed, asked)
        self.mean = np.asarray(between.T @ cho_solve(factor, scores))
        self._explained = [np.asarray(solve_triangular(factor[0], between, lower=True))]
        self._variance = np.maximum(kernel.variance - (self._explained[0] ** 2).sum(axis=0), _JITTER)

    @property
    def spread(self) -> "Array":
        """The standard deviation of each asked candidate [m]."""
        return np.asarray(np.sqrt(self._variance))

    def believe(self, row: int) -> None:
        """Take one asked candidate as observed at its mean: others near it become surer."""
        covariance = self._kernel.covariance(self._asked.at(slice(row, row + 1)), self._asked)[0]
        covariance -= sum(part[:, row] @ part for part in self._explained)
        explained = covariance / np.sqrt(self._variance[row] + self._kernel.noise)
        self._explained.append(explained[None])
        self._variance = np.maximum(self._variance - explained**2, _JITTER)


def posterior(observed: Points, accuracy: "Array", asked: Points, *, seed: int) -> "tuple[Posterior, Array]":
    """Return what is expected of asked candidates, and the observed ones' scores [n], which it is expressed in."""
    scores = normal_scores(accuracy)
    kernel = fit_kernel(observed, scores, seed=seed)
    rows = _kept(scores, seed=seed)
    return Posterior(kernel, observed.at(rows), scores[rows], asked), scores


def _kept(scores: "Array", *, seed: int) -> "Numbers":
    """Return the rows that the posterior uses: all, or the best half and others at random."""
    if len(scores) <= _MOST:
        return np.arange(len(scores))
    ranked = np.argsort(-scores, kind="stable")
    others = np.random.default_rng(seed).permutation(ranked[_MOST // 2 :])[: _MOST - _MOST // 2]
    return np.sort(np.concatenate([ranked[: _MOST // 2], others]))


def expected_improvement(mean: "Array", spread: "Array", best: "Array | float") -> "Array":
    """Return by how much each is expected to be above `best` (Jones et al., 1998)."""
    ahead = (mean - best) / spread
    density = np.exp(-0.5 * ahead**2) / np.sqrt(2 * np.pi)
    return np.asarray(spread * (ahead * ndtr(ahead) + density))
