"""How far two lists of figures agree in their order."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau, spearmanr


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, equal values sharing their ranks; None where all are equal, or too few."""
    return float(spearmanr(one, other).statistic) if _can_be_ranked(one, other) else None


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b; None where all are equal, or too few."""
    return float(kendalltau(one, other).statistic) if _can_be_ranked(one, other) else None


def _can_be_ranked(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) > 1 and bool(np.ptp(one) > 0 and np.ptp(other) > 0)
