"""Which TFLite operators a layer becomes."""

from collections.abc import Callable

from ai_edge_litert import schema_py_generated as schema

from hwnas.errors import ExportError
from hwnas.formats import layer_weights, no_writer
from hwnas.formats._tflite_writer import ACTIVATIONS, Op, Writer
from hwnas.network import Layer

FUSES_RELU = frozenset({"conv", "max_pool", "avg_pool", "add", "mul", "linear"})
_FUSED = {
    "": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}


def add_layers(writer: Writer) -> None:
    """Add the operators of every layer of the writer's graph.

    Raises ExportError for a layer that TFLite cannot express, and for missing or wrong weights.
    """
    for layer in writer.graph.layers:
        if layer.kind == "input":
            writer.add_input(layer)
        elif layer.kind == "zero":
            writer.add_zeros(layer)
        else:
            _add_layer(writer, layer)


def _add_layer(writer: Writer, layer: Layer) -> None:
    emit = _EMITTERS.get(layer.kind)
    if emit is None:
        raise no_writer("TFLite", layer)
    if layer.activation and layer.kind not in FUSES_RELU:
        raise ExportError(
            f"{layer.name}: TFLite fuses no activation into {layer.kind}; lower the graph with tflite.lower"
        )
    inputs = [writer.values[source] for source in layer.inputs]
    emit(writer, layer, inputs, writer.add_output(layer))


def _fused(layer: Layer) -> int:
    return int(_FUSED[layer.activation])


def _conv(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
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
    options.dilationHFactor, options.dilationWFactor = layer.dilation
    options.fusedActivationFunction = _fused(layer)
    if depthwise:
        options.depthMultiplier = layer.shape[0] // channels
    weight = weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
    constants = writer.constants(layer, value, weight, bias, axis=3 if depthwise else 0)
    code = Op.DEPTHWISE_CONV_2D if depthwise else Op.CONV_2D
    version = 2 if depthwise and layer.dilation != (1, 1) else 1
    writer.operator(code, [value, *constants], output, options, version=version)


def _pool(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    value, padding = writer.padded(layer, inputs[0], lowest=True)
    if layer.kind == "avg_pool" and value != inputs[0] and padding == schema.Padding.VALID:
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
    writer.pool(layer, value, output, options)


def _activate(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.activate(layer, inputs[0], output)


def _hard_sigmoid(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    """Write relu6(x + 3) / 6."""
    three, sixth = (writer.scalar(value) for value in (3.0, 1 / 6))
    raised = writer.between(f"{layer.name}.raised", layer.shape, 0.0, 6.0)
    relu6 = schema.ActivationFunctionType.RELU6
    writer.operator(Op.ADD, [inputs[0], three], raised, schema.AddOptionsT(fusedActivationFunction=relu6))
    writer.operator(Op.MUL, [raised, sixth], output, schema.MulOptionsT())


def _mul(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(Op.MUL, inputs, output, schema.MulOptionsT(fusedActivationFunction=_fused(layer)))


def _add(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(Op.ADD, inputs, output, schema.AddOptionsT(fusedActivationFunction=_fused(layer)))


def _concat(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(Op.CONCATENATION, inputs, output, schema.ConcatenationOptionsT(axis=3))


def _slice(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.slice(inputs[0], layer.shape, output, begin=(0, 0, 0, layer.start))


def _shuffle(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    """RESHAPE, TRANSPOSE, RESHAPE, of four dimensions as not every delegate has five."""
    channels, height, width = layer.shape
    groups, pixels = layer.groups, height * width
    apart = writer.alike(f"{layer.name}.groups", (channels // groups, pixels, groups), inputs[0])
    turned = writer.alike(f"{layer.name}.turned", (groups, pixels, channels // groups), inputs[0])
    writer.reshape(inputs[0], apart)
    order = writer.integers([0, 1, 3, 2])
    writer.operator(Op.TRANSPOSE, [apart, order], turned, schema.TransposeOptionsT())
    writer.reshape(turned, output)


def _shift(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
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
        cropped = writer.crop(inputs[0], cut, writer.alike(f"{layer.name}.cut", cut, inputs[0]))
        writer.operator(Op.PAD, [cropped, writer.paddings(odd)], output, schema.PadOptionsT())
    else:
        writer.crop(inputs[0], layer.shape, output)


def _mean(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    writer.operator(Op.MEAN, [inputs[0], writer.integers([1, 2])], output, schema.ReducerOptionsT(keepDims=True))


def _linear(writer: Writer, layer: Layer, inputs: list[int], output: int) -> None:
    weight, bias = layer_weights(writer.graph, layer, writer.weights)
    (shape,) = writer.graph.input_shapes(layer)
    weight = weight.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    constants = writer.constants(layer, inputs[0], weight, bias, axis=0)
    options = schema.FullyConnectedOptionsT(fusedActivationFunction=_fused(layer))
    writer.operator(Op.FULLY_CONNECTED, [inputs[0], *constants], output, options)


_EMITTERS: dict[str, Callable[[Writer, Layer, list[int], int], None]] = {
    "conv": _conv,
    **dict.fromkeys(ACTIVATIONS, _activate),
    "hard_sigmoid": _hard_sigmoid,
    "mul": _mul,
    "max_pool": _pool,
    "avg_pool": _pool,
    "add": _add,
    "concat": _concat,
    "slice": _slice,
    "shuffle": _shuffle,
    "shift": _shift,
    "mean": _mean,
    "linear": _linear,
}
