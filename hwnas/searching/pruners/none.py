"""No pruning: every training goes to its end."""

from collections.abc import Sequence

from hwnas.training import Curve


def epochs(total: float, *, number: int) -> tuple[float, ...]:
    """Return nothing: a look costs time."""
    return ()


def stops(curve: Curve, others: Sequence[Curve]) -> bool:
    """Go on."""
    return False
