"""Latency: what was measured of a model, the table of a device's measurements, and what it predicts of a network."""

import statistics
from dataclasses import dataclass


def lower_quartile(values: "list[float] | tuple[float, ...]") -> float:
    """Return the value below which a quarter of `values` lies (linear between neighbours)."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")[0]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one model in milliseconds: a tuple for each round, a sample for each timed call."""

    rounds_ms: tuple[tuple[float, ...], ...]
    unstable: bool = False

    @property
    def round_medians_ms(self) -> list[float]:
        """The median sample of each round."""
        return [statistics.median(samples) for samples in self.rounds_ms]

    @property
    def median_ms(self) -> float:
        """The median of all samples."""
        return statistics.median(sample for samples in self.rounds_ms for sample in samples)

    @property
    def ms(self) -> float:
        """The latency that hwnas states: the lower quartile, over the rounds, of the rounds' medians."""
        return lower_quartile(self.round_medians_ms)

    @property
    def spread(self) -> float:
        """How far the rounds disagree: (median - lower quartile) / lower quartile of the rounds' medians."""
        return statistics.median(self.round_medians_ms) / self.ms - 1.0
