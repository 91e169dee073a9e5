"""An exponential average of a network's weights, which is what is kept at the end (Polyak and Juditsky, 1992).

At step t the decay is min(decay, (1 + t) / (10 + t)), so that the random weights of the beginning are soon forgotten
(Szegedy et al., 2016, section 8; the warm-up is TensorFlow's). BatchNorm's statistics are averaged over the same steps,
not copied: those of the last weights are of other activations than the averaged weights have.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Average(Generic[AnyModule]):
    """The average of a network that is being trained; `network` is in eval mode."""

    def __init__(self, trained: AnyModule, *, decay: float) -> None:
        self.network: AnyModule = deepcopy(trained).eval().requires_grad_(False)
        self._trained, self._decay = trained, decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights and statistics after a step; the first is 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(_numbers(self.network)), list(_numbers(self._trained)), 1 - decay)


def _numbers(network: nn.Module) -> Iterator[Tensor]:
    """Yield weights and statistics, without BatchNorm's counts of batches."""
    return (tensor for tensor in network.state_dict().values() if tensor.is_floating_point())
