"""ONNX: written with `onnx.helper` from the graph, and ONNX Runtime, which runs it.

Activations are NCHW; the batch is dynamic. BatchNorm comes folded into the weights. Padding is the operators' own
attribute, uneven where TensorFlow's SAME is. ReLU is a node of its own in the file; ONNX Runtime fuses it on loading.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from hwnas.formats import Model, input_name, layer_weights, no_writer, not_written, output_name, unloadable
from hwnas.graph import Graph, Layer, fuse_relu, pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Array, Ranges, Weights

SUFFIX = ".onnx"
OPSET = 13  # the lowest with per-channel quantisation: ONNX 1.8, ONNX Runtime 1.6 and newer
IR_VERSION = 7  # the one that came with it
FACTS = {"fp32": {"opset": OPSET, "input": "NCHW float32", "batch": "dynamic"}}
_FUSES_RELU = frozenset({"conv", "linear"})  # what is left as one node in the model that ONNX Runtime has optimised
_BATCH = "batch"
_TO_THE_END = np.iinfo(np.int32).max


def lower(graph: Graph) -> Graph:
    """Return the layers that ONNX Runtime executes: a ReLU that alone reads a convolution or linear layer is fused."""
    return fuse_relu(graph, into=_FUSES_RELU)


def write(
    graph: Graph, weights: "Weights", *, metadata: Mapping[str, str] | None = None, ranges: "Ranges | None" = None
) -> bytes:
    """Return the .onnx file of a lowered graph, NCHW float32 with a dynamic batch; `weights` are in torch's layout.

    Raises ExportError for a layer of unknown kind, for missing or wrong weights, and for ranges: it writes no int8.
    """
    if ranges is not None:
        raise not_written("onnx", "int8", FACTS)
    writer = _Writer(graph, weights)
    for position in range(len(graph.layers)):
        writer.add_layer(position)
    model = writer.finish(metadata or {})
    checker.check_model(model)
    return bytes(model.SerializeToString())


def load(path: Path, *, threads: int = 1) -> Model:
    """Load a file; the function maps one NCHW float32 array per input to [n, classes], or NCHW if the output is 4-D.

    Raises ExportError if the file cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _refusals() as error:
        raise unloadable(path, error) from None
    names = [info.name for info in session.get_inputs()]

    def run(*inputs: "Array") -> "Array":
        output: Array
        (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
        return output

    return run


def _refusals() -> tuple[type[Exception], ...]:
    """Return the errors of a file that cannot be loaded; ONNX Runtime gives them no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    broken = (state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile, state.NoModel)
    return (*broken, state.NotImplemented, state.Fail, state.RuntimeException)


class _Writer:
    """Collects nodes and constants; a value is known by its name."""

    def __init__(self, graph: Graph, weights: "Weights") -> None:
        self.graph = graph
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.values: list[str] = []  # each layer's output

    def add_layer(self, position: int) -> None:
        layer = self.graph.layers[position]
        if layer.kind == "input":
            self.values.append(input_name(layer))
            return
        emit = _EMITTERS.get(layer.kind)
        if emit is None:
            raise no_writer("ONNX", layer)
        output = output_name(self.graph) if position == len(self.graph.layers) - 1 else layer.name
        self.values.append(output)
        inputs = [self.values[source] for source in layer.inputs]
        if layer.activation:
            before = f"{layer.name}.before_{layer.activation}"
            emit(self, layer, inputs, before)
            _EMITTERS[layer.activation](self, layer, [before], output)
        else:
            emit(self, layer, inputs, output)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def constant(self, name: str, value: "NDArray[Any]") -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def layer_constants(self, layer: Layer) -> list[str]:
        weight, bias = layer_weights(self.graph, layer, self.weights)
        return [self.constant(f"{layer.name}.weight", weight), self.constant(f"{layer.name}.bias", bias)]

    def pad(self, name: str, value: str, rows_columns: tuple[int, int], output: str) -> None:
        """Append rows and columns of zeros."""
        self.node("Pad", [value, self.integers(f"{name}.pads", [0, 0, 0, 0, 0, 0, *rows_columns])], output)

    def crop(self, name: str, value: str, output: str) -> None:
        """Drop the first row and column."""
        values = {"starts": [1, 1], "ends": [_TO_THE_END] * 2, "axes": [2, 3]}
        self.node("Slice", [value, *(self.integers(f"{name}.{key}", value) for key, value in values.items())], output)

    def finish(self, metadata: Mapping[str, str]) -> ModelProto:
        layers = self.graph.layers
        inputs = [_info(name, layer) for name, layer in zip(self.values, layers, strict=True) if layer.kind == "input"]
        outputs = [_info(self.values[-1], layers[-1])]
        graph = helper.make_graph(self.nodes, "hwnas", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hwnas")
        helper.set_model_props(model, dict(metadata))
        return model


def _info(name: str, layer: Layer) -> ValueInfoProto:
    shape = layer.shape[:1] if layer.kind == "linear" else layer.shape
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [_BATCH, *shape])


def _window(graph: Graph, layer: Layer) -> dict[str, Any]:
    """Return the attributes that convolutions and poolings share."""
    (shape,) = graph.input_shapes(layer)
    top, bottom, left, right = pads(layer, shape)
    return {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": (top, left, bottom, right)}


def _conv(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    attributes = _window(writer.graph, layer) | {"group": layer.groups, "dilations": [layer.dilation] * 2}
    writer.node("Conv", inputs + writer.layer_constants(layer), output, **attributes)


def _relu(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Relu", inputs, output)


def _relu6(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    limits = [
        writer.constant(f"{layer.name}.{name}", np.array(limit, dtype=np.float32))
        for name, limit in (("min", 0), ("max", 6))
    ]
    writer.node("Clip", [*inputs, *limits], output)


def _hard_sigmoid(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("HardSigmoid", inputs, output, alpha=1 / 6, beta=0.5)


def _hard_swish(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    """Write x hard_sigmoid(x): HardSwish is an operator from opset 14 on."""
    _hard_sigmoid(writer, layer, inputs, f"{layer.name}.factor")
    writer.node("Mul", [*inputs, f"{layer.name}.factor"], output)


def _mul(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Mul", inputs, output)


def _zero(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    """Write zeros for as many images as there are."""
    name = layer.name
    writer.node("Shape", inputs, f"{name}.input_shape")
    ends = [writer.integers(f"{name}.{key}", [value]) for key, value in (("start", 0), ("end", 1))]
    writer.node("Slice", [f"{name}.input_shape", *ends], f"{name}.batch")
    writer.node("Concat", [f"{name}.batch", writer.integers(f"{name}.sizes", [*layer.shape])], f"{name}.shape", axis=0)
    writer.node("ConstantOfShape", [f"{name}.shape"], output)


def _max_pool(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("MaxPool", inputs, output, **_window(writer.graph, layer))


def _avg_pool(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("AveragePool", inputs, output, count_include_pad=0, **_window(writer.graph, layer))


def _add(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Add", inputs, output)


def _concat(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Concat", inputs, output, axis=1)


def _shift(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    """Slice, then Pad odd sizes: in this order ONNX Runtime merges the Pad into the convolution that follows."""
    (shape,) = writer.graph.input_shapes(layer)
    name, _, height, width = layer.name, *shape
    if min(height, width) == 1:  # Slice would leave nothing to pad
        writer.pad(name, inputs[0], (height % 2, width % 2), f"{name}.pad")
        writer.crop(name, f"{name}.pad", output)
    elif height % 2 or width % 2:
        writer.crop(name, inputs[0], f"{name}.cut")
        writer.pad(name, f"{name}.cut", (height % 2, width % 2), output)
    else:
        writer.crop(name, inputs[0], output)


def _mean(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("GlobalAveragePool", inputs, output)


def _linear(writer: _Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Flatten", inputs, f"{layer.name}.flat", axis=1)
    writer.node("Gemm", [f"{layer.name}.flat", *writer.layer_constants(layer)], output, transB=1)


_EMITTERS: dict[str, Callable[[_Writer, Layer, list[str], str], None]] = {
    "conv": _conv,
    "relu": _relu,
    "relu6": _relu6,
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _hard_swish,
    "mul": _mul,
    "zero": _zero,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "add": _add,
    "concat": _concat,
    "shift": _shift,
    "mean": _mean,
    "linear": _linear,
}
