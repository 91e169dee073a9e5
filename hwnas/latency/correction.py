"""From what a network's operators cost alone to what the network takes: the correction, fitted to timed networks."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ALIGNMENT = 16  # channels that runtimes pack together, at most; others they pad, or leave unpacked
_KINDS = ("convolution", "pointwise", "depthwise", "pooling", "addition", "other")
KINDS = (*_KINDS, *(f"{kind}, aligned" for kind in _KINDS))  # of operators, whose times and bytes are summed apart
TERMS = (  # what a network's latency is predicted from
    *(f"{kind}: ms" for kind in KINDS),
    *(f"{kind}: activation_mb" for kind in KINDS),
    "operators",
    "weight_mb",
    "constant",
)
PLAIN_SUM = (1.0,) * len(KINDS) + (0.0,) * (len(TERMS) - len(KINDS))
_PENALTIES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_LEAST = 0.25  # of the plain sum: what is predicted of networks that are unlike those that were timed
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
    What that costs depends on its kind and its bytes. Some runtimes pack channels: an operator that runs alone packs
    and unpacks them, one in a network may find them packed; that depends on whether its channels are aligned. `error`
    is the 0.9 quantile of |measured / predicted - 1|, each network predicted from the others alone; `networks` says how
    many there were.
    """

    weights: tuple[float, ...] = PLAIN_SUM
    error: float = 0.5  # of a plain sum, as long as no network was timed
    networks: int = 0

    def ms(self, terms: "Array") -> "Array":
        """Return the predicted latency [...] of networks with these terms [..., len(TERMS)]."""
        return self.projected_ms(terms @ self.projection)

    @property
    def projection(self) -> "Array":
        """[len(TERMS), 2]: from the terms to their weighted and their plain sum, from which the latency comes."""
        import numpy as np

        return np.array([self.weights, PLAIN_SUM]).T

    def projected_ms(self, sums: "Array") -> "Array":
        """Return the predicted latency [...] of networks with these weighted and plain sums [..., 2]."""
        import numpy as np

        return np.asarray(np.maximum(sums[..., 0], _LEAST * sums[..., 1]), dtype=np.float64)

    def predict(self, terms: "Array") -> Prediction:
        """Return the prediction of one network: terms [len(TERMS)]."""
        return Prediction(float(self.ms(terms)), self.error)


def fit_correction(terms: "Array", measured_ms: "Array") -> Correction:
    """Fit the correction to timed networks: terms [networks, len(TERMS)] and their latencies [networks].

    Ridge regression of the relative errors towards the plain sum, in few terms or in all, with the penalty: whatever
    best predicts networks that were left out.
    """
    import numpy as np

    if not len(terms):
        return Correction()
    fits = chain.from_iterable(_fits(terms @ together / measured_ms[:, None], together) for together in _summed())
    best = min(fits, key=lambda fit: fit.score)
    error = float(np.quantile(np.abs(best.errors), 0.9)) if len(terms) > 1 else Correction().error
    return Correction(tuple(best.weights.tolist()), error=error, networks=len(terms))


def _summed() -> "list[Array]":
    """Return which terms are summed into one: [len(TERMS), fewer] of 0 and 1, and [len(TERMS), len(TERMS)]."""
    import numpy as np

    few = ["activation_mb" if "activation_mb" in term else term.replace(", aligned", "") for term in TERMS]
    return [
        np.array([[float(name == other) for other in dict.fromkeys(names)] for name in names]) for names in (few, TERMS)
    ]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Weights of `TERMS`, and measured / predicted - 1 of each network, predicted from the others alone."""

    weights: "Array"
    errors: "Array"

    @property
    def score(self) -> float:
        """The mean squared error; an outlier counts as a large error and no more."""
        import numpy as np

        return float(np.mean(np.minimum(self.errors**2, _OUTLIER**2)))


def _fits(shares: "Array", together: "Array") -> "Iterator[_Fit]":
    """Yield the fits, one for each penalty, of summed terms that are shares of the latencies: [networks, terms].

    The weights make the shares' sums 1 and are drawn towards the plain ones. In the axes of the shares' own scatter a
    penalty is a number to add, so that more networks cost little more.
    """
    import numpy as np

    size = np.abs(shares).mean(axis=0) + 1e-12  # of each term in a network: a unit for its weight
    shares, occurs = shares / size, shares.any(axis=0)
    plain = np.array(PLAIN_SUM) @ together / together.sum(axis=0) * size
    scatter, axes = np.linalg.eigh(shares.T @ shares)
    turned, wanted = shares @ axes, 1.0 - shares @ plain
    pull, lever = turned.T @ wanted, turned**2
    for penalty in _PENALTIES:
        freed = 1.0 / (np.maximum(scatter, 0.0) + penalty)
        step = freed * pull
        residual = (wanted - turned @ step) / (1.0 - lever @ freed)  # as of a fit without it, without fitting anew
        weights = plain + np.where(occurs, axes @ step, 0.0)
        yield _Fit(together @ (weights / size), residual / (1.0 - residual))
