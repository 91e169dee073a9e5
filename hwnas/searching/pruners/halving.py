"""Asynchronous successive halving (Li et al., 2020, algorithm 2): at each look the better half goes on.

A training is looked at after an eighth, a quarter and a half, and its loss compared with those at the same latency
target. None waits for others: the first to come to a look goes on, and so does each that is in the better half of those
before it.
"""

from collections.abc import Sequence

from hwnas.training import Curve

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
    looked_at = [(rival, look) for rival in rivals if (look := rival.at(last.epoch))]
    better = sum(look.loss < last.loss for _, look in looked_at)
    return better >= max(1, (len(looked_at) + 1) // 2) and any(rival.accuracy is not None for rival, _ in looked_at)
