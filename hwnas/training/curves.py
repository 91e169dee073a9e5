"""Learning curves: what trainings show before their end, and what a short one would have come to.

`extrapolate` learns from finished trainings of the same study how the training loss up to a look goes with the accuracy
at the end: a Bayesian linear regression, so that what it says has an uncertainty even after two or three. The loss
costs nothing to look at, and says more than the accuracy on validation images does while the learning rate is high: on
our table of trained cells (benchmarks/early_evidence.py) it ranks them far better, as Ru et al. (2021) found of summed
training losses. Nothing is assumed of the curve's form: most of the accuracy comes with the learning rate's fall to 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_EXPECTED_ERROR, _WORTH = 0.02, 2.0  # of what is said before anything is known: so large, worth so many trainings
_FREEDOM = 1.0  # prior deviation of the slope, in units of the expected error for a deviation of one in the loss


@dataclass(frozen=True, slots=True)
class Epoch:
    """A finished epoch of a training, or the part with which it ended: the steps and seconds so far, the mean loss.

    `accuracy` is the share of the validation images that are right, where the training leaves these out.
    """

    epoch: int | float  # written as it is
    step: int
    loss: float
    learning_rate: float  # of the last step
    seconds: float
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What a training shows after `epoch` epochs: the mean training loss since the last look; the seconds so far; the
    accuracy on some validation images, a share, where it is asked for.
    """

    epoch: float
    loss: float
    seconds: float
    accuracy: float | None = None


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

    Raises ValueError where none was.
    """
    import numpy as np

    last = curve.looks[-1]
    finished = [
        (look.loss, one.accuracy) for one in others if one.accuracy is not None and (look := one.at(last.epoch))
    ]
    if not finished:
        raise ValueError(f"no other training was finished that was looked at after {last.epoch:g} epochs")
    losses, accuracies = np.array(finished).T
    mean, scale = losses.mean(), losses.std() or 1.0
    known = np.stack([np.ones(len(losses)), (losses - mean) / scale], axis=1)
    asked = np.array([1.0, (last.loss - mean) / scale])
    precision = np.diag([1e-6, 1 / _FREEDOM**2]) + known.T @ known  # in units of the noise's
    weights = np.linalg.solve(precision, known.T @ accuracies)
    freedom = 2 * _WORTH + len(losses)
    left = float(accuracies @ accuracies - weights @ precision @ weights)
    variance = (2 * _WORTH * _EXPECTED_ERROR**2 + max(left, 0.0)) / freedom
    unsure = 1.0 + float(asked @ np.linalg.solve(precision, asked))
    return Extrapolated(float(asked @ weights), (variance * unsure) ** 0.5, freedom)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is: `epoch` counts finished epochs, the last one's part included; `loss` is smoothed."""

    step: int
    steps: int
    epoch: float
    loss: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Watch:
    """After which epochs a training is looked at; `stops` is told each look and says whether to end there.

    With `images` a look tells the accuracy on so many validation images, too.
    """

    epochs: tuple[float, ...]
    stops: Callable[[Look], bool]
    images: int = 0
