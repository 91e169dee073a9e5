"""Images in a folder for each class, torchvision's ImageFolder layout: `folder:PATH`.

- PATH has train/, val/ and test/: the training, validation and test set.
- PATH has train/ and one of val/ and test/: that one is the test set, the validation part is split off train/ by seed.
- else PATH is one tree, with a folder for each class: 15 % of each class are the test set, the rest as above.

Images are turned upright by their EXIF tag, resized at the shorter side and cropped to the centre square. They have one
channel if all outside the test set are grey, else three. Hidden files, and those that are no images by name, are left
out.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from hwnas.datasets import Dataset, Images
from hwnas.datasets._shared import check_classes, fitting, given_path, named, split, statistics
from hwnas.errors import DataError

TEST_SHARE = 0.15  # of one tree
_THREADS = min(8, os.cpu_count() or 1)
_PARTS = ("train", "val", "test")
_GREY_MODES = ("1", "L", "LA", "La", "I")  # and I;16, ...
_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class _Files:
    """The image files of one split: `labels` int64 [n]; `folder` is for errors."""

    folder: Path
    paths: tuple[Path, ...]
    labels: Tensor

    def pick(self, indices: Tensor) -> "_Files":
        return _Files(self.folder, tuple(self.paths[i] for i in indices.tolist()), self.labels[indices])


@dataclass(frozen=True, slots=True)
class _Header:
    shorter_side: int  # pixels
    grey: bool


class FileImages:
    """Images that are decoded when they are first read, and kept where the whole split fits in memory."""

    def __init__(self, paths: tuple[Path, ...], labels: Tensor, *, channels: int, resolution: int) -> None:
        self._paths = paths
        self._labels = labels
        self._shape = (channels, resolution, resolution)
        keeps = len(paths) <= fitting(channels, resolution)
        self._kept = torch.empty(len(paths), *self._shape, dtype=torch.uint8) if keeps else None
        self._is_kept = torch.zeros(len(paths), dtype=torch.bool)

    @property
    def labels(self) -> Tensor:
        """Class of each image: int64 [n]."""
        return self._labels

    def read(self, indices: Tensor) -> Tensor:
        """Return the images of these indices: uint8 [len(indices), channels, resolution, resolution].

        Raises DataError, which names the file, where an image cannot be decoded.
        """
        if self._kept is None:
            return self._decode(indices)
        new = torch.unique(indices[~self._is_kept[indices]])
        if len(new):
            self._kept[new] = self._decode(new)
            self._is_kept[new] = True  # last, for other threads
        return self._kept[indices]

    def _decode(self, indices: Tensor) -> Tensor:
        decode = partial(_decode, channels=self._shape[0], resolution=self._shape[1])
        images = _in_threads(decode, [self._paths[i] for i in indices.tolist()])
        return torch.from_numpy(np.stack(images)) if images else torch.empty(0, *self._shape, dtype=torch.uint8)


def load(argument: str, *, seed: int, resolution: int | None, validation: float) -> Dataset:
    """Load the images of the folder `argument`; without a resolution, a usual one that most images have.

    That is the median shorter side, rounded down to a multiple of 32, at most 224; under 32 it is kept. The test set's
    files are first opened by `Dataset.test`. Raises DataError where images or classes are missing or broken.
    """
    root = given_path("folder", argument, folder=True)
    classes, (train, held_out, test) = _splits(root, seed=seed, validation=validation)
    headers = _headers((*train.paths, *held_out.paths))
    channels = 1 if _all_grey((*train.paths, *held_out.paths), headers) else 3
    side = resolution or _usual(median_low(header.shorter_side for header in headers))
    images, validation_images = (
        FileImages(files.paths, files.labels, channels=channels, resolution=side) for files in (train, held_out)
    )
    mean, std = statistics(images, source=str(train.folder), at_most=fitting(channels, side))
    read_test = partial(_open_test, test, channels, side)
    return Dataset(
        named("folder", argument), classes, channels, side, images, validation_images, read_test, mean, std, flips=True
    )


def _open_test(files: _Files, channels: int, resolution: int) -> Images:
    _headers(files.paths)
    return FileImages(files.paths, files.labels, channels=channels, resolution=resolution)


def _splits(root: Path, *, seed: int, validation: float) -> tuple[tuple[str, ...], list[_Files]]:
    """Return the classes, and the files for training, validation and test; no file is opened."""
    folders = _set_folders(root)
    classes = tuple(sorted({name for folder in folders for name in _class_names(folder)}))
    sets = [_files(folder, classes) for folder in folders]
    if len(sets) == 3:
        return classes, sets
    shares = [validation] if len(sets) == 2 else [validation * (1 - TEST_SHARE), TEST_SHARE]
    parts = split(sets[0].labels, shares, classes=classes, seed=seed, source=str(folders[0]))
    return classes, [*(sets[0].pick(part) for part in parts), *sets[1:]]


def _set_folders(root: Path) -> list[Path]:
    """Return the folders of the training, validation and test set as far as there are any, else `root` alone."""
    folders = [root / part for part in _PARTS if (root / part).is_dir()]
    if len(folders) >= 2 and folders[0].name == "train":
        return folders
    if folders and len(folders) == len(_class_names(root)):
        raise DataError(
            f"a folder must hold train/ with val/ or test/ or both, or else a folder for each class; {root} has "
            f"{' and '.join(folder.name for folder in folders)} only; add what lacks, or give {folders[0]} to split it"
        )
    return [root]


def _class_names(folder: Path) -> list[str]:
    """Return the names of the class folders."""
    try:
        return [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} must be readable; it is not: {error}; check its permissions") from error


def _files(folder: Path, classes: tuple[str, ...]) -> _Files:
    """Return the images of `folder`, by class and name."""
    places = {name: label for label, name in enumerate(classes)}
    found = make_dataset(folder, places, is_valid_file=_is_image, allow_empty=True) if places else []
    labels = torch.tensor([label for _, label in found], dtype=torch.int64)
    remedy = f"put images in {folder}/CLASS/ for each class, or remove the class ({', '.join(IMG_EXTENSIONS)})"
    check_classes(labels, classes, source=str(folder), remedy=remedy)
    return _Files(folder, tuple(Path(path) for path, _ in found), labels)


def _is_image(path: str) -> bool:
    name = Path(path).name
    return not name.startswith(".") and name.lower().endswith(IMG_EXTENSIONS)


def _usual(shorter_side: int) -> int:
    """Return the resolution for images of that shorter side."""
    return shorter_side if shorter_side < 32 else min(224, shorter_side // 32 * 32)


def _in_threads(function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def _headers(paths: tuple[Path, ...]) -> list[_Header]:
    """Read the headers of all files; raises DataError, which names the broken ones."""
    headers = _in_threads(_header, paths)
    broken = [str(header) for header in headers if isinstance(header, DataError)]
    if broken:
        raise DataError("; ".join(broken[:5]) + (f"; and {len(broken) - 5} more broken files" * (len(broken) > 5)))
    return [header for header in headers if isinstance(header, _Header)]


def _header(path: Path) -> _Header | DataError:
    try:
        with Image.open(path) as image:
            return _Header(min(image.size), image.mode in _GREY_MODES or image.mode.startswith("I;16"))
    except _BROKEN as error:
        return _broken(path, error)


def _broken(path: Path, error: Exception) -> DataError:
    reason = str(error) or type(error).__name__
    return DataError(f"{path} must be an image; it cannot be read: {reason}; remove it or replace it")


def _all_grey(paths: tuple[Path, ...], headers: list[_Header]) -> bool:
    """Whether all images are grey, by mode or pixel by pixel; the first colour ends the search."""
    unsure = [path for path, header in zip(paths, headers, strict=True) if not header.grey]
    return all(_is_grey(path) for path in unsure)


def _is_grey(path: Path) -> bool:
    """Whether red, green and blue are equal in a thumbnail of the image."""
    pixels = _decode(path, channels=3, resolution=64)
    return bool((pixels == pixels[:1]).all())


def _decode(path: Path, *, channels: int, resolution: int) -> np.ndarray:
    """Return an image's centre square: uint8 [channels, resolution, resolution]; raises DataError."""
    try:
        with Image.open(path) as image:
            image.draft(None, (2 * resolution, 2 * resolution))  # JPEG: decode no finer than is needed
            image.load()
            with suppress(*_BROKEN):  # a broken EXIF tag is no broken image
                ImageOps.exif_transpose(image, in_place=True)
            converted = _eight_bits(image).convert("L" if channels == 1 else "RGB")
        square = ImageOps.fit(converted, (resolution, resolution), Image.Resampling.BILINEAR)
    except _BROKEN as error:
        raise _broken(path, error) from error
    pixels = np.asarray(square)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel: 16 bits are scaled, a palette with transparency is resolved."""
    if image.mode == "F":
        raise ValueError("floating-point images are not supported")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGBA") if image.mode == "P" else image
