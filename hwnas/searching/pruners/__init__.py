"""Pruners, one file each: which trainings of a search are stopped before their end, by what they show early.

A pruner is a module with
    epochs(total, *, number) -> tuple     after which epochs the training of that trial is looked at
    stops(curve, others) -> bool          whether it ends at its last look; `others` are the study's other trainings

Optuna's own pruners refuse studies of several objectives. Here trainings are compared within one latency target, or
with what is no slower: a small network is not stopped for being worse than a large one. None is stopped before one that
was looked at after as many epochs is finished: from those is told what it would have come to.
"""

from collections.abc import Sequence
from typing import Protocol, cast

from hwnas.support import plugins
from hwnas.training import Curve


class Pruner(Protocol):
    """What a module of this folder is."""

    def epochs(self, total: float, *, number: int) -> tuple[float, ...]:
        """Return after how many of `total` epochs the training of trial `number` is looked at, rising."""
        ...

    def stops(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """Say whether a training ends at its last look."""
        ...


def get(name: str) -> Pruner:
    """Return the pruner of that name; raises UnknownNameError, which lists the known ones."""
    return cast(Pruner, plugins.load("pruners", name))
