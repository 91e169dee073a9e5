"""Data sets, one file each: `load(argument, ...)` returns a `Dataset`.

A data set is named `NAME` or `NAME:ARGUMENT` on the command line, as in `fashion-mnist` or `folder:photos/`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from hwnas.errors import InputError
from hwnas.support import plugins

if TYPE_CHECKING:
    from torch import Tensor


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

    @cached_property
    def whole_train(self) -> Images:
        """`train` followed by `validation`: the whole training set, for the final training."""
        from hwnas.datasets._shared import JoinedImages

        return JoinedImages(self.train, self.validation)

    @cached_property
    def test(self) -> Images:
        """The test set, opened at the first use; raises DataError where it is broken."""
        return self.read_test()


def load(name: str, *, seed: int = 0, resolution: int | None = None, validation: float = 0.1) -> Dataset:
    """Load the data set `NAME[:ARGUMENT]`, with a `validation` share of the training set split off by `seed`.

    `resolution` in pixels; without it the data set's own. Raises UnknownNameError, InputError and DataError.
    """
    if resolution is not None and resolution < 1:
        raise InputError(
            f"a resolution must be at least 1 pixel; got {resolution}; leave it out for the data set's own"
        )
    if not 0 < validation < 1:
        raise InputError(f"the validation share must lie between 0 and 1; got {validation}; 0.1 is usual")
    plugin, _, argument = name.partition(":")
    dataset: Dataset = plugins.load("datasets", plugin).load(
        argument, seed=seed, resolution=resolution, validation=validation
    )
    return dataset
