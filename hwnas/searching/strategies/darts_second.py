"""DARTS (Liu et al., 2019), second order: weights follow the architecture parameters by one step (section 2.3)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hwnas.searching.strategies import Parameters, darts
from hwnas.searching.strategies._derived import sampler as sampler

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.runs import Run
    from hwnas.searching.candidates import SpaceCandidates

MIXED = True


def derive(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> Sequence[Parameters]:
    """Return the best candidates, the best first."""
    return darts.derive(run, candidates, dataset_of, second_order=True)
