"""ProxylessNAS (Cai et al., 2019): of all alternatives only drawn ones are computed, by binary gates (section 3.2).

Weights learn on one drawn network. For the architecture parameters two choices of each are drawn; one of the two is
taken, and the other computed where the gradient by its gate needs it (section 3.2.1): as if there were no others.
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
_LEAST = 1e-12  # probability of a choice: there is always a second one


def derive(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> Sequence[Parameters]:
    """Return the best candidates, the best first."""
    return derive_by(Relaxation(two_paths, one_path), run, candidates, dataset_of)


def one_path(logits: Tensor, share: float) -> Gates:
    """Take one choice of each parameter, drawn by its probability."""
    taken = _drawn(logits, 1)
    return Gates(taken, taken > 0)


def two_paths(logits: Tensor, share: float) -> Gates:
    """Take one of two drawn choices; the gradient by the gates is handed on to the two probabilities (equation 4)."""
    considered = _drawn(logits.detach(), 2) > 0
    two = torch.where(considered, logits, -torch.inf)
    probabilities = two.softmax(1)
    return Gates(_drawn(two.detach(), 1) + probabilities - probabilities.detach(), considered)


def _drawn(logits: Tensor, count: int) -> Tensor:
    """Return ones at `count` different choices of each parameter, drawn by their probabilities, and zeros."""
    probabilities = logits.softmax(1).clamp(min=_LEAST) * logits.isfinite()
    return torch.zeros_like(logits).scatter_(1, torch.multinomial(probabilities, count), 1.0)
