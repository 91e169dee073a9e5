"""What a folder of photos holds: splits, classes, their image files, and what is left out; no file is opened."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from hwnas.datasets._shared import check_classes, class_names
from hwnas.errors import DataError
from hwnas.support import remark

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What each known name of a split, in small letters, stands for."""
_PHOTOS = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
)
_NO_CLASSES = {"__macosx", "@eadir", "@__thumb", "#recycle", "$recycle.bin", "lost+found", "__pycache__"}
_NO_FILES = {"thumbs.db", "desktop.ini"}  # those that systems make
_NO_IMAGES = _NO_CLASSES | {"thumbs", "thumbnails"}  # below a class


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The image files of one split: `labels` int64 [n]; `folder` is that of its classes."""

    folder: Path
    paths: tuple[Path, ...]
    labels: Tensor

    def pick(self, indices: Tensor) -> "ImageFiles":
        """Return those at some indices."""
        return ImageFiles(self.folder, tuple(self.paths[i] for i in indices.tolist()), self.labels[indices])

    def without(self, paths: set[Path]) -> "ImageFiles":
        """Return all but some files."""
        kept = [at for at, path in enumerate(self.paths) if path not in paths]
        return self.pick(torch.tensor(kept, dtype=torch.int64))

    @property
    def names(self) -> list[str]:
        """The files' names from the classes' folder on, with `/` on every system."""
        return [path.relative_to(self.folder).as_posix() for path in self.paths]


@dataclass(slots=True)
class LeftOut:
    """What a folder holds beside the images of its classes."""

    files: Counter[str] = field(default_factory=Counter)  # by the names' ends
    folders: Counter[str] = field(default_factory=Counter)  # hidden ones and those of thumbnails; of their images
    loose: int = 0  # images beside the classes' folders
    unused: dict[str, int] = field(default_factory=dict)  # folders beside the splits; of their images
    no_files: int = 0  # pipes, devices and links to nothing

    def say(self, root: Path) -> None:
        """Say what is left out, where there is some."""
        for text in self._texts():
            remark(f"{root}: {text}")

    def _texts(self) -> Iterator[str]:
        if self.files:
            yield f"files that are left out, as Pillow reads no images from them here: {_listed(self.files)}"
        if self.folders:
            count, names = self.folders.total(), ", ".join(sorted(self.folders))
            yield f"images in hidden folders and those of thumbnails, which are left out: {count}, in {names}"
        if self.loose:
            yield f"images beside the classes' folders, which are not used: {self.loose}"
        if self.unused:
            listed = ", ".join(f"{name}/ (images: {count})" for name, count in sorted(self.unused.items()))
            yield f"folders beside the splits, which are not used: {listed}"
        if self.no_files:
            yield f"entries that are no files, which are left out: {self.no_files}"


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder's classes, and its sets: training, validation and test as far as there are any, else one."""

    classes: tuple[str, ...]
    sets: list[ImageFiles]
    left_out: LeftOut


@cache
def readable() -> frozenset[str]:
    """Return the ends of the names of images that Pillow reads here."""
    Image.preinit()  # the usual kinds first: files are tried by this order
    Image.init()
    return frozenset(end for end in _PHOTOS if Image.EXTENSION.get(end) in Image.OPEN)


def read_tree(root: Path) -> Tree:
    """Return what a folder holds; raises DataError where it does not fit together, and for names that are no UTF-8."""
    left_out = LeftOut()
    folders = _set_folders(root, left_out)
    by_class = [_class_folders(folder, left_out) for folder in folders]
    names = {folder.name for folders_of in by_class for folder in folders_of}
    readings = dict(zip(sorted(names), class_names(sorted(names), source=str(root)), strict=True))
    classes = tuple(sorted(set(readings.values())))
    sets = [
        _files(folder, {readings[of_class.name]: of_class for of_class in folders_of}, classes, left_out)
        for folder, folders_of in zip(folders, by_class, strict=True)
    ]
    return Tree(classes, sets, left_out)


def _set_folders(root: Path, left_out: LeftOut) -> list[Path]:
    """Return the folders of the training, validation and test set as far as there are any, else `root` alone."""
    folders = _folders(root)
    splits = _splits(root, folders)
    if len(splits) >= 2 and "train" in splits and (_folders(splits["train"]) or len(splits) == len(folders)):
        _note_beside(root, left_out)
        left_out.unused |= {one.name: _count_images(one) for one in folders if one not in splits.values()}
        return [splits[part] for part in ("train", "val", "test") if part in splits]
    names = [folder.name for folder in splits.values()]
    if splits and len(splits) == len(folders):
        raise DataError(
            f"a folder must hold train/ with val/ or test/ or both, or else a folder for each class; {root} has "
            f"{' and '.join(names)} only; add what lacks, or give {next(iter(splits.values()))} to split it"
        )
    if splits:
        remark(f"{root}: {', '.join(names)} are taken for classes, though splits have such names")
    return [root]


def _splits(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders that are named as splits are; raises DataError where two are one split's."""
    splits: dict[str, Path] = {}
    for part in ("train", "val", "test"):
        of_part = [folder for folder in folders if SPLITS.get(folder.name.lower()) == part]
        if len(of_part) > 1:
            raise DataError(
                f"a split must be one folder; {root} has {' and '.join(folder.name for folder in of_part)}; put them "
                "together, or rename what is none"
            )
        if of_part:
            splits[part] = of_part[0]
    return splits


def _folders(folder: Path) -> list[Path]:
    """Return the folders in one, sorted; hidden ones, and those that systems make, are none of its."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} must be readable; it is not: {error}; check its permissions") from error
    return [entry for entry in entries if not _is_junk(entry.name, _NO_CLASSES) and entry.is_dir()]


def _is_junk(name: str, names: set[str]) -> bool:
    return name.startswith(".") or name.lower() in names


def _class_folders(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return a set's folders of classes; raises DataError where two have one name in two Unicode forms."""
    folders = _folders(folder)
    _note_beside(folder, left_out)
    normalised = class_names([one.name for one in folders], source=str(folder))
    if twice := sorted(name for name, count in Counter(normalised).items() if count > 1):
        raise DataError(
            f"a class must be one folder; {folder} has {twice[0]!r} in two Unicode forms; put them together under one "
            "name"
        )
    return folders


def _note_beside(folder: Path, left_out: LeftOut) -> None:
    """Note the images that are in a folder of folders itself, and in hidden ones."""
    left_out.loose += _count_images(folder, below=False)
    for entry in folder.iterdir():
        if _is_junk(entry.name, _NO_CLASSES) and entry.is_dir() and (count := _count_images(entry)):
            left_out.folders[entry.name] += count


def _files(folder: Path, of_classes: dict[str, Path], classes: Sequence[str], left_out: LeftOut) -> ImageFiles:
    """Return a set's images, by class and name."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images_below(of_classes[name], left_out) if name in of_classes else []
        paths += found
        labels += [label] * len(found)
    remedy = f"put images in {folder}/CLASS/ for each class, or remove the class ({', '.join(sorted(readable()))})"
    as_tensor = torch.tensor(labels, dtype=torch.int64)
    check_classes(as_tensor, classes, source=str(folder), remedy=remedy)
    return ImageFiles(folder, tuple(paths), as_tensor)


def _images_below(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the images of a class, by folder and name."""
    found: list[tuple[str, str]] = []
    try:
        for inside, junk, names, others in _walk(folder):
            images = {name for name in names if _end(name) in readable()}
            found += [(inside, name) for name in images]
            left_out.files.update(_end(name) or "nameless" for name in names if name not in images)
            left_out.folders.update({name: count for name in junk if (count := _count_images(Path(inside, name)))})
            left_out.no_files += others
    except OSError as error:
        raise DataError(f"{folder} must be readable; it is not: {error}; check its permissions") from error
    return [Path(inside, name) for inside, name in sorted(found)]


def _end(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (of 100,000 names)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str], int]]:
    """Yield each folder below one, once however links lead to it: its path; its folders of thumbnails; its files that
    are not hidden; how many of its entries are neither files nor folders.
    """
    waiting, seen = [str(folder)], set()
    while waiting:
        inside = waiting.pop()
        identity = Path(inside).stat()
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        junk: list[str] = []
        names: list[str] = []
        others = 0
        for entry in os.scandir(inside):
            if entry.is_dir():
                target = junk if _is_junk(entry.name, _NO_IMAGES) else waiting
                target.append(entry.name if target is junk else entry.path)
            elif not _is_junk(entry.name, _NO_FILES):
                names += [entry.name] if entry.is_file() else []
                others += not entry.is_file()
        yield inside, junk, names, others


def _count_images(folder: Path, *, below: bool = True) -> int:
    """Return how many images are in a folder, or in it and below it."""
    names = (name for _, _, files in os.walk(folder) for name in files) if below else os.listdir(folder)  # noqa: PTH208
    return sum(_end(name) in readable() and not name.startswith(".") for name in names)


def _listed(counts: Counter[str]) -> str:
    """Return counts in words, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)
