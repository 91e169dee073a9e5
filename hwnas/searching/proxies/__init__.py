"""Zero-cost proxies, one file each: how good a network will be, told from its untrained weights and a batch of images.

A proxy is a module with
    score(architecture, images, *, seed) -> float     the larger, the more accurate it promises to be

`images` are normalised, float32 [n, channels, height, width]; the weights are those that a training with that seed
begins with, or like them. Scores of different proxies, data or scales do not compare.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from hwnas.support import bar, plugins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from hwnas.datasets import Dataset
    from hwnas.network import Architecture

_IMAGES = 32  # of a batch


class Proxy(Protocol):
    """What a module of this folder is."""

    def score(self, architecture: "Architecture", images: "Tensor", *, seed: int) -> float:
        """Return the score of a network, a finite number."""
        ...


def get(name: str) -> Proxy:
    """Return the proxy of that name; raises UnknownNameError, which lists the known ones."""
    return cast(Proxy, plugins.load("proxies", name))


def scores(
    names: Sequence[str], architectures: "Sequence[Architecture]", dataset: "Dataset", *, seed: int
) -> "NDArray[np.float64]":
    """Return the scores [n, proxies] of networks for the data's channels and resolution."""
    import numpy as np

    from hwnas.training import Order, normalise

    count = min(_IMAGES, len(dataset.train.labels))
    images = normalise(dataset.train.read(Order(dataset.train.labels, seed=seed).indices(0, count)), dataset)
    found = []
    with bar("scoring candidates", len(architectures)) as progress:
        for architecture in architectures:
            found.append([get(name).score(architecture, images, seed=seed) for name in names])
            progress.advance()
    return np.array(found).reshape(len(architectures), len(names))
