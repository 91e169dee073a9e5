"""Asynchronous successive halving (Li et al., 2020, algorithm 2): at each look the better half goes on.

A training is looked at after an eighth, a quarter and a half, and compared with those at the same latency target. None
waits for others: the first to come to a look goes on, and so does each that is in the better half of those before it.
"""

from collections.abc import Sequence

from hwnas.curves import Curve

_SHARES = (0.125, 0.25, 0.5)


def epochs(total: float, *, number: int) -> tuple[float, ...]:
    """Return an eighth, a quarter and a half of the epochs."""
    return tuple(share * total for share in _SHARES)


def stops(curve: Curve, others: Sequence[Curve]) -> bool:
    """Say whether more than half of those at the same target were better at this look."""
    return behind(curve, [other for other in others if other.target == curve.target])


def behind(curve: Curve, rivals: Sequence[Curve]) -> bool:
    """Say whether a curve is not in the better half of its rivals and itself, at its last look."""
    last = curve.looks[-1]
    theirs = [look.accuracy for rival in rivals if (look := rival.at(last.epoch))]
    return sum(accuracy > last.accuracy for accuracy in theirs) >= max(1, (len(theirs) + 1) // 2)
