"""What the data sets share: where downloads are kept, the split by class, images in memory, the statistics."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.datasets import Dataset, Fingerprint, Images, PartPrint
from hwnas.errors import DataError
from hwnas.support import cache, expanded

MEMORY_LIMIT = 2**30  # bytes of pixels of one split that are kept at the resolution; more are resized at each read
_AT_ONCE = 2**24  # pixels that are resized, or counted, together
_NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # control characters, what stands for bytes that are no UTF-8, ends of lines


@dataclass(frozen=True, slots=True)
class Labelled:
    """One split in memory: `pixels` uint8 [n, channels, height, width], `labels` int64 [n]; `source` is for errors."""

    pixels: Tensor
    labels: Tensor
    source: str


class TensorImages:
    """Images in memory; `indices` picks some of them, in that order, without a copy."""

    def __init__(self, pixels: Tensor, labels: Tensor, *, resolution: int, indices: Tensor | None = None) -> None:
        self._pixels = pixels
        self._labels = labels if indices is None else labels[indices]
        self._indices = indices
        self._resolution = resolution

    @property
    def labels(self) -> Tensor:
        """Class of each image: int64 [n]."""
        return self._labels

    def read(self, indices: Tensor) -> Tensor:
        """Return the images of these indices: uint8 [len(indices), channels, resolution, resolution]."""
        chosen = indices if self._indices is None else self._indices[indices]
        return resized(self._pixels[chosen], self._resolution)


class JoinedImages:
    """The images of `first`, then those of `second`."""

    def __init__(self, first: Images, second: Images) -> None:
        self._first = first
        self._second = second
        self._labels = torch.cat([first.labels, second.labels])

    @property
    def labels(self) -> Tensor:
        """Class of each image: int64 [n]."""
        return self._labels

    def read(self, indices: Tensor) -> Tensor:
        """Return the images of these indices: uint8 [len(indices), channels, resolution, resolution]."""
        border = len(self._first.labels)
        in_first = indices < border
        first = self._first.read(indices[in_first])
        pixels = first.new_empty(len(indices), *first.shape[1:])
        pixels[in_first] = first
        pixels[~in_first] = self._second.read(indices[~in_first] - border)
        return pixels


def cache_folder() -> Path:
    """Return the root of torchvision's data sets: $HWNAS_DATA, else hwnas/data in the user's cache (~/.cache)."""
    if chosen := os.environ.get("HWNAS_DATA"):
        return expanded(chosen)
    return cache() / "data"


def named(plugin: str, argument: str) -> str:
    """Return a data set's name as on the command line."""
    return f"{plugin}:{argument}" if argument else plugin


def given_path(plugin: str, argument: str, *, folder: bool) -> Path:
    """Return the path that the user gave as NAME:PATH; raises DataError where it is not there."""
    what = "folder" if folder else "file"
    if not argument:
        raise DataError(f"{plugin} needs a {what}; got none; type {plugin}:PATH")
    path = expanded(argument)
    if not (path.is_dir() if folder else path.is_file()):
        found = "which is none" if path.exists() else "which is not there"
        raise DataError(f"{plugin}:PATH must name a {what}; got {path}, {found}; check the path (from {Path.cwd()})")
    return path


def class_names(names: Sequence[str], *, source: str) -> list[str]:
    """Return classes' names in one Unicode form (NFC); raises DataError for those that no text can hold."""
    for name in names:
        kinds = {unicodedata.category(character) for character in name}
        if kinds & _NO_TEXT or not name.strip():
            raise DataError(
                f"a class's name must be UTF-8, without control characters; {source} has {name!a}; rename it"
            )
    return [unicodedata.normalize("NFC", name) for name in names]


def check_classes(labels: Tensor, classes: Sequence[str], *, source: str, remedy: str) -> None:
    """Raise DataError unless there are two classes or more and each has an image; `labels` int64 [n]."""
    if len(classes) < 2:
        raise DataError(
            f"a data set must have two classes or more; {source} has {len(classes)} {list(classes)}; {remedy}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise DataError(f"labels must be 0 to {len(classes) - 1}; {source} has {found}; {remedy}")
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    missing = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if missing:
        raise DataError(f"each class must have images; {source} has none of {_listed(missing)}; {remedy}")


def split(labels: Tensor, shares: Sequence[float], *, classes: Sequence[str], seed: int, source: str) -> list[Tensor]:
    """Return disjoint, sorted indices: the rest, then one part for each of `shares`, each with every class.

    A share is taken of each class, and is at least one image. The same seed gives the same parts, on any version of
    numpy (its RandomState is frozen). Raises DataError where a class has fewer images than there are parts.
    """
    generator = np.random.RandomState(seed % 2**32)
    order = np.argsort(labels.numpy(), kind="stable")
    counts = np.bincount(labels.numpy(), minlength=len(classes))
    parts: list[list[np.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for name, members in zip(classes, np.split(order, np.cumsum(counts)[:-1]), strict=True):
        if len(members) <= len(shares):
            raise DataError(
                f"each class must have at least {len(shares) + 1} images, one for each split; {source} has "
                f"{len(members)} of {name!r}; add images to that class or remove it"
            )
        for part, some in zip(parts, _cut(generator.permutation(members), shares), strict=True):
            part.append(some)
    return [torch.from_numpy(np.sort(np.concatenate(part))) for part in parts]


def _cut(members: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """Cut one class into the rest and a piece for each share; no piece is empty."""
    pieces: list[np.ndarray] = []
    left = members
    for done, share in enumerate(shares):
        most = len(left) - (len(shares) - done)  # one image each for the pieces to come and the rest
        count = min(max(1, round(share * len(members))), most)
        pieces.append(left[:count])
        left = left[count:]
    return [left, *pieces]


def resized(pixels: Tensor, resolution: int) -> Tensor:
    """Return the centre square at `resolution`: uint8 [n, channels, height, width] to [n, channels, r, r]."""
    height, width = pixels.shape[-2:]
    side = min(height, width)
    if height != width:
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[..., top : top + side, left : left + side]
    if side == resolution:
        return pixels
    if len(pixels) == 0:
        return pixels.new_empty(0, pixels.shape[1], resolution, resolution)
    return F.interpolate(pixels, size=(resolution, resolution), mode="bilinear", antialias=True)


def statistics(
    images: Images, *, source: str, at_most: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation per channel, of pixels scaled to 0..1.

    Exact in float64 (from histograms); of `at_most` evenly spaced images where there are more. A channel without any
    variation gets the deviation 1/255, so that it can be divided by; where no channel has any, raises DataError.
    """
    count = len(images.labels)
    indices = torch.arange(count)
    if at_most is not None and count > at_most:
        indices = torch.linspace(0, count - 1, at_most).long()
    at_once = max(1, _AT_ONCE // images.read(indices[:1]).numel())
    histograms = torch.stack([_histograms(images.read(chunk)) for chunk in torch.split(indices, at_once)]).sum(dim=0)
    values = torch.arange(256, dtype=torch.float64) / 255
    weights = histograms / histograms.sum(dim=1, keepdim=True)
    mean = (weights * values).sum(dim=1)
    std = (weights * (values - mean[:, None]) ** 2).sum(dim=1).sqrt()
    if not bool((std > 0).any()):
        raise DataError(f"images must differ; all pixels of the training part of {source} are equal; check the images")
    return tuple(mean.tolist()), tuple(std.clamp(min=1 / 255).tolist())


def _histograms(pixels: Tensor) -> Tensor:
    """Count the values of each channel: uint8 [n, channels, r, r] to float64 [channels, 256], whole numbers."""
    channels = pixels.transpose(0, 1).flatten(1)
    return torch.stack([torch.bincount(values, minlength=256) for values in channels]).double()


def memory_dataset(
    name: str,
    train: Labelled,
    read_test: Callable[[], Labelled],
    *,
    classes: Sequence[str],
    seed: int,
    resolution: int | None,
    validation: float,
    flips: bool,
    remedy: str,
    test_sha256: str | None = None,
) -> Dataset:
    """Make a data set of a training set in memory and of a function that reads the test set; raises DataError.

    `test_sha256` tells test sets apart before they are read, where that is known.
    """
    classes = class_names(classes, source=train.source)
    check_classes(train.labels, classes, source=train.source, remedy=remedy)
    side = resolution or min(train.pixels.shape[-2:])
    channels = train.pixels.shape[1]
    pixels = _kept(train.pixels, side)
    images, held_out = (
        TensorImages(pixels, train.labels, resolution=side, indices=part)
        for part in split(train.labels, [validation], classes=classes, seed=seed, source=train.source)
    )
    mean, std = statistics(images, source=train.source, at_most=fitting(channels, side))
    open_test = partial(_open_test, read_test, tuple(classes), channels, side, remedy)
    fingerprint = Fingerprint(
        classes=tuple(classes),
        training=PartPrint(counts=tuple(torch.bincount(train.labels).tolist()), sha256=_hash(train)),
        test=PartPrint(counts=(), sha256=test_sha256) if test_sha256 else None,
    )
    return Dataset(
        name, tuple(classes), channels, side, images, held_out, open_test, mean, std, flips, fingerprint=fingerprint
    )


def _hash(images: Labelled) -> str:
    hashed = hashlib.sha256(repr(tuple(images.pixels.shape)).encode())
    hashed.update(images.pixels.contiguous().numpy().data)
    hashed.update(images.labels.numpy().data)
    return hashed.hexdigest()


def _open_test(
    read_test: Callable[[], Labelled], classes: Sequence[str], channels: int, resolution: int, remedy: str
) -> Images:
    test = read_test()
    if test.pixels.shape[1] != channels:
        found = test.pixels.shape[1]
        raise DataError(
            f"test images must have {channels} channels like the others; {test.source} has {found}; {remedy}"
        )
    check_classes(test.labels, classes, source=test.source, remedy=remedy)
    return TensorImages(_kept(test.pixels, resolution), test.labels, resolution=resolution)


def fitting(channels: int, resolution: int) -> int:
    """Return how many images of that size may be kept in memory, at least one."""
    return max(1, MEMORY_LIMIT // (channels * resolution * resolution))


def _kept(pixels: Tensor, resolution: int) -> Tensor:
    """Return `pixels` at `resolution` where that fits in memory, else as they are, to be resized at each read."""
    fits = len(pixels) <= fitting(pixels.shape[1], resolution)
    if not fits or pixels.shape[-2:] == (resolution, resolution):
        return pixels
    at_once = max(1, _AT_ONCE // (pixels.shape[1] * resolution * resolution))
    return torch.cat([resized(chunk, resolution) for chunk in torch.split(pixels, at_once)])


def _listed(names: Sequence[str]) -> str:
    """Return the first few names, quoted, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
