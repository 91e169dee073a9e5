"""How well a table predicts networks that nothing was fitted to: what `hwnas profile --validate` measures them for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import kendalltau, spearmanr

from hwnas.latency.measurement import Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.latency.costs import CostModel
    from hwnas.network import Architecture

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Validation:
    """Shares of held-out networks that are predicted within 5 and 10 % of their measured latency, and the like.

    `sum` is the plain sum of the operators, `mult_adds` a line through the Mult-Adds, both beside the prediction.
    `noise` is the floor: the first half of each network's rounds beside the second, measured at other minutes; None of
    estimates, which have none.
    """

    networks: int
    within_5: float
    within_10: float
    rmse_ms: float
    spearman: float
    kendall: float
    sum_within_10: float
    mult_adds_within_10: float
    noise_within_5: float | None
    noise_within_10: float | None

    def __str__(self) -> str:
        noise = ""
        if self.noise_within_5 is not None:
            noise = f" of the device's own noise: {self.noise_within_5:.0%}, {self.noise_within_10:.0%};"
        return (
            f"{self.networks} other networks, shares predicted within 5 and 10 %: {self.within_5:.0%}, "
            f"{self.within_10:.0%};{noise} of a plain sum within 10 %: {self.sum_within_10:.0%}; "
            f"rank correlation {self.spearman:.3f}"
        )


def validate(model: "CostModel") -> Validation | None:
    """Compare predictions with the networks of the model's table that are held out; nothing where there are none.

    Raises TableError where an entry is missing.
    """
    table = model.table
    held_out = [network for network in table.networks if network.held_out]
    if len(held_out) < 2:
        return None
    architectures = [network.architecture for network in held_out]
    measured = np.array([table.stated_ms(network.measurement) for network in held_out])
    predicted = np.array([model.predict(architecture).ms for architecture in architectures])
    sums = np.array([sum(ms for _, ms in model.layer_ms(architecture)) for architecture in architectures])
    first, second = (
        np.array([table.stated_ms(_half(network.measurement, part)) for network in held_out]) for part in (0, 1)
    )
    return Validation(
        networks=len(held_out),
        within_5=_within(predicted, measured, 0.05),
        within_10=_within(predicted, measured, 0.1),
        rmse_ms=float(np.sqrt(np.mean((predicted - measured) ** 2))),
        spearman=float(spearmanr(predicted, measured).statistic),
        kendall=float(kendalltau(predicted, measured).statistic),
        sum_within_10=_within(sums, measured, 0.1),
        mult_adds_within_10=_within(_line_through_mult_adds(model, architectures), measured, 0.1),
        noise_within_5=None if table.estimated_by else _within(first, second, 0.05),
        noise_within_10=None if table.estimated_by else _within(first, second, 0.1),
    )


def _line_through_mult_adds(model: "CostModel", architectures: "list[Architecture]") -> "Array":
    """Return what a line predicts that is fitted to the Mult-Adds of the networks that are not held out."""
    fitted = [network for network in model.table.networks if not network.held_out]
    if len(fitted) < 2:
        return np.full(len(architectures), np.nan)
    mult_adds = [network.architecture.graph.mult_adds for network in fitted]
    line = np.polyfit(mult_adds, [model.table.stated_ms(network.measurement) for network in fitted], 1)
    return np.asarray(np.polyval(line, [architecture.graph.mult_adds for architecture in architectures]))


def _half(measurement: Measurement, part: int) -> Measurement:
    """Return the first or the second half of the rounds; a single round is both."""
    middle = len(measurement.rounds_ms) // 2
    chosen = slice(middle or 1) if part == 0 else slice(middle, None)
    return Measurement(measurement.rounds_ms[chosen], canary_ms=measurement.canary_ms[chosen])


def _within(predicted: "Array", measured: "Array", share: float) -> float:
    return float(np.mean(np.abs(predicted / measured - 1) <= share))
