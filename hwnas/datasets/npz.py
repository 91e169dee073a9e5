"""Arrays in one NumPy archive, as Keras ships its data sets: `npz:PATH`.

The archive holds x_train, x_test (uint8 [n, height, width] or [n, height, width, channels]), y_train, y_test (integers
[n] or [n, 1], from 0) and, if it likes, classes (their names). Images that are not square lose their edges.
"""

import hashlib
import unicodedata
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hwnas.datasets import Dataset
from hwnas.datasets._shared import Labelled, given_path, memory_dataset, named
from hwnas.errors import DataError, InputError, quoted
from hwnas.support import array_names, read_array

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_SAVE = "numpy.savez(PATH, x_train=..., y_train=..., x_test=..., y_test=...)"


def load(argument: str, *, seed: int, resolution: int | None, validation: float) -> Dataset:
    """Load the archive at the path `argument`; x_test and y_test are first read by `Dataset.test`.

    `flips` is false, as nothing is known of the images. Raises DataError where arrays are missing, broken or unfit.
    """
    path = given_path("npz", argument, folder=False)
    held = _names(path)
    if missing := [name for name in _ARRAYS if name not in held]:
        raise DataError(f"{path} must hold {', '.join(_ARRAYS)}; it lacks {', '.join(missing)}; write it by {_SAVE}")
    train = _read(path, "train")
    return memory_dataset(
        named("npz", argument),
        train,
        partial(_read, path, "test"),
        classes=_classes(path) if "classes" in held else _numbered(train),
        seed=seed,
        resolution=resolution,
        validation=validation,
        flips=False,
        remedy=f"mend the arrays and write {path.name} anew",
        test_sha256=_test_hash(path),
    )


def _names(path: Path) -> list[str]:
    """Return the names of the arrays; none is read."""
    try:
        return array_names(path, what="npz:PATH")
    except InputError as error:
        raise DataError(f"{error}; write it by {_SAVE}") from None


def _test_hash(path: Path) -> str:
    """Return what tells test sets apart: a hash of the checksums that the archive has of its arrays."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    checksums = [(name, entries[name].CRC, entries[name].file_size) for name in ("x_test", "y_test")]
    return hashlib.sha256(repr(checksums).encode()).hexdigest()


def _array(path: Path, name: str) -> np.ndarray:
    """Read one array; pickled objects are refused."""
    try:
        return read_array(path, name)
    except ValueError as error:
        raise DataError(
            f"{name} of {path} must be a plain array; it cannot be read: {quoted(error)}; write it anew"
        ) from None


def _read(path: Path, part: str) -> Labelled:
    """Read the images and the labels of `part`, `train` or `test`."""
    pixels, labels = _pixels(path, f"x_{part}"), _labels(path, f"y_{part}")
    if len(pixels) != len(labels):
        raise DataError(
            f"each image must have a label; x_{part} of {path} has {len(pixels)} images, y_{part} has {len(labels)} "
            "labels; write them with one length"
        )
    return Labelled(pixels, labels, f"y_{part} of {path}")


def _pixels(path: Path, name: str) -> Tensor:
    """Read images: uint8 [n, channels, height, width]."""
    array = _array(path, name)
    if array.dtype != np.uint8:
        remedy = "scale to 0..255 and write it as uint8, as in (255 * x).round().astype('uint8')"
        raise DataError(f"{name} of {path} must be uint8; it is {_described(array)}; {remedy}")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape or array.shape[3] > 4:
        remedy = "reshape it, or bring the channels to the end, as in x.transpose(0, 2, 3, 1)"
        raise DataError(
            f"{name} of {path} must be [n, height, width] or [n, height, width, 1 to 4 channels]; it is "
            f"{list(array.shape)}; {remedy}"
        )
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def _labels(path: Path, name: str) -> Tensor:
    """Read labels: int64 [n]."""
    array = _array(path, name)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} of {path} must be integers; it is {_described(array)}; write it by y.astype('int64')")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) == 0:
        remedy = "write one label an image, as in y.argmax(axis=1)"
        raise DataError(f"{name} of {path} must be [n] or [n, 1]; it is {list(array.shape)}; {remedy}")
    return torch.from_numpy(array.astype(np.int64))


def _classes(path: Path) -> list[str]:
    """Read the names of the classes."""
    array = _array(path, "classes")
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(f"classes of {path} must be distinct names; it is {_described(array)}; write a list of strings")
    names = [name.decode(errors="surrogateescape") if isinstance(name, bytes) else name for name in array.tolist()]
    if len({unicodedata.normalize("NFC", name) for name in names}) != len(names):
        raise DataError(f"classes of {path} must be distinct names; some are equal; write a list of other strings")
    return names


def _numbered(train: Labelled) -> list[str]:
    """Return names for the classes 0 to the highest label."""
    highest = int(train.labels.max())
    if highest >= len(train.labels):
        raise DataError(
            f"labels must count from 0 without gaps; {train.source} goes to {highest} with {len(train.labels)} images; "
            "renumber them, as in numpy.unique(y, return_inverse=True)[1]"
        )
    return [str(label) for label in range(highest + 1)]


def _described(array: np.ndarray) -> str:
    """Return the type and shape, and for floats what is in it: range and NaN."""
    text = f"{array.dtype} {list(array.shape)}"
    if array.dtype.kind != "f" or array.size == 0:
        return text
    nans = int(np.isnan(array).sum())
    extent = "" if nans == array.size else f", {np.nanmin(array):g} to {np.nanmax(array):g}"
    return f"{text}{extent}" + (f", {nans} of it NaN" if nans else "")
