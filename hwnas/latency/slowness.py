"""How slow the device was in each round of measuring: what makes rounds of different minutes comparable.

Other programs, other guests of the same computer and the heat make all models of a round slower together. The canary
tells it, but is one model, timed for a short while. Where a round has many models, all of them tell it: each one's
latency is taken apart into the model's own and the round's slowness.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.latency.measurement import Measurement

    Array = NDArray[np.float64]
    Numbers = NDArray[np.int64]

_FEW = 8  # models of a round that tell less than its canary
_STEPS = 20  # by which the medians do not change any more


def fit_slowness(measured: "Sequence[Measurement]", canary_ms: float) -> dict[float, float]:
    """Return, by a round's canary, how many times slower the device was in it than with the canary at `canary_ms`.

    Median polish of the logarithms of the rounds' medians (Tukey, Exploratory Data Analysis, 1977): model + round. On
    the whole the rounds are as slow as their canaries say; rounds of few models are left to the canary alone.
    """
    samples = [
        (model, canary, median)
        for model, measurement in enumerate(measured)
        for canary, median in zip(measurement.canary_ms, measurement.round_medians_ms)  # noqa: B905  canaries may lack
    ]
    if not samples:
        return {}
    models, canaries, medians = map(np.array, zip(*samples, strict=True))
    names, rounds = np.unique(canaries, return_inverse=True)
    told_by_canary = np.log(names / canary_ms)
    many = np.bincount(rounds) >= _FEW
    slowness = told_by_canary
    for _ in range(_STEPS):
        model_ms = _medians(np.log(medians) - slowness[rounds], models)
        slowness = np.where(many, _medians(np.log(medians) - model_ms[models], rounds), told_by_canary)
        slowness = slowness - np.where(many, np.median((slowness - told_by_canary)[many]) if many.any() else 0.0, 0.0)
    return dict(zip(names.tolist(), np.exp(slowness).tolist(), strict=True))


def _medians(values: "Array", groups: "Numbers") -> "Array":
    """Return the median of each group's values: groups are numbered from 0; nan for a number that has none."""
    order = np.lexsort((values, groups))
    sizes = np.bincount(groups)
    first = np.cumsum(sizes) - sizes
    lower, upper = (first + np.maximum(sizes - 1, 0) // 2, first + sizes // 2)
    ranked = values[order]
    medians = (ranked[np.minimum(lower, len(ranked) - 1)] + ranked[np.minimum(upper, len(ranked) - 1)]) / 2
    return np.where(sizes > 0, medians, np.nan)
