"""The RL controller with REINFORCE (Zoph and Le, 2017) and the accuracy alone as reward; else as `controller`."""

from hwnas.searching.strategies import Context
from hwnas.searching.strategies._policy import Learning
from hwnas.searching.strategies.controller import ControllerSampler


def sampler(context: Context, *, seed: int) -> ControllerSampler:
    """Return the sampler."""
    return ControllerSampler(context, Learning(latency_exponent=0.0, steps=1, rate=0.02), seed=seed)
