"""The ensemble of MLPs of PNAS (Liu et al., 2018, section 4.3): embeddings averaged over the blocks, then two layers.

A block's two branches are exchangeable, so theirs are averaged too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hwnas.searching.surrogates import Evaluated
from hwnas.searching.surrogates._ensemble import MEMBERS, Ensemble, Members, Sizes, fit_members

_WIDTH = 16  # of an embedding
_HIDDEN = 64


class MLP(Members):
    """Reads the mean of the embeddings."""

    def __init__(self, members: int, sizes: Sizes) -> None:
        super().__init__(members, sizes, embedding=_WIDTH, summary=2 * _WIDTH, hidden=_HIDDEN)

    def summary(self, codes: Tensor) -> Tensor:
        """Return the mean over blocks and branches."""
        return torch.relu(self.embedded(codes)).mean(dim=(2, 3))


def fit(evaluated: Sequence[Evaluated], *, operations: int, seed: int, members: int = MEMBERS) -> Ensemble:
    """Fit the ensemble to evaluated candidates, grouped by their number of blocks."""
    return fit_members(MLP, evaluated, operations=operations, members=members, seed=seed)
