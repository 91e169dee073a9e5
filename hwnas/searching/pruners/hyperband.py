"""Asynchronous Hyperband (Li et al., 2018, and 2020, section 3.3): brackets that begin to halve at other looks.

Trial after trial falls to a bracket in turn: halving from the first look on, from the second, from the last, or not at
all. So a search whose early looks say little loses only a part of its trainings to them.
"""

from collections.abc import Sequence

from hwnas.searching.pruners import halving
from hwnas.training import Curve

_BRACKETS = 4


def epochs(total: float, *, number: int) -> tuple[float, ...]:
    """Return the looks of the trial's bracket."""
    return halving.epochs(total, number=number)[number % _BRACKETS :]


def stops(curve: Curve, others: Sequence[Curve]) -> bool:
    """Say whether more than half of those at the same target in the same bracket were better at this look."""
    same = (curve.target, curve.number % _BRACKETS)
    return halving.behind(curve, [other for other in others if (other.target, other.number % _BRACKETS) == same])
