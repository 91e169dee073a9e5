"""fp16 for .tflite files: TFLite's float16 quantisation.

Weights and biases are float16 constants with a DEQUANTIZE each; activations, and all that is computed, stay fp32.
XNNPACK converts the constants once, when a file is loaded: a network takes as long as in fp32, its file half the bytes.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwnas.errors import ExportError
from hwnas.formats._tflite_writer import Writer
from hwnas.network import Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Array

_FEWEST = 128  # numbers: for fewer DEQUANTIZE and its tensor take more bytes than float16 saves
_HIGHEST = float(np.finfo(np.float16).max)
_VERSION = 3  # of DEQUANTIZE, the first one with float16


class Fp16Writer(Writer):
    """Writes a graph with constants in float16.

    Raises ExportError for a weight or bias that float16 does not hold.
    """

    def add_zeros(self, layer: Layer) -> None:
        """Add a layer that is nothing but zeros."""
        self.values.append(self._half(layer.name, np.zeros(self.nhwc(layer.shape), dtype=np.float32)))

    def constants(self, layer: Layer, source: int, weight: "Array", bias: "Array", *, axis: int) -> list[int]:
        """Add a layer's weight and its bias."""
        return [self._half(f"{layer.name}.weight", weight), self._half(f"{layer.name}.bias", bias)]

    def _half(self, name: str, value: "NDArray[Any]") -> int:
        if value.size < _FEWEST:
            return self.constant(name, value)
        largest = np.abs(value).max()
        if largest > _HIGHEST:
            raise ExportError(f"{name}: fp16 holds numbers up to {_HIGHEST:g}; got {largest:g}. Write the file in fp32")
        half = self.constant(f"{name}.fp16", value.astype(np.float16), kind=schema.TensorType.FLOAT16)
        return self.dequantised(name, half, version=_VERSION)
