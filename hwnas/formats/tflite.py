"""TFLite (LiteRT): hwnas's own writer, and the interpreter that runs what it writes.

Activations are NHWC, so that nothing is transposed; the batch is 1. BatchNorm comes folded into the weights, ReLU is
the fused activation of the operator before it. Padding is TensorFlow's SAME or VALID, a PAD only where neither fits.
Weights: convolution [out, height, width, in], depthwise [1, height, width, out], fully connected [out, in].

XNNPACK has no fast kernel for a depthwise convolution of more than 25 taps. Such a one is written as the sum of up to
four of rate 2 over its even and odd rows and columns: exact, and 4 to 9 times faster for 7x7.
"""

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwnas.errors import ExportError
from hwnas.formats import Model, input_name, layer_weights, no_weights, no_writer, output_name, unloadable
from hwnas.graph import Graph, Layer, Shape, fuse_relu, pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Array, Weights

SUFFIX = ".tflite"
FACTS = {"input": "NHWC float32", "batch": 1}
_FUSES_RELU = frozenset({"conv", "max_pool", "avg_pool", "add", "mul", "linear"})
_MOST_TAPS = 25  # of a fast depthwise kernel
_TAPS = ".taps"  # in the name of a part of a split convolution, followed by the first row and column of its taps
_ALIGNMENT = 16  # bytes: what the schema asks of a buffer's data
_Op = schema.BuiltinOperator
_ACTIVATIONS = {"relu": _Op.RELU, "relu6": _Op.RELU6, "hard_swish": _Op.HARD_SWISH}
_FUSED = {
    "": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
Sides = tuple[int, int, int, int]  # zeros at the top, bottom, left, right


def lower(graph: Graph) -> Graph:
    """Return the layers that LiteRT executes: ReLU fused into the operators with an activation, 7x7 depthwise split."""
    layers: list[Layer] = []
    position_of: list[int] = []
    for layer in fuse_relu(graph, into=_FUSES_RELU).layers:
        inputs = tuple(position_of[source] for source in layer.inputs)
        moved = layer if inputs == layer.inputs else layer._replace(inputs=inputs)
        layers += _parts(moved, len(layers)) if _splits(moved) else [moved]
        position_of.append(len(layers) - 1)
    return Graph(tuple(layers))


def write(graph: Graph, weights: "Weights", *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the .tflite file of a lowered graph, NHWC float32 with batch 1; `weights` are in torch's layout.

    Raises ExportError for a layer that TFLite cannot express, and for missing or wrong weights.
    """
    writer = _Writer(graph, weights | _weights_of_parts(graph, weights))
    for position in range(len(graph.layers)):
        writer.add_layer(position)
    return writer.finish(metadata or {})


def file_bytes(graph: Graph, *, precision: Literal["fp32", "int8"] = "fp32") -> int:
    """Return the size of the file of a lowered graph, without metadata: with fp32 to the byte that of `write`.

    With int8 it is an estimate, as nothing writes such files yet: one byte for a weight, four for a bias, and a scale
    (4 bytes) and a zero point (8) for each activation and for each channel of weights and biases, as converters do.
    """
    writer = _Sizer(graph, int8=precision == "int8")
    for position in range(len(graph.layers)):
        writer.add_layer(position)
    return len(writer.finish({})) + writer.left_out


def load(path: Path, *, threads: int = 1) -> Model:
    """Load a file; the function maps one NCHW float32 array per input to [n, classes], or NCHW if the output is 4-D.

    Raises ExportError if the file cannot be loaded.
    """
    try:
        interpreter = _interpreter()(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise unloadable(path, error) from None
    sources = [detail["index"] for detail in interpreter.get_input_details()]
    (target,) = (detail["index"] for detail in interpreter.get_output_details())

    def run(*inputs: "Array") -> "Array":
        outputs = []
        for image in zip(*inputs, strict=True):
            for source, value in zip(sources, image, strict=True):
                interpreter.set_tensor(source, np.ascontiguousarray(value.transpose(1, 2, 0)[None]))
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(target))
        output: Array = np.concatenate(outputs)
        return output.transpose(0, 3, 1, 2) if output.ndim == 4 else output

    return run


def _splits(layer: Layer) -> bool:
    """Whether a layer is too large for the fast depthwise kernels, and its parts are not.

    SAME puts the parts' taps where they were, if the kernel is odd, of rate 1 and larger than the stride by 2.
    """
    fits = layer.depthwise and layer.padding == "same" and layer.dilation == 1
    for size, stride in zip(layer.kernel, layer.stride, strict=True):
        fits &= size == 1 or (size % 2 == 1 and size >= stride + 2)
    return fits and prod(layer.kernel) > _MOST_TAPS >= prod((size + 1) // 2 for size in layer.kernel)


def _parts(layer: Layer, position: int) -> list[Layer]:
    """Return the convolutions over even and odd rows and columns, and their sum; `position` is the first one's."""
    layers = []
    for row, column in product(*(range(min(size, 2)) for size in layer.kernel)):
        name = f"{layer.name}{_TAPS}{row}{column}"
        kernel = (len(range(row, layer.kernel[0], 2)), len(range(column, layer.kernel[1], 2)))
        layers.append(layer._replace(name=name, kernel=kernel, dilation=2, norm=False, activation="", path_drop=0.0))
    total = position
    for part in range(position + 1, position + len(layers)):
        layers.append(Layer("add", (total, part), layer.shape, f"{layer.name}.sum{part - position}"))
        total = position + len(layers) - 1
    layers[-1] = layers[-1]._replace(name=layer.name, activation=layer.activation, path_drop=layer.path_drop)
    return layers


def _weights_of_parts(graph: Graph, weights: "Weights") -> "Weights":
    """Return each part's taps, and with the first part the bias, of convolutions that were given weights as a whole."""
    found: Weights = {}
    for layer in graph.layers:
        whole, _, start = layer.name.rpartition(_TAPS)
        if whole in weights:
            weight, bias = weights[whole]
            row, column = map(int, start)
            found[layer.name] = (weight[:, :, row::2, column::2], bias if start == "00" else np.zeros_like(bias))
    return found


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # its predecessor has the same interface
        from tflite_runtime.interpreter import Interpreter
    return Interpreter


class _Data:
    """A buffer's content; packed like `schema.BufferT`, but aligned."""

    def __init__(self, data: "NDArray[Any]") -> None:
        self.data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)

    def Pack(self, builder: Any) -> int:  # noqa: N802  the name that ModelT.Pack calls
        builder.Prep(_ALIGNMENT, len(self.data))
        data = builder.CreateNumpyVector(self.data)
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        packed: int = schema.BufferEnd(builder)
        return packed


class _Writer:
    """Collects tensors, buffers and operators; a tensor is known by its number."""

    def __init__(self, graph: Graph, weights: "Weights") -> None:
        self.graph = graph
        self.weights = weights
        self.buffers: list[Any] = [schema.BufferT()]  # number 0 stays empty: tensors without constant data
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}  # operator and version: its number
        self.values: list[int] = []  # each layer's output
        self.scalars: dict[float, int] = {}  # constants of one number, which several operators share
        self.small: dict[tuple[int, ...], int] = {}  # int32 constants, which several operators share

    def add_layer(self, position: int) -> None:
        layer = self.graph.layers[position]
        if layer.kind == "input":
            self.values.append(self.activation(input_name(layer), layer.shape))
            return
        if layer.kind == "zero":
            self.values.append(self.constant(layer.name, np.zeros(_nhwc(layer.shape), dtype=np.float32)))
            return
        emit = _EMITTERS.get(layer.kind)
        if emit is None:
            raise no_writer("TFLite", layer)
        if layer.activation and layer.kind not in _FUSES_RELU:
            raise ExportError(
                f"{layer.name}: TFLite fuses no activation into {layer.kind}; lower the graph with tflite.lower"
            )
        last = position == len(self.graph.layers) - 1
        name = output_name(self.graph) if last else layer.name
        output = self.tensor(name, self.shape(layer))
        self.values.append(output)
        emit(self, layer, [self.values[source] for source in layer.inputs], output)

    def shape(self, layer: Layer) -> list[int]:
        """Return the shape of a layer's output: [1, units] after a linear layer."""
        flat = layer.kind == "linear" or (
            layer.kind in _ACTIVATIONS and len(self.tensors[self.values[layer.inputs[0]]].shape) == 2
        )
        return [1, layer.shape[0]] if flat else _nhwc(layer.shape)

    def tensor(self, name: str, shape: list[int], *, kind: int = schema.TensorType.FLOAT32, buffer: int = 0) -> int:
        tensor = schema.TensorT(shape=shape, type=kind, buffer=buffer, name=name)
        tensor.quantization = schema.QuantizationParametersT()
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, name: str, shape: Shape) -> int:
        return self.tensor(name, _nhwc(shape))

    def constant(self, name: str, value: "NDArray[Any]", *, kind: int = schema.TensorType.FLOAT32) -> int:
        self.buffers.append(_Data(value))
        return self.tensor(name, list(value.shape), kind=kind, buffer=len(self.buffers) - 1)

    def scalar(self, value: float) -> int:
        if value not in self.scalars:
            self.scalars[value] = self.constant(f"scalar{len(self.scalars)}", np.array(value, dtype=np.float32))
        return self.scalars[value]

    def integers(self, values: "list[int] | list[list[int]]") -> int:
        array = np.array(values, dtype=np.int32)
        key = (*array.shape, *array.ravel().tolist())
        if key not in self.small:
            name = f"integers{len(self.small)}"
            self.small[key] = self.constant(name, array, kind=schema.TensorType.INT32)
        return self.small[key]

    def operator(self, code: int, inputs: list[int], output: int, options: Any, *, version: int = 1) -> None:
        number = self.codes.setdefault((code, version), len(self.codes))
        operator = schema.OperatorT(opcodeIndex=number, inputs=inputs, outputs=[output])
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(operator)

    def finish(self, metadata: Mapping[str, str]) -> bytes:
        entries = []
        for name, text in metadata.items():
            self.buffers.append(_Data(np.frombuffer(text.encode(), dtype=np.uint8)))
            entries.append(schema.MetadataT(name=name, buffer=len(self.buffers) - 1))
        model = schema.ModelT(
            version=3,
            description="hwnas",
            operatorCodes=[_code(code, version) for code, version in self.codes],
            subgraphs=[self.subgraph()],
            signatureDefs=[self.signature()],
            buffers=self.buffers,
            metadata=entries or None,
        )
        size = sum(len(buffer.data) for buffer in self.buffers[1:])
        builder = flatbuffers.Builder(size + (1 << 16))
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    @property
    def inputs(self) -> list[int]:
        pairs = zip(self.graph.layers, self.values, strict=True)
        return [value for layer, value in pairs if layer.kind == "input"]

    def subgraph(self) -> Any:
        return schema.SubGraphT(
            name="main",
            tensors=self.tensors,
            inputs=self.inputs,
            outputs=[self.values[-1]],
            operators=self.operators,
        )

    def signature(self) -> Any:
        def entry(tensor: int) -> Any:
            return schema.TensorMapT(name=self.tensors[tensor].name, tensorIndex=tensor)

        return schema.SignatureDefT(
            signatureKey="serving_default",
            inputs=[entry(value) for value in self.inputs],
            outputs=[entry(self.values[-1])],
        )

    def padded(self, layer: Layer, value: int, *, fill: float = 0.0) -> tuple[int, int]:
        """Return what a window reads and its padding scheme, with a PAD before it where no scheme fits."""
        (shape,) = self.graph.input_shapes(layer)
        sides = pads(layer, shape)
        if not any(sides):
            return value, schema.Padding.VALID
        if sides == pads(layer._replace(padding="same"), shape):
            return value, schema.Padding.SAME
        return self.pad(f"{layer.name}.pad", value, shape, sides=sides, fill=fill), schema.Padding.VALID

    def pad(self, name: str, value: int, shape: Shape, *, sides: Sides, fill: float = 0.0) -> int:
        top, bottom, left, right = sides
        channels, height, width = shape
        output = self.activation(name, (channels, height + top + bottom, width + left + right))
        if fill == 0.0:
            self.operator(_Op.PAD, [value, self.paddings(sides)], output, schema.PadOptionsT())
        else:
            filler = self.constant(f"{name}.fill", np.array([fill], dtype=np.float32))
            self.operator(_Op.PADV2, [value, self.paddings(sides), filler], output, schema.PadV2OptionsT())
        return output

    def paddings(self, sides: Sides) -> int:
        top, bottom, left, right = sides
        return self.integers([[0, 0], [top, bottom], [left, right], [0, 0]])

    def crop(self, value: int, shape: Shape, output: int) -> int:
        """Drop the first row and column, and what is beyond `shape`."""
        inputs = [value, self.integers([0, 1, 1, 0]), self.integers(_nhwc(shape))]
        self.operator(_Op.SLICE, inputs, output, schema.SliceOptionsT())
        return output


class _Sizer(_Writer):
    """A writer that leaves out most of the constants' bytes, and counts them: `left_out`."""

    def __init__(self, graph: Graph, *, int8: bool) -> None:
        super().__init__(graph, no_weights(graph))
        self.left_out = 0
        self._int8 = int8
        self._channels = {layer.name: layer.shape[0] for layer in graph.layers}

    def constant(self, name: str, value: "NDArray[Any]", *, kind: int = schema.TensorType.FLOAT32) -> int:
        quantised = self._int8 and kind == schema.TensorType.FLOAT32
        size = value.size if quantised and not name.endswith(".bias") else value.nbytes
        kept = size % _ALIGNMENT  # so that everything is aligned as in the whole file
        self.left_out += size - kept
        self.buffers.append(_Data(np.zeros(kept, dtype=np.uint8)))
        return self.tensor(name, list(value.shape), kind=kind, buffer=len(self.buffers) - 1)

    def tensor(self, name: str, shape: list[int], *, kind: int = schema.TensorType.FLOAT32, buffer: int = 0) -> int:
        number = super().tensor(name, shape, kind=kind, buffer=buffer)
        if self._int8 and kind == schema.TensorType.FLOAT32:
            layer, _, part = name.rpartition(".")
            channels = self._channels[layer] if part in ("weight", "bias") else 1
            self.tensors[number].type = schema.TensorType.INT32 if part == "bias" else schema.TensorType.INT8
            self.tensors[number].quantization = schema.QuantizationParametersT(
                scale=np.ones(channels, dtype=np.float32), zeroPoint=np.zeros(channels, dtype=np.int64)
            )
        return number


def _code(code: int, version: int) -> Any:
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)


def _nhwc(shape: Shape) -> list[int]:
    return [1, shape[1], shape[2], shape[0]]


def _fused(layer: Layer) -> int:
    return int(_FUSED[layer.activation])


def _conv(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    weight, bias = layer_weights(writer.graph, layer, writer.weights)
    value, padding = writer.padded(layer, inputs[0])
    channels = writer.graph.input_shapes(layer)[0][0]
    depthwise = 1 < layer.groups == channels
    if layer.groups not in (1, channels):
        raise ExportError(
            f"{layer.name}: hwnas writes TFLite convolutions of 1 group or of 1 channel a group; got {layer.groups} "
            f"groups of {channels} channels. Use a space without grouped convolutions, or the runtime onnx"
        )
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    options.padding = padding
    options.strideH, options.strideW = layer.stride
    options.dilationHFactor = options.dilationWFactor = layer.dilation
    options.fusedActivationFunction = _fused(layer)
    if depthwise:
        options.depthMultiplier = layer.shape[0] // channels
    constants = [
        writer.constant(f"{layer.name}.weight", weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))),
        writer.constant(f"{layer.name}.bias", bias),
    ]
    code = _Op.DEPTHWISE_CONV_2D if depthwise else _Op.CONV_2D
    version = 2 if depthwise and layer.dilation > 1 else 1
    writer.operator(code, [value, *constants], output, options, version=version)


def _pool(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    maximum = layer.kind == "max_pool"
    value, padding = writer.padded(layer, inputs[0], fill=float(np.finfo(np.float32).min))
    if not maximum and value != inputs[0]:
        raise ExportError(
            f"{layer.name}: TFLite has no average pooling with symmetric padding where that differs from SAME. "
            'Use padding "same", or the runtime onnx'
        )
    options = schema.Pool2DOptionsT(
        padding=padding,
        strideH=layer.stride[0],
        strideW=layer.stride[1],
        filterHeight=layer.kernel[0],
        filterWidth=layer.kernel[1],
        fusedActivationFunction=_fused(layer),
    )
    writer.operator(_Op.MAX_POOL_2D if maximum else _Op.AVERAGE_POOL_2D, [value], output, options)


def _activate(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(_ACTIVATIONS[layer.kind], inputs, output, None)


def _hard_sigmoid(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    """Write relu6(x + 3) / 6."""
    three, sixth = (writer.scalar(value) for value in (3.0, 1 / 6))
    raised = writer.activation(f"{layer.name}.raised", layer.shape)
    relu6 = schema.ActivationFunctionType.RELU6
    writer.operator(_Op.ADD, [inputs[0], three], raised, schema.AddOptionsT(fusedActivationFunction=relu6))
    writer.operator(_Op.MUL, [raised, sixth], output, schema.MulOptionsT())


def _mul(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(_Op.MUL, inputs, output, schema.MulOptionsT(fusedActivationFunction=_fused(layer)))


def _add(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(_Op.ADD, inputs, output, schema.AddOptionsT(fusedActivationFunction=_fused(layer)))


def _concat(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(_Op.CONCATENATION, inputs, output, schema.ConcatenationOptionsT(axis=3))


def _shift(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    """SLICE, then PAD odd sizes.

    In this order XNNPACK merges the PAD into the convolution that follows: a third less for a factorised reduction.
    """
    (shape,) = writer.graph.input_shapes(layer)
    channels, height, width = shape
    odd = (0, height % 2, 0, width % 2)
    if min(height, width) == 1:  # SLICE would leave nothing to pad
        writer.crop(writer.pad(f"{layer.name}.pad", inputs[0], shape, sides=odd), layer.shape, output)
    elif any(odd):
        cut = (channels, height - 1, width - 1)
        cropped = writer.crop(inputs[0], cut, writer.activation(f"{layer.name}.cut", cut))
        writer.operator(_Op.PAD, [cropped, writer.paddings(odd)], output, schema.PadOptionsT())
    else:
        writer.crop(inputs[0], layer.shape, output)


def _mean(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(_Op.MEAN, [inputs[0], writer.integers([1, 2])], output, schema.ReducerOptionsT(keepDims=True))


def _linear(writer: _Writer, layer: Layer, inputs: list[int], output: int) -> None:
    weight, bias = layer_weights(writer.graph, layer, writer.weights)
    (shape,) = writer.graph.input_shapes(layer)
    weight = weight.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    constants = [writer.constant(f"{layer.name}.weight", weight), writer.constant(f"{layer.name}.bias", bias)]
    options = schema.FullyConnectedOptionsT(fusedActivationFunction=_fused(layer))
    writer.operator(_Op.FULLY_CONNECTED, [inputs[0], *constants], output, options)


_EMITTERS: dict[str, Callable[[_Writer, Layer, list[int], int], None]] = {
    "conv": _conv,
    **dict.fromkeys(_ACTIVATIONS, _activate),
    "hard_sigmoid": _hard_sigmoid,
    "mul": _mul,
    "max_pool": _pool,
    "avg_pool": _pool,
    "add": _add,
    "concat": _concat,
    "shift": _shift,
    "mean": _mean,
    "linear": _linear,
}
