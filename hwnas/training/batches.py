"""The images of each training step: their order, how they are augmented, and the normalisation that all share.

Every choice comes from the seed and a number (of the pass or of the step), so that a resumed training makes the same.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.training.hardware import seeded

if TYPE_CHECKING:
    from hwnas.datasets import Dataset

_PAD_SHARE = 8  # crops are taken from images padded by an eighth of their side


def random_seed(*parts: int) -> int:
    """Return a seed for torch, well mixed from numbers of 0 and above."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


class Order:
    """An endless order of a set's images, pass after pass; each stretch of a pass has its share of every class."""

    def __init__(self, labels: Tensor, *, seed: int) -> None:
        self._labels = labels
        self._seed = seed
        self._pass = (-1, labels)

    def indices(self, start: int, count: int) -> Tensor:
        """Return the images at places `start` to `start + count` of the order: int64 [count]."""
        parts = []
        while count:
            index, offset = divmod(start, len(self._labels))
            parts.append(self._of_pass(index)[offset : offset + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return torch.cat(parts)

    def _of_pass(self, index: int) -> Tensor:
        known = self._pass
        if known[0] != index:
            known = self._pass = (index, stratified(self._labels, random_seed(self._seed, 0, index)))
        return known[1]


def stratified(labels: Tensor, seed: int) -> Tensor:
    """Return a random order of images with these labels, int64 [n], in which the classes are spread evenly."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels)
    classes = labels[by_class]
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[classes]
    place = (rank + torch.rand(len(labels), generator=generator, dtype=torch.float64)) / counts[classes]
    return by_class[place.argsort(stable=True)]


def normalise(pixels: Tensor, dataset: "Dataset") -> Tensor:
    """Return images as networks read them: uint8 [n, channels, height, width] to float32, of mean 0 and deviation 1."""
    mean, std = (
        torch.tensor(values, device=pixels.device).mul(255).reshape(-1, 1, 1) for values in (dataset.mean, dataset.std)
    )
    return pixels.float().sub_(mean).div_(std)


def augmented(
    pixels: Tensor, dataset: "Dataset", *, crop: bool, cutout: int, seed: int, trivial: bool = False
) -> Tensor:
    """Return normalised images, each cropped and flipped at random (with `crop`), and cut out (`cutout` in pixels).

    In between, with `trivial`, TrivialAugment changes images of 1 or 3 channels.

    Crops are shifts by up to an eighth of the side, black beyond the border; flips are made where they suit the data.
    The choices are made on the CPU, and so are the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    if crop:
        pixels = _cropped(pixels, generator, flips=dataset.flips)
    if trivial:
        pixels = _trivially_augmented(pixels, random_seed(seed))
    images = normalise(pixels, dataset)
    return _cut_out(images, cutout, generator) if cutout else images


def _cropped(pixels: Tensor, generator: torch.Generator, *, flips: bool) -> Tensor:
    """Crop and flip with one gather: uint8 [n, channels, height, width], channels last in memory."""
    count, _, height, width = pixels.shape
    pad_y, pad_x = height // _PAD_SHARE, width // _PAD_SHARE
    top = torch.randint(2 * pad_y + 1, (count, 1), generator=generator)
    left = torch.randint(2 * pad_x + 1, (count, 1), generator=generator)
    rows, columns = top + torch.arange(height), torch.arange(width).expand(count, width)
    if flips:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = (chosen.to(pixels.device) for chosen in (rows, columns + left))
    padded = F.pad(pixels, (pad_x, pad_x, pad_y, pad_y))
    image = torch.arange(count, device=pixels.device)
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _trivially_augmented(pixels: Tensor, seed: int) -> Tensor:
    """Change each image by one operation of a random strength, both drawn evenly (Müller and Hutter, 2021, section 3).

    The operations and strengths are those of its wide space. In grey images colour is left as it is.
    """
    from torchvision.transforms.v2 import TrivialAugmentWide

    transform = TrivialAugmentWide()
    with seeded(seed):  # it draws from torch's random state
        return torch.stack([transform(image) for image in pixels])


def _cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square of each image to 0, the mean; its centre is anywhere, it may hang over (DeVries & Taylor, 2017)."""
    count, _, height, width = images.shape
    inside = []
    for size in (height, width):
        first = torch.randint(size, (count, 1), generator=generator) - side // 2
        place = torch.arange(size)
        inside.append(((place >= first) & (place < first + side)).to(images.device))
    rows, columns = inside
    return images.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
