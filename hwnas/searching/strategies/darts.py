"""DARTS (Liu et al., 2019), first order: all alternatives are computed, each weighed by its probability.

Weights and architecture parameters are taught in turn, each on a half of the training images (section 2.3).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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


def derive(
    run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]", *, second_order: bool = False
) -> Sequence[Parameters]:
    """Return the best candidates, the best first."""
    return derive_by(Relaxation(gates, gates, second_order=second_order), run, candidates, dataset_of)


def gates(logits: Tensor, share: float) -> Gates:
    """Take each choice by its probability."""
    return Gates(logits.softmax(1), logits.isfinite())
