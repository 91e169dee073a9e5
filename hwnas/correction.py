"""From what a network's operators cost alone to what the network takes: the correction, fitted to timed networks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

KINDS = ("convolution", "pointwise", "depthwise", "pooling", "other")  # of operators, whose times are summed apart
TERMS = (*KINDS, "operators", "weight_mb", "activation_mb", "constant")  # what a network's latency is predicted from
PLAIN_SUM = (1.0,) * len(KINDS) + (0.0,) * (len(TERMS) - len(KINDS))
_PENALTIES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_OUTLIER = 0.3  # a relative error beyond which a network says no more about the penalty


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted latency; `error` is the share by which nine of ten predictions are wrong at most."""

    ms: float
    error: float

    @property
    def upper_ms(self) -> float:
        """The upper end of the prediction's interval: what filters use."""
        return self.ms * (1.0 + self.error)


@dataclass(frozen=True, slots=True)
class Correction:
    """From what a network's operators cost alone to what the network takes: a weighted sum of `TERMS`.

    An operator that runs alone, again and again, finds its weights and inputs in the cache; in a network it does not.
    What that costs depends on its kind and its bytes. `error` is the 0.9 quantile of |measured / predicted - 1|, each
    network predicted from the others alone; `networks` says how many there were.
    """

    weights: tuple[float, ...] = PLAIN_SUM
    error: float = 0.5  # of a plain sum, as long as no network was timed
    networks: int = 0

    def ms(self, terms: "Array") -> "Array":
        """Return the predicted latency [...] of networks with these terms [..., len(TERMS)]."""
        import numpy as np

        return np.asarray(terms @ np.array(self.weights), dtype=np.float64)

    def predict(self, terms: "Array") -> Prediction:
        """Return the prediction of one network: terms [len(TERMS)]."""
        return Prediction(float(self.ms(terms)), self.error)


def fit_correction(terms: "Array", measured_ms: "Array") -> Correction:
    """Fit the correction to timed networks: terms [networks, len(TERMS)] and their latencies [networks].

    Ridge regression of the relative errors towards the plain sum, with the penalty that best predicts networks that
    were left out.
    """
    import numpy as np

    if not len(terms):
        return Correction()
    shares = terms / measured_ms[:, None]
    size = np.abs(shares).mean(axis=0) + 1e-12  # of each term in a network, as a share: a unit for its weight
    errors = [_left_out_errors(shares / size, size, penalty) for penalty in _PENALTIES]
    best = int(np.argmin([np.mean(np.minimum(found**2, _OUTLIER**2)) for found in errors]))
    weights = _ridge(shares / size, size, _PENALTIES[best])[0] / size
    error = float(np.quantile(np.abs(errors[best]), 0.9)) if len(terms) > 1 else Correction().error
    return Correction(tuple(weights.tolist()), error=error, networks=len(terms))


def _ridge(shares: "Array", size: "Array", penalty: float) -> "tuple[Array, Array]":
    """Return the weights, in units of 1 / size, and each network's leverage."""
    import numpy as np

    plain = np.array(PLAIN_SUM) * size
    gram = shares.T @ shares + penalty * np.eye(len(size))
    weights = plain + np.linalg.solve(gram, shares.T @ (1.0 - shares @ plain))
    return weights, np.einsum("ij,ji->i", shares, np.linalg.solve(gram, shares.T))


def _left_out_errors(shares: "Array", size: "Array", penalty: float) -> "Array":
    """Return measured / predicted - 1 of each network, predicted from the others alone."""
    weights, leverage = _ridge(shares, size, penalty)
    residual = (1.0 - shares @ weights) / (1.0 - leverage)  # the rule of ridge regression, without fitting anew
    predicted: Array = 1.0 - residual
    return residual / predicted
