"""Surrogates, one file each: fitted on evaluated candidates, they predict the accuracy of others, with a spread.

A surrogate is a module with `fit(groups, *, operations, seed) -> Surrogate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from hwnas import plugins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwnas.cell import Codes

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Evaluated candidates of one number of blocks: codes [n, blocks, 4], latency targets [n] (shares of the cap) and
    accuracies [n].
    """

    codes: "Codes"
    targets: "Array"
    accuracy: "Array"


class Surrogate(Protocol):
    """A fitted surrogate."""

    def predict(self, codes: "Codes", targets: "Array") -> "tuple[Array, Array]":
        """Return the mean [n] and the spread [n] of the predicted accuracy of codes [n, blocks, 4] at targets [n]."""
        ...


def fit(name: str, evaluated: Sequence[Evaluated], *, operations: int, seed: int) -> Surrogate:
    """Fit the surrogate of that name; raises UnknownNameError, which lists the known ones."""
    return cast(Surrogate, plugins.load("surrogates", name).fit(evaluated, operations=operations, seed=seed))
