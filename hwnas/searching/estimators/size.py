"""A stand-in for trying out searches and caps: it costs nothing, and what it says is no accuracy.

It grows with the logarithms of Mult-Adds and parameters, as accuracies do, and every choice has a small effect of its
own, from the seed and its name. So a search has something to find, and finds the same again.
"""

import math
import zlib
from typing import TYPE_CHECKING

from hwnas.searching.estimators import Estimate, Job

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Architecture

OF = "no training"
ON = "no images"
CAVEAT = "the estimator `size` trains nothing: its figures stand in for accuracies and are none"
_LARGEST = 1e12, 1e9  # Mult-Adds and parameters at which it says 1
_EFFECT = 0.05  # of the choice


def estimate(architecture: "Architecture", dataset: "Dataset", job: Job) -> Estimate:
    """Return a share that grows with the network's size; of all else only the seed counts."""
    graph = architecture.graph
    logarithms = map(math.log, (graph.mult_adds, graph.parameters), _LARGEST)
    effect = zlib.crc32(f"{job.seed} {architecture.choice}".encode()) / 2**32
    return Estimate((1 - _EFFECT) * min(1.0, sum(logarithms) / len(_LARGEST)) + _EFFECT * effect, 0.0, 0)
