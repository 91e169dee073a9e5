"""The writer of .onnx files: a graph's layers as nodes and constants, by `onnx.helper`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hwnas.formats import input_name, layer_weights, no_writer, output_name
from hwnas.network import Graph, Layer, pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Weights

_BATCH = "batch"
_TO_THE_END = np.iinfo(np.int32).max


Emitter = Callable[["Writer", Layer, list[str], str], None]


class Writer:
    """Collects nodes and constants; a value is known by its name. With `uint8_input` the file reads bytes.

    Raises ExportError for a layer of unknown kind, and for missing or wrong weights.
    """

    edges = TensorProto.FLOAT  # of inputs, unless these are bytes, and of the output

    def __init__(self, graph: Graph, weights: "Weights", *, uint8_input: bool = False) -> None:
        self.graph = graph
        self.weights = weights
        self.uint8_input = uint8_input
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.values: list[str] = []  # each layer's output

    def add_layer(self, position: int) -> None:
        """Add the layer at a position of the graph; those before it must have been added."""
        layer = self.graph.layers[position]
        if layer.kind == "input":
            self.add_input(layer)
            return
        output = output_name(self.graph) if position == len(self.graph.layers) - 1 else layer.name
        self.values.append(output)
        self.add_operator(layer, [self.values[source] for source in layer.inputs], output)

    def add_input(self, layer: Layer) -> None:
        """Add an input, and of bytes the DequantizeLinear that makes 255 stand for 1."""
        name = input_name(layer)
        if self.uint8_input:
            step = self.constant(f"{name}.scale", np.array(1 / 255, dtype=np.float32))
            self.node("DequantizeLinear", [name, step], f"{name}.fp32")
            name = f"{name}.fp32"
        self.values.append(name)

    def add_operator(self, layer: Layer, inputs: list[str], output: str) -> None:
        """Add what a layer computes, and its activation function."""
        if layer.activation:
            before = f"{layer.name}.before_{layer.activation}"
            self.emitter(layer, layer.kind)(self, layer, inputs, before)
            self.emitter(layer, layer.activation)(self, layer, [before], output)
        else:
            self.emitter(layer, layer.kind)(self, layer, inputs, output)

    def add_layers(self) -> None:
        """Add all layers."""
        for position in range(len(self.graph.layers)):
            self.add_layer(position)

    def emitter(self, layer: Layer, kind: str) -> "Emitter":
        """Return the function that adds an operator of a kind, which is the layer's or its activation's."""
        if kind not in _EMITTERS:
            raise no_writer("ONNX", layer)
        return _EMITTERS[kind]

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Add a node, named like its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def constant(self, name: str, value: "NDArray[Any]") -> str:
        """Add a constant; return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        """Add a constant of whole numbers; return its name."""
        return self.constant(name, np.array(values, dtype=np.int64))

    def layer_constants(self, layer: Layer) -> list[str]:
        """Add a layer's weight and bias; return their names."""
        weight, bias = layer_weights(self.graph, layer, self.weights)
        return [self.constant(f"{layer.name}.weight", weight), self.constant(f"{layer.name}.bias", bias)]

    def pad(self, name: str, value: str, rows_columns: tuple[int, int], output: str) -> None:
        """Append rows and columns of zeros."""
        self.node("Pad", [value, self.integers(f"{name}.pads", [0, 0, 0, 0, 0, 0, *rows_columns])], output)

    def crop(self, name: str, value: str, output: str) -> None:
        """Drop the first row and column."""
        values = {"starts": [1, 1], "ends": [_TO_THE_END] * 2, "axes": [2, 3]}
        self.node("Slice", [value, *(self.integers(f"{name}.{key}", value) for key, value in values.items())], output)

    def fill(self, layer: Layer, inputs: list[str], output: str, value: TensorProto) -> None:
        """Add a value of the layer's shape, the same everywhere, for as many images as there are."""
        name = layer.name
        self.node("Shape", inputs, f"{name}.input_shape")
        ends = [self.integers(f"{name}.{key}", [end]) for key, end in (("start", 0), ("end", 1))]
        self.node("Slice", [f"{name}.input_shape", *ends], f"{name}.batch")
        self.node("Concat", [f"{name}.batch", self.integers(f"{name}.sizes", [*layer.shape])], f"{name}.shape", axis=0)
        self.node("ConstantOfShape", [f"{name}.shape"], output, value=value)

    def rounded(self, layer: Layer, value: str) -> str:
        """Return a value between two operators that copy a layer's numbers, in the precision of the file."""
        return value

    def finish(self, metadata: Mapping[str, str], *, opset: int, batch: int | None) -> ModelProto:
        """Return the model, of a dynamic batch without `batch`; `metadata` is kept in it."""
        layers = self.graph.layers
        inputs = [self._info(input_name(layer), layer, batch) for layer in layers if layer.kind == "input"]
        outputs = [self._info(output_name(self.graph), layers[-1], batch)]
        graph = helper.make_graph(self.nodes, "hwnas", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", opset)]
        version = helper.find_min_ir_version_for(opsets)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="hwnas")
        helper.set_model_props(model, dict(metadata))
        return model

    def _info(self, name: str, layer: Layer, batch: int | None) -> ValueInfoProto:
        shape = layer.shape[:1] if layer.kind == "linear" else layer.shape
        kind = TensorProto.UINT8 if self.uint8_input and layer.kind == "input" else self.edges
        return helper.make_tensor_value_info(name, kind, [batch or _BATCH, *shape])


def window(graph: Graph, layer: Layer) -> dict[str, Any]:
    """Return the attributes that convolutions and poolings share."""
    (shape,) = graph.input_shapes(layer)
    top, bottom, left, right = pads(layer, shape)
    return {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": (top, left, bottom, right)}


def _conv(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    attributes = window(writer.graph, layer) | {"group": layer.groups, "dilations": [*layer.dilation]}
    writer.node("Conv", inputs + writer.layer_constants(layer), output, **attributes)


def _relu(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Relu", inputs, output)


def _relu6(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    limits = [
        writer.constant(f"{layer.name}.{name}", np.array(limit, dtype=np.float32))
        for name, limit in (("min", 0), ("max", 6))
    ]
    writer.node("Clip", [*inputs, *limits], output)


def _hard_sigmoid(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("HardSigmoid", inputs, output, alpha=1 / 6, beta=0.5)


def _hard_swish(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    """Write x hard_sigmoid(x): HardSwish is an operator from opset 14 on."""
    _hard_sigmoid(writer, layer, inputs, f"{layer.name}.factor")
    writer.node("Mul", [*inputs, f"{layer.name}.factor"], output)


def _mul(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Mul", inputs, output)


def _zero(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.fill(layer, inputs, output, helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0]))


def _max_pool(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("MaxPool", inputs, output, **window(writer.graph, layer))


def _avg_pool(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("AveragePool", inputs, output, count_include_pad=0, **window(writer.graph, layer))


def _add(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Add", inputs, output)


def _concat(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Concat", inputs, output, axis=1)


def _slice(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    values = {"starts": layer.start, "ends": layer.start + layer.shape[0], "axes": 1}
    ends = [writer.integers(f"{layer.name}.{key}", [value]) for key, value in values.items()]
    writer.node("Slice", [*inputs, *ends], output)


def _shuffle(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    name, (channels, height, width) = layer.name, layer.shape
    apart = writer.integers(f"{name}.apart", [0, layer.groups, channels // layer.groups, height * width])
    joined = writer.integers(f"{name}.joined", [0, channels, height, width])  # 0: the batch, as it is
    writer.node("Reshape", [*inputs, apart], f"{name}.groups")
    writer.node("Transpose", [f"{name}.groups"], f"{name}.turned", perm=[0, 2, 1, 3])
    writer.node("Reshape", [f"{name}.turned", joined], output)


def _shift(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    """Slice, then Pad odd sizes: in this order ONNX Runtime merges the Pad into the convolution that follows.

    Not before a pooling: it would merge the Pad there as well, and zeros are no padding of a pooling.
    """
    (shape,) = writer.graph.input_shapes(layer)
    name, _, height, width = layer.name, *shape
    readers = writer.graph.consumers[len(writer.values) - 1]
    pooled = any(writer.graph.layers[reader].kind in ("max_pool", "avg_pool") for reader in readers)
    if pooled or min(height, width) == 1:  # of one row or column Slice would leave nothing to pad
        writer.pad(name, inputs[0], (height % 2, width % 2), f"{name}.pad")
        writer.crop(name, f"{name}.pad", output)
    elif height % 2 or width % 2:
        writer.crop(name, inputs[0], f"{name}.cut")
        writer.pad(name, f"{name}.cut", (height % 2, width % 2), output)
    else:
        writer.crop(name, inputs[0], output)


def _mean(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("GlobalAveragePool", inputs, output)


def _linear(writer: Writer, layer: Layer, inputs: list[str], output: str) -> None:
    writer.node("Flatten", inputs, f"{layer.name}.flat", axis=1)
    flat = writer.rounded(layer, f"{layer.name}.flat")
    writer.node("Gemm", [flat, *writer.layer_constants(layer)], output, transB=1)


_EMITTERS: dict[str, Emitter] = {
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
    "slice": _slice,
    "shuffle": _shuffle,
    "shift": _shift,
    "mean": _mean,
    "linear": _linear,
}
