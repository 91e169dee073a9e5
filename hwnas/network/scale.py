"""How large a network is made of what was chosen: N, F and the resolution, and the scales that a search has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar, Literal

from hwnas.errors import InputError
from hwnas.network.reading import STRICT, check_between

Skeleton = Literal["cifar", "imagenet"]
Reductions = Literal["inline", "extra"]
MOST_FILTERS = 2**16  # and channels, units
MOST = {  # of each number that says how large a network is: what is larger is a mistake, and takes all memory
    "cells": 1000,
    "filters": MOST_FILTERS,
    "resolution": 4096,
    "classes": 2**20,
    "input_channels": MOST_FILTERS,
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a network is made of what was chosen.

    `cells` is N, the normal cells of each of three stages, `filters` is F, `resolution` the side of the input (pixels).
    The stem has stem_multiplier x F filters (cifar) or stem_multiplier x 32 (imagenet). With reductions "inline" the
    first cell of stages 2 and 3 has stride 2 (3N cells); with "extra" a reduction cell precedes them (3N + 2).
    What N and F are in networks that are not made of cells, their spaces say.
    """

    __pydantic_config__: ClassVar = STRICT

    cells: int
    filters: int
    resolution: int
    classes: int
    input_channels: int = 3
    skeleton: Skeleton = "cifar"
    stem_multiplier: int | float | None = None
    reductions: Reductions | None = None
    skip_reduction_input: bool = False

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            check_between(f"scale: {name}", getattr(self, name), 1, most)
        if self.skeleton not in ("cifar", "imagenet"):
            raise InputError(f'scale: skeleton must be "cifar" or "imagenet"; got {self.skeleton!r}')
        if self.reductions not in (None, "inline", "extra"):
            raise InputError(f'scale: reductions must be "inline" or "extra"; got {self.reductions!r}')
        if self.stem_multiplier is not None and not 0 < self.stem_multiplier < inf:
            raise InputError(f"scale: stem_multiplier must be a number above 0; got {self.stem_multiplier}")
        if self.stem_multiplier is not None:
            check_between("scale: stem_multiplier", self.stem_multiplier, 0, MOST_FILTERS)

    def with_filters(self, filters: int) -> "Scale":
        """Return the same scale with other filters F."""
        return replace(self, filters=filters)

    def __str__(self) -> str:
        return f"N={self.cells} F={self.filters} {self.resolution}x{self.resolution}"


def all_scales(
    scale: Scale, *, cells: Sequence[int], filters: Sequence[int], resolutions: Sequence[int]
) -> tuple[Scale, ...]:
    """Return the scale with every N, resolution and F in place of its own."""
    numbers, sides, widths = (sorted(set(values)) for values in (cells, resolutions, filters))
    return tuple(replace(scale, cells=n, filters=f, resolution=side) for n in numbers for side in sides for f in widths)


_LARGE = 96  # pixels: from this resolution on the skeleton is ImageNet's


def ladder(
    cells: Sequence[int],
    filters: Sequence[int],
    resolutions: Sequence[int],
    *,
    classes: int,
    channels: int,
    skeleton: Skeleton | None = None,
) -> tuple[Scale, ...]:
    """Return the scales that a search chooses from; without `skeleton` it is ImageNet's if all have 96 pixels or more.

    Once for all resolutions, so that they differ in nothing else.
    """
    chosen: Skeleton = skeleton or ("imagenet" if min(resolutions) >= _LARGE else "cifar")
    smallest = Scale(min(cells), min(filters), min(resolutions), classes, channels, chosen)
    return all_scales(smallest, cells=cells, filters=filters, resolutions=resolutions)
