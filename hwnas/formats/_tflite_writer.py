"""The parts of a .tflite file: tensors, buffers, operators and what holds them, in fp32.

_tflite_int8.py, _tflite_fp16.py and _tflite_dynamic.py change what is different in other precisions; which operators a
layer becomes is the same.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from hwnas.formats import input_name, output_name, pixels_in_windows
from hwnas.formats._tflite_arena import arena_bytes
from hwnas.network import Graph, Layer, Shape, pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Array, Weights

Op = schema.BuiltinOperator
ACTIVATIONS = {"relu": Op.RELU, "relu6": Op.RELU6, "hard_swish": Op.HARD_SWISH}
POOLINGS = {"max_pool": Op.MAX_POOL_2D, "avg_pool": Op.AVERAGE_POOL_2D}
_ALIGNMENT = 16  # bytes: what the schema asks of a buffer's data
MOST_TAPS = 25  # of a fast depthwise kernel
Sides = tuple[int, int, int, int]  # zeros at the top, bottom, left, right


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


class Writer:
    """Collects tensors, buffers and operators; a tensor is known by its number.

    With `uint8_input` the file reads bytes. With `sized_only` most of the constants' bytes are left out, and counted:
    `left_out`.
    """

    def __init__(
        self,
        graph: Graph,
        weights: "Weights",
        *,
        uint8_input: bool = False,
        batch: int = 1,
        sized_only: bool = False,
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.uint8_input = uint8_input
        self.batch = batch
        self.inputs: list[int] = []  # of the file
        self.buffers: list[Any] = [schema.BufferT()]  # number 0 stays empty: tensors without constant data
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[int, int], int] = {}  # operator and version: its number
        self.values: list[int] = []  # each layer's output
        self.scalars: dict[float, int] = {}  # constants of one number, which several operators share
        self.small: dict[tuple[int, ...], int] = {}  # int32 constants, which several operators share
        self.left_out = 0
        self.sized_only = sized_only

    def add_input(self, layer: Layer) -> None:
        """Add an input of the file, and of bytes the DEQUANTIZE that makes 255 stand for 1."""
        if not self.uint8_input:
            self.inputs.append(self.add_output(layer))
            return
        name = input_name(layer)
        self.inputs.append(self.tensor(name, self._shape(layer)))
        self.describe(self.inputs[-1], schema.TensorType.UINT8, np.array([1 / 255]))
        self.values.append(self.dequantised(f"{name}.fp32", self.inputs[-1], version=1))

    def add_output(self, layer: Layer) -> int:
        """Add what a layer computes, or an input of the file."""
        last = len(self.values) == len(self.graph.layers) - 1
        name = input_name(layer) if layer.kind == "input" else output_name(self.graph) if last else layer.name
        self.values.append(self.tensor(name, self._shape(layer)))
        return self.values[-1]

    def add_zeros(self, layer: Layer) -> None:
        """Add a layer that is nothing but zeros."""
        self.values.append(self.constant(layer.name, np.zeros(self.nhwc(layer.shape), dtype=np.float32)))

    def _shape(self, layer: Layer) -> list[int]:
        """Return the shape of a layer's output: [batch, units] after a linear layer."""
        flat = layer.kind == "linear" or (
            layer.kind in ACTIVATIONS and len(self.tensors[self.values[layer.inputs[0]]].shape) == 2
        )
        return [self.batch, layer.shape[0]] if flat else self.nhwc(layer.shape)

    def nhwc(self, shape: Shape) -> list[int]:
        """Return the shape of an activation in the file."""
        return nhwc(shape, self.batch)

    def tensor(self, name: str, shape: list[int], *, kind: int = schema.TensorType.FLOAT32, buffer: int = 0) -> int:
        """Add a tensor; with a buffer's number it is constant."""
        tensor = schema.TensorT(shape=shape, type=kind, buffer=buffer, name=name)
        tensor.quantization = schema.QuantizationParametersT()
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def alike(self, name: str, shape: Shape, source: int) -> int:
        """Add an activation of the numbers that `source` has."""
        number = self.tensor(name, self.nhwc(shape), kind=self.tensors[source].type)
        self.tensors[number].quantization = self.tensors[source].quantization
        return number

    def between(self, name: str, shape: Shape, low: float, high: float) -> int:
        """Add an activation whose values lie between `low` and `high`."""
        return self.tensor(name, self.nhwc(shape))

    def constant(self, name: str, value: "NDArray[Any]", *, kind: int = schema.TensorType.FLOAT32) -> int:
        """Add a tensor with its data."""
        data = value
        if self.sized_only:  # what is left keeps the rest of the file aligned as it would be
            data = np.zeros(value.nbytes % _ALIGNMENT, dtype=np.uint8)
            self.left_out += value.nbytes - data.nbytes
        self.buffers.append(_Data(data))
        return self.tensor(name, list(value.shape), kind=kind, buffer=len(self.buffers) - 1)

    def describe(
        self, number: int, kind: int, steps: "NDArray[np.float64]", *, zero_point: int = 0, axis: int = 0
    ) -> None:
        """Say what a tensor's whole numbers stand for: one scale, or one per channel along `axis`."""
        self.tensors[number].type = kind
        self.tensors[number].quantization = schema.QuantizationParametersT(
            scale=steps.astype(np.float32),
            zeroPoint=np.full(len(steps), zero_point, dtype=np.int64),
            quantizedDimension=axis,
        )

    def dequantised(self, name: str, number: int, *, version: int) -> int:
        """Add the DEQUANTIZE of a constant or an input and return its output, which is fp32."""
        output = self.tensor(name, self.tensors[number].shape)
        self.operator(Op.DEQUANTIZE, [number], output, schema.DequantizeOptionsT(), version=version)
        return output

    def constants(self, layer: Layer, source: int, weight: "Array", bias: "Array", *, axis: int) -> list[int]:
        """Add a layer's weight, whose output channels lie along `axis`, and its bias; the layer reads `source`."""
        return [self.constant(f"{layer.name}.weight", weight), self.constant(f"{layer.name}.bias", bias)]

    def scalar(self, value: float) -> int:
        """Add a number that other operators may share."""
        if value not in self.scalars:
            self.scalars[value] = self._scalar(f"scalar{len(self.scalars)}", value)
        return self.scalars[value]

    def _scalar(self, name: str, value: float) -> int:
        return self.constant(name, np.array(value, dtype=np.float32))

    def integers(self, values: "list[int] | list[list[int]]") -> int:
        """Add int32 numbers that other operators may share."""
        array = np.array(values, dtype=np.int32)
        key = (*array.shape, *array.ravel().tolist())
        if key not in self.small:
            name = f"integers{len(self.small)}"
            self.small[key] = self.constant(name, array, kind=schema.TensorType.INT32)
        return self.small[key]

    def operator(self, code: int, inputs: list[int], output: int, options: Any, *, version: int = 1) -> None:
        """Add an operator."""
        number = self.codes.setdefault((code, version), len(self.codes))
        operator = schema.OperatorT(opcodeIndex=number, inputs=inputs, outputs=[output])
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(operator)

    def activate(self, layer: Layer, source: int, output: int) -> None:
        """Add the operator of an activation function."""
        self.operator(ACTIVATIONS[layer.kind], [source], output, None)

    def pool(self, layer: Layer, source: int, output: int, options: Any) -> None:
        """Add the operator of a pooling, or what takes the place of an average that XNNPACK gets wrong."""
        (shape,) = self.graph.input_shapes(layer)
        if layer.kind == "avg_pool" and _is_miscounted(layer, shape):
            self._sum_and_divide(layer, source, output, options)
        else:
            self.operator(POOLINGS[layer.kind], [source], output, options)

    def _sum_and_divide(self, layer: Layer, source: int, output: int, options: Any) -> None:
        """Add an average as a depthwise convolution with ones and MUL."""
        channels, (shape,) = layer.shape[0], self.graph.input_shapes(layer)
        ones = self.constant(f"{layer.name}.ones", np.ones((1, *layer.kernel, channels), dtype=np.float32))
        zeros = self.constant(f"{layer.name}.zeros", np.zeros(channels, dtype=np.float32))
        shares = 1 / pixels_in_windows(layer, shape)[None, :, :, None]
        factors = self.constant(f"{layer.name}.factors", shares.astype(np.float32))
        total = self.alike(f"{layer.name}.sum", layer.shape, output)
        self.operator(Op.DEPTHWISE_CONV_2D, [source, ones, zeros], total, depthwise(options, activation=0))
        fused = schema.MulOptionsT(fusedActivationFunction=options.fusedActivationFunction)
        self.operator(Op.MUL, [total, factors], output, fused)

    def padded(self, layer: Layer, value: int, *, lowest: bool = False) -> tuple[int, int]:
        """Return what a window reads and its padding scheme, with a PAD before it where no scheme fits.

        The PAD is of zeros, or of the lowest number that there is. Rows and columns that no window reads are cut off
        where the scheme is SAME: tflite-runtime 2.14 takes their number for one of the padding.
        """
        (shape,) = self.graph.input_shapes(layer)
        sides = pads(layer, shape)
        if not any(sides):
            return value, schema.Padding.VALID
        if sides == pads(layer._replace(padding="same"), shape):
            return self._read(layer, value, shape), schema.Padding.SAME
        return self.pad(f"{layer.name}.pad", value, shape, sides=sides, lowest=lowest), schema.Padding.VALID

    def _read(self, layer: Layer, value: int, shape: Shape) -> int:
        """Return a value without the last rows and columns, where a window's stride leaves them out."""
        reaches = ((size - 1) * rate + 1 for size, rate in zip(layer.kernel, layer.dilation, strict=True))
        along = zip(shape[1:], layer.shape[1:], layer.stride, reaches, strict=True)
        height, width = (min(size, (outputs - 1) * stride + reach) for size, outputs, stride, reach in along)
        if (height, width) == shape[1:]:
            return value
        output = self.alike(f"{layer.name}.read", (shape[0], height, width), value)
        return self.slice(value, (shape[0], height, width), output)

    def pad(self, name: str, value: int, shape: Shape, *, sides: Sides, lowest: bool = False) -> int:
        """Add a PAD, or a PADV2 of the lowest number, and return its output."""
        top, bottom, left, right = sides
        channels, height, width = shape
        output = self.alike(name, (channels, height + top + bottom, width + left + right), value)
        if lowest:
            filler = self._lowest(f"{name}.fill", value)
            self.operator(Op.PADV2, [value, self.paddings(sides), filler], output, schema.PadV2OptionsT())
        else:
            self.operator(Op.PAD, [value, self.paddings(sides)], output, schema.PadOptionsT())
        return output

    def _lowest(self, name: str, source: int) -> int:
        """Add the lowest number that `source` can hold."""
        return self.constant(name, np.array([np.finfo(np.float32).min], dtype=np.float32))

    def paddings(self, sides: Sides) -> int:
        """Add what PAD reads."""
        top, bottom, left, right = sides
        return self.integers([[0, 0], [top, bottom], [left, right], [0, 0]])

    def crop(self, value: int, shape: Shape, output: int) -> int:
        """Drop the first row and column, and what is beyond `shape`."""
        return self.slice(value, shape, output, begin=(0, 1, 1, 0))

    def slice(self, value: int, shape: Shape, output: int, *, begin: tuple[int, int, int, int] = (0, 0, 0, 0)) -> int:
        """Keep what is within `shape` from `begin` on, which is in the order of the file's dimensions."""
        inputs = [value, self.integers([*begin]), self.integers(self.nhwc(shape))]
        self.operator(Op.SLICE, inputs, output, schema.SliceOptionsT())
        return output

    def reshape(self, value: int, output: int) -> None:
        """Add a RESHAPE to the shape that the output has."""
        shape = self.tensors[output].shape
        self.operator(Op.RESHAPE, [value, self.integers(shape)], output, schema.ReshapeOptionsT(newShape=shape))

    @property
    def arena_bytes(self) -> int:
        """The size of the arena of the activations."""
        codes = [code for code, _ in self.codes]
        return arena_bytes(self.tensors, self.operators, codes, inputs=self.inputs, output=self.values[-1])

    def give_floats(self) -> None:
        """Let what comes out of the file be float32, as it is."""

    def finish(self, metadata: Mapping[str, bytes]) -> bytes:
        """Return the file."""
        entries = []
        for name, content in metadata.items():
            self.buffers.append(_Data(np.frombuffer(content, dtype=np.uint8)))
            entries.append(schema.MetadataT(name=name, buffer=len(self.buffers) - 1))
        model = schema.ModelT(
            version=3,
            description="hwnas",
            operatorCodes=[_code(code, version) for code, version in self.codes],
            subgraphs=[self._subgraph()],
            signatureDefs=[self._signature()],
            buffers=self.buffers,
            metadata=entries or None,
        )
        size = sum(len(buffer.data) for buffer in self.buffers[1:])
        builder = flatbuffers.Builder(size + (1 << 16))
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _subgraph(self) -> Any:
        return schema.SubGraphT(
            name="main",
            tensors=self.tensors,
            inputs=self.inputs,
            outputs=[self.values[-1]],
            operators=self.operators,
        )

    def _signature(self) -> Any:
        def entry(tensor: int) -> Any:
            return schema.TensorMapT(name=self.tensors[tensor].name, tensorIndex=tensor)

        return schema.SignatureDefT(
            signatureKey="serving_default",
            inputs=[entry(value) for value in self.inputs],
            outputs=[entry(self.values[-1])],
        )


def _code(code: int, version: int) -> Any:
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)


def depthwise(pool: Any, *, activation: int) -> Any:
    """Return the options of the depthwise convolution with a pooling's windows."""
    return schema.DepthwiseConv2DOptionsT(
        padding=pool.padding,
        strideH=pool.strideH,
        strideW=pool.strideW,
        depthMultiplier=1,
        fusedActivationFunction=activation,
    )


def _is_miscounted(layer: Layer, shape: Shape) -> bool:
    """Whether a window between the first and the last row hangs over both ends, with a stride.

    XNNPACK divides such a one's sum by another number than that of its pixels.
    """
    top = pads(layer, shape)[0]
    starts = [row * layer.stride[0] - top for row in range(1, layer.shape[1] - 1)]
    return layer.stride[0] > 1 and any(start < 0 and start + layer.kernel[0] > shape[1] for start in starts)


def nhwc(shape: Shape, batch: int = 1) -> list[int]:
    """Return the shape of an activation in a file of that batch."""
    return [batch, shape[1], shape[2], shape[0]]
