"""Surrogates, one file each: fitted on evaluated candidates, they predict the accuracy of others, with a spread.

A surrogate is a module with `fit(groups, *, operations, seed) -> Surrogate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from hwnas.support import plugins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Evaluated candidates of one number of blocks: codes [n, blocks, 4], latency targets [n] (shares of the cap),
    accuracies [n], and where zero-cost proxies are used their scores [n, proxies], standardised.
    """

    codes: "Codes"
    targets: "Array"
    accuracy: "Array"
    scores: "Array | None" = None

    @property
    def known(self) -> "Array":
        """What is known beside the code: the targets, and the scores: [n, 1 + proxies]."""
        return known(self.targets, self.scores)


class Surrogate(Protocol):
    """A fitted surrogate."""

    def predict(self, codes: "Codes", targets: "Array", scores: "Array | None" = None) -> "tuple[Array, Array]":
        """Return the mean [n] and the spread [n] of the predicted accuracy of codes [n, blocks, 4] at targets [n].

        `scores` [n, proxies] are given where it was fitted with some.
        """
        ...


def known(targets: "Array", scores: "Array | None") -> "Array":
    """Return what is known of candidates beside their codes: [n, 1 + proxies]."""
    import numpy as np

    return targets[:, None] if scores is None else np.concatenate([targets[:, None], scores], axis=1)


def fit(name: str, evaluated: Sequence[Evaluated], *, operations: int, seed: int) -> Surrogate:
    """Fit the surrogate of that name; raises UnknownNameError, which lists the known ones."""
    return cast(Surrogate, plugins.load("surrogates", name).fit(evaluated, operations=operations, seed=seed))
