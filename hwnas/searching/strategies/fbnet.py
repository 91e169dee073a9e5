"""FBNet (Wu et al., 2019): alternatives weighed by a Gumbel softmax of falling temperature (section 3.3).

At each step the weights are drawn: near a choice by its probability, the nearer the lower the temperature is.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwnas.searching.strategies import Parameters
from hwnas.searching.strategies._derived import sampler as sampler
from hwnas.searching.strategies._differentiable import derive_by
from hwnas.training.mixed import Gates, Relaxation

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.runs import Run
    from hwnas.searching.candidates import SpaceCandidates

MIXED = True
_HOTTEST = 5.0  # temperature at first: that of the paper
_COOLEST = 0.1  # and at the end: the paper's, after 90 epochs of a factor of 0.956, is 0.09


def derive(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> Sequence[Parameters]:
    """Return the best candidates, the best first."""
    return derive_by(Relaxation(gates, gates), run, candidates, dataset_of)


def gates(logits: Tensor, share: float) -> Gates:
    """Take choices by a drawn Gumbel softmax (equation 8); its random numbers are those of torch's generator."""
    temperature = _HOTTEST * (_COOLEST / _HOTTEST) ** share
    noise = -torch.empty_like(logits).exponential_().log()
    return Gates(((logits + noise) / temperature).softmax(1), logits.isfinite())
