"""CIFAR-10 and CIFAR-100 as torchvision reads them (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32."""

import tarfile
import warnings
import zlib
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.datasets.utils import check_integrity

from hwnas.datasets import Dataset
from hwnas.datasets._shared import Labelled, cache_folder, given_path, memory_dataset, named
from hwnas.errors import DataError


def load(reader: Any, argument: str, *, name: str, seed: int, resolution: int | None, validation: float) -> Dataset:
    """Load the data set of torchvision's class `reader`; `argument` is its root or its folder of batches, or empty.

    Without an argument it is read from, or downloaded to, $HWNAS_DATA, else ~/.cache/hwnas/data. Raises DataError where
    files are missing or broken; the test batch is first read by `Dataset.test` (after a download, to check that, once).
    """
    root = _given(reader, argument, name=name) if argument else _cached(reader, name=name)
    train, classes = _read(reader, root, "train")
    return memory_dataset(
        named(name, argument),
        train,
        partial(_read_test, reader, root),
        classes=classes,
        seed=seed,
        resolution=resolution,
        validation=validation,
        flips=True,
        remedy=_remedy(root / reader.base_folder),
    )


def _given(reader: Any, argument: str, *, name: str) -> Path:
    """Return torchvision's root for the folder that the user gave."""
    path = given_path(name, argument, folder=True)
    root = path.absolute().parent if path.absolute().name == reader.base_folder else path
    if missing := _missing(reader, root):
        raise DataError(
            f"{name}:PATH must hold {reader.base_folder}/ as unpacked from {reader.url}; {root / reader.base_folder} "
            f"lacks {', '.join(missing)}; unpack it there, or leave the path out to download it"
        )
    return root


def _cached(reader: Any, *, name: str) -> Path:
    """Return torchvision's cache, downloaded if need be."""
    root = cache_folder()
    if not _missing(reader, root):
        return root
    try:
        reader(root, train=True, download=True)
    except (RuntimeError, OSError, HTTPException, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"{name} is not in {root / reader.base_folder}, and its download from {reader.url} failed ({error}); fetch "
            f"that file on another machine, unpack it, and give the folder as {name}:PATH"
        ) from error
    return root


def _files(reader: Any) -> list[tuple[str, str]]:
    """Return the name and the MD5 of all files."""
    return [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]


def _missing(reader: Any, root: Path) -> list[str]:
    """Return which files are not there; none is opened."""
    return [name for name, _ in _files(reader) if not (root / reader.base_folder / name).is_file()]


def _read_test(reader: Any, root: Path) -> Labelled:
    return _read(reader, root, "test")[0]


def _read(reader: Any, root: Path, part: str) -> tuple[Labelled, list[str]]:
    """Read `train` or `test`, and the names of the classes; no file of the other part is opened."""
    other = "test_list" if part == "train" else "train_list"
    one_part = type(reader.__name__, (reader,), {other: []})
    folder = root / reader.base_folder
    for name, md5 in _files(one_part):
        if not check_integrity(folder / name, md5):
            found = "does not" if (folder / name).is_file() else "is gone"
            raise DataError(f"{folder / name} must match its MD5; it {found}; {_remedy(folder)}")
    with warnings.catch_warnings():  # numpy 2.4.0 to 2.4.4 warn of pickles as old as these
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        images = one_part(root, train=part == "train")
    pixels = torch.from_numpy(np.ascontiguousarray(images.data.transpose(0, 3, 1, 2)))
    return Labelled(pixels, torch.tensor(images.targets), str(folder)), list(images.classes)


def _remedy(folder: Path) -> str:
    return f"remove {folder} and unpack or download it anew"
