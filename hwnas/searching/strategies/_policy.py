"""The recurrent policy of the RL controllers (Zoph and Le, 2017, section 3; Zoph et al., 2018, section 3).

An LSTM reads the choices made so far and gives the next one's probabilities. What it has learnt follows from its
episodes alone: it learns from them in batches, in their order, from weights that are always the same at first.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.runs import TARGET
from hwnas.searching.strategies import Parameters
from hwnas.searching.surrogates._one_thread import one_thread
from hwnas.training import seeded

_WIDTH = 48  # of embeddings and of the LSTM
BATCH = 8  # episodes that it learns from at once
_RECENT = 64  # episodes whose mean reward is the baseline
_MOST_LOG_RATIO = 20.0  # what a settled policy thought impossible may become as likely as not in one step
_KEPT = 16  # policies in memory: the latest, and those before, for trials of other workers that end late
_AT_ONCE = 16  # candidates drawn at once, and twice as many each time: nearly always a few are enough
_HOTTER = 1.5
_MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam knows of a weight, beside the count of its steps


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


class Coding:
    """The parameters of candidates as a policy reads them: the target first, each choice by its position."""

    def __init__(self, choices: Mapping[str, Sequence[Any]]) -> None:
        self._choices = choices
        self.names = sorted(choices, key=lambda name: name != TARGET)  # the others in their order

    def setup(self, learning: Learning) -> Setup:
        """Return what a policy for these parameters chooses."""
        return Setup(tuple(len(self._choices[name]) for name in self.names), TARGET in self.names, learning)

    def positions(self, parameters: Parameters) -> tuple[int, ...]:
        """Return the positions of what was chosen."""
        return tuple(self._choices[name].index(parameters[name]) for name in self.names)

    def parameters(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return what stands at the positions."""
        return {name: self._choices[name][at] for name, at in zip(self.names, positions, strict=True)}


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

    def drawn(self, generator: torch.Generator) -> Iterator[tuple[int, ...]]:
        """Yield choices [parameters], at rising temperatures: a policy that has settled draws the same ones only."""
        for step in count():
            yield from map(tuple, self.sample(_AT_ONCE * 2**step, generator, temperature=_HOTTER**step).tolist())


class Learner:
    """A policy between the batches that it learns from, its optimiser, and the recent episodes."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        with seeded(0):
            self.policy = Policy(setup)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=setup.learning.rate)
        self.recent: tuple[Episode, ...] = ()

    def learn(self, batch: Sequence[Episode]) -> None:
        """Learn from a batch: PPO's clipped objective (Schulman et al., 2017), and entropy."""
        self.recent = (*self.recent, *batch)[-_RECENT:]
        choices = torch.tensor([episode.choices for episode in batch])
        advantages, learning = _advantages(self.setup, self.recent)[-len(batch) :], self.setup.learning
        before = self.policy.log_probabilities(choices)[0].detach()
        for _ in range(learning.steps):
            now, entropies = self.policy.log_probabilities(choices)
            ratios = (now - before).clamp(max=_MOST_LOG_RATIO).exp()
            clipped = ratios.clamp(1 - learning.clip, 1 + learning.clip)
            gains = torch.minimum(ratios * advantages, clipped * advantages) + learning.entropy * entropies
            self.optimiser.zero_grad()
            gains.mean().neg().backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()

    def state(self) -> Tensor:
        """Return all that it has learnt as one row of numbers, float64: of weights, optimiser and recent episodes."""
        rows = [tensor.detach().double().flatten() for tensor in self._tensors()]
        rows += [torch.tensor([*episode.choices, episode.reward], dtype=torch.float64) for episode in self.recent]
        return torch.cat(rows)

    def restore(self, state: Tensor) -> None:
        """Take up what `state` returned; raises ValueError or RuntimeError where it is of another policy."""
        tensors = self._tensors()
        sizes = [tensor.numel() for tensor in tensors]
        *saved, recent = torch.split(state, [*sizes, len(state) - sum(sizes)])
        for tensor, row in zip(tensors, saved, strict=True):
            tensor.detach().copy_(row.reshape(tensor.shape))
        episodes = recent.reshape(-1, 1 + len(self.setup.sizes)).tolist()
        self.recent = tuple(Episode(tuple(map(int, choices)), reward) for *choices, reward in episodes)

    def _tensors(self) -> list[Tensor]:
        """Return the weights, and what the optimiser knows of each; before the first step that is nothing, zeros."""
        tensors: list[Tensor] = []
        for weights in self.policy.parameters():
            known = self.optimiser.state[weights]
            known.setdefault("step", torch.tensor(0.0))
            moments = [known.setdefault(name, torch.zeros_like(weights)) for name in _MOMENTS]
            tensors += [weights, known["step"], *moments]
        return tensors


def _advantages(setup: Setup, recent: Sequence[Episode]) -> Tensor:
    """Return by how many deviations each recent episode [n] is better than the others at the same `given`."""
    rewards = torch.tensor([episode.reward for episode in recent], dtype=torch.float64)
    given = torch.tensor([episode.choices[0] if setup.given else 0 for episode in recent])
    same = (given[:, None] == given).double()
    beyond = rewards - same @ rewards / same.sum(1)
    return (beyond / beyond.std().clamp(min=1e-9)).float()


_learnt: dict[tuple[Setup, tuple[Episode, ...]], Learner] = {}  # nothing in it is ever changed


def learnt(setup: Setup, history: Sequence[Episode]) -> Policy:
    """Return what a policy is after a history; the longest part of it that is known need not be gone through again."""
    whole = tuple(history[: len(history) // BATCH * BATCH])
    known = (end for end in range(len(whole), 0, -BATCH) if (setup, whole[:end]) in _learnt)
    start = next(known, 0)
    with one_thread():
        learner = deepcopy(_learnt[setup, whole[:start]]) if start else Learner(setup)
        for end in range(start, len(whole), BATCH):
            learner.learn(whole[end : end + BATCH])
    if whole:
        _keep(setup, whole, learner)
    return learner.policy


def _keep(setup: Setup, history: tuple[Episode, ...], learner: Learner) -> None:
    _learnt[setup, history] = learner
    for oldest in list(islice(_learnt, max(0, len(_learnt) - _KEPT))):
        _learnt.pop(oldest, None)
