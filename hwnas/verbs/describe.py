"""`hwnas describe`: what a cell, a winner or an artefact costs, layer by layer, its picture, and how large it can be.

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

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.errors import InputError
from hwnas.support import plugins
from hwnas.verbs._options import DEFAULT_CELLS, DEFAULT_FILTERS, DeviceName, SettingName, whole_numbers

if TYPE_CHECKING:
    from hwnas.latency import Budget, CostModel, Largest
    from hwnas.network import Architecture, CellNetwork, Graph

_RECORDS = ("card.json", "winner.json")  # what a folder that can be described has one of
_WINDOWS = ("conv", "max_pool", "avg_pool")
_CELLS = (1, 2, 3, 4, 5, 6)  # N and F that are looked at without a latency table; with one those that profile measures
_FILTERS = tuple(range(4, 257, 4))


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """One layer in the order of execution: its output's shape (channels, height, width) and its costs for one image.

    `activation_bytes` are those of all fp32 activations that are alive while it runs.
    """

    number: int
    name: str
    kind: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    shape: tuple[int, int, int]
    mult_adds: int
    parameters: int
    activation_bytes: int

    @property
    def operator(self) -> str:
        """The kind with what else matters: `depthwise 5x5/2`."""
        from hwnas.network import each_way

        if self.kind not in _WINDOWS:
            return self.kind
        depthwise = 1 < self.groups == self.shape[0]
        stride = "" if self.stride == (1, 1) else f"/{each_way(self.stride)}"
        parts = ["depthwise" if depthwise else self.kind, f"{self.kernel[0]}x{self.kernel[1]}{stride}"]
        parts += [f"rate {each_way(self.dilation)}"] * (self.dilation != (1, 1))
        parts += [f"{self.groups} groups"] * (self.groups > 1 and not depthwise)
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Described:
    """A network's costs; `peak_activation_bytes` are of fp32 activations alive at once, for one image.

    The files are TFLite's, without metadata. `largest` says where the scale comes from if there were caps.
    """

    network: str
    parameters: int
    mult_adds: int
    peak_activation_bytes: int
    file_bytes_fp32: int
    file_bytes_int8: int
    layers: list[LayerCosts]
    largest: "Largest | None" = None


@dataclass(frozen=True, slots=True)
class DescribedSpace:
    """How many choices a space has for each block, stage or layer.

    `distinct` are the distinct cells of one, two and three blocks, where they were counted.
    """

    space: str
    operations: list[str]
    choices: list[int]
    distinct: list[int]


def describe(
    what: Annotated[
        str | None,
        typer.Argument(help="a cell's TOML file, a winner's folder or an artefact's, or a name, as in mobilenet-v2"),
    ] = None,
    *,
    space: Annotated[str | None, typer.Option(help="describe this search space instead")] = None,
    picture: Annotated[str | None, typer.Option(help="draw the network into this .svg or .png file")] = None,
    max_mult_adds: Annotated[
        float | None, typer.Option(help="take the largest scale of the cells with at most so many Mult-Adds")
    ] = None,
    max_parameters: Annotated[float | None, typer.Option(help="... and with at most so many parameters")] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="... and predicted, with the error, to run in this time on the device")
    ] = None,
    device: DeviceName = "host",
    setting: SettingName = None,
    cells: Annotated[
        Sequence[int] | None,
        typer.Option(parser=whole_numbers, metavar="N,...", help="N to look at; without it 1 to 6, with a latency 1,2"),
    ] = None,
    filters: Annotated[
        Sequence[int] | None,
        typer.Option(
            parser=whole_numbers,
            metavar="F,...",
            help="F to look at; without it 4,8,...,256, with a latency those that profile measures",
        ),
    ] = None,
    resolution: Annotated[
        Sequence[int] | None,
        typer.Option(parser=whole_numbers, metavar="SIDE,...", help="resolutions to look at; without it the file's"),
    ] = None,
) -> Described | DescribedSpace:
    """Print what a cell, a winner or an artefact costs, layer by layer; with caps, at the largest scale inside them.

    Raises InputError for a file that is none of them, BudgetError where no scale fits, and TableError.
    """
    if space is not None:
        plugin = plugins.load("spaces", space)
        distinct = list(getattr(plugin, "DISTINCT", ()))
        return DescribedSpace(space, list(plugin.OPERATIONS), list(plugin.CHOICES), distinct)
    if what is None:
        raise InputError("describe needs a cell's TOML file, a winner's or an artefact's folder, or --space NAME")
    architecture = read_architecture(Path(what))
    largest = None
    if max_mult_adds is not None or max_parameters is not None or max_latency_ms is not None:
        from hwnas.latency import Budget

        budget = Budget(inf if max_latency_ms is None else max_latency_ms, max_mult_adds, max_parameters)
        network = _network_of_cells(architecture, what)
        largest = _largest(network, budget, device, setting, (cells, filters, resolution))
        architecture = network.at(largest.scale)
    elif cells or filters or resolution:
        raise InputError(
            "--cells, --filters and --resolution are scales to choose from, which needs a cap; "
            "add --max-mult-adds, --max-parameters or --max-latency-ms, or change the file's [scale]"
        )
    if picture is not None:
        _draw(architecture, Path(picture))
    return _costs(architecture, largest)


def read_architecture(path: Path) -> "Architecture":
    """Return the architecture of a TOML file, of a winner, of an artefact or of a published network's name.

    Raises InputError for anything else.
    """
    from hwnas.network import PUBLISHED, Architecture, published_network
    from hwnas.support import read_json, read_toml

    if not path.exists() and str(path) in PUBLISHED:
        return published_network(str(path))
    if not path.exists() and not path.suffix:
        raise InputError(
            f"describe reads a cell's TOML file, a winner's or an artefact's folder, or one of "
            f"{', '.join(PUBLISHED)}; there is no {path}"
        )
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


def _network_of_cells(architecture: "Architecture", what: str) -> "CellNetwork":
    from hwnas.network import CellNetwork

    if not isinstance(architecture, CellNetwork):
        raise InputError(
            "only networks of cells can be brought to another scale: a cell's file, or a winner of a space of cells; "
            f"got {what}, of the kind {architecture.to_json()['kind']}. Its costs as it is: hwnas describe {what}. "
            "For others inside the caps: hwnas search --space NAME --max-latency-ms MS"
        )
    return architecture


def _largest(
    network: "CellNetwork",
    budget: "Budget",
    device: str,
    setting: str | None,
    choices: tuple[Sequence[int] | None, Sequence[int] | None, Sequence[int] | None],
) -> "Largest":
    from hwnas.latency import largest
    from hwnas.network import all_scales

    cells, filters, resolutions = choices
    predict = None
    if budget.max_latency_ms < inf:
        predict = _cost_model(device, setting).predict
        cells, filters = cells or DEFAULT_CELLS, filters or DEFAULT_FILTERS
    ladder = all_scales(
        network.scale,
        cells=cells or _CELLS,
        filters=filters or _FILTERS,
        resolutions=resolutions or [network.scale.resolution],
    )
    return largest(network, ladder, budget, predict=predict)


def _cost_model(device: str, setting: str | None) -> "CostModel":
    from hwnas.device import load_device
    from hwnas.latency import CostModel, open_table

    machine = load_device(device)
    return CostModel(open_table(machine, machine.setting(setting)), ())


def _draw(architecture: "Architecture", path: Path) -> None:
    from hwnas.pages import network_picture, pictures
    from hwnas.support import write_bytes

    if path.suffix not in (".svg", ".png"):
        raise InputError(f"--picture must end in .svg or .png; got {path}")
    figure = network_picture.network_figure(architecture)
    write_bytes(path, pictures.png(figure) if path.suffix == ".png" else pictures.svg(figure).encode())


def _costs(architecture: "Architecture", largest: "Largest | None") -> Described:
    from hwnas.formats import tflite

    graph = architecture.graph
    lowered = tflite.lower(graph)
    return Described(
        network=architecture.name,
        parameters=graph.parameters,
        mult_adds=graph.mult_adds,
        peak_activation_bytes=graph.peak_activation_bytes,
        file_bytes_fp32=tflite.file_bytes(lowered),
        file_bytes_int8=tflite.file_bytes(lowered, precision="int8"),
        layers=_layers(graph),
        largest=largest,
    )


def _layers(graph: "Graph") -> list[LayerCosts]:
    from hwnas.network import layer_mult_adds, layer_parameters

    return [
        LayerCosts(
            number=number,
            name=layer.name,
            kind=layer.kind,
            kernel=layer.kernel,
            stride=layer.stride,
            dilation=layer.dilation,
            groups=layer.groups,
            shape=layer.shape,
            mult_adds=layer_mult_adds(layer, shapes),
            parameters=layer_parameters(layer, shapes),
            activation_bytes=alive,
        )
        for number, (layer, alive) in enumerate(zip(graph.layers, graph.activation_bytes, strict=True))
        for shapes in [graph.input_shapes(layer)]
    ]
