"""The RL controller with PPO and MnasNet's reward, accuracy x (latency / cap)^-0.07 (Tan et al., 2019, section 3).

Zoph et al. (2018) train their LSTM by PPO, too. With several latency targets the policy is told the target instead of
choosing it, and rewards are compared with those at the same one: networks of another target differ in accuracy by
their size alone, and the front is to span the range.
"""

from collections.abc import Iterator, Sequence
from itertools import count

import torch
from optuna.trial import FrozenTrial

from hwnas.runs import TARGET
from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer
from hwnas.searching.strategies._policy import Episode, Learning, Setup, learnt

_AT_ONCE = 16  # candidates drawn at once, and twice as many each time: nearly always a few are enough
_HOTTER = 1.5


def sampler(context: Context, *, seed: int) -> "ControllerSampler":
    """Return the sampler."""
    return ControllerSampler(context, Learning(latency_exponent=-0.07, steps=5, rate=0.01), seed=seed)


class ControllerSampler(Proposer):
    """Draws from a policy that has learnt from the study's trials; the seed is for drawing alone."""

    def __init__(self, context: Context, learning: Learning, *, seed: int) -> None:
        super().__init__(context, seed=seed)
        self._names = sorted(self._choices, key=lambda name: name != TARGET)  # the target first, the others in order
        sizes = tuple(len(self._choices[name]) for name in self._names)
        self._setup = Setup(sizes, given=TARGET in self._names, learning=learning)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield what the policy draws, at rising temperatures: one that has settled draws known candidates only."""
        policy = learnt(self._setup, [self._episode(trial) for trial in complete])
        for step in count():
            drawn = policy.sample(_AT_ONCE * 2**step, self._generator, temperature=_HOTTER**step)
            for row in drawn.tolist():
                yield {name: self._choices[name][at] for name, at in zip(self._names, row, strict=True)}

    def _episode(self, trial: FrozenTrial) -> Episode:
        accuracy, latency_ms = trial.values
        choices = tuple(self._choices[name].index(trial.params[name]) for name in self._names)
        return Episode(choices, accuracy * latency_ms**self._setup.learning.latency_exponent)
