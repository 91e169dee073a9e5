"""A Gaussian process over what describes a cell (see _features.py), its latency target and proxies' scores.

The covariance of two candidates is linear in their features, which carries on beyond the cells that were trained, plus
a squared exponential of them, which does not. A feature's weight counts in both; the weights maximise the posterior
probability (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 5). Accuracies are replaced
by their normal scores, as in _gaussian_process.py: a few broken networks would set the scale.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hwnas.searching.surrogates import Evaluated, known
from hwnas.searching.surrogates._features import features
from hwnas.searching.surrogates._gaussian_process import normal_scores
from hwnas.searching.surrogates._one_thread import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

    Array = NDArray[np.float64]

_MOST = 400  # candidates that it is fitted to: the latest
_STEPS = 40
_CHUNK = 16384  # candidates predicted at once
_JITTER = 1e-5
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_WEIGHT = 0.3  # of a feature, expected
_VARIANCES = (0.5, 0.5, 0.2)  # expected: of the linear part, of the other part, of the noise; that of the data is 1


class GaussianProcess:
    """A fitted process: the logarithms of its weights, then those of its three variances."""

    def __init__(self, inputs: "Array", accuracy: "Array", *, operations: int) -> None:
        self._operations = operations
        self._centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
        self._unit = np.where(spread > 1e-9, spread, 1.0)
        scores = normal_scores(accuracy)
        self._knots = np.quantile(scores, _QUANTILES), np.quantile(accuracy, _QUANTILES)
        self._known = self._standardised(inputs)
        self._truth = torch.from_numpy(scores)
        self._logs = self._fitted()
        with torch.no_grad():
            self._factor = self._factorised(self._logs)
            self._solved = torch.cholesky_solve(self._truth[:, None], self._factor)

    @torch.no_grad()
    def predict(self, codes: "Codes", targets: "Array", scores: "Array | None" = None) -> "tuple[Array, Array]":
        """Return the mean [n] and the spread [n] of codes [n, blocks, 4] at targets [n]."""
        others = known(targets, scores)
        found = [
            self._predict(codes[at : at + _CHUNK], others[at : at + _CHUNK]) for at in range(0, len(codes), _CHUNK)
        ]
        mean, variance = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        spread = np.sqrt(variance)
        return self._accuracy(mean), (self._accuracy(mean + spread) - self._accuracy(mean - spread)) / 2

    def _predict(self, codes: "Codes", others: "Array") -> tuple[Tensor, Tensor]:
        asked = self._standardised(_inputs(codes, others, self._operations))
        between = _covariance(self._known, asked, self._logs)
        explained = torch.linalg.solve_triangular(self._factor, between, upper=False)
        weights, (linear, other, _) = self._logs[:-3].exp(), self._logs[-3:].exp()
        own = other + linear * (asked * asked) @ weights
        return (between.T @ self._solved)[:, 0], (own - (explained * explained).sum(0)).clamp(min=_JITTER)

    def _accuracy(self, scores: "Array") -> "Array":
        """Return the accuracies of scores: linear between quantiles, and on beyond the last."""
        knots, accuracy = self._knots
        slopes = np.diff(accuracy) / np.maximum(np.diff(knots), 1e-9)
        low, high = np.minimum(scores - knots[0], 0.0), np.maximum(scores - knots[-1], 0.0)
        return np.asarray(np.interp(scores, knots, accuracy) + slopes[0] * low + slopes[-1] * high)

    def _standardised(self, inputs: "Array") -> Tensor:
        return torch.from_numpy((inputs - self._centre) / self._unit)

    def _fitted(self) -> Tensor:
        """Return the most probable logarithms."""
        size = self._known.shape[1]
        linear, other, noise = _VARIANCES
        expected = torch.tensor([_WEIGHT] * size + [linear / (_WEIGHT * size), other, noise]).double().log()
        logs = expected.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([logs], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            factor = self._factorised(logs)
            misfit = torch.linalg.solve_triangular(factor, self._truth[:, None], upper=False).square().sum() / 2
            total: Tensor = misfit + factor.diagonal().log().sum() + (logs - expected).square().sum() / 2
            torch.autograd.backward(total)
            return total

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        return logs.detach()

    def _factorised(self, logs: Tensor) -> Tensor:
        noise = (logs[-1].exp() + _JITTER) * torch.eye(len(self._truth), dtype=torch.float64)
        factor: Tensor = torch.linalg.cholesky(_covariance(self._known, self._known, logs) + noise)
        return factor


def _covariance(one: Tensor, other: Tensor, logs: Tensor) -> Tensor:
    """Return the covariance [n, m] of standardised inputs [n, features] and [m, features]."""
    weights, (linear, rest) = logs[:-3].exp(), logs[-3:-1].exp()
    products = (one * weights) @ other.T
    squares = ((one * one) @ weights)[:, None] + ((other * other) @ weights)[None] - 2 * products
    covariance: Tensor = linear * products + rest * torch.exp(-squares.clamp(min=0) / 2)
    return covariance


def _inputs(codes: "Codes", others: "Array", operations: int) -> "Array":
    return np.concatenate([features(codes, operations=operations), others], axis=1)


def fit(evaluated: Sequence[Evaluated], *, operations: int, seed: int) -> GaussianProcess:
    """Fit the process to evaluated candidates, grouped by their number of blocks; nothing in it is random."""
    inputs = np.concatenate([_inputs(group.codes, group.known, operations) for group in evaluated])
    accuracy = np.concatenate([group.accuracy for group in evaluated])
    with one_thread():
        return GaussianProcess(inputs[-_MOST:], accuracy[-_MOST:], operations=operations)
