"""Data sets, one file each: `load(argument, ...)` returns a `Dataset`.

A data set is named `NAME` or `NAME:ARGUMENT` on the command line, as in `fashion-mnist` or `folder:photos/`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from hwnas.datasets._fingerprint import Fingerprint as Fingerprint
from hwnas.datasets._fingerprint import PartPrint as PartPrint
from hwnas.datasets._fingerprint import class_changes as class_changes
from hwnas.errors import InputError, UnknownNameError
from hwnas.support import plugins

if TYPE_CHECKING:
    from torch import Tensor


Background = Literal["white", "black"]
_UNEQUAL = 3  # times as many images, from which on classes get a word


class Images(Protocol):
    """Labelled images that are read when they are asked for."""

    @property
    def labels(self) -> "Tensor":
        """Class of each image: int64 [n]."""
        ...

    def read(self, indices: "Tensor") -> "Tensor":
        """Return the images of these indices: uint8 [len(indices), channels, resolution, resolution].

        `indices` is int64 on the CPU. Raises DataError where an image turns out to be broken.
        """
        ...


def _nothing() -> None:
    """Look at nothing: what is in memory is whole."""


@dataclass(frozen=True)
class Dataset:
    """A data set at one resolution: `train` and `validation` are disjoint, `test` is first read by the final accuracy.

    `mean` and `std` are per channel, of pixels scaled to 0..1, computed from `train`; they travel with the model.
    """

    name: str  # as on the command line, the argument included
    classes: tuple[str, ...]
    channels: int
    resolution: int
    train: Images
    validation: Images
    read_test: Callable[[], Images]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: bool  # whether a mirrored image is still of its class
    background: Background = "white"  # on which what is transparent in image files lies
    black: int = 0  # in image files of 16 bits: what is read as 0 and as 255
    white: int = 65535
    fingerprint: Fingerprint | None = None
    refuse_broken: Callable[[], None] = _nothing  # looks at all images, and raises DataError with a list of broken ones

    def check(self) -> None:
        """Look at all images of all parts, unless that was done before; raises DataError with a list of broken ones."""
        self.refuse_broken()
        _ = self.test

    @property
    def imbalance(self) -> str:
        """What is to be said of classes of unequal size: where one has three times another's images, or more."""
        counts = self.whole_train.labels.bincount(minlength=len(self.classes)).tolist()
        most, least = counts.index(max(counts)), counts.index(min(counts))
        if counts[most] < _UNEQUAL * counts[least]:
            return ""
        share = counts[most] / sum(counts)
        return (
            f"{self.name}: its classes are of unequal size, {self.classes[most]!r} with {counts[most]} training "
            f"images and {self.classes[least]!r} with {counts[least]}: always to say {self.classes[most]!r} scores "
            f"{share:.2f} in accuracy and {1 / len(self.classes):.2f} in balanced accuracy"
        )

    @cached_property
    def whole_train(self) -> Images:
        """`train` followed by `validation`: the whole training set, for the final training."""
        from hwnas.datasets._shared import JoinedImages

        return JoinedImages(self.train, self.validation)

    @cached_property
    def test(self) -> Images:
        """The test set, opened at the first use; raises DataError where it is broken."""
        return self.read_test()


def load(
    name: str,
    *,
    seed: int = 0,
    resolution: int | None = None,
    validation: float = 0.1,
    background: Background = "white",
    skip_broken: bool = False,
) -> Dataset:
    """Load the data set `NAME[:ARGUMENT]`, with a `validation` share of the training set split off by `seed`.

    `resolution` in pixels; without it the data set's own. Of image files, what is transparent lies on `background`, and
    with `skip_broken` those that cannot be read are left out. Raises UnknownNameError, InputError and DataError.
    """
    if resolution is not None and resolution < 1:
        raise InputError(
            f"a resolution must be at least 1 pixel; got {resolution}; leave it out for the data set's own"
        )
    if not 0 < validation < 1:
        raise InputError(f"the validation share must lie between 0 and 1; got {validation}; 0.1 is usual")
    plugin, _, argument = name.partition(":")
    try:
        reader = plugins.load("datasets", plugin).load
    except UnknownNameError as error:
        if not Path(name).exists():
            raise
        kind = "folder" if Path(name).is_dir() else "npz"
        raise InputError(f"{error}. {name} is a path: give {kind}:{name}") from None
    of_files = {"background": background, "skip_broken": skip_broken}
    taken = {option: value for option, value in of_files.items() if option in inspect.signature(reader).parameters}
    dataset: Dataset = reader(argument, seed=seed, resolution=resolution, validation=validation, **taken)
    return dataset


def reader_source(channels: int) -> str:
    """Return the Python function by which image files of so many channels are read, for what has no hwnas."""
    from hwnas.datasets import _reader

    return inspect.getsource(_reader.read_square if channels in (1, 3) else _reader.read_bands)
