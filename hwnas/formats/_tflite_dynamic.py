"""Dynamic-range int8 for .tflite files: weights in int8, activations in fp32.

The kernels of convolutions and of the classifier convert what they read to int8 as it comes (asymmetrically), and
compute in int8. Convolutions have a scale per output channel, the classifier one for all: tflite-runtime 2.14 has no
FULLY_CONNECTED of version 12, the first one with a scale per channel.
XNNPACK has no such depthwise convolution, and TFLite's own takes 4 to 200 times as long as XNNPACK's in fp32. Depthwise
weights are therefore int8 in the file only: they have a DEQUANTIZE, which XNNPACK does once, when a file is loaded, and
so have zeros. Weights of fewer than 1024 numbers, and all biases, stay fp32, as TFLite's converter leaves them.
Not for speed in tflite-runtime: its XNNPACK takes no convolution of this sort, and a network is 2 to 31 times slower.
"""

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwnas.formats._tflite_writer import Op, Writer
from hwnas.network import Layer

if TYPE_CHECKING:
    from hwnas.formats import Array

_FEWEST = 1024  # numbers of a weight that is int8
_HIGHEST = 127
_SMALLEST = 1e-9  # scale of a weight: that of a channel of zeros, too
_HYBRID = {Op.CONV_2D: 5, Op.FULLY_CONNECTED: 9}  # the first versions, of op_version.cc, with int8 weights of this sort
_DEQUANTIZE = 5  # the first version with a scale per channel


class DynamicWriter(Writer):
    """Writes a graph with weights in int8 and activations in fp32."""

    def add_zeros(self, layer: Layer) -> None:
        """Add a layer that is nothing but zeros."""
        if prod(layer.shape) < _FEWEST:
            super().add_zeros(layer)
            return
        zeros = self.constant(f"{layer.name}.int8", np.zeros(self.nhwc(layer.shape), dtype=np.int8))
        self.describe(zeros, schema.TensorType.INT8, np.ones(1))
        self.values.append(self.dequantised(layer.name, zeros, version=_DEQUANTIZE))

    def constants(self, layer: Layer, source: int, weight: "Array", bias: "Array", *, axis: int) -> list[int]:
        """Add a layer's weight, a scale for each channel along `axis` unless it is the classifier's, and its bias."""
        name = f"{layer.name}.weight"
        if weight.size < _FEWEST:
            return super().constants(layer, source, weight, bias, axis=axis)
        shared, depthwise = layer.kind == "linear", axis == 3
        others = tuple(other for other in range(weight.ndim) if shared or other != axis)
        largest = np.abs(weight).max(axis=others, keepdims=True)
        steps = (largest / _HIGHEST).clip(min=_SMALLEST)
        numbers = np.rint(weight / steps).astype(np.int8)
        number = self.constant(f"{name}.int8" if depthwise else name, numbers)
        self.describe(number, schema.TensorType.INT8, steps.ravel(), axis=0 if shared else axis)
        if depthwise:
            number = self.dequantised(name, number, version=_DEQUANTIZE)
        return [number, self.constant(f"{layer.name}.bias", bias)]

    def operator(self, code: int, inputs: list[int], output: int, options: Any, *, version: int = 1) -> None:
        """Add an operator, in the version that its weights take."""
        if code in _HYBRID and self.tensors[inputs[1]].type == schema.TensorType.INT8:
            version = _HYBRID[code]
            if code == Op.FULLY_CONNECTED:
                options.asymmetricQuantizeInputs = True
        super().operator(code, inputs, output, options, version=version)
