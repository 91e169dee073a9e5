"""Options that several verbs share, with their help: a verb's signature is also its command line."""

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from hwnas.errors import InputError


def whole_numbers(text: str | Sequence[int]) -> tuple[int, ...]:
    """Read `8,12,16`; raises InputError for anything but whole numbers above 0."""
    return tuple(int(number) for number in _numbers(text, int, "whole numbers above 0, such as 8,12,16"))


def shares(text: str | Sequence[float]) -> tuple[float, ...]:
    """Read `0.4,0.6,1`; raises InputError for anything but numbers above 0 and up to 1."""
    numbers = _numbers(text, float, "shares above 0 and up to 1, such as 0.4,0.6,1")
    if max(numbers) > 1:
        raise InputError(f"shares must be at most 1; got {max(numbers):g}")
    return numbers


def names(text: str | Sequence[str]) -> tuple[str, ...]:
    """Read `a,b,c`; raises InputError where there is no name."""
    found = tuple(part.strip() for part in (text.split(",") if isinstance(text, str) else text))
    if not found or not all(found):
        raise InputError(f"an option takes names, such as a,b,c; got {text!r}")
    return found


def _numbers(text: str | Sequence[float], kind: type[float], rule: str) -> tuple[float, ...]:
    parts = text.split(",") if isinstance(text, str) else text
    try:
        numbers = tuple(kind(part) for part in parts)
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) <= 0:
        raise InputError(f"an option takes {rule}; got {text!r}")
    return numbers


DEFAULT_CELLS = (1, 2)
DEFAULT_FILTERS = (4, 6, 8, 12, 16, 20, 24, 28, 32)

DeviceName = Annotated[str, typer.Option(help="device: a file devices/NAME.toml, or its path")]
SettingName = Annotated[
    str | None, typer.Option(help="one of the device's settings, such as tflite-fp32-1t", show_default="the first")
]
Threads = Annotated[int | None, typer.Option(help="threads of the runtime", show_default="the setting's")]
SpaceName = Annotated[str, typer.Option(help="search space")]
Cells = Annotated[
    Sequence[int], typer.Option(parser=whole_numbers, metavar="N,...", help="choices of N, the cells of a stage")
]
Filters = Annotated[
    Sequence[int], typer.Option(parser=whole_numbers, metavar="F,...", help="choices of F, the first stage's filters")
]
Data = Annotated[
    str,
    typer.Option(help="data set: fashion-mnist, cifar10, cifar100, folder:PATH or npz:PATH (NAME:PATH for a copy)"),
]
Resolutions = Annotated[
    Sequence[int] | None,
    typer.Option(
        parser=whole_numbers,
        metavar="SIDE,...",
        help="choices of the side of the images in pixels",
        show_default="the data set's",
    ),
]
SkeletonName = Annotated[
    Literal["cifar", "imagenet"] | None,
    typer.Option(help="stem and strides of the networks", show_default="imagenet from 96 pixels on"),
]
Seed = Annotated[int, typer.Option(help="seed of every random choice")]
RunFolder = Annotated[str, typer.Argument(help="the run's folder, as given to `hwnas search --out`")]
