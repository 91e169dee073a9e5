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

from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from hwnas.errors import InputError, TableError
from hwnas.runs import DEFAULT_CELLS, DEFAULT_FILTERS, Sides
from hwnas.support import AnyPath, FilePath, Metavar, Options, PlugIn, WholeNumbers, commands, plugins
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hwnas.device import Setting
    from hwnas.formats import Memory
    from hwnas.latency import Budget, Largest, Prediction
    from hwnas.network import Architecture, CellNetwork, Graph, Scale

_CARD, _WINNER = "card.json", "winner.json"  # of which a folder that can be described has one
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

    The files are TFLite's, without metadata; `arena_bytes` are of their activations, without a delegate and what
    kernels take beside it; `micro_arena_bytes` those that the int8 one is predicted to need in TensorFlow Lite Micro.
    `largest` says where the scale comes from if there were caps.
    """

    network: str
    parameters: int
    mult_adds: int
    peak_activation_bytes: int
    file_bytes_fp32: int
    file_bytes_int8: int
    arena_bytes_fp32: int
    arena_bytes_int8: int
    micro_arena_bytes: int
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


class DescribeOptions(Options):
    """The options of `hwnas describe`."""

    what: AnyPath | None = Field(
        default=None,
        kw_only=False,
        description="a cell's TOML file, a network's JSON, a winner's folder or an artefact's, or a name, as in "
        "mobilenet-v2",
    )
    space: Annotated[str, PlugIn("spaces")] | None = Field(
        default=None, description="describe this search space instead"
    )
    picture: FilePath | None = Field(default=None, description="draw the network into this .svg or .png file")
    max_mult_adds: float | None = Field(
        default=None, gt=0, description="take the largest scale of the cells with at most so many Mult-Adds"
    )
    max_parameters: float | None = Field(default=None, gt=0, description="... and with at most so many parameters")
    max_file_kib: float | None = Field(
        default=None, gt=0, description="... and with a file of at most so many KiB in the setting"
    )
    max_activation_kib: float | None = Field(
        default=None, gt=0, description="... and with an arena of activations of at most so many KiB (TFLite)"
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="... and predicted, with the error, to run in this time on the device"
    )
    device: AnyPath = Field(default="host", description="device: a file devices/NAME.toml, or its path")
    setting: str | None = Field(
        default=None, description="one of the device's settings, such as tflite-fp32-1t; without it the first"
    )
    cells: Annotated[WholeNumbers, Metavar("N,...")] | None = Field(
        default=None, description="N to look at; without it 1 to 6, with a latency 1,2"
    )
    filters: Annotated[WholeNumbers, Metavar("F,...")] | None = Field(
        default=None, description="F to look at; without it 4,8,...,256, with a latency those that profile measures"
    )
    resolution: Sides | None = Field(default=None, description="resolutions to look at; without it the file's")


@takes(DescribeOptions)
def describe(options: DescribeOptions) -> Described | DescribedSpace:
    """Print what a cell, a winner or an artefact costs, layer by layer; with caps, at the largest scale inside them.

    Raises InputError for a file that is none of them, BudgetError where no scale fits, and TableError.
    """
    if options.space is not None:
        return _described_space(options.space)
    if options.what is None:
        raise InputError("describe needs a cell's TOML file, a winner's or an artefact's folder, or --space NAME")
    architecture = read_architecture(Path(options.what))
    largest = None
    caps = (options.max_mult_adds, options.max_parameters, options.max_file_kib, options.max_activation_kib)
    if any(cap is not None for cap in (*caps, options.max_latency_ms)):
        network = _network_of_cells(architecture, str(options.what))
        largest = _largest(network, options)
        architecture = network.at(largest.scale)
    elif options.cells or options.filters or options.resolution:
        raise InputError(
            "--cells, --filters and --resolution are scales to choose from, which needs a cap; add --max-mult-adds, "
            "--max-parameters, --max-file-kib, --max-activation-kib or --max-latency-ms, or change the file's [scale]"
        )
    if options.picture is not None:
        _draw(architecture, Path(options.picture))
    return _costs(architecture, largest)


def _described_space(space: str) -> DescribedSpace:
    plugin = plugins.load("spaces", space)
    return DescribedSpace(space, list(plugin.OPERATIONS), list(plugin.CHOICES), list(getattr(plugin, "DISTINCT", ())))


def read_architecture(path: Path) -> "Architecture":
    """Return the architecture of a TOML file, of a winner, of an artefact or of a published network's name.

    A JSON file is a record that has one, such as winner.json or what `hwnas search --json` prints of a candidate, or
    the architecture itself.

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
        path = next((path / name for name in (_CARD, _WINNER) if (path / name).exists()), path / _CARD)
    if path.name in (_CARD, _WINNER):
        return _read_record(path)
    if path.suffix == ".json":
        record = read_json(path, what="a winner's or an artefact's record")
        content = record.get("architecture", record) if isinstance(record, dict) else None
    else:
        content = read_toml(path, what="a cell's file")
    try:
        return Architecture.from_json(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_record(path: Path) -> "Architecture":
    """Return the architecture of an artefact's card or a winner's record; raises InputError with what to type."""
    from hwnas.artefacts import Card, again
    from hwnas.runs import WinnerFolder

    if path.name == _CARD:
        return Card.read(path, again=again(path.parent)).architecture
    return WinnerFolder(path.parent).read().architecture


def _network_of_cells(architecture: "Architecture", what: str) -> "CellNetwork":
    from hwnas.network import CellNetwork

    if not isinstance(architecture, CellNetwork):
        raise InputError(
            "only networks of cells can be brought to another scale: a cell's file, or a winner of a space of cells; "
            f"got {what}, of the kind {architecture.to_json()['kind']}. Its costs as it is: "
            f"{commands.describe(what)}. For others inside the caps: {commands.search(options={'space': 'NAME'})}"
        )
    return architecture


def _largest(network: "CellNetwork", options: DescribeOptions) -> "Largest":
    from hwnas.latency import Budget, largest
    from hwnas.network import all_scales

    cells, filters, predict = options.cells or _CELLS, options.filters or _FILTERS, None
    if options.max_latency_ms is not None:
        cells, filters = options.cells or DEFAULT_CELLS, options.filters or DEFAULT_FILTERS
    resolutions = options.resolution or [network.scale.resolution]
    budget = Budget(
        options.max_latency_ms or inf,
        max_mult_adds=options.max_mult_adds,
        max_parameters=options.max_parameters,
        max_file_kib=options.max_file_kib,
        max_activation_kib=options.max_activation_kib,
    )
    scales = all_scales(network.scale, cells=cells, filters=filters, resolutions=resolutions)
    if options.max_latency_ms is not None:
        predict = _predictor(network, scales, options)
    return largest(network, scales, budget, predict=predict, memory_of=_memory_of(network, budget, options))


def _memory_of(
    network: "CellNetwork", budget: "Budget", options: DescribeOptions
) -> "Callable[[CellNetwork], Memory] | None":
    """Return what says the memory of a network in the device's setting, where there is a cap on it."""
    from hwnas.device import asked_device
    from hwnas.latency import MemoryModel, as_measured

    if not budget.has_memory:
        return None
    machine = asked_device(options.device)
    model = MemoryModel(as_measured(machine, machine.setting(options.setting)), lambda _: {})
    model.check(budget, network)
    return model.of


def _predictor(
    network: "CellNetwork", scales: "Sequence[Scale]", options: DescribeOptions
) -> "Callable[[CellNetwork], Prediction]":
    """Return what predicts latencies on the device; it raises TableError, with what measures all of the scales."""
    from hwnas.device import asked_device
    from hwnas.latency import CostModel, open_table

    machine = asked_device(options.device)
    setting = machine.setting(options.setting)
    command = partial(_profile, network, scales, str(options.device), setting)
    model = CostModel(open_table(machine, setting, command=command), ())

    def predict(scaled: "CellNetwork") -> "Prediction":
        try:
            return model.predict(scaled)
        except TableError:
            model.require([scaled], command=command())
            raise

    return predict


def _profile(network: "CellNetwork", scales: "Sequence[Scale]", device: str, setting: "Setting") -> commands.Command:
    """Return the command that measures a network at the scales; raises TableError where no space has its operators."""
    if (space := _covering(network, setting.runtime)) is None:
        raise TableError(
            "the latency table must have every operator of the network; it lacks some, and no search space has them "
            "all, by which they could be measured. Describe it without --max-latency-ms"
        )
    return commands.profile(
        device,
        setting=setting.name,
        space=space,
        cells=sorted({scale.cells for scale in scales}),
        filters=sorted({scale.filters for scale in scales}),
        resolution=sorted({scale.resolution for scale in scales}),
        channels=scales[0].input_channels,
        classes=scales[0].classes,
        skeleton=scales[0].skeleton,
    )


def _covering(network: "CellNetwork", runtime: str) -> str | None:
    """Return the space that has all operators of a network, if there is one."""
    from hwnas import formats
    from hwnas.network import executed

    def operators(architecture: "Architecture") -> set[str]:
        return {name for name, _, _ in executed(formats.get(runtime).lower(architecture.graph))}

    own, scale = operators(network), network.scale
    usual = replace(scale, reductions=None, stem_multiplier=None)  # as those that profile measures
    blocks = [block for cell in network.cells.values() for block in cell.blocks]
    operations = {operation for block in blocks for operation, _ in (block.left, block.right)}
    for name in plugins.names("spaces"):
        space = plugins.load("spaces", name)
        if operations <= set(space.OPERATIONS) and own <= set().union(*map(operators, space.cover(usual))):
            return name
    return None


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
    fp32, int8 = tflite.memory(lowered), tflite.memory(lowered, precision="int8")
    assert fp32.arena_bytes is not None  # TFLite's is known
    assert int8.arena_bytes is not None
    return Described(
        network=architecture.name,
        parameters=graph.parameters,
        mult_adds=graph.mult_adds,
        peak_activation_bytes=graph.peak_activation_bytes,
        file_bytes_fp32=fp32.file_bytes,
        file_bytes_int8=int8.file_bytes,
        arena_bytes_fp32=fp32.arena_bytes,
        arena_bytes_int8=int8.arena_bytes,
        micro_arena_bytes=tflite.micro_arena_bytes(lowered),
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
