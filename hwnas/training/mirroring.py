"""Whether a mirrored image is still of its class: of signs that point left and right it is of the other one.

Told without training: each image's class is compared with that of the image most like it, as it is and mirrored. Images
are like one another as their grey values go together, or against one another, moved by up to a fifth of their side.
"""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.training.batches import stratified

if TYPE_CHECKING:
    from hwnas.datasets import Dataset

_IMAGES = 1000  # at most
_SIDE, _MOVED = 16, 3  # pixels
_MOST, _MORE = 0.5, 0.25  # of a class's mirrored images: like another class, and more than as they are


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A class of whose mirrored images a `share` looks like another class."""

    name: str
    other: str
    share: float

    def __str__(self) -> str:
        return f"{self.share:.0%} of the mirrored images of {self.name!r} look like {self.other!r}"


def mirrored_classes(dataset: "Dataset") -> list[Mirrored]:
    """Return the classes whose mirrored training images look like another class."""
    images = dataset.whole_train
    chosen = stratified(images.labels, 0)[:_IMAGES].sort().values
    labels, count = images.labels[chosen], len(dataset.classes)
    small = torch.cat([_small(images.read(part)) for part in torch.split(chosen, 256)])
    as_they_are = _shares(small, small, labels, count, itself=False)
    as_mirrored = _shares(small.flip(-1), small, labels, count, itself=True)
    pairs = ((as_mirrored >= _MOST) & (as_mirrored - as_they_are >= _MORE)).nonzero().tolist()
    return [
        Mirrored(dataset.classes[one], dataset.classes[other], float(as_mirrored[one, other]))
        for one, other in pairs
        if one != other
    ]


def _small(pixels: Tensor) -> Tensor:
    """Return images as they are compared: grey, small, of mean 0 and length 1 [n, side, side]."""
    small = F.adaptive_avg_pool2d(pixels.float().mean(1, keepdim=True), _SIDE).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True)).reshape(-1, _SIDE, _SIDE)


def _shares(images: Tensor, known: Tensor, labels: Tensor, classes: int, *, itself: bool) -> Tensor:
    """Return the share of each class's images that are most like one of each class [classes, classes].

    Without `itself` an image is not compared with the known one at its place.
    """
    likeness = torch.zeros(len(images), len(known))
    padded = F.pad(images, (_MOVED,) * 4)
    for down, across in product(range(2 * _MOVED + 1), repeat=2):
        moved = padded[:, down : down + _SIDE, across : across + _SIDE]
        likeness = torch.maximum(likeness, (moved.flatten(1) @ known.flatten(1).T).abs())
    if not itself:
        likeness.fill_diagonal_(-1.0)
    nearest = labels[likeness.argmax(1)]
    counts = torch.zeros(classes, classes).index_put_((labels, nearest), torch.ones(()), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp(min=1)
