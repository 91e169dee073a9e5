"""Fashion-MNIST, the default data set: 60,000 + 10,000 grey images of 28x28, ten classes (Xiao et al., 2017).

It is read from the first of: the folder that the user gave (`fashion-mnist:PATH`), torchvision's cache (under
$HWNAS_DATA, else ~/.cache/hwnas/data), Debian's package dataset-fashion-mnist, torchvision's download.
"""

import gzip
import math
import struct
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from hwnas.datasets import Dataset
from hwnas.datasets._shared import Labelled, cache_folder, given_path, memory_dataset, named
from hwnas.errors import DataError
from hwnas.support import MIB, check_file

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_MOST_BYTES = 128 * MIB  # the largest of the files has 45
_FILES = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
_REMEDY = (
    "fetch the file anew, or remove its folder so that hwnas looks elsewhere (apt-get install dataset-fashion-mnist)"
)


def load(argument: str, *, seed: int, resolution: int | None, validation: float) -> Dataset:
    """Load Fashion-MNIST; `argument` is a folder of its four IDX files (.gz or not) or torchvision's root, or empty.

    Raises DataError where the files are missing or broken; the test files' content is first read by `Dataset.test`.
    """
    folder = _given(argument) if argument else _found() or _downloaded()
    return memory_dataset(
        named("fashion-mnist", argument),
        _read(folder, "train"),
        partial(_read, folder, "t10k"),
        classes=FashionMNIST.classes,
        seed=seed,
        resolution=resolution,
        validation=validation,
        flips=True,
        remedy=_REMEDY,
    )


def _given(argument: str) -> Path:
    """Return the folder with the IDX files in the one that the user gave."""
    root = given_path("fashion-mnist", argument, folder=True)
    folders = [root, root / "FashionMNIST" / "raw", root / "raw"]
    for folder in folders:
        if not _missing(folder):
            return folder
    fullest = min(folders, key=lambda folder: len(_missing(folder)))
    raise DataError(
        f"fashion-mnist:PATH must hold the four IDX files, each .gz or unpacked; {fullest} lacks "
        f"{', '.join(_missing(fullest))}; add them, or leave the path out to use {DEBIAN} or a download"
    )


def _found() -> Path | None:
    """Return torchvision's cache or the Debian package's folder, whichever first has all files."""
    folders = (_raw(cache_folder()), DEBIAN)
    return next((folder for folder in folders if not _missing(folder)), None)


def _downloaded() -> Path:
    """Let torchvision download the files to its cache."""
    root = cache_folder()
    try:
        FashionMNIST(root, train=True, download=True)
    except (RuntimeError, OSError, HTTPException, EOFError, zlib.error) as error:
        raise DataError(
            f"fashion-mnist is neither in {_raw(root)} nor in {DEBIAN}, and its download failed ({error}); "
            "type `apt-get install dataset-fashion-mnist` (Debian, Ubuntu), or give the folder of its four IDX files "
            "as fashion-mnist:PATH"
        ) from error
    return _raw(root)


def _raw(root: Path) -> Path:
    return root / "FashionMNIST" / "raw"


def _missing(folder: Path) -> list[str]:
    """Return which of the four files are not in `folder`; none is opened."""
    return [name for name in _FILES if _path(folder, name) is None]


def _path(folder: Path, name: str) -> Path | None:
    """Return the unpacked file, else the packed one."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, part: str) -> Labelled:
    """Read the images and the labels of `part`, `train` or `t10k`."""
    images_path, labels_path = (_path(folder, name) for name in _FILES if name.startswith(part))
    if images_path is None or labels_path is None:
        raise DataError(f"{folder} must hold the {part} images and labels; they are gone; {_REMEDY}")
    pixels, labels = _read_idx(images_path, dimensions=3), _read_idx(labels_path, dimensions=1)
    if pixels.shape[1:] != (28, 28):
        raise DataError(f"images must be 28x28; {images_path} has {list(pixels.shape[1:])}; {_REMEDY}")
    if len(pixels) != len(labels):
        raise DataError(
            f"each image must have a label; {images_path} has {len(pixels)} images, {labels_path} {len(labels)} "
            f"labels; {_REMEDY}"
        )
    return Labelled(pixels[:, None], labels.long(), str(folder))


def _read_idx(path: Path, *, dimensions: int) -> Tensor:
    """Read an IDX file of bytes (http://yann.lecun.com/exdb/mnist, "file formats"): uint8 [...]."""
    try:
        check_file(path, what="an IDX file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} must be readable; it is not: {error}; {_REMEDY}") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{path} must have at most {_MOST_BYTES // MIB} MiB, unpacked; it has more; {_REMEDY}")
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        raise DataError(f"{path} must be an IDX file of bytes in {dimensions} dimensions; it is not; {_REMEDY}")
    shape = [int(size) for size in np.frombuffer(content, ">u4", count=dimensions, offset=4)]
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != math.prod(shape):
        raise DataError(f"{path} must hold {shape} bytes; it holds {len(values)}; {_REMEDY}")
    return torch.from_numpy(values.reshape(shape).copy())
