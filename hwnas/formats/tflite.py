"""TFLite (LiteRT): hwnas's own writer, and the interpreter that runs what it writes.

Activations are NHWC, so that nothing is transposed; the batch is fixed. BatchNorm comes folded into the weights, ReLU
is the fused activation of the operator before it. Padding is TensorFlow's SAME or VALID, a PAD only where neither fits.
Weights: convolution [out, height, width, in], depthwise [1, height, width, out], fully connected [out, in].

XNNPACK has no fast kernel for a depthwise convolution of more than 25 taps. One of 7x7 is written as the sum of those
over its rows 2 to 4, over 1 and 5 and over 0 and 6, which are dilated: exact, and 3 to 9 times faster. This and what
int8 has beside it are REWRITES: a device on which one is slower is written for without it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwnas.errors import ExportError
from hwnas.formats import (
    MEDIAPIPE,
    Memory,
    Model,
    Rewrite,
    _micro_arena,
    _tflite_metadata,
    batches,
    check_calibration,
    input_name,
    made_up_ranges,
    no_weights,
    not_written,
    output_name,
    range_of,
    unloadable,
)
from hwnas.formats._tflite_arena import arena_of_file
from hwnas.formats._tflite_dynamic import DynamicWriter
from hwnas.formats._tflite_fp16 import Fp16Writer
from hwnas.formats._tflite_int8 import REWRITES as INT8_REWRITES
from hwnas.formats._tflite_int8 import Int8Writer
from hwnas.formats._tflite_operators import FUSES_RELU, add_layers
from hwnas.formats._tflite_reading import operators_in as operators_in
from hwnas.formats._tflite_reading import precision_of as precision_of
from hwnas.formats._tflite_writer import MOST_TAPS, Writer
from hwnas.network import Graph, Layer, fuse_relu

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Array, Ranges, Weights

SUFFIX = ".tflite"
HIGHEST_WEIGHT = 127
FACTS = {
    "fp32": {"input": "NHWC float32", "batch": 1},
    "fp16": {"input": "NHWC float32", "batch": 1},
    "dynamic": {"input": "NHWC float32", "batch": 1},
    "int8": {"input": "NHWC int8", "batch": 1},
}
Precision = Literal["fp32", "fp16", "dynamic", "int8"]
_WRITERS: dict[str, type[Writer]] = {"fp32": Writer, "fp16": Fp16Writer, "dynamic": DynamicWriter}
_SPLIT = "split-depthwise"
_TAPS = ".taps"  # in the name of a part of a split convolution, followed by the first row of its taps


def lower(graph: Graph, *, without: Collection[str] = ()) -> Graph:
    """Return the layers that LiteRT executes: ReLU fused into the operators with an activation, 7x7 depthwise split."""
    splits = _SPLIT not in without
    layers: list[Layer] = []
    position_of: list[int] = []
    for layer in fuse_relu(graph, into=FUSES_RELU).layers:
        inputs = tuple(position_of[source] for source in layer.inputs)
        moved = layer if inputs == layer.inputs else layer._replace(inputs=inputs)
        layers += _parts(moved, len(layers)) if splits and _splits(moved) else [moved]
        position_of.append(len(layers) - 1)
    return Graph(tuple(layers))


def write(
    graph: Graph,
    weights: "Weights",
    *,
    metadata: Mapping[str, str] | None = None,
    ranges: "Ranges | None" = None,
    precision: Precision = "fp32",
    uint8_input: bool = False,
    batch: int | None = None,
    without: Collection[str] = (),
) -> bytes:
    """Return the .tflite file of a lowered graph, NHWC, of batch 1 without `batch`; `weights` are in torch's layout.

    With `ranges`, which `calibrate` finds, it is int8 throughout, from the input to the output. Of `fp16` and `dynamic`
    the weights are smaller, and input and output float32. With `uint8_input` the input is uint8: in int8 0 and 255 are
    the ends of its range, otherwise 0 and 1. Of `metadata` that has the classes, mean and std of images
    TFLite's own metadata is written, too: `_tflite_metadata.py`; where its `reader` is mediapipe, what comes out is
    float32 in int8, too.
    Raises ExportError for a layer that TFLite cannot express, for missing or wrong weights and missing ranges, for
    ranges of another precision, for weights that fp16 does not hold, for mean and std that do not fit the input, and
    for a batch below 1.
    """
    weights = weights | _weights_of_parts(graph, weights)
    if batch is not None and batch < 1:
        raise ExportError(f"the batch of a TFLite file must be 1 or more; got {batch}. Leave it out for 1")
    writer = _writer(graph, weights, ranges, precision, uint8_input=uint8_input, batch=batch or 1, without=without)
    add_layers(writer)
    if (metadata or {}).get("reader") == MEDIAPIPE:
        writer.give_floats()
    return _finished(writer, metadata or {})


def memory(
    graph: Graph,
    *,
    precision: Precision = "fp32",
    metadata: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> Memory:
    """Return the size of the file of a lowered graph, to the byte that of `write`, and of its arena: _tflite_arena.py.

    In int8 an operator may be another one, and a file of another size, where calibration finds other signs than are
    made up here; of 200 networks that were calibrated none was (benchmarks/memory.py).
    """
    ranges = made_up_ranges(graph) if precision == "int8" else None
    writer = _writer(graph, no_weights(graph), ranges, precision, without=without, sized_only=True)
    add_layers(writer)
    return Memory(len(_finished(writer, metadata or {})) + writer.left_out, writer.arena_bytes)


def micro_arena_bytes(graph: Graph, *, without: Collection[str] = ()) -> int:
    """Return the bytes of the arena that the int8 file of a lowered graph needs in TensorFlow Lite Micro: a prediction.

    It is what `hwnas verify` finds on this machine; of networks with two classifiers in a row to 16 bytes. Raises
    ExportError as `write` does.
    """
    writer = _writer(graph, no_weights(graph), made_up_ranges(graph), "int8", without=without, sized_only=True)
    add_layers(writer)
    codes = [code for code, _ in writer.codes]
    used = [codes[operator.opcodeIndex] for operator in writer.operators]
    return _micro_arena.micro_arena_bytes(writer.tensors, used, writer.operators, [*writer.inputs, writer.values[-1]])


def _writer(
    graph: Graph,
    weights: "Weights",
    ranges: "Ranges | None",
    precision: Precision,
    *,
    uint8_input: bool = False,
    batch: int = 1,
    without: Collection[str] = (),
    sized_only: bool = False,
) -> Writer:
    if precision not in FACTS:
        raise not_written("tflite", precision, FACTS)
    if ranges is None and precision != "int8":
        return _WRITERS[precision](graph, weights, uint8_input=uint8_input, batch=batch, sized_only=sized_only)
    if ranges is not None and precision in ("fp32", "int8"):
        return Int8Writer(
            graph, weights, ranges, uint8_input=uint8_input, batch=batch, without=without, sized_only=sized_only
        )
    raise ExportError(
        f"int8, and nothing else, takes ranges; got {precision} {'without' if ranges is None else 'with'} them. "
        "Take them from images for int8, tflite.calibrate(lowered graph, weights, images), or leave them out"
    )


def _finished(writer: Writer, metadata: Mapping[str, str]) -> bytes:
    entries = {name: text.encode() for name, text in metadata.items()}
    described = _tflite_metadata.of_images(writer.graph, metadata)
    if described is None:
        return writer.finish(entries)
    data = writer.finish({**entries, _tflite_metadata.NAME: described})
    labels = _tflite_metadata.labels(writer.graph, metadata)
    return data if labels is None else _tflite_metadata.with_file(data, _tflite_metadata.LABELS, labels)


def calibrate(graph: Graph, weights: "Weights", images: "Array", *, share: float = 1.0) -> "Ranges":
    """Return the smallest and largest value of each layer of a lowered graph over images [n, c, h, w].

    With a `share` below 1 so much of each image's values is left out at either end. What runs is the fp32 file.
    Raises ExportError as `write` does, and for images that are none, of another shape, equal or not finite.
    """
    check_calibration(graph, images)
    runtime = _runtime()
    interpreter = runtime.Interpreter(
        model_content=write(graph, weights),
        experimental_preserve_all_tensors=True,
        # a delegate would keep to itself what is between its input and its output
        experimental_op_resolver_type=runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    numbers = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    between = [layer.name for layer in graph.layers[1:-1]]
    tensors = [numbers[name] for name in (input_name(graph.layers[0]), *between, output_name(graph))]
    found = []  # [images, layers, 2]
    for image in images:
        interpreter.set_tensor(tensors[0], _nhwc(image[None]))
        interpreter.invoke()
        found.append([range_of(interpreter.get_tensor(tensor), share) for tensor in tensors])
    lowest, highest = np.min(found, axis=0)[:, 0], np.max(found, axis=0)[:, 1]
    return {layer.name: (float(lowest[at]), float(highest[at])) for at, layer in enumerate(graph.layers)}


def arena_bytes(path: Path) -> int:
    """Return the size of the arena of a file's activations, without a delegate: _tflite_arena.py."""
    return arena_of_file(path)


def load(path: Path, *, threads: int = 1) -> Model:
    """Load a file; the function maps one NCHW float32 array per input to [n, classes], or NCHW if the output is 4-D.

    What is int8 in the file is converted here, by the file's own scales; uint8 that a file reads goes in as it is.
    Raises ExportError if the file cannot be loaded.
    """
    try:
        interpreter = _runtime().Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise unloadable(path, error) from None
    sources = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()

    def run(*inputs: "Array | NDArray[np.uint8]") -> "Array":
        outputs = []
        for values, count in batches(inputs, int(sources[0]["shape"][0])):
            for source, value in zip(sources, values, strict=True):
                interpreter.set_tensor(source["index"], _in_file(_nhwc(value), source))
            interpreter.invoke()
            outputs.append(_in_float32(interpreter.get_tensor(target["index"]), target)[:count])
        output: Array = np.concatenate(outputs)
        return output.transpose(0, 3, 1, 2) if output.ndim == 4 else output

    return run


def _nhwc(images: "NDArray[Any]") -> "NDArray[Any]":
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _in_file(value: "NDArray[Any]", detail: dict[str, Any]) -> "NDArray[Any]":
    """Return a value as the numbers of one of the file's tensors."""
    step, zero_point = detail["quantization"]
    if not step or value.dtype == detail["dtype"]:
        return value
    limits = np.iinfo(detail["dtype"])
    numbers: NDArray[Any] = np.clip(np.rint(value / step) + zero_point, limits.min, limits.max).astype(detail["dtype"])
    return numbers


def _in_float32(numbers: "NDArray[Any]", detail: dict[str, Any]) -> "Array":
    step, zero_point = detail["quantization"]
    return np.float32(step) * (numbers.astype(np.float32) - np.float32(zero_point)) if step else numbers


def _splits(layer: Layer) -> bool:
    """Whether a layer is too large for the fast depthwise kernels, and its parts are not.

    SAME puts the parts' taps where they were, if the kernel's rows are odd in number, and no part reaches less far
    than the stride.
    """
    rows, columns = layer.kernel
    if not layer.depthwise or layer.padding != "same" or layer.dilation != (1, 1) or rows % 2 == 0:
        return False
    return rows * columns > MOST_TAPS >= 2 * columns and layer.stride[0] <= _central_rows(columns)


REWRITES = {
    _SPLIT: Rewrite(
        "a depthwise convolution of more than 25 taps as the sum of those over its central rows, and pairs around them",
        ("fp32", "fp16", "dynamic", "int8"),
        _splits,
    ),
    **INT8_REWRITES,
}


def _central_rows(columns: int) -> int:
    """Return how many central rows a part has: as many as a fast kernel takes, and an odd number."""
    return (MOST_TAPS // columns - 1) // 2 * 2 + 1


def _parts(layer: Layer, position: int) -> list[Layer]:
    """Return the convolutions over pairs of rows, from the outside, and the central rows, and their sum.

    `position` is the first one's.
    """
    rows, columns = layer.kernel
    centre = _central_rows(columns)
    pairs = [(2, rows - 1 - 2 * row) for row in range((rows - centre) // 2)]
    layers = []
    for row, (taken, rate) in enumerate([*pairs, (centre, 1)]):
        part = layer._replace(name=f"{layer.name}{_TAPS}{row}", kernel=(taken, columns), dilation=(rate, 1))
        layers.append(part._replace(norm=False, activation="", path_drop=0.0))
    total = position
    for at in range(position + 1, position + len(layers)):
        layers.append(Layer("add", (total, at), layer.shape, f"{layer.name}.sum{at - position}", origin=layer.origin))
        total = position + len(layers) - 1
    layers[-1] = layers[-1]._replace(name=layer.name, activation=layer.activation, path_drop=layer.path_drop)
    return layers


def _weights_of_parts(graph: Graph, weights: "Weights") -> "Weights":
    """Return each part's taps, with the central one the bias, of convolutions that were given weights as a whole."""
    found: Weights = {}
    for layer in graph.layers:
        whole, _, row = layer.name.rpartition(_TAPS)
        if whole in weights:
            (weight, bias), rate = weights[whole], layer.dilation[0]
            taps = weight[:, :, int(row) : weight.shape[2] - int(row) : rate]
            found[layer.name] = (taps, bias if rate == 1 else np.zeros_like(bias))
    return found


def _runtime() -> Any:
    try:
        from ai_edge_litert import interpreter
    except ImportError:  # its predecessor has the same interface
        from tflite_runtime import interpreter
    return interpreter
