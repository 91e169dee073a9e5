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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.cell import Codes

    Array = NDArray[np.float64]

_MEMBERS = 5
_STATES = 7  # the inputs that a block of a cell of up to six blocks may read
_STEPS = 300
_CHUNK = 65536


class _Member(nn.Module):
    def __init__(self, operations: int, width: int = 16, hidden: int = 64) -> None:
        super().__init__()
        self.operation = nn.Embedding(operations, width)
        self.source = nn.Embedding(_STATES, width)
        self.head = nn.Sequential(nn.Linear(2 * width + 1, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, codes: Tensor, targets: Tensor) -> Tensor:
        branches = codes.reshape(*codes.shape[:2], 2, 2)  # [n, blocks, 2, (operation, input)]
        embedded = torch.cat([self.operation(branches[..., 0]), self.source(branches[..., 1])], dim=-1).relu()
        pooled = embedded.mean(dim=(1, 2))
        output: Tensor = self.head(torch.cat([pooled, targets[:, None]], dim=1))
        return output[:, 0]


class Ensemble:
    """Five fitted members: the mean of their predictions, and their standard deviation as the spread."""

    def __init__(self, members: Sequence[_Member], mean: float, scale: float) -> None:
        self._members, self._mean, self._scale = members, mean, scale

    @torch.no_grad()
    def predict(self, codes: "Codes", targets: "Array") -> "tuple[Array, Array]":
        """Return the mean [n] and the spread [n] of the predicted accuracy of codes [n, blocks, 4] at targets [n]."""
        rows, shares = torch.from_numpy(codes), torch.from_numpy(targets).float()
        outputs = [
            torch.cat([member(rows[at : at + _CHUNK], shares[at : at + _CHUNK]) for at in range(0, len(rows), _CHUNK)])
            for member in self._members
        ]
        stacked = torch.stack(outputs).double() * self._scale + self._mean
        return stacked.mean(0).numpy(), stacked.std(0, correction=0).numpy()


def fit(evaluated: Sequence[Evaluated], *, operations: int, seed: int) -> Ensemble:
    """Fit the ensemble to evaluated candidates, grouped by their number of blocks."""
    accuracy = np.concatenate([group.accuracy for group in evaluated])
    mean, scale = float(accuracy.mean()), float(accuracy.std()) or 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fold = torch.randperm(len(accuracy)) % _MEMBERS
        few = len(accuracy) < _MEMBERS  # then every member sees all
        members = [_fit_member(evaluated, (fold != i) | few, (mean, scale), operations) for i in range(_MEMBERS)]
    return Ensemble(members, mean, scale)


def _fit_member(
    evaluated: Sequence[Evaluated], chosen: Tensor, standard: tuple[float, float], operations: int
) -> _Member:
    member = _Member(operations)
    optimiser = torch.optim.AdamW(member.parameters(), lr=0.01, weight_decay=1e-3)
    groups, start = [], 0
    for group in evaluated:
        keep = chosen[start : start + len(group.accuracy)]
        start += len(group.accuracy)
        truth = (torch.from_numpy(group.accuracy) - standard[0]) / standard[1]
        groups.append(
            (torch.from_numpy(group.codes)[keep], torch.from_numpy(group.targets)[keep].float(), truth[keep].float())
        )
    count = sum(len(truth) for _, _, truth in groups)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        losses = [(member(codes, targets) - truth).abs().sum() for codes, targets, truth in groups]
        (torch.stack(losses).sum() / count).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return member.eval()
