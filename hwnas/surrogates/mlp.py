"""The MLP ensemble of PNAS (Liu et al., 2018, section 4.3): embeddings averaged over the blocks, then two layers.

Five members, each fitted on four fifths of the data with an L1 loss. A block's two branches are exchangeable, so theirs
are averaged too; the latency target, on which the accuracy also depends here, joins the pooled embedding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.surrogates import Evaluated
from hwnas.surrogates._one_thread import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.cell import Codes

    Array = NDArray[np.float64]

_MEMBERS = 5
_STATES = 7  # the inputs that a block of a cell of up to six blocks may read
_WIDTH = 16  # of an embedding
_HIDDEN = 64
_STEPS = 300
_CHUNK = 16384  # candidates predicted at once


class Ensemble(nn.Module):
    """Five members side by side: every weight has the members as its first dimension."""

    def __init__(self, operations: int, *, mean: float, scale: float) -> None:
        super().__init__()
        self.operation = nn.Parameter(torch.randn(_MEMBERS, operations, _WIDTH))
        self.source = nn.Parameter(torch.randn(_MEMBERS, _STATES, _WIDTH))
        features = 2 * _WIDTH + 1
        self.hidden = nn.Parameter(torch.randn(_MEMBERS, features, _HIDDEN) * (2 / features) ** 0.5)
        self.hidden_bias = nn.Parameter(torch.zeros(_MEMBERS, 1, _HIDDEN))
        self.head = nn.Parameter(torch.randn(_MEMBERS, _HIDDEN, 1) / _HIDDEN**0.5)
        self.head_bias = nn.Parameter(torch.zeros(_MEMBERS, 1, 1))
        self._mean, self._scale = mean, scale

    def forward(self, codes: Tensor, targets: Tensor) -> Tensor:
        """Return standardised accuracies [members, n] of codes [n, blocks, 4] at targets [n]."""
        operations, sources = codes[:, :, 0::2], codes[:, :, 1::2]  # [n, blocks, 2]
        embedded = torch.cat([self.operation[:, operations], self.source[:, sources]], dim=-1).relu()
        pooled = embedded.mean(dim=(2, 3))
        shares = targets[None, :, None].expand(_MEMBERS, -1, -1)
        hidden = torch.baddbmm(self.hidden_bias, torch.cat([pooled, shares], dim=2), self.hidden).relu()
        return torch.baddbmm(self.head_bias, hidden, self.head)[..., 0]

    @torch.no_grad()
    def predict(self, codes: "Codes", targets: "Array") -> "tuple[Array, Array]":
        """Return the mean [n] and the spread [n] over the members of codes [n, blocks, 4] at targets [n]."""
        rows, shares = torch.from_numpy(codes), torch.from_numpy(targets).float()
        chunks = [self(rows[at : at + _CHUNK], shares[at : at + _CHUNK]) for at in range(0, len(rows), _CHUNK)]
        outputs = torch.cat(chunks, dim=1).double() * self._scale + self._mean
        return outputs.mean(0).numpy(), outputs.std(0, correction=0).numpy()


def fit(evaluated: Sequence[Evaluated], *, operations: int, seed: int) -> Ensemble:
    """Fit the ensemble to evaluated candidates, grouped by their number of blocks."""
    accuracy = np.concatenate([group.accuracy for group in evaluated])
    mean, scale = float(accuracy.mean()), float(accuracy.std()) or 1.0
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fold = torch.randperm(len(accuracy)) % _MEMBERS
        sees = fold != torch.arange(_MEMBERS)[:, None]  # [members, n]
        if len(accuracy) < _MEMBERS:
            sees = torch.ones_like(sees)
        ensemble = Ensemble(operations, mean=mean, scale=scale)
        truth = torch.from_numpy((accuracy - mean) / scale).float()
        groups = [(torch.from_numpy(group.codes), torch.from_numpy(group.targets).float()) for group in evaluated]
        optimiser = torch.optim.AdamW(ensemble.parameters(), lr=0.01, weight_decay=1e-3)
        for _ in range(_STEPS):
            optimiser.zero_grad()
            predicted = torch.cat([ensemble(*group) for group in groups], dim=1)
            ((predicted - truth).abs() * sees).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return ensemble.eval()
