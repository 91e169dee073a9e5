"""`hwnas describe`: what a cell, a winner or an artefact costs, layer by layer, and a picture of its cell.

A cell's TOML file, as the papers draw it:

    [scale]
    skeleton = "imagenet"   # or "cifar"
    cells = 3               # N
    filters = 54            # F
    resolution = 224
    classes = 1000
    [normal]                # inputs: 0 = h[l-2], 1 = h[l-1], 2, 3, ... = the cell's blocks
    blocks = [[["separable_5x5", 0], ["max_pool_3x3", 0]], [["separable_7x7", 1], ["max_pool_3x3", 1]]]
    concat = "all"          # every block, "loose" = what no block reads, or a list of states
    [reduction]             # left out: the normal cell with stride 2
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas import plugins
from hwnas.errors import InputError

if TYPE_CHECKING:
    from hwnas.networks import Architecture

_RECORDS = ("card.json", "winner.json")  # what a folder that can be described has one of


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """One layer: its output's shape (channels, height, width) and what it costs for one image."""

    name: str
    kind: str
    shape: tuple[int, int, int]
    mult_adds: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Described:
    """A network's costs; memory is of fp32 activations, in bytes, at the most at once."""

    network: str
    parameters: int
    mult_adds: int
    peak_activation_bytes: int
    layers: list[LayerCosts]


@dataclass(frozen=True, slots=True)
class DescribedSpace:
    """How many choices a space has for each block, and how many distinct cells of one, two and three blocks."""

    space: str
    operations: list[str]
    choices: list[int]
    distinct: list[int]


def describe(
    what: Annotated[str | None, typer.Argument(help="a cell's TOML file, a winner's folder or an artefact's")] = None,
    *,
    space: Annotated[str | None, typer.Option(help="describe this search space instead")] = None,
    picture: Annotated[str | None, typer.Option(help="draw the normal cell into this .svg or .png file")] = None,
) -> Described | DescribedSpace:
    """Print what a cell, a winner or an artefact costs, layer by layer.

    Raises InputError for a file that is none of them.
    """
    if space is not None:
        plugin = plugins.load("spaces", space)
        return DescribedSpace(space, list(plugin.OPERATIONS), list(plugin.CHOICES), list(plugin.DISTINCT))
    if what is None:
        raise InputError("describe needs a cell's TOML file, a winner's or an artefact's folder, or --space NAME")
    architecture = read_architecture(Path(what))
    if picture is not None:
        _draw(architecture, Path(picture))
    return _costs(architecture)


def read_architecture(path: Path) -> "Architecture":
    """Read the architecture of a TOML file, of a winner or of an artefact; raises InputError for anything else."""
    from hwnas.files import read_json, read_toml
    from hwnas.networks import Architecture

    if path.is_dir():
        path = next((path / name for name in _RECORDS if (path / name).exists()), path / _RECORDS[0])
    if path.suffix == ".json":
        record = read_json(path, what="a winner's or an artefact's record")
        content = record.get("architecture") if isinstance(record, dict) else None
    else:
        content = read_toml(path, what="a cell's file")
    try:
        return Architecture.from_json(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _draw(architecture: "Architecture", path: Path) -> None:
    from hwnas import cell_picture, pictures
    from hwnas.files import write_bytes

    if path.suffix not in (".svg", ".png"):
        raise InputError(f"--picture must end in .svg or .png; got {path}")
    figure = cell_picture.cell_figure(architecture.cells["normal"])
    write_bytes(path, pictures.png(figure) if path.suffix == ".png" else pictures.svg(figure).encode())


def _costs(architecture: "Architecture") -> Described:
    from hwnas.graph import layer_mult_adds, layer_parameters

    graph = architecture.graph
    layers = [
        LayerCosts(layer.name, layer.kind, layer.shape, layer_mult_adds(layer, shapes), layer_parameters(layer, shapes))
        for layer in graph.layers
        for shapes in [graph.input_shapes(layer)]
    ]
    return Described(
        architecture.name,
        graph.parameters,
        graph.mult_adds,
        graph.peak_activation_bytes,
        layers,
    )
