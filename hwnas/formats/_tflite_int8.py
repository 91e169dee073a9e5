"""Full int8 for .tflite files, by TFLite's 8-bit specification.

Activations have a scale and a zero point each, weights of convolutions and classifier a scale per output channel and
the numbers -127 to 127, biases int32. Max pooling, shifts, slices, shuffles and concatenations copy numbers, so what
they read and write shares one scale: that of the union of the ranges. Whatever computes what they read rescales anyway,
at no cost.

XNNPACK takes no RELU, HARD_SWISH or AVERAGE_POOL_2D by itself in int8; TFLite's own kernels are 5 to 45 times slower
than the operators that are written in their place: REWRITES.
"""

from collections.abc import Collection
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwnas.errors import ExportError
from hwnas.formats import Rewrite, input_name, pixels_in_windows
from hwnas.formats._quantisation import Quantisation
from hwnas.formats._tflite_writer import MOST_TAPS, POOLINGS, Op, Writer, depthwise
from hwnas.network import Graph, Layer, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Array, Ranges, Weights

_LOWEST, _HIGHEST = -128, 127
_COPIES = frozenset({"max_pool", "shift", "slice", "shuffle", "concat"})  # whose inputs must have the output's scale
_MOST_BIAS = 2**30  # half of what int32 holds, as the accumulator adds to it
_SMALLEST = 1e-9  # scale of a weight: that of a channel of zeros, too
_AT_ONCE = 2**22  # weights
_CLIPPED_AT_6 = 6.01  # the top of a range that ends at 6, rounded
_QUANTIZE, _CONVOLVE, _ARITHMETIC = "quantize-for-relu", "convolution-for-average", "arithmetic-for-hard-swish"
_VERSIONS = {  # the first ones with int8, of LiteRT's op_version.cc
    Op.CONV_2D: 3,
    Op.DEPTHWISE_CONV_2D: 3,
    Op.FULLY_CONNECTED: 4,
    Op.ADD: 2,
    Op.MUL: 2,
    Op.MAX_POOL_2D: 2,
    Op.AVERAGE_POOL_2D: 2,
    Op.CONCATENATION: 2,
    Op.MEAN: 2,
    Op.SLICE: 2,
    Op.TRANSPOSE: 2,
    Op.PAD: 2,
    Op.PADV2: 2,
    Op.RELU: 2,
    Op.RELU6: 2,
}


class Int8Writer(Writer):
    """Writes a graph in int8; `ranges` are the smallest and largest value of each layer, by its name.

    Of REWRITES it does those that it is not to be `without`. Raises ExportError for a layer without a range.
    """

    def __init__(
        self,
        graph: Graph,
        weights: "Weights",
        ranges: "Ranges",
        *,
        uint8_input: bool = False,
        batch: int = 1,
        without: Collection[str] = (),
        sized_only: bool = False,
    ) -> None:
        super().__init__(graph, weights, uint8_input=uint8_input, batch=batch, sized_only=sized_only)
        self._without = without
        self._ranges = ranges
        self._scales = _layer_scales(graph, ranges, convolves=_CONVOLVE not in without)

    def add_input(self, layer: Layer) -> None:
        """Add an input of the file, and of bytes, which span the layer's own range, the QUANTIZE to int8."""
        if not self.uint8_input:
            super().add_input(layer)
            return
        name, scale = input_name(layer), Quantisation.of(*_range(layer, self._ranges), lowest=_LOWEST)
        self.inputs.append(self.tensor(name, self._shape(layer)))
        self.describe(
            self.inputs[-1],
            schema.TensorType.UINT8,
            np.array([scale.step]),
            zero_point=scale.zero_point - _LOWEST,
        )
        output = self._quantise(self.tensor(f"{name}.int8", self._shape(layer)), self._scales[len(self.values)])
        self.values.append(output)
        self.operator(Op.QUANTIZE, self.inputs[-1:], output, schema.QuantizeOptionsT())

    def add_output(self, layer: Layer) -> int:
        """Add what a layer computes, or an input of the file."""
        scale = self._scales[len(self.values)]
        return self._quantise(super().add_output(layer), scale)

    def give_floats(self) -> None:
        """Let what comes out of the file be float32: the DEQUANTIZE of what is computed."""
        last = self.values[-1]
        name = self.tensors[last].name
        self.tensors[last].name = f"{name}.int8"
        self.values[-1] = self.dequantised(name, last, version=2)

    def add_zeros(self, layer: Layer) -> None:
        """Add a layer that is nothing but zeros."""
        scale = self._scales[len(self.values)]
        zeros = np.full(self.nhwc(layer.shape), scale.zero_point, dtype=np.int8)
        self.values.append(self._quantise(self.constant(layer.name, zeros), scale))

    def between(self, name: str, shape: Shape, low: float, high: float) -> int:
        """Add an activation whose values lie between `low` and `high`."""
        return self._quantise(super().between(name, shape, low, high), Quantisation.of(low, high, lowest=_LOWEST))

    def constants(self, layer: Layer, source: int, weight: "Array", bias: "Array", *, axis: int) -> list[int]:
        """Add a layer's weight, a scale for each channel along `axis`, and its bias, of the accumulator's scale."""
        input_step = np.float64(self.tensors[source].quantization.scale[0])
        if self.sized_only:
            steps, numbers = np.ones(len(bias)), np.broadcast_to(np.int8(0), weight.shape)
        else:
            largest = np.abs(weight).max(axis=tuple(other for other in range(weight.ndim) if other != axis))
            # a tiny weight beside a bias: the bias must be held as well
            steps = np.maximum(largest / _HIGHEST, np.abs(bias) / (input_step * _MOST_BIAS)).clip(min=_SMALLEST)
            numbers = _rounded(weight, steps, axis=axis)
        biases = np.rint(bias / (input_step * steps)).astype(np.int32)
        found = [self.constant(f"{layer.name}.weight", numbers), self.constant(f"{layer.name}.bias", biases)]
        self.describe(found[0], schema.TensorType.INT8, steps, axis=axis)
        self.describe(found[1], schema.TensorType.INT32, input_step * steps)
        return found

    def operator(self, code: int, inputs: list[int], output: int, options: Any, *, version: int = 1) -> None:
        """Add an operator, in the version that takes int8."""
        super().operator(code, inputs, output, options, version=max(version, _VERSIONS.get(code, 1)))

    def activate(self, layer: Layer, source: int, output: int) -> None:
        """Add an activation function: for a ReLU QUANTIZE to a range that begins at 0, and for a ReLU6 ends at 6."""
        scale = self._scales[len(self.values) - 1]
        highest = scale.step * (_HIGHEST - scale.zero_point)
        clips = scale.zero_point == _LOWEST and (layer.kind == "relu" or highest <= _CLIPPED_AT_6)
        if _is_hard_swish(layer) and _ARITHMETIC not in self._without:
            self._hard_swish(layer, source, output)
        elif _is_relu(layer) and clips and _QUANTIZE not in self._without:
            self.operator(Op.QUANTIZE, [source], output, schema.QuantizeOptionsT())
        else:
            super().activate(layer, source, output)

    def _hard_swish(self, layer: Layer, source: int, output: int) -> None:
        """Write x relu6(x + 3) / 6; to a range from 0 to 6 ADD clips as ReLU6 does."""
        raised = self.between(f"{layer.name}.raised", layer.shape, 0.0, 6.0)
        factor = self.between(f"{layer.name}.factor", layer.shape, 0.0, 1.0)
        self.operator(Op.ADD, [source, self.scalar(3.0)], raised, schema.AddOptionsT())
        self.operator(Op.MUL, [raised, self.scalar(1 / 6)], factor, schema.MulOptionsT())
        self.operator(Op.MUL, [source, factor], output, schema.MulOptionsT())

    def pool(self, layer: Layer, source: int, output: int, options: Any) -> None:
        """Add a pooling: for an average a depthwise convolution, and MUL where windows hang over the border.

        The convolution divides by the largest number of pixels in a window, MUL makes up for those that have fewer.
        """
        if not _is_convolution(layer) or _CONVOLVE in self._without:
            self.operator(POOLINGS[layer.kind], [source], output, options)  # XNNPACK takes no average
            return
        counts = pixels_in_windows(layer, self.graph.input_shapes(layer)[0])
        even = bool((counts == counts.max()).all())
        average = output if even else self.alike(f"{layer.name}.average", layer.shape, output)
        weight = np.full((1, *layer.kernel, layer.shape[0]), 1 / counts.max(), dtype=np.float32)
        constants = self.constants(layer, source, weight, np.zeros(layer.shape[0], dtype=np.float32), axis=3)
        convolution = depthwise(options, activation=options.fusedActivationFunction)
        self.operator(Op.DEPTHWISE_CONV_2D, [source, *constants], average, convolution)
        if not even:
            factors = self._factors(f"{layer.name}.factors", counts.max() / counts)
            self.operator(Op.MUL, [average, factors], output, schema.MulOptionsT())

    def _factors(self, name: str, values: "NDArray[np.float64]") -> int:
        """Add factors of 1 and above, [height, width], in which 1 is exact."""
        one = np.floor(_HIGHEST / values.max())
        number = self.constant(name, np.rint(values * one).astype(np.int8)[None, :, :, None])
        return self._quantise(number, Quantisation(1 / one, 0))

    def _scalar(self, name: str, value: float) -> int:
        number = self.constant(name, np.array(_HIGHEST if value > 0 else -_HIGHEST, dtype=np.int8))
        return self._quantise(number, Quantisation(abs(value) / _HIGHEST, 0))

    def _lowest(self, name: str, source: int) -> int:
        number = self.constant(name, np.array([_LOWEST], dtype=np.int8), kind=schema.TensorType.INT8)
        self.tensors[number].quantization = self.tensors[source].quantization
        return number

    def _quantise(self, number: int, scale: Quantisation) -> int:
        self.describe(number, schema.TensorType.INT8, np.array([scale.step]), zero_point=scale.zero_point)
        return number


def _is_convolution(layer: Layer) -> bool:
    """Whether a layer is an average that is written as a depthwise convolution."""
    return layer.kind == "avg_pool" and prod(layer.kernel) <= MOST_TAPS


def _is_relu(layer: Layer) -> bool:
    return layer.kind in ("relu", "relu6")


def _is_hard_swish(layer: Layer) -> bool:
    return layer.kind == "hard_swish"


REWRITES = {
    _QUANTIZE: Rewrite("a ReLU by itself as QUANTIZE to a range that begins at 0", ("int8",), _is_relu),
    _CONVOLVE: Rewrite("an average as a depthwise convolution", ("int8",), _is_convolution),
    _ARITHMETIC: Rewrite("hard swish as ADD, MUL and MUL", ("int8",), _is_hard_swish),
}


def _layer_scales(graph: Graph, ranges: "Ranges", *, convolves: bool) -> list[Quantisation]:
    """Return the scale of each layer's output; layers that copy numbers share it with what they read."""
    leader = list(range(len(graph.layers)))
    for position, layer in enumerate(graph.layers):
        if layer.kind in _COPIES or (layer.kind == "avg_pool" and not (convolves and _is_convolution(layer))):
            joined = {leader[value] for value in (position, *layer.inputs)}
            leader = [min(joined) if one in joined else one for one in leader]
    spans: dict[int, list[float]] = {}
    for position, layer in enumerate(graph.layers):
        spans.setdefault(leader[position], []).extend(_range(layer, ranges))
    scales = {position: Quantisation.of(min(span), max(span), lowest=_LOWEST) for position, span in spans.items()}
    return [scales[position] for position in leader]


def _range(layer: Layer, ranges: "Ranges") -> tuple[float, float]:
    if layer.name not in ranges:
        raise ExportError(
            f"in int8 every layer needs the range of its output; {layer.name!r} has none. "
            "Take them from images: tflite.calibrate(lowered graph, weights, images)"
        )
    return ranges[layer.name]


def _rounded(weight: "Array", steps: "NDArray[np.float64]", *, axis: int) -> "NDArray[np.int8]":
    """Return a weight in steps of its channels along `axis`, a few channels at a time: in float64 it is large."""
    numbers = np.empty(weight.shape, dtype=np.int8)
    channels, rounded = np.moveaxis(weight, axis, -1), np.moveaxis(numbers, axis, -1)
    at_once = max(1, _AT_ONCE * len(steps) // weight.size)
    for at in range(0, len(steps), at_once):
        some = slice(at, at + at_once)
        rounded[..., some] = np.rint(channels[..., some] / steps[some])
    return numbers
