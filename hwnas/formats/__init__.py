"""Model formats, one file each: what the runtime fuses, and how a graph is written, loaded and run.

A format is a module with
    SUFFIX                                              of its files, as in ".tflite"
    FACTS                                               by precision, as in fp32: what a card says of its files
    HIGHEST_WEIGHT                                      of int8: weights are rounded to -HIGHEST_WEIGHT..HIGHEST_WEIGHT
    REWRITES                                            by name: other operators in the place of a layer's own
    lower(graph, *, without) -> Graph                   the layers that the runtime executes; a latency table's entries;
                                                        a rewrite's have the origin of what they stand in for
    write(graph, weights, *, metadata, ranges, precision, uint8_input, batch, without) -> bytes
                                                        the file of a lowered graph; int8 takes ranges
    memory(graph, *, precision, metadata, without) -> Memory
                                                        the size of the file of a lowered graph, and of its arena
    calibrate(graph, weights, images, *, share) -> Ranges
                                                        the ranges of a lowered graph; only where int8 is written
    arena_bytes(path) -> int | None                     that of the activations of a file, where it is known
    load(path, *, threads) -> Model                     the model in its runtime: images NCHW float32 -> outputs float32

A whole network reads `images` and gives `logits`; a layer by itself reads `input0`, `input1`, ... and gives `output`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from hwnas.errors import ExportError, quoted
from hwnas.network import Graph, Layer, Shape, executed, pads
from hwnas.support import commands, plugins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Weights = dict[str, tuple[Array, Array]]  # by the layer's name: weight in torch's layout, bias
    Ranges = Mapping[str, tuple[float, float]]  # by the layer's name: smallest and largest value of its output


_RANGE = 4.0  # of an activation that is only timed
_SAMPLE = 1 << 16  # values of which a quantile is taken


class Model(Protocol):
    """A loaded file: one array [n, c, h, w] per input, to the output [n, classes], or [n, c, h, w] of a lone layer.

    Arrays are float32, converted where the file has scales; uint8 goes as it is into a file that reads uint8.
    """

    def __call__(self, *inputs: "Array | NDArray[np.uint8]") -> "Array":
        """Return the output of all images."""
        ...


class Rewrite(NamedTuple):
    """Operators that are written in the place of a layer's own, and compute the same; devices differ in what is faster.

    `profile` times networks with and without each, and a table's setting says which it is `without`: hwnas/rewrites.py.
    """

    text: str  # what for what
    precisions: tuple[str, ...]
    applies: Callable[[Layer], bool]  # to a layer of a graph that is lowered without it


class Memory(NamedTuple):
    """Bytes of a network's file, and of the arena of its activations where the runtime's is known."""

    file_bytes: int
    arena_bytes: int | None

    @property
    def in_kib(self) -> dict[str, float | None]:
        """Both in KiB, by the names of a `Budget`'s caps."""
        arena = None if self.arena_bytes is None else self.arena_bytes / 1024
        return {"file_kib": self.file_bytes / 1024, "activation_kib": arena}


class Format(Protocol):
    """What a module in this folder offers."""

    SUFFIX: str
    FACTS: Mapping[str, Mapping[str, Any]]
    REWRITES: Mapping[str, Rewrite]
    HIGHEST_WEIGHT: int

    def lower(self, graph: Graph, *, without: Collection[str] = ()) -> Graph:
        """Return the layers that this runtime executes: ReLU fused where it fuses, operators split where faster.

        What is faster is taken from REWRITES, but for those that it is to be `without`.
        """
        ...

    def write(
        self,
        graph: Graph,
        weights: "Weights",
        *,
        metadata: Mapping[str, str] | None = None,
        ranges: "Ranges | None" = None,
        precision: str = "fp32",
        uint8_input: bool = False,
        batch: int | None = None,
        without: Collection[str] = (),
    ) -> bytes:
        """Return the file of a lowered graph in a precision of FACTS; `metadata` is kept in the file.

        Where `ranges` are given it is int8, which cannot be written without them. With `uint8_input` a network reads
        bytes: in int8 0 and 255 stand for the ends of the input's range, otherwise for 0 and 1.
        With `batch` it takes so many images at once, no more and no fewer. It is `without` what it was lowered without.
        Raises ExportError for a layer that the format cannot express, for missing or wrong weights and missing ranges,
        and for ranges or a precision that the format does not write.
        """
        ...

    def memory(
        self,
        graph: Graph,
        *,
        precision: str = "fp32",
        metadata: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> Memory:
        """Return what the file of a lowered graph takes that `write` would write, whatever its weights."""
        ...

    def calibrate(self, graph: Graph, weights: "Weights", images: "Array", *, share: float = 1.0) -> "Ranges":
        """Return the ranges of a lowered graph over images [n, c, h, w].

        With a `share` below 1 a layer's range leaves out so much of each image's values at either end.
        """
        ...

    def arena_bytes(self, path: Path) -> int | None:
        """Return the size of the arena of a file's activations, where the runtime's is known."""
        ...

    def load(self, path: Path, *, threads: int = 1) -> Model:
        """Load a file into the runtime.

        Raises ExportError if the runtime does not take it.
        """
        ...


def get(name: str, *, precision: str = "fp32") -> Format:
    """Return the format of a runtime, which must write files of that precision.

    Raises UnknownNameError, which lists the known ones, and ExportError for another precision.
    """
    module: ModuleType = plugins.load("formats", name)
    found = cast(Format, module)
    if precision not in found.FACTS:
        raise not_written(name, precision, found.FACTS)
    return found


def check_writes(name: str, graphs: Iterable[Graph], *, precision: str = "fp32") -> None:
    """Write every operation of some graphs, side by side in one file and without weights.

    Raises the format's ExportError for one that it cannot express, with its key.
    """
    found = get(name, precision=precision)
    layers: dict[str, Layer] = {}
    for graph in graphs:
        for operation, layer, shapes in executed(found.lower(graph)):
            if operation in layers:
                continue
            inputs = tuple(range(len(layers), len(layers) + len(shapes)))
            for index, shape in enumerate(shapes):
                layers[f"input {index} of {operation}"] = Layer("input", (), shape, f"input {index} of {operation}")
            layers[operation] = layer._replace(inputs=inputs, name=f"{layer.name} ({operation})")
    beside = Graph(tuple(layers.values()))
    ranges = made_up_ranges(beside) if precision == "int8" else None
    found.write(beside, no_weights(beside), ranges=ranges, precision=precision)


def random_weights(graph: Graph, *, seed: int = 0) -> "Weights":
    """Return weights of the right shapes for a graph that is only timed: normal, scaled to keep the variance."""
    import numpy as np

    random = np.random.default_rng(seed)
    weights: Weights = {}
    for layer in graph.layers:
        if layer.kind not in ("conv", "linear"):
            continue
        shape = _weight_shape(graph, layer)
        weight = random.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
        weights[layer.name] = (weight, np.zeros(layer.shape[0], dtype=np.float32))
    return weights


def no_weights(graph: Graph) -> "Weights":
    """Return zeros of the right shapes, which take no memory, for a graph whose file is only sized."""
    import numpy as np

    zero = np.zeros((), dtype=np.float32)
    return {
        layer.name: (np.broadcast_to(zero, _weight_shape(graph, layer)), np.broadcast_to(zero, layer.shape[:1]))
        for layer in graph.layers
        if layer.kind in ("conv", "linear")
    }


def made_up_ranges(graph: Graph) -> "Ranges":
    """Return ranges of a lowered graph that is only timed or sized: of both signs where no ReLU sees to it."""
    positive: list[bool] = []
    for layer in graph.layers:
        clipped = bool(layer.activation) or layer.kind in ("relu", "relu6", "hard_sigmoid", "zero")
        keeps = layer.kind not in ("input", "conv", "linear", "hard_swish")
        positive.append(clipped or (keeps and all(positive[source] for source in layer.inputs)))
    return {
        layer.name: (0.0 if above else -_RANGE, _RANGE) for layer, above in zip(graph.layers, positive, strict=True)
    }


def layer_weights(graph: Graph, layer: Layer, weights: "Weights") -> "tuple[Array, Array]":
    """Return the weight and the bias of a convolution or linear layer.

    Raises ExportError if they are missing or have another shape than the layer's.
    """
    if layer.name not in weights:
        raise ExportError(
            f"every convolution and linear layer needs weights; {layer.name!r} has none. "
            "Take them from the network that this graph belongs to: deployed_weights(network)"
        )
    weight, bias = weights[layer.name]
    wanted = (_weight_shape(graph, layer), (layer.shape[0],))
    if (weight.shape, bias.shape) != wanted:
        raise ExportError(
            f"{layer.name}: weight and bias must have the shapes {wanted[0]} and {wanted[1]}; "
            f"got {weight.shape} and {bias.shape}. Take them from the network that this graph belongs to"
        )
    return weight, bias


def check_calibration(graph: Graph, images: "Array") -> None:
    """Raise ExportError for images from which a graph's ranges cannot be taken."""
    import numpy as np

    shape = graph.layers[0].shape
    if images.shape[1:] != shape or not len(images):
        wrong = f"got {' x '.join(map(str, images.shape)) or 'none'}"
    elif not np.isfinite(images).all():
        wrong = "some have numbers that are not finite"
    elif images.min() == images.max():
        wrong = f"all {len(images)} have nothing but {images.min():g}"
    else:
        return
    raise ExportError(
        f"int8 is calibrated on images that differ, N x {' x '.join(map(str, shape))}; {wrong}. "
        "Take some of the training set, or leave int8 files out with --files"
    )


def range_of(values: "Array", share: float) -> tuple[float, float]:
    """Return the smallest and largest of values, or their quantiles 1 - `share` and `share`, of many those of some.

    A quantile is not less than a sixteenth of either: runtimes end the process where scales differ by too much.
    """
    import numpy as np

    smallest, largest = float(values.min()), float(values.max())
    if share == 1.0:
        return smallest, largest
    low, high = np.quantile(values.reshape(-1)[:: max(1, values.size // _SAMPLE)], (1 - share, share))
    return min(float(low), smallest / 16), max(float(high), largest / 16)


def pixels_in_windows(layer: Layer, shape: Shape) -> "NDArray[np.int64]":
    """Return how many pixels of an image of this shape each window has: [height, width] of the output."""
    import numpy as np

    top, _, left, _ = pads(layer, shape)
    along = []
    for size, outputs, kernel, stride, pad in zip(
        shape[1:], layer.shape[1:], layer.kernel, layer.stride, (top, left), strict=True
    ):
        starts = np.arange(outputs) * stride - pad
        along.append(np.minimum(starts + kernel, size) - np.maximum(starts, 0))
    return np.outer(*along)


def batches(inputs: "Sequence[NDArray[Any]]", size: int) -> "Iterator[tuple[list[NDArray[Any]], int]]":
    """Yield so many images of each input at a time, and how many of them count: the last batch is filled up."""
    import numpy as np

    (images,) = {len(value) for value in inputs}
    for start in range(0, images, size):
        count = min(size, images - start)
        wanted = np.minimum(np.arange(start, start + size), images - 1)
        yield [value[wanted] if count < size else value[start : start + size] for value in inputs], count


def _weight_shape(graph: Graph, layer: Layer) -> tuple[int, ...]:
    (shape,) = graph.input_shapes(layer)
    if layer.kind == "linear":
        return (layer.shape[0], prod(shape))
    return (layer.shape[0], shape[0] // layer.groups, *layer.kernel)


def input_name(layer: Layer) -> str:
    """Return the name of an input in a file."""
    return "images" if layer.name == "input" else layer.name


def output_name(graph: Graph) -> str:
    """Return the name of the output in a file."""
    return "logits" if graph.layers[-1].kind == "linear" and graph.layers[0].name == "input" else "output"


def not_written(name: str, precision: str, known: Iterable[str]) -> ExportError:
    """Return the error for a precision that a format does not write."""
    return ExportError(
        f"hwnas writes files of the runtime {name} in {', '.join(known)}; got {precision}. "
        f"Take one of these, as in --setting {name}-int8-1t"
    )


def no_writer(name: str, layer: Layer) -> ExportError:
    """Return the error for a layer of a kind that a format does not know."""
    return ExportError(
        f"{layer.name}: hwnas has no {name} operator for layers of kind {layer.kind!r}; "
        "add one to the format's file in hwnas/formats"
    )


def unloadable(path: Path, error: Exception) -> ExportError:
    """Return the error for a file that its runtime does not take."""
    return ExportError(
        f"{path} must be a model that its runtime can load; got: {quoted(error)}. "
        f"Delete it, and write it again: {commands.export()}"
    )


# what other folders use of this one's files; here, as they read what is above
from hwnas.formats._inputs import AS_USUAL as AS_USUAL  # noqa: E402
from hwnas.formats._inputs import MEDIAPIPE as MEDIAPIPE  # noqa: E402
from hwnas.formats._inputs import Form as Form  # noqa: E402
from hwnas.formats._inputs import Input as Input  # noqa: E402
from hwnas.formats._inputs import MetadataReader as MetadataReader  # noqa: E402
from hwnas.formats._inputs import Reading as Reading  # noqa: E402
from hwnas.formats._inputs import checked_form as checked_form  # noqa: E402
from hwnas.formats._quantisation import Quantisation as Quantisation  # noqa: E402
from hwnas.formats._rewrites import rewritten_layers as rewritten_layers  # noqa: E402
from hwnas.formats._rewrites import without_rewrite as without_rewrite  # noqa: E402
