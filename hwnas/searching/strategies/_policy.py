"""The recurrent policy of the RL controllers (Zoph and Le, 2017, section 3; Zoph et al., 2018, section 3).

An LSTM reads the choices made so far and gives the next one's probabilities. What it has learnt follows from the
trials alone: it learns from them in batches, in their order, from weights that are always the same at first.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from hwnas.searching.surrogates._one_thread import one_thread
from hwnas.training import seeded

_WIDTH = 48  # of embeddings and of the LSTM
_BATCH = 8  # trials that it learns from at once
_RECENT = 64  # trials whose mean reward is the baseline
_MOST_LOG_RATIO = 20.0  # what a settled policy thought impossible may become as likely as not in one step
_KEPT = 16  # policies in memory: the latest, and those before, for trials of other workers that end late


@dataclass(frozen=True, slots=True)
class Learning:
    """How a policy learns: by REINFORCE where it makes one step a batch, by PPO where it makes more.

    The reward is accuracy x latency^`latency_exponent`. MnasNet divides the latency by the cap first; as rewards are
    standardised, no factor matters.
    """

    latency_exponent: float
    steps: int  # a batch
    rate: float  # the papers' 0.00035 is for 20,000 trials
    entropy: float = 0.02  # weight of the entropy
    clip: float = 0.2  # how far PPO follows a ratio of probabilities; in the first step of a batch all of them are 1


@dataclass(frozen=True, slots=True)
class Setup:
    """What a policy chooses, by the number of choices of each parameter, and how it learns.

    With `given` the first parameter is not for it to choose: that is drawn evenly, and read by the LSTM.
    """

    sizes: tuple[int, ...]
    given: bool
    learning: Learning


@dataclass(frozen=True, slots=True)
class Episode:
    """The choices of a trial, by their positions, and what it was rewarded with."""

    choices: tuple[int, ...]
    reward: float


class Policy(nn.Module):
    """An embedding of every choice, an LSTM, and a softmax over the choices of each parameter."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        ends = torch.tensor(setup.sizes).cumsum(0)[:, None]
        place = torch.arange(sum(setup.sizes))  # all parameters' choices in a row
        self._given = setup.given
        self._starts = ends[:, 0] - torch.tensor(setup.sizes)  # [parameters]
        self._others = (place >= ends) | (place < self._starts[:, None])  # [parameters, places]
        self._embedding = nn.Embedding(1 + len(place), _WIDTH)  # 0: nothing is chosen yet
        self._lstm = nn.LSTM(_WIDTH, _WIDTH, batch_first=True)
        self._head = nn.Linear(_WIDTH, len(place))
        for weights in self.parameters():
            nn.init.uniform_(weights, -0.08, 0.08)  # nearly even probabilities

    def forward(self, choices: Tensor) -> Tensor:
        """Return log-probabilities [n, parameters, places] of each choice of [n, parameters], given those before it."""
        read = torch.cat([torch.zeros_like(choices[:, :1]), 1 + (choices + self._starts)[:, :-1]], dim=1)
        logits = self._head(self._lstm(self._embedding(read))[0])
        return self._normalised(logits, first=0)

    def _normalised(self, logits: Tensor, *, first: int) -> Tensor:
        """Return log-probabilities of logits [n, some, places], of the parameters from `first` on."""
        others = self._others[first : first + logits.shape[1]]
        if self._given and first == 0:
            logits = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], dim=1)
        return logits.masked_fill(others, -1e9).log_softmax(dim=2)

    def log_probabilities(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities [n] of choices [n, parameters], and the entropies [n]; sums over parameters."""
        each = self(choices)
        chosen = each.gather(2, (choices + self._starts)[..., None])[..., 0]
        return chosen.sum(1), -(each.exp() * each).sum((1, 2))

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator, *, temperature: float = 1.0) -> Tensor:
        """Return choices [count, parameters]; the higher the temperature, the more even are the probabilities."""
        read, state, chosen = torch.zeros(count, 1, dtype=torch.int64), None, []
        for parameter in range(len(self._starts)):
            output, state = self._lstm(self._embedding(read), state)
            each = self._normalised(self._head(output) / temperature, first=parameter)[:, 0].exp()
            place = torch.multinomial(each, 1, generator=generator)
            chosen.append(place - self._starts[parameter])
            read = 1 + place
        return torch.cat(chosen, dim=1)


@dataclass(frozen=True, slots=True)
class _Learnt:
    policy: Policy
    optimiser: torch.optim.Optimizer


_learnt: dict[tuple[Setup, tuple[Episode, ...]], _Learnt] = {}  # nothing in it is ever changed


def learnt(setup: Setup, history: Sequence[Episode]) -> Policy:
    """Return what a policy is after a history; the longest part of it that is known need not be gone through again."""
    whole = tuple(history[: len(history) // _BATCH * _BATCH])
    known = (end for end in range(len(whole), 0, -_BATCH) if (setup, whole[:end]) in _learnt)
    start = next(known, 0)
    with one_thread():
        state = _learnt[setup, whole[:start]] if start else _beginning(setup)
        for end in range(start + _BATCH, len(whole) + 1, _BATCH):
            state = _after(state, setup, whole[:end])
    if whole:
        _keep(setup, whole, state)
    return state.policy


def _keep(setup: Setup, history: tuple[Episode, ...], state: _Learnt) -> None:
    _learnt[setup, history] = state
    for oldest in list(islice(_learnt, max(0, len(_learnt) - _KEPT))):
        _learnt.pop(oldest, None)


def _beginning(setup: Setup) -> _Learnt:
    with seeded(0):
        policy = Policy(setup)
    return _Learnt(policy, torch.optim.Adam(policy.parameters(), lr=setup.learning.rate))


def _after(state: _Learnt, setup: Setup, history: tuple[Episode, ...]) -> _Learnt:
    """Return the state after the history's last batch: PPO's clipped objective (Schulman et al., 2017), and entropy."""
    policy, optimiser = deepcopy((state.policy, state.optimiser))
    choices = torch.tensor([episode.choices for episode in history[-_BATCH:]])
    advantages, learning = _advantages(setup, history), setup.learning
    before = policy.log_probabilities(choices)[0].detach()
    for _ in range(learning.steps):
        now, entropies = policy.log_probabilities(choices)
        ratios = (now - before).clamp(max=_MOST_LOG_RATIO).exp()
        clipped = ratios.clamp(1 - learning.clip, 1 + learning.clip)
        gains = torch.minimum(ratios * advantages, clipped * advantages) + learning.entropy * entropies
        optimiser.zero_grad()
        gains.mean().neg().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return _Learnt(policy, optimiser)


def _advantages(setup: Setup, history: tuple[Episode, ...]) -> Tensor:
    """Return by how many deviations each of the last batch [n] is better than recent ones at the same `given`."""
    recent = history[-_RECENT:]
    rewards = torch.tensor([episode.reward for episode in recent], dtype=torch.float64)
    given = torch.tensor([episode.choices[0] if setup.given else 0 for episode in recent])
    same = (given[:, None] == given).double()
    beyond = rewards - same @ rewards / same.sum(1)
    return (beyond / beyond.std().clamp(min=1e-9))[-_BATCH:].float()
