"""Stops a training that will hardly be on the front: its learning curve is extrapolated, with its uncertainty.

It ends where the chance to be more accurate than the best finished one that is no slower is under a twentieth (as in
Domhan et al., 2015, whose curves are of another kind: see hwnas/curves.py).
"""

from collections.abc import Sequence

from hwnas.searching.pruners import halving
from hwnas.training import Curve, extrapolate

_CHANCE = 0.05
_FEWEST = 5  # finished trainings: nothing is stopped by fewer


def epochs(total: float, *, number: int) -> tuple[float, ...]:
    """Return an eighth, a quarter and a half of the epochs."""
    return halving.epochs(total, number=number)


def stops(curve: Curve, others: Sequence[Curve]) -> bool:
    """Say whether the training is hardly better at its end than what is as fast, and was finished."""
    finished = [other for other in others if other.accuracy is not None and other.at(curve.looks[-1].epoch)]
    as_fast = [other.accuracy for other in finished if other.accuracy and other.latency_ms <= curve.latency_ms]
    if len(finished) < _FEWEST or not as_fast:
        return False
    return extrapolate(curve, finished).chance_above(max(as_fast)) < _CHANCE
