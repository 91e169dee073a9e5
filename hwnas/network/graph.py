"""The graph of layers that an architecture becomes, and what it costs: Mult-Adds, parameters, activation memory.

Everything that needs to know a network reads this graph: the torch module, the latency keys, the exported files, the
pictures. Shapes are (channels, height, width), without the batch.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import ceil, prod
from typing import Literal, NamedTuple, assert_never, get_args

from hwnas.errors import InputError

Shape = tuple[int, int, int]
Activation = Literal["relu", "relu6", "hard_swish", "hard_sigmoid"]
Window = Literal["conv", "max_pool", "avg_pool"]
Kind = (
    Literal["input", "add", "mul", "concat", "slice", "shuffle", "shift", "mean", "linear", "zero", "mix"]
    | Activation
    | Window
)
Padding = Literal["same", "valid", "symmetric"]
_WITHOUT_WEIGHTS: dict[Kind, int] = dict.fromkeys(  # a kind that is not here must be counted
    (
        *("input", "add", "mul", "concat", "slice", "shuffle", "shift", "mean", "zero", "mix"),
        *get_args(Activation),
        *("max_pool", "avg_pool"),
    ),
    0,
)
_KEEP_CHANNELS = {"max_pool", "avg_pool", "shift", "mean", "mul", *get_args(Activation)}
_MOST_LAYERS = 10_000  # the deepest networks that were published have a third of that
_MOST_NUMBERS = 2**29  # of all weights together, and of an activation: of fp32 that is 2 GiB, all that a file holds
FUSED = ("relu", "relu6")  # the activations that runtimes make a part of the operator before them


Step = str | int
Option = tuple[tuple[str, tuple[int, ...]], ...]
"""Parameters of a space and, of each, the places of some of its choices: what is so where all are among them."""


class Apart(str):
    """A step of an origin that tells layers apart which share their weights: a block of a cell, a side of a block."""

    __slots__ = ()


class Part(NamedTuple):
    """Channels that a layer reads together: of one of the values that were concatenated, or of all that it reads."""

    slot: tuple[Step, ...]  # which value that is, in terms of the space; nothing: what was not concatenated
    channels: int


class Place(str):
    """A layer's name, with its `origin`: where it stands and what it does there, in terms of the space.

    Layers of one origin, but for what is `Apart`, may share their weights, also in two networks of a space. The name
    counts cells and blocks of one network; the origin has stage and position, and the operation and its input.
    """

    __slots__ = ("origin",)
    origin: tuple[Step, ...]

    def __new__(cls, name: str, *origin: Step) -> "Place":
        """Return a place of that name, and of that origin where it is another."""
        place = super().__new__(cls, name)
        place.origin = origin or (name,)
        return place

    def then(self, name: Step) -> "Place":
        """Return a place within this one; `name` is Apart where what is there shares its weights with its likes."""
        place = str.__new__(Place, f"{self!s}.{name}")
        place.origin = (*self.origin, name)
        return place

    def doing(self, *steps: Step) -> "Place":
        """Return this place with what is done there, which is no part of the name."""
        return Place(self, *self.origin, *steps)


class Layer(NamedTuple):
    """One layer with its output's shape; `inputs` are the positions of earlier layers of the same graph.

    A tuple because the walk makes many, and `_replace` is ten times faster than that of dataclasses.

    `shift` drops the first row and column; where the size is odd it appends a row and a column of zeros (the second
    path of a factorised reduction). `slice` keeps channels from `start` on, as many as it has; `shuffle` takes the
    first channel of each of its `groups` of channels, then the second of each, and so on (ShuffleNet, Zhang et al.,
    2018, section 3.1). `zero` is zeros; what it reads only says how many images there are. `mul` multiplies a value by
    (channels, 1, 1). `mix`, of what is trained and never deployed, is the sum of what it reads, each weighed by how
    probable its option is; it may read a value twice. `padding` "same" is TensorFlow's: the odd row goes to the bottom
    and the right.
    """

    kind: Kind
    inputs: tuple[int, ...]
    shape: Shape
    name: str
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    start: int = 0  # of a slice: its first channel
    padding: Padding = "same"
    norm: bool = False  # a BatchNorm follows the convolution
    bias: bool = False
    activation: Literal["", "relu", "relu6"] = ""  # follows, fused
    path_drop: float = 0.0  # share of the run's path-drop rate that applies to the output, in training only
    origin: tuple[Step, ...] = ()  # see `Place`
    reads: tuple[Part, ...] = ()  # of what has weights: its input's channels
    options: tuple[Option, ...] = ()  # of a mix: under which of a space's choices each input is taken

    @property
    def depthwise(self) -> bool:
        """Whether this is a convolution of each channel by itself."""
        return self.kind == "conv" and 1 < self.groups == self.shape[0]


@dataclass(frozen=True)
class Graph:
    """Layers in the order of execution: the first is the input, the last the output.

    `auxiliary` is the layer that an auxiliary classifier reads in training; the head is no part of the network.
    """

    layers: tuple[Layer, ...]
    norm_epsilon: float = 1e-3  # of every BatchNorm; the default is that of TensorFlow slim's NASNet and PNASNet
    auxiliary: int | None = None

    @property
    def output_shape(self) -> Shape:
        """The shape of the last layer's output."""
        return self.layers[-1].shape

    def input_shapes(self, layer: Layer) -> tuple[Shape, ...]:
        """Return the shapes that a layer reads."""
        return tuple(self.layers[source].shape for source in layer.inputs)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each layer the positions of those that read it."""
        readers: list[list[int]] = [[] for _ in self.layers]
        for position, layer in enumerate(self.layers):
            for source in dict.fromkeys(layer.inputs):
                readers[source].append(position)
        return tuple(tuple(positions) for positions in readers)

    @cached_property
    def mult_adds(self) -> int:
        """Multiply-accumulates of the convolutions and the classifier, for one image."""
        return sum(layer_mult_adds(layer, self.input_shapes(layer)) for layer in self.layers)

    @cached_property
    def parameters(self) -> int:
        """Weights of convolutions and classifier, and BatchNorm's gamma and beta."""
        return sum(layer_parameters(layer, self.input_shapes(layer)) for layer in self.layers)

    @cached_property
    def activation_bytes(self) -> tuple[int, ...]:
        """For each layer the bytes of fp32 activations alive while it runs, for one image, in this order of execution.

        They are its output, and what it or a later layer reads.
        """
        last_use = [readers[-1] if readers else position for position, readers in enumerate(self.consumers)]
        last_use[-1] = len(self.layers)
        alive, most = 0, []
        for position, layer in enumerate(self.layers):
            alive += 4 * prod(layer.shape)
            most.append(alive)
            ended = {source for source in (*layer.inputs, position) if last_use[source] <= position}
            alive -= sum(4 * prod(self.layers[source].shape) for source in ended)
        return tuple(most)

    @property
    def peak_activation_bytes(self) -> int:
        """Most bytes of fp32 activations alive at once, for one image, in this order of execution."""
        return max(self.activation_bytes)


def check_size(graph: Graph) -> None:
    """Raise InputError for a network that is so large that no file could hold it."""
    largest = max(prod(layer.shape) for layer in graph.layers)
    for what, numbers in (("weights", graph.parameters), ("numbers in an activation", largest)):
        if numbers > _MOST_NUMBERS:
            raise InputError(
                f"a network may have up to {_MOST_NUMBERS:,} {what}, as its files hold 2 GiB; got {numbers:,}. Take "
                "fewer filters or cells, or a lower resolution"
            )


def key(layer: Layer, input_shapes: Iterable[Shape]) -> str:
    """Return the name under which a latency table knows a layer: equal for layers that cost the same.

    For example `conv 3x3/2 g24 24x32x32 > 24x16x16 relu`: kind, kernel, stride, groups, shapes, what is fused.
    """
    parts: list[str] = [layer.kind]
    if layer.kind in ("conv", "max_pool", "avg_pool"):
        stride = "" if layer.stride == (1, 1) else f"/{each_way(layer.stride)}"
        parts.append(f"{layer.kernel[0]}x{layer.kernel[1]}{stride}")
        parts += [f"d{each_way(layer.dilation)}"] * (layer.dilation != (1, 1))
    parts += [f"g{layer.groups}"] * (layer.groups > 1)
    parts += [layer.padding] * (layer.padding != "same")
    parts += [" + ".join("x".join(map(str, shape)) for shape in input_shapes), ">", "x".join(map(str, layer.shape))]
    parts += [layer.activation] * bool(layer.activation)
    return " ".join(parts)


def each_way(pair: tuple[int, int]) -> str:
    """Return `2`, or `1x2` where rows and columns differ."""
    down, across = pair
    return f"{down}" if down == across else f"{down}x{across}"


def executed(graph: Graph) -> Iterator[tuple[str, Layer, tuple[Shape, ...]]]:
    """Yield each layer that takes time, with its key and the shapes that it reads, in the order of execution."""
    for layer in graph.layers:
        if layer.kind not in ("input", "zero"):
            shapes = graph.input_shapes(layer)
            yield key(layer, shapes), layer, shapes


def pads(layer: Layer, input_shape: Shape) -> tuple[int, int, int, int]:
    """Return the zeros that a convolution or pooling adds: top, bottom, left, right."""
    down, across = (
        _sides(*along, layer.padding)
        for along in zip(input_shape[1:], layer.kernel, layer.stride, layer.dilation, strict=True)
    )
    return (*down, *across)


def _sides(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    reach = (kernel - 1) * dilation + 1
    match padding:
        case "same":
            total = max((ceil(size / stride) - 1) * stride + reach - size, 0)
            return total // 2, total - total // 2
        case "valid":
            return 0, 0
        case "symmetric":
            return (reach - 1) // 2, (reach - 1) // 2
        case _:
            assert_never(padding)


def fuse_relu(graph: Graph, *, into: frozenset[str]) -> Graph:
    """Return the graph with each ReLU or ReLU6 that alone reads a layer of the kinds `into` made a part of it."""
    position_of: dict[int, int] = {}
    layers: list[Layer] = []
    for position, layer in enumerate(graph.layers):
        if layer.kind == "relu" or layer.kind == "relu6":
            (source,) = layer.inputs
            producer = graph.layers[source]
            if producer.kind in into and graph.consumers[source] == (position,):
                at = position_of[position] = position_of[source]
                layers[at] = layers[at]._replace(activation=layer.kind)
                continue
        position_of[position] = len(layers)
        layers.append(_reading(layer, tuple(position_of[source] for source in layer.inputs)))
    return Graph(tuple(layers))


def _reading(layer: Layer, inputs: tuple[int, ...]) -> Layer:
    return layer if inputs == layer.inputs else layer._replace(inputs=inputs)


def taken(graph: Graph, options: Collection[Option]) -> Graph:
    """Return a graph in which mixes read what is taken under some of these options, without what nothing reads then."""
    layers = [_taken(layer, options) if layer.kind == "mix" else layer for layer in graph.layers]
    return _needed(layers, len(layers) - 1, graph.norm_epsilon, graph.auxiliary)


def _taken(layer: Layer, options: Collection[Option]) -> Layer:
    kept = [(value, option) for value, option in zip(layer.inputs, layer.options, strict=True) if option in options]
    return layer._replace(inputs=tuple(value for value, _ in kept), options=tuple(option for _, option in kept))


def _needed(layers: Sequence[Layer], output: int, norm_epsilon: float, auxiliary: int | None) -> Graph:
    """Return the graph of everything that `output` depends on."""
    needed = {0, output}
    for position in range(output, 0, -1):
        if position in needed:
            needed.update(layers[position].inputs)
    kept = sorted(needed)
    position_of = {old: new for new, old in enumerate(kept)}
    wired = tuple(_reading(layers[old], tuple(position_of[s] for s in layers[old].inputs)) for old in kept)
    return Graph(wired, norm_epsilon, None if auxiliary is None else position_of.get(auxiliary))


def one_layer(layer: Layer, input_shapes: Iterable[Shape]) -> Graph:
    """Return the graph of one layer by itself, with an input for each thing that it reads."""
    inputs = tuple(Layer("input", (), shape, f"input{index}") for index, shape in enumerate(input_shapes))
    alone = layer._replace(inputs=tuple(range(len(inputs))))
    return Graph((*inputs, alone))


def layer_mult_adds(layer: Layer, input_shapes: tuple[Shape, ...]) -> int:
    """Return a layer's multiply-accumulates for one image."""
    if layer.kind == "conv":
        return prod(layer.shape) * prod(layer.kernel) * (input_shapes[0][0] // layer.groups)
    if layer.kind == "linear":
        return prod(input_shapes[0]) * layer.shape[0]
    return _WITHOUT_WEIGHTS[layer.kind]


def layer_parameters(layer: Layer, input_shapes: tuple[Shape, ...]) -> int:
    """Return a layer's parameters, BatchNorm's gamma and beta among them."""
    filters = layer.shape[0]
    if layer.kind == "conv":
        weights = filters * prod(layer.kernel) * (input_shapes[0][0] // layer.groups)
        return weights + 2 * filters * layer.norm + filters * layer.bias
    if layer.kind == "linear":
        return filters * (prod(input_shapes[0]) + 1)
    return _WITHOUT_WEIGHTS[layer.kind]


class Builder:
    """Adds layers one by one and computes their shapes; a value is a layer's position."""

    def __init__(self, input_shape: Shape) -> None:
        self._layers = [Layer("input", (), input_shape, "input")]
        self._parts: dict[int, tuple[Part, ...]] = {}  # of values that were concatenated, and what keeps their channels
        self._activated: dict[tuple[int, Activation], int] = {}

    def shape(self, value: int) -> Shape:
        """Return the shape of a value."""
        return self._layers[value].shape

    def parts(self, value: int) -> tuple[Part, ...]:
        """Return what the channels of a value are of."""
        return self._parts.get(value) or _whole(self._layers[value].shape[0])

    def _append(self, layer: Layer) -> int:
        if len(self._layers) >= _MOST_LAYERS:
            raise InputError(f"a network may have up to {_MOST_LAYERS:,} layers; got more. Take fewer cells or blocks")
        self._layers.append(layer)
        value = len(self._layers) - 1
        if self._parts and (layer.kind in _KEEP_CHANNELS or layer.depthwise) and layer.inputs[0] in self._parts:
            self._parts[value] = self._parts[layer.inputs[0]]
        return value

    def window(
        self,
        kind: Window,
        value: int,
        *,
        name: str,
        filters: int | None = None,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        groups: int = 1,
        norm: bool = False,
        bias: bool = False,
        padding: Padding = "same",
    ) -> int:
        """Add a convolution or pooling; `filters` are the channels of the output, without them those of the input."""
        channels, *size = self.shape(value)
        out = [_size_after(*along, dilation, padding) for along in zip(size, kernel, stride, strict=True)]
        if min(out) < 1:
            raise InputError(
                f"{name}: an image of {size[0]}x{size[1]} is too small for a {kernel[0]}x{kernel[1]} window"
            )
        return self._append(
            Layer(
                kind=kind,
                inputs=(value,),
                shape=(channels if filters is None else filters, out[0], out[1]),
                name=str(name),
                kernel=kernel,
                stride=stride,
                dilation=(dilation, dilation),
                groups=groups,
                padding=padding,
                norm=norm,
                bias=bias,
                origin=_origin(name),
                reads=self.parts(value) if kind == "conv" else (),
            )
        )

    def relu(self, value: int) -> int:
        """Add a ReLU, or return the one that already reads this value."""
        return self.activation(value, "relu")

    def activation(self, value: int, kind: Activation) -> int:
        """Add an activation function, or return the one that already reads this value."""
        if (value, kind) not in self._activated:
            read = self._layers[value]
            layer = Layer(kind, (value,), self.shape(value), f"{read.name}.{kind}", origin=(*read.origin, kind))
            self._activated[value, kind] = self._append(layer)
        return self._activated[value, kind]

    def zero(self, shape: Shape, *, name: str) -> int:
        """Return zeros of that shape, for as many images as there are in the input."""
        return self._append(Layer("zero", (0,), shape, str(name), origin=_origin(name)))

    def add(self, left: int, right: int, *, name: str) -> int:
        """Add two values of one shape; of a value and zeros the value is returned."""
        for value, other in ((left, right), (right, left)):
            if self._layers[other].kind == "zero":
                return value
        return self._append(Layer("add", (left, right), self.shape(left), str(name), origin=_origin(name)))

    def mix(self, taken: Sequence[tuple[int, Option]], shape: Shape, *, name: str) -> int:
        """Add values of one shape, each weighed by how probable the option is under which it is taken."""
        values, options = tuple(value for value, _ in taken), tuple(option for _, option in taken)
        return self._append(Layer("mix", values, shape, str(name), origin=_origin(name), options=options))

    def mul(self, value: int, factors: int, *, name: str) -> int:
        """Multiply each channel of a value by its factor: (channels, 1, 1)."""
        return self._append(Layer("mul", (value, factors), self.shape(value), str(name), origin=_origin(name)))

    def concat(self, values: Sequence[int], *, name: str, slots: Sequence[Step] = ()) -> int:
        """Concatenate values along the channels; one value is returned as it is.

        `slots` says of each which one it is, to those who read the result from here on.
        """
        value = values[0]
        if len(values) > 1:
            channels = sum(self.shape(value)[0] for value in values)
            shape = (channels, *self.shape(values[0])[1:])
            value = self._append(Layer("concat", tuple(values), shape, str(name), origin=_origin(name)))
        self._parts[value] = tuple(
            Part((slot, *part.slot), part.channels)
            for slot, joined in zip(slots or range(len(values)), values, strict=True)
            for part in self.parts(joined)
        )
        return value

    def slice(self, value: int, start: int, channels: int, *, name: str) -> int:
        """Keep so many channels of a value, from `start` on."""
        shape = (channels, *self.shape(value)[1:])
        return self._append(Layer("slice", (value,), shape, str(name), start=start, origin=_origin(name)))

    def shuffle(self, value: int, groups: int, *, name: str) -> int:
        """Take the first channel of each group of channels, then the second of each, and so on."""
        return self._append(
            Layer("shuffle", (value,), self.shape(value), str(name), groups=groups, origin=_origin(name))
        )

    def shift(self, value: int, *, name: str) -> int:
        """Drop the first row and column; odd sizes get a row and a column of zeros at the end."""
        channels, height, width = self.shape(value)
        shape = (channels, height - 1 + height % 2, width - 1 + width % 2)
        return self._append(Layer("shift", (value,), shape, str(name), origin=_origin(name)))

    def mean(self, value: int, *, name: str) -> int:
        """Average over height and width: shape (channels, 1, 1)."""
        return self._append(Layer("mean", (value,), (self.shape(value)[0], 1, 1), str(name), origin=_origin(name)))

    def linear(self, value: int, outputs: int, *, name: str) -> int:
        """Add a fully connected layer with bias: shape (outputs, 1, 1)."""
        reads = self.parts(value)
        return self._append(
            Layer("linear", (value,), (outputs, 1, 1), str(name), bias=True, origin=_origin(name), reads=reads)
        )

    def drop_path(self, value: int, share: float) -> None:
        """Mark a value as the end of a path that scheduled path dropping may drop."""
        self._layers[value] = self._layers[value]._replace(path_drop=share)

    def finish(self, output: int, *, norm_epsilon: float = 1e-3, auxiliary: int | None = None) -> Graph:
        """Return the graph of everything that `output` depends on."""
        return _needed(self._layers, output, norm_epsilon, auxiliary)


@cache
def _whole(channels: int) -> tuple[Part, ...]:
    """Return what channels are of that were not concatenated."""
    return (Part((), channels),)


def _origin(name: str) -> tuple[Step, ...]:
    return name.origin if isinstance(name, Place) else ()


def _size_after(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> int:
    reach = (kernel - 1) * dilation + 1
    match padding:
        case "same":
            return ceil(size / stride)
        case "valid":
            return (size - reach) // stride + 1
        case "symmetric":
            return (size - reach + 2 * ((reach - 1) // 2)) // stride + 1
        case _:
            assert_never(padding)
