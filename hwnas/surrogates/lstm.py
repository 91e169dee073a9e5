"""The ensemble of LSTMs of PNAS (Liu et al., 2018, section 4.3): it reads a cell block after block.

The paper's reads the four tokens of a block one after the other; here they are one step, whose two branches are read in
both orders and averaged: a quarter of the steps, and a block stays the same when its branches are exchanged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.surrogates import Evaluated
from hwnas.surrogates._ensemble import MEMBERS, Ensemble, Members, Sizes, fit_members

_WIDTH = 12  # of an embedding
_STATE = 32  # of the LSTM


class LSTM(Members):
    """Reads the LSTM's last state."""

    def __init__(self, members: int, sizes: Sizes) -> None:
        super().__init__(members, sizes, embedding=_WIDTH, summary=_STATE, hidden=_STATE)
        self.input = nn.Parameter(torch.randn(members, 4 * _WIDTH, 4 * _STATE) / (4 * _WIDTH) ** 0.5)
        self.recurrent = nn.Parameter(torch.randn(members, _STATE, 4 * _STATE) / _STATE**0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, 4 * _STATE))

    def summary(self, codes: Tensor) -> Tensor:
        """Return the LSTM's output after the last block."""
        branches = self.embedded(codes)  # [members, n, blocks, 2, 2 x embedding]
        steps = torch.cat([branches.flatten(3), branches.flip(3).flatten(3)], dim=1)  # [members, 2n, blocks, ...]
        output = cell = steps.new_zeros(len(steps), steps.shape[1], _STATE)
        for block in range(steps.shape[2]):
            gates = torch.baddbmm(self.bias, steps[:, :, block], self.input) + output @ self.recurrent
            into, forget, out, new = torch.split(gates, _STATE, dim=2)
            cell = torch.sigmoid(forget + 1.0) * cell + torch.sigmoid(into) * torch.tanh(new)
            output = torch.sigmoid(out) * torch.tanh(cell)
        one, other = output.chunk(2, dim=1)
        return (one + other) / 2


def fit(evaluated: Sequence[Evaluated], *, operations: int, seed: int, members: int = MEMBERS) -> Ensemble:
    """Fit the ensemble to evaluated candidates, grouped by their number of blocks."""
    return fit_members(LSTM, evaluated, operations=operations, members=members, seed=seed)
