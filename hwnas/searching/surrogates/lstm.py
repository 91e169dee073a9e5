"""The ensemble of LSTMs of PNAS (Liu et al., 2018, section 4.3): it reads a cell block after block.

The paper's reads the four tokens of a block one after the other; here they are one step, a quarter of the time. A
block's two branches are exchangeable: it is fitted to them in any order, and asked in that of inputs and operations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.searching.surrogates import Evaluated
from hwnas.searching.surrogates._ensemble import MEMBERS, Ensemble, Members, Sizes, fit_members

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
        steps = self.embedded(_in_any_order(codes) if self.training else _in_order(codes)).flatten(
            3
        )  # [members, n, blocks, 4 x embedding]
        output = cell = steps.new_zeros(len(steps), steps.shape[1], _STATE)
        for block in range(steps.shape[2]):
            gates = torch.baddbmm(self.bias, steps[:, :, block], self.input) + output @ self.recurrent
            into, forget, out, new = torch.split(gates, _STATE, dim=2)
            cell = torch.sigmoid(forget + 1.0) * cell + torch.sigmoid(into) * torch.tanh(new)
            output = torch.sigmoid(out) * torch.tanh(cell)
        return output


def _in_order(codes: Tensor) -> Tensor:
    """Return codes [n, blocks, 4] with each block's branches in order."""
    left, right = codes[:, :, :2], codes[:, :, 2:]
    swap = (left[:, :, 1] > right[:, :, 1]) | ((left[:, :, 1] == right[:, :, 1]) & (left[:, :, 0] > right[:, :, 0]))
    return torch.where(swap[:, :, None], torch.cat([right, left], dim=2), codes)


def _in_any_order(codes: Tensor) -> Tensor:
    """Return codes [n, blocks, 4] with the branches of about every second block exchanged."""
    swap = torch.rand(codes.shape[:2]) < 0.5
    return torch.where(swap[:, :, None], codes[:, :, [2, 3, 0, 1]], codes)


def fit(evaluated: Sequence[Evaluated], *, operations: int, seed: int, members: int = MEMBERS) -> Ensemble:
    """Fit the ensemble to evaluated candidates, grouped by their number of blocks."""
    return fit_members(LSTM, evaluated, operations=operations, members=members, seed=seed)
