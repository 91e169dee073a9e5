"""Learning curves: what trainings show before their end, and what a short one would have come to.

`extrapolate` learns from finished trainings of the same study how the accuracy at a look, and the training loss up to
it, go with the accuracy at the end (as Baker et al., 2018, do with support vectors): a Bayesian linear regression, so
that what it says has an uncertainty even after two or three. Nothing is assumed of the curve's form: the learning rate
falls to 0 at the end, and most of the accuracy comes with that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_EXPECTED_ERROR, _WORTH = 0.02, 2.0  # of what is said before anything is known: so large, worth so many trainings
_FREEDOM = 1.0  # prior deviation of a slope, in units of the gain's expected error for a feature's deviation of one


@dataclass(frozen=True, slots=True)
class Look:
    """What a training shows after `epoch` epochs: the accuracy on some validation images, a share; the mean training
    loss since the last look; the seconds so far.
    """

    epoch: float
    accuracy: float
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A training of trial `number` at a latency target (a share of the cap): its looks, and where it was finished the
    accuracy at its end.
    """

    number: int
    target: float
    latency_ms: float
    looks: tuple[Look, ...]
    accuracy: float | None = None

    def at(self, epoch: float) -> Look | None:
        """Return the look after so many epochs, if there was one."""
        return next((look for look in self.looks if look.epoch == epoch), None)


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """An accuracy at the end that was not seen: Student's t distribution with a mean, a scale, degrees of freedom."""

    mean: float
    scale: float
    freedom: float

    @property
    def spread(self) -> float:
        """The standard deviation."""
        return float(self.scale * (self.freedom / (self.freedom - 2)) ** 0.5)

    def chance_above(self, accuracy: float) -> float:
        """Return how probable it is to be above an accuracy."""
        from scipy.stats import t

        return float(t.sf((accuracy - self.mean) / self.scale, self.freedom))


def extrapolate(curve: Curve, others: Sequence[Curve]) -> Extrapolated:
    """Say what a training would come to, from its last look and from those of `others` that were finished.

    Where none was, it is taken to come to the accuracy of the look.
    """
    import numpy as np

    last = curve.looks[-1]
    finished = [
        (look, other.accuracy) for other in others if other.accuracy is not None and (look := other.at(last.epoch))
    ]
    seen = np.array([[look.accuracy, look.loss] for look, _ in finished]).reshape(-1, 2)
    gains = np.array([accuracy - look.accuracy for look, accuracy in finished])
    mean = seen.mean(axis=0) if len(seen) else np.zeros(2)
    scale = np.where(len(seen) > 1 and seen.std(axis=0) > 0, seen.std(axis=0), 1.0) if len(seen) else np.ones(2)

    def features(values: "Array") -> "Array":
        return np.concatenate([np.ones((len(values), 1)), (values - mean) / scale], axis=1)

    known, asked = features(seen), features(np.array([[last.accuracy, last.loss]]))[0]
    prior = np.diag([1e-6, 1 / _FREEDOM**2, 1 / _FREEDOM**2])  # precisions, in units of the noise's
    precision = prior + known.T @ known
    weights = np.linalg.solve(precision, known.T @ gains)
    freedom = 2 * _WORTH + len(gains)
    squares = 2 * _WORTH * _EXPECTED_ERROR**2 + float(gains @ gains - weights @ precision @ weights)
    unsure = 1.0 + float(asked @ np.linalg.solve(precision, asked)) if len(gains) else 2.0
    return Extrapolated(last.accuracy + float(asked @ weights), (max(squares, 0.0) / freedom * unsure) ** 0.5, freedom)
