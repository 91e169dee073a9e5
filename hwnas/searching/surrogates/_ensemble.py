"""Ensembles of small networks that predict accuracies, fitted as in PNAS (Liu et al., 2018, section 4.3).

Members stand side by side: every weight has them as its first dimension. Each of several is fitted to a part of the
data of its own, four fifths of it, with an L1 loss; their spread says how sure they are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.searching.surrogates import Evaluated, known
from hwnas.searching.surrogates._one_thread import one_thread
from hwnas.training import seeded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

    Array = NDArray[np.float64]

MEMBERS = 5
STATES = 7  # the inputs that a block of a cell of up to six blocks may read
_STEPS = 300
_WEIGHT_DECAY = 1.0  # times the learning rate of 0.01 a step
_CHUNK = 1024  # candidates read at once: to fit the members, some 40 KiB each


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many operations there are, and figures known of a candidate beside its code."""

    operations: int
    known: int


class Members(nn.Module, ABC):
    """Embeddings of operations and inputs, and a head that reads a member's summary of a cell and what else is known.

    A subclass says what the summary is. The accuracy also depends on the latency target here, which the papers do not
    have.
    """

    def __init__(self, members: int, sizes: Sizes, *, embedding: int, summary: int, hidden: int) -> None:
        super().__init__()
        operations, inputs = sizes.operations, summary + sizes.known
        self.operation = nn.Parameter(torch.randn(members, operations, embedding))
        self.source = nn.Parameter(torch.randn(members, STATES, embedding))
        self.hidden = nn.Parameter(torch.randn(members, inputs, hidden) * (2 / inputs) ** 0.5)
        self.hidden_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.head = nn.Parameter(torch.randn(members, hidden, 1) / hidden**0.5)
        self.head_bias = nn.Parameter(torch.zeros(members, 1, 1))

    def embedded(self, codes: Tensor) -> Tensor:
        """Return [members, n, blocks, 2, 2 x embedding] of codes [n, blocks, 4]: the embeddings of each branch."""
        return torch.cat([self.operation[:, codes[:, :, 0::2]], self.source[:, codes[:, :, 1::2]]], dim=-1)

    @abstractmethod
    def summary(self, codes: Tensor) -> Tensor:
        """Return [members, n, summary] of codes [n, blocks, 4]."""

    def forward(self, codes: Tensor, known: Tensor) -> Tensor:
        """Return standardised accuracies [members, n] of codes [n, blocks, 4], given what is known [n, known]."""
        summary = self.summary(codes)
        inputs = torch.cat([summary, known.expand(len(summary), -1, -1)], dim=2)
        hidden = torch.baddbmm(self.hidden_bias, inputs, self.hidden).relu()
        return torch.baddbmm(self.head_bias, hidden, self.head)[..., 0]


class Ensemble:
    """Fitted members, and the mean and scale of the accuracies that they were fitted to."""

    def __init__(self, members: Members, *, mean: float, scale: float) -> None:
        self._members, self._mean, self._scale = members.eval(), mean, scale

    @torch.no_grad()
    def predict(self, codes: "Codes", targets: "Array", scores: "Array | None" = None) -> "tuple[Array, Array]":
        """Return the mean [n] and the spread [n] over the members of codes [n, blocks, 4] at targets [n]."""
        rows, others = torch.from_numpy(codes), torch.from_numpy(known(targets, scores)).float()
        chunks = [self._members(rows[at : at + _CHUNK], others[at : at + _CHUNK]) for at in range(0, len(rows), _CHUNK)]
        outputs = torch.cat(chunks, dim=1).double() * self._scale + self._mean
        return outputs.mean(0).numpy(), outputs.std(0, correction=0).numpy()


def fit_members(
    make: Callable[[int, Sizes], Members], evaluated: Sequence[Evaluated], *, operations: int, members: int, seed: int
) -> Ensemble:
    """Fit so many members to evaluated candidates, grouped by their number of blocks."""
    accuracy = np.concatenate([group.accuracy for group in evaluated])
    mean, scale = float(accuracy.mean()), float(accuracy.std()) or 1.0
    with one_thread(), seeded(seed):
        fold = torch.randperm(len(accuracy)) % members
        sees = fold != torch.arange(members)[:, None]  # [members, n]
        if members == 1 or len(accuracy) < members:
            sees = torch.ones_like(sees)
        network = make(members, Sizes(operations, evaluated[0].known.shape[1]))
        truth = torch.from_numpy((accuracy - mean) / scale).float()
        chunks = list(_chunks(evaluated, truth, sees))
        optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=_WEIGHT_DECAY)
        for _ in range(_STEPS):
            optimiser.zero_grad()
            for codes, others, accuracies, weights in chunks:
                error = (network(codes, others) - accuracies).abs() * weights
                (error.sum() / sees.numel()).backward()
            optimiser.step()
    return Ensemble(network, mean=mean, scale=scale)


def _chunks(evaluated: Sequence[Evaluated], truth: Tensor, sees: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield codes, what is known, accuracies [n] and members' weights [members, n], of few candidates at a time."""
    begin = 0
    for group in evaluated:
        codes, others = torch.from_numpy(group.codes), torch.from_numpy(group.known).float()
        for at in range(0, len(codes), _CHUNK):
            part = slice(at, at + _CHUNK)
            rows = slice(begin + at, begin + min(at + _CHUNK, len(codes)))
            yield codes[part], others[part], truth[rows], sees[:, rows]
        begin += len(codes)
