"""Images in a folder for each class, torchvision's ImageFolder layout: `folder:PATH`.

- PATH has train/, val/ and test/: the training, validation and test set.
- PATH has train/ and one of val/ and test/: that one is the test set, the validation part is split off train/ by seed.
- else PATH is one tree, with a folder for each class: 15 % of each class are the test set, the rest as above.

A split may be called training, valid, validation or testing, too, in letters of any case. Images are turned upright by
their EXIF tag, resized at the shorter side and cropped to the centre square; what is transparent in them lies on white,
and 16 bits of grey are scaled by the set's range. They have one channel if all outside the test set are grey, else
three. Hidden files and folders, those of thumbnails, and what Pillow does not read are left out, which is said.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median_low
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hwnas.datasets import Background, Dataset, Fingerprint, PartPrint
from hwnas.datasets._heads import (
    BROKEN,
    BrokenImageError,
    Head,
    broken_image,
    heads_of,
    in_threads,
    is_whole,
    keep,
    mark_whole,
    refuse_broken,
    whole_or_why,
    why,
)
from hwnas.datasets._reader import read_square
from hwnas.datasets._shared import fitting, given_path, named, split, statistics
from hwnas.datasets._tree import ImageFiles, Tree, read_tree
from hwnas.support import bar, remark

TEST_SHARE = 0.15  # of one tree
_CHUNK = 256  # images that are looked at together
_RANGE_OF = 1000  # images at most, from which the range of 16 bits is taken
_DEPTHS = (255, 1023, 4095, 16383, 65535)  # the whites of cameras and scanners
_PARTS = ("training", "validation", "test")


@dataclass(frozen=True, slots=True)
class Look:
    """How images of all parts are read: see `read_square`."""

    channels: int
    resolution: int
    background: str
    black: int
    white: int

    def read(self, path: Path) -> np.ndarray:
        """Return an image's centre square: uint8 [channels, resolution, resolution]; raises BrokenImageError."""
        look = self.resolution, self.channels, self.background, self.black, self.white
        try:
            return read_square(path, *look).transpose(2, 0, 1)
        except BROKEN as error:
            raise broken_image(path, why(error)) from error


class _Placed(NamedTuple):
    part: int
    label: int
    path: Path


class FileImages:
    """Images that are decoded when they are first read, and kept where the whole split fits in memory."""

    def __init__(self, files: ImageFiles, look: Look) -> None:
        self._files = files
        self._look = look
        self._shape = (look.channels, look.resolution, look.resolution)
        keeps = len(files.paths) <= fitting(look.channels, look.resolution)
        self._kept = torch.empty(len(files.paths), *self._shape, dtype=torch.uint8) if keeps else None
        self._is_kept = torch.zeros(len(files.paths), dtype=torch.bool)

    @property
    def labels(self) -> Tensor:
        """Class of each image: int64 [n]."""
        return self._files.labels

    def read(self, indices: Tensor) -> Tensor:
        """Return the images of these indices: uint8 [len(indices), channels, resolution, resolution].

        Raises BrokenImageError, which names the file, where an image cannot be decoded.
        """
        if self._kept is None:
            return self._decode(indices)
        new = torch.unique(indices[~self._is_kept[indices]])
        if len(new):
            self._kept[new] = self._decode(new)
            self._is_kept[new] = True  # last, for other threads
        return self._kept[indices]

    def _decode(self, indices: Tensor) -> Tensor:
        paths = [self._files.paths[i] for i in indices.tolist()]
        images = in_threads(self._look.read, paths)
        mark_whole(paths)
        return torch.from_numpy(np.stack(images)) if images else torch.empty(0, *self._shape, dtype=torch.uint8)


def load(
    argument: str,
    *,
    seed: int,
    resolution: int | None,
    validation: float,
    background: Background = "white",
    skip_broken: bool = False,
) -> Dataset:
    """Load the images of the folder `argument`; without a resolution, a usual one that most images have.

    That is the median shorter side, rounded down to a multiple of 32, at most 224; under 32 it is kept. The heads of
    all files are read, of the test set's, too. Raises DataError where images or classes are missing or broken; with
    `skip_broken` the broken ones are left out of the parts that they are in, and all files are decoded to find them.
    """
    root = given_path("folder", argument, folder=True)
    tree = read_tree(root)
    tree.left_out.say(root)
    heads = _heads(root, tree)
    parts = _parts(root, tree, seed=seed, validation=validation)
    parts = _whole_ones(root, parts, heads, skip_broken=skip_broken)
    try:
        look = _look([*parts[0].paths, *parts[1].paths], heads, resolution, background)
        images = [FileImages(part, look) for part in parts]
        at_most = fitting(look.channels, look.resolution)
        mean, std = statistics(images[0], source=str(parts[0].folder), at_most=at_most)
    except BrokenImageError:
        refuse_broken(_broken(root, parts))  # with all the others
        raise
    for text in _remarks(parts, heads, look):
        remark(f"{root}: {text}")
    return Dataset(
        name=named("folder", argument),
        classes=tree.classes,
        channels=look.channels,
        resolution=look.resolution,
        train=images[0],
        validation=images[1],
        read_test=lambda: images[2],
        mean=mean,
        std=std,
        flips=True,
        background=background,
        black=look.black,
        white=look.white,
        fingerprint=_fingerprint(tree.classes, parts, heads),
        refuse_broken=lambda: refuse_broken(_broken(root, parts)),
    )


def _heads(root: Path, tree: Tree) -> dict[Path, Head]:
    """Return the heads of all image files."""
    paths = [path for files in tree.sets for path in files.paths]
    return dict(zip(paths, heads_of(root, paths), strict=True))


def _parts(root: Path, tree: Tree, *, seed: int, validation: float) -> list[ImageFiles]:
    """Return the files for training, validation and test."""
    if len(tree.sets) == 3:
        return tree.sets
    shares = [validation] if len(tree.sets) == 2 else [validation * (1 - TEST_SHARE), TEST_SHARE]
    first, *others = tree.sets
    parts = split(first.labels, shares, classes=tree.classes, seed=seed, source=str(first.folder))
    return [*(first.pick(part) for part in parts), *others]


def _whole_ones(
    root: Path, parts: Sequence[ImageFiles], heads: dict[Path, Head], *, skip_broken: bool
) -> list[ImageFiles]:
    """Return the files that are not broken, and say which are left out.

    Without `skip_broken` only heads are looked at: raises DataError, with a list, where some are broken.
    """
    broken = [(path, heads[path].broken) for part in parts for path in part.paths if heads[path].broken]
    if not skip_broken:
        refuse_broken(broken)
        return list(parts)
    broken += _broken(root, [part.without({path for path, _ in broken}) for part in parts])
    if broken:
        listed = "".join(f"\n  {path}: {reason}" for path, reason in broken)
        remark(f"{root}: broken images that are left out: {len(broken)}{listed}")
    return [part.without({path for path, _ in broken}) for part in parts]


def _broken(root: Path, parts: Sequence[ImageFiles]) -> list[tuple[Path, str]]:
    """Return all files that cannot be decoded to their end, and why; what was decoded before is not again."""
    paths = [path for part in parts for path in part.paths]
    broken: list[tuple[Path, str]] = []
    with bar("looking at all images", len(paths)) as progress:
        for start in range(0, len(paths), _CHUNK):
            new = [path for path in paths[start : start + _CHUNK] if not is_whole(path)]
            reasons = in_threads(whole_or_why, new)
            broken += [(path, reason) for path, reason in zip(new, reasons, strict=True) if reason]
            mark_whole(path for path, reason in zip(new, reasons, strict=True) if not reason)
            progress.advance(len(paths[start : start + _CHUNK]))
    keep(root, paths)
    return broken


def _look(paths: Sequence[Path], heads: dict[Path, Head], resolution: int | None, background: str) -> Look:
    """Return how images are to be read, by those of training and validation."""
    known = [heads[path] for path in paths]
    side = resolution or _usual(median_low(head.shorter_side for head in known))
    black, white = _range(paths, known)
    channels = (
        1 if all(_is_grey(path, background) for path, head in zip(paths, known, strict=True) if not head.grey) else 3
    )
    return Look(channels, side, background, black, white)


def _usual(shorter_side: int) -> int:
    """Return the resolution for images of that shorter side."""
    return shorter_side if shorter_side < 32 else min(224, shorter_side // 32 * 32)


def _is_grey(path: Path, background: str) -> bool:
    """Whether red, green and blue are equal in a thumbnail of the image."""
    pixels = Look(3, 64, background, 0, 65535).read(path)
    return bool((pixels == pixels[:1]).all())


def _range(paths: Sequence[Path], heads: Sequence[Head]) -> tuple[int, int]:
    """Return what is black and what is white in grey images of more than 8 bits, by the values that they have.

    White is that of the smallest usual depth. Where values fill less than a quarter of it, as those of a thermal camera
    do, their range is taken, unless other images have 8 bits.
    """
    deep = [path for path, head in zip(paths, heads, strict=True) if head.deep]
    if not deep:
        return 0, _DEPTHS[-1]
    chosen = [deep[at * len(deep) // min(len(deep), _RANGE_OF)] for at in range(min(len(deep), _RANGE_OF))]
    extents = in_threads(_extent, chosen)
    lowest, highest = max(0, min(low for low, _ in extents)), max(high for _, high in extents)
    black, white = 0, next((depth for depth in _DEPTHS if highest <= depth), highest)
    if len(deep) == len(paths) and 4 * (highest - lowest) < white and highest > lowest:
        black, white = lowest, highest
    if (black, white) != (0, _DEPTHS[-1]):
        remark(
            f"images of 16 bits, as {deep[0]}, have values from {lowest} to {highest}: {black} is read as black and "
            f"{white} as white"
        )
    return black, white


def _extent(path: Path) -> tuple[int, int]:
    """Return an image's lowest and highest value."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except BROKEN as error:
        raise broken_image(path, why(error)) from error
    return int(values.min()), int(values.max())


def _remarks(parts: Sequence[ImageFiles], heads: dict[Path, Head], look: Look) -> Iterator[str]:
    """Say what is odd about the images: copies, transparency, 16 bits in colour."""
    yield from _copies(parts, heads)
    used = [heads[path] for part in parts for path in part.paths]
    if count := sum(head.transparent for head in used):
        as_ = f"which are read as {look.background} there (--transparent)"
        yield f"images that may be transparent in places, {as_}: {count}"
    if count := sum(head.cut for head in used):
        yield f"images of 16 bits in colour, of which the upper 8 are read: {count}; convert them if need be"


def _copies(parts: Sequence[ImageFiles], heads: dict[Path, Head]) -> Iterator[str]:
    """Say how many images have exact copies in another part, and in another class."""
    alike: dict[str, list[_Placed]] = defaultdict(list)
    for number, part in enumerate(parts):
        for path, label in zip(part.paths, part.labels.tolist(), strict=True):
            alike[heads[path].digest].append(_Placed(number, label, path))
    groups = [group for same in alike.values() if len(same) > 1 for group in _equal(same)]
    for first, second in combinations(range(len(parts)), 2):
        in_first = (group for group in groups if any(one.part == first for one in group))
        copies = [one.path for group in in_first for one in group if one.part == second]
        if copies:
            yield (
                f"images of the {_PARTS[second]} part that are exact copies of {_PARTS[first]} ones: {len(copies)}, as "
                f"{copies[0]}; accuracy on them says little"
            )
    if count := sum(len({one.label for one in group}) > 1 for group in groups):
        yield f"images that are in more than one class, as exact copies: {count}"


def _equal(same: list[_Placed]) -> list[list[_Placed]]:
    """Return groups of files with one content, of those with one hash of parts of it."""
    by_content: dict[str, list[_Placed]] = defaultdict(list)
    for one in same:
        with suppress(OSError), one.path.open("rb") as file:
            by_content[hashlib.file_digest(file, "sha256").hexdigest()].append(one)
    return [group for group in by_content.values() if len(group) > 1]


def _fingerprint(classes: tuple[str, ...], parts: Sequence[ImageFiles], heads: dict[Path, Head]) -> Fingerprint:
    training, test = (_printed(of, heads, len(classes)) for of in (parts[:2], parts[2:]))
    return Fingerprint(classes=classes, training=training, test=test)


def _printed(parts: Sequence[ImageFiles], heads: dict[Path, Head], classes: int) -> PartPrint:
    """Return what tells these images from others: their classes, names below these, and hashes, part by part."""
    hashed = hashlib.sha256()
    for part in parts:
        for name, path, label in zip(part.names, part.paths, part.labels.tolist(), strict=True):
            line = f"{label}/{name.partition('/')[2]}\0{heads[path].digest}\n"
            hashed.update(line.encode(errors="surrogateescape"))
        hashed.update(b"\n")
    counts = torch.bincount(torch.cat([part.labels for part in parts]), minlength=classes)
    return PartPrint(counts=tuple(counts.tolist()), sha256=hashed.hexdigest())
