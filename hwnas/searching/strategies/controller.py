"""The RL controller with PPO and MnasNet's reward, accuracy x (latency / cap)^-0.07 (Tan et al., 2019, section 3).

Zoph et al. (2018) train their LSTM by PPO, too. With several latency targets the policy is told the target instead of
choosing it, and rewards are compared with those at the same one: networks of another target differ in accuracy by
their size alone, and the front is to span the range.
"""

from collections.abc import Iterator, Sequence

import torch
from optuna.trial import FrozenTrial

from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer
from hwnas.searching.strategies._policy import Coding, Episode, Learning, learnt


def sampler(context: Context, *, seed: int) -> "ControllerSampler":
    """Return the sampler."""
    return ControllerSampler(context, Learning(latency_exponent=-0.07, steps=5, rate=0.01), seed=seed)


class ControllerSampler(Proposer):
    """Draws from a policy that has learnt from the study's trials; the seed is for drawing alone."""

    def __init__(self, context: Context, learning: Learning, *, seed: int) -> None:
        super().__init__(context, seed=seed)
        self._coding = Coding(self._choices)
        self._setup = self._coding.setup(learning)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield what the policy draws, at rising temperatures: one that has settled draws known candidates only."""
        policy = learnt(self._setup, [self._episode(trial) for trial in complete])
        yield from map(self._coding.parameters, policy.drawn(self._generator))

    def _episode(self, trial: FrozenTrial) -> Episode:
        accuracy, latency_ms = trial.values
        reward = accuracy * latency_ms**self._setup.learning.latency_exponent
        return Episode(self._coding.positions(trial.params), reward)
