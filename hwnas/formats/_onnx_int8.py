"""Full int8 for .onnx files: QDQ, the numbers those of onnxruntime's `quantize_static`.

Activations are uint8 with a scale and a zero point each, weights int8 with a scale per output channel (u8s8: s8s8 runs
half as fast on x86), biases int32. Weights have 7 bits: on x86 without VNNI two products are added in 16 bits, which
2 x 255 x 127 overflows; it is clipped, and networks came out wrong by two thirds of their largest output. Max pooling,
shifts, slices and shuffles copy numbers, so they write in the scale that they read.

onnxruntime's `QDQQuantizer` would take ranges as well, but takes 2 s for 94 layers, and more than in proportion. And
ONNX Runtime has no int8 kernel for HardSigmoid and for a ReLU by itself, and a slow one for AveragePool: what is
written in their place is all int8, so that only what a network reads and writes is converted.
"""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, helper

from hwnas.errors import ExportError
from hwnas.formats import input_name, layer_weights, output_name, pixels_in_windows
from hwnas.formats._onnx_writer import Writer, window
from hwnas.formats._quantisation import Quantisation
from hwnas.network import Graph, Layer, fuse_relu

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Array, Ranges, Weights

SCALES = "scales"  # in the metadata of a layer by itself: scale and zero point of its inputs and output, by name
_HIGHEST = 255
HIGHEST_WEIGHT = 64  # where there are no instructions for it, ONNX Runtime adds two products of u8 x s8 in 16 bits
_MOVES = frozenset({"shift", "slice", "shuffle"})  # whose operators are those of fp32
_CLIPS = frozenset({"conv", "linear", "add", "mul", "mean", "concat", "avg_pool"})  # what rescales may clip as well
_MOST_BIAS = 2**30  # half of what int32 holds, as the accumulator adds to it


class Int8Writer(Writer):
    """Writes a lowered graph in int8; `ranges` are the smallest and largest value of each layer, by its name.

    A layer by itself reads and writes uint8, a network float32, or reads bytes, which span the input's range.
    Raises ExportError for a layer without a range.
    """

    def __init__(self, graph: Graph, weights: "Weights", ranges: "Ranges", *, uint8_input: bool = False) -> None:
        super().__init__(fuse_relu(graph, into=_CLIPS), weights, uint8_input=uint8_input)
        self.alone = graph.layers[0].name != "input"
        self.edges = TensorProto.UINT8 if self.alone else TensorProto.FLOAT
        self.numbers: dict[str, str] = {}  # by the value that dequantises them
        self.scales: list[Quantisation] = []
        for layer in self.graph.layers:
            copies = layer.kind in _MOVES or (layer.kind == "max_pool" and not layer.activation)
            self.scales.append(self.scales[layer.inputs[0]] if copies else _scale(layer, ranges))

    def add_layer(self, position: int) -> None:
        """Add the layer at a position of the graph; its value is what dequantises its numbers."""
        layer, scale = self.graph.layers[position], self.scales[position]
        if layer.kind != "input":
            super().add_layer(position)
            return
        name = input_name(layer)
        numbers = name if self.alone or self.uint8_input else self.quantise(name, scale)
        self.values.append(self.dequantise(numbers, scale, f"{name}.dequantised"))

    def add_operator(self, layer: Layer, inputs: list[str], output: str) -> None:
        """Add what a layer computes, quantised; a fused ReLU is where its range ends."""
        last = len(self.values) == len(self.graph.layers)
        numbers = output if last and self.alone else f"{output}.quantised"
        if layer.kind == "zero":
            point = helper.make_tensor("value", TensorProto.UINT8, [1], [self.scale.zero_point])
            self.fill(layer, [input_name(self.graph.layers[layer.inputs[0]])], numbers, point)
        elif layer.kind in _MOVES:
            self.emitter(layer, layer.kind)(self, layer, [self.numbers[inputs[0]]], numbers)
        else:
            computed = f"{output}.computed"
            self._compute(layer, inputs, computed)
            self.quantise(computed, _six_times(self.scale) if layer.kind == "hard_sigmoid" else self.scale, numbers)
        if numbers != output:
            self.dequantise(numbers, self.scale, output)

    @property
    def scale(self) -> Quantisation:
        """The scale of the layer that is being added."""
        return self.scales[len(self.values) - 1]

    def _compute(self, layer: Layer, inputs: list[str], output: str) -> None:
        own: dict[str, Callable[[Layer, list[str], str], None]] = {
            "relu": self._relu,
            "relu6": self._relu,
            "hard_sigmoid": self._raise,
            "hard_swish": self._hard_swish,
            "avg_pool": self._avg_pool,
        }
        if layer.kind in own:
            own[layer.kind](layer, inputs, output)
        else:
            self.emitter(layer, layer.kind)(self, layer, inputs, output)

    def _relu(self, layer: Layer, inputs: list[str], output: str) -> None:
        """Add a leaky ReLU of slope 0, which has an int8 kernel; it ends where its range does."""
        self.node("LeakyRelu", inputs, output, alpha=0.0)

    def _raise(self, layer: Layer, inputs: list[str], output: str) -> None:
        """Add x + 3, for hard_sigmoid(x): quantising clips it to between 0 and 6, dequantising divides by 6."""
        three = self.quantised_constant(f"{layer.name}.three", np.array(_HIGHEST, dtype=np.uint8), 3 / _HIGHEST)
        self.node("Add", [*inputs, three], output)

    def _hard_swish(self, layer: Layer, inputs: list[str], output: str) -> None:
        """Add x hard_sigmoid(x)."""
        raised, factor = f"{layer.name}.raised", f"{layer.name}.factor"
        self._raise(layer, inputs, raised)
        read = self.scales[layer.inputs[0]]
        scale = Quantisation.of(0.0, min(read.step * (_HIGHEST - read.zero_point) / 6 + 0.5, 1.0), lowest=0)
        self.dequantise(self.quantise(raised, _six_times(scale)), scale, factor)
        self.node("Mul", [*inputs, factor], output)

    def _avg_pool(self, layer: Layer, inputs: list[str], output: str) -> None:
        """Add a depthwise convolution, and Mul where windows hang over the border.

        The convolution divides by the largest number of pixels in a window, Mul makes up for those that have fewer.
        """
        channels = layer.shape[0]
        counts = pixels_in_windows(layer, self.graph.input_shapes(layer)[0])
        even = bool((counts == counts.max()).all())
        average = output if even else f"{layer.name}.average"
        weight = np.full((channels, 1, *layer.kernel), 1 / counts.max(), dtype=np.float32)
        constants = self._channel_constants(layer, weight, np.zeros(channels, dtype=np.float32))
        self.node("Conv", [*inputs, *constants], average, group=channels, **window(self.graph, layer))
        if not even:
            average = self.dequantise(self.quantise(average, self.scale), self.scale, f"{average}.dequantised")
            factors = counts.max() / counts
            one = np.floor(_HIGHEST / factors.max())
            numbers = np.rint(factors * one).astype(np.uint8)[None, None]
            self.node("Mul", [average, self.quantised_constant(f"{layer.name}.factors", numbers, 1 / one)], output)

    def rounded(self, layer: Layer, value: str) -> str:
        """Return a value, quantised in the scale that the layer reads, and dequantised."""
        scale = self.scales[layer.inputs[0]]
        return self.dequantise(self.quantise(value, scale), scale, f"{value}.dequantised")

    def quantise(self, value: str, scale: Quantisation, output: str = "") -> str:
        """Add QuantizeLinear; return the numbers' name."""
        output = output or f"{value}.quantised"
        self.node("QuantizeLinear", [value, *self._parameters(f"{output}.written", scale)], output)
        return output

    def dequantise(self, numbers: str, scale: Quantisation, output: str) -> str:
        """Add DequantizeLinear; return the value's name."""
        self.node("DequantizeLinear", [numbers, *self._parameters(f"{output}.read", scale)], output)
        self.numbers[output] = numbers
        return output

    def pad(self, name: str, value: str, rows_columns: tuple[int, int], output: str) -> None:
        """Append rows and columns of the number that stands for 0."""
        ends = self.integers(f"{name}.pads", [0, 0, 0, 0, 0, 0, *rows_columns])
        zero = self.constant(f"{name}.zero", np.array(self.scale.zero_point, dtype=np.uint8))
        self.node("Pad", [value, ends, zero], output)

    def quantised_constant(self, name: str, numbers: "NDArray[np.uint8]", step: float) -> str:
        """Add a constant of uint8 numbers; return the name of its value."""
        return self.dequantise(self.constant(f"{name}.quantised", numbers), Quantisation(step, 0), name)

    def layer_constants(self, layer: Layer) -> list[str]:
        """Add a layer's weight, a scale for each output channel, and its bias; return the names of their values."""
        return self._channel_constants(layer, *layer_weights(self.graph, layer, self.weights))

    def _channel_constants(self, layer: Layer, weight: "Array", bias: "Array") -> list[str]:
        """Add a weight, a scale for each output channel, and a bias; return the names of their values."""
        input_step = self.scales[layer.inputs[0]].step
        largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim))).astype(np.float64)
        steps = largest / HIGHEST_WEIGHT
        steps[steps < np.finfo(np.float32).tiny] = 1.0
        # a tiny weight beside a bias: the bias must be held as well
        steps = np.maximum(steps, np.abs(bias) / (input_step * _MOST_BIAS)).astype(np.float32)
        numbers = np.rint(weight / steps.reshape(-1, *[1] * (weight.ndim - 1))).clip(-HIGHEST_WEIGHT, HIGHEST_WEIGHT)
        bias_steps = np.float32(input_step) * steps
        biases = np.rint(bias / bias_steps.astype(np.float64)).astype(np.int32)
        return [
            self._channels(f"{layer.name}.weight", numbers.astype(np.int8), steps),
            self._channels(f"{layer.name}.bias", biases, bias_steps),
        ]

    def _channels(self, name: str, numbers: "NDArray[np.int8] | NDArray[np.int32]", steps: "Array") -> str:
        inputs = [
            self.constant(f"{name}.quantised", numbers),
            self.constant(f"{name}.scale", steps),
            self.constant(f"{name}.zero_point", np.zeros(len(steps), dtype=numbers.dtype)),
        ]
        self.node("DequantizeLinear", inputs, name, axis=0)
        return name

    def _parameters(self, name: str, scale: Quantisation) -> list[str]:
        return [
            self.constant(f"{name}.scale", np.array(scale.step, dtype=np.float32)),
            self.constant(f"{name}.zero_point", np.array(scale.zero_point, dtype=np.uint8)),
        ]

    def finish(self, metadata: Mapping[str, str], *, opset: int, batch: int | None) -> ModelProto:
        """Return the model; that of a layer by itself says what its numbers stand for."""
        if self.alone:
            names = [input_name(layer) for layer in self.graph.layers if layer.kind == "input"]
            scales = dict(zip(names, self.scales, strict=False)) | {output_name(self.graph): self.scales[-1]}
            metadata = {**metadata, SCALES: json.dumps(scales)}
        self._drop_unread()
        return super().finish(metadata, opset=opset, batch=batch)

    def _drop_unread(self) -> None:
        """Drop the values whose numbers alone are read."""
        needed, kept = {output_name(self.graph)}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        self.nodes = kept[::-1]
        self.constants = [one for one in self.constants if one.name in needed]


def _six_times(scale: Quantisation) -> Quantisation:
    """Return what hard_sigmoid(x) = relu6(x + 3) / 6 is quantised with before the division, which is for free."""
    return Quantisation(6 * scale.step, 0)


def _scale(layer: Layer, ranges: "Ranges") -> Quantisation:
    if layer.name not in ranges:
        raise ExportError(
            f"in int8 every layer needs the range of its output; {layer.name!r} has none. "
            "Take them from images: onnx.calibrate(lowered graph, weights, images)"
        )
    low, high = ranges[layer.name]
    if layer.kind == "hard_sigmoid":
        low, high = 0.0, min(high, 1.0)
    match layer.activation or layer.kind:
        case "relu":
            low, high = 0.0, max(high, 0.0)
        case "relu6":
            low, high = 0.0, min(max(high, 0.0), 6.0)
    return Quantisation.of(low, high, lowest=0)
