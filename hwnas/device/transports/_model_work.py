"""What a model's file asks of a device: its operators in order, with their Mult-Adds and the bytes that they move.

Read from the file alone, TFLite or ONNX, without running it: for devices that are pretended (see pretend.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal

from hwnas.errors import InputError, quoted

Kind = Literal["convolution", "depthwise", "linear", "other"]
_CONVOLUTIONS = ("CONV_2D", "Conv", "ConvInteger", "QLinearConv")
_LINEAR = ("FULLY_CONNECTED", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul")
_WEIGHTS_PLACE = {"QLinearConv": 3, "QLinearMatMul": 3}  # among an operator's inputs; 1 for all others
_FUSED = ("QuantizeLinear", "DequantizeLinear")  # a runtime has them inside the operators between
_BYTES = {"FLOAT32": 4, "FLOAT16": 2, "INT32": 4, "INT64": 8, "INT8": 1, "UINT8": 1, "INT16": 2, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class Work:
    """One operator's work."""

    kind: Kind
    mult_adds: int
    bytes: int  # of its inputs, weights and outputs
    integer: bool  # whether it multiplies 8-bit integers


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    bytes_each: int = 4
    integer: bool = False

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.bytes_each


def check_runtime(runtime: str) -> None:
    """Raise InputError for a runtime whose files are not known here."""
    if runtime not in _READERS:
        raise InputError(f"work is read from files for {', '.join(sorted(_READERS))}; got {runtime}")


def read_work(path: Path, runtime: str) -> tuple[Work, ...]:
    """Return the work of a file's operators. Raises InputError for a runtime and a file that are not known here."""
    check_runtime(runtime)
    return _read(path, runtime, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)  # `profile` comes back to each of its files
def _read(path: Path, runtime: str, modified_ns: int) -> tuple[Work, ...]:
    data = path.read_bytes()
    try:
        return tuple(_READERS[runtime](data))
    except Exception as error:  # noqa: BLE001  flatbuffers, protobuf and numpy raise what they like on a broken file
        why = f"{type(error).__name__}: {quoted(error)}"
        raise InputError(f"a model must be a whole file for {runtime}; {path} is not: {why}") from None


def _tflite(data: bytes) -> Iterator[Work]:
    from ai_edge_litert import schema_py_generated as schema

    if data[4:8] != b"TFL3":
        raise ValueError("it does not begin as one")
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(data, 0)
    codes = [names[model.OperatorCodes(place).BuiltinCode()] for place in range(model.OperatorCodesLength())]
    graph = model.Subgraphs(0)
    tensors = [_tflite_tensor(graph.Tensors(place), types) for place in range(graph.TensorsLength())]
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        inputs = [
            tensors[operator.Inputs(index)] for index in range(operator.InputsLength()) if _given(operator, index)
        ]
        outputs = [tensors[operator.Outputs(index)] for index in range(operator.OutputsLength())]
        yield _work(codes[operator.OpcodeIndex()], inputs, outputs)


def _given(operator: Any, index: int) -> bool:
    return bool(operator.Inputs(index) >= 0)  # -1: an optional input that is left out


def _tflite_tensor(tensor: Any, types: Mapping[int, str]) -> _Tensor:
    name = types[tensor.Type()]
    shape = tuple(max(1, tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))  # -1: a batch of any size
    return _Tensor(shape, _BYTES.get(name, 4), name in ("INT8", "UINT8"))


def _onnx(data: bytes) -> Iterator[Work]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True).graph
    tensors = {value.name: _onnx_value(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    tensors |= {each.name: _onnx_tensor(tuple(each.dims), each.data_type) for each in graph.initializer}
    for node in graph.node:
        if node.op_type in _FUSED:  # what comes out is held, and multiplied, as what went in or is made
            source = tensors[node.input[0]] if node.op_type == "DequantizeLinear" else tensors[node.output[0]]
            tensors[node.output[0]] = source
        elif node.op_type != "Constant":
            inputs = [tensors[name] for name in node.input if name in tensors]
            yield _work(node.op_type, inputs, [tensors[name] for name in node.output if name in tensors])


def _onnx_value(value: Any) -> _Tensor:
    kind = value.type.tensor_type
    return _onnx_tensor(tuple(max(1, axis.dim_value) for axis in kind.shape.dim), kind.elem_type)


def _onnx_tensor(shape: tuple[int, ...], code: int) -> _Tensor:
    import onnx

    name = {"FLOAT": "FLOAT32"}.get(found := onnx.TensorProto.DataType.Name(code), found)
    return _Tensor(shape, _BYTES.get(name, 4), name in ("INT8", "UINT8"))


def _work(name: str, inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> Work:
    moved = sum(tensor.bytes for tensor in (*inputs, *outputs))
    place = _WEIGHTS_PLACE.get(name, 1)
    if place >= len(inputs):
        return Work("other", 0, moved, False)
    weights, output, integer = inputs[place].shape, prod(outputs[0].shape), inputs[place].integer
    if name == "DEPTHWISE_CONV_2D":  # 1, height, width, channels
        return Work("depthwise", output * prod(weights[1:3]), moved, integer)
    if name in _CONVOLUTIONS:  # filters first
        kind: Kind = "depthwise" if name != "CONV_2D" and weights[1] == 1 else "convolution"
        return Work(kind, output * prod(weights[1:]), moved, integer)
    if name in _LINEAR:  # every output reads the whole input
        return Work("linear", output * prod(inputs[0].shape[1:]), moved, inputs[place].integer)
    return Work("other", 0, moved, False)


_READERS: dict[str, Callable[[bytes], Iterator[Work]]] = {"tflite": _tflite, "onnx": _onnx}
