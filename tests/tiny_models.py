"""One-operator models, written without hwnas's own writers; and what arrives of them before timing fails."""

from collections.abc import Iterator
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import helper

from hwnas.errors import DeviceError
from hwnas.latency import Timed

SHAPE = (1, 4, 4, 3)


def write_onnx(path: Path, shape: tuple[int | str, ...] = SHAPE, element: int = onnx.TensorProto.FLOAT) -> Path:
    """Write y = x + x."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "add",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_tflite(path: Path, shape: tuple[int, ...] = SHAPE, *, unlike: int = 0) -> Path:
    """Write y = x + x; or, for so many times, y = log_softmax(x + x) + x, whose logarithm XNNPACK leaves."""
    names = [schema.BuiltinOperator.ADD, schema.BuiltinOperator.LOG_SOFTMAX]
    codes = [schema.OperatorCodeT() for _ in names]
    for code, name in zip(codes, names, strict=True):
        code.builtinCode = code.deprecatedBuiltinCode = name
    operators = [_operator(0, [0, 0], 1)]
    for _ in range(unlike):
        last = len(operators)
        operators += [_operator(1, [last], last + 1), _operator(0, [last + 1, 0], last + 2)]
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(str(number), shape) for number in range(len(operators) + 1)]
    graph.inputs, graph.outputs, graph.operators = [0], [len(operators)], operators
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], codes, [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def _operator(code: int, inputs: list[int], output: int) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, [output]
    if code == 0:
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    return operator


def _tensor(name: str, shape: tuple[int, ...]) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, np.array(shape, dtype=np.int32), schema.TensorType.FLOAT32
    return tensor


WRITERS = {"onnx": write_onnx, "tflite": write_tflite}


def take(timed: Iterator[Timed]) -> tuple[list[str], str]:
    """Return the names of the models that arrive, and the DeviceError that ends them."""
    arrived: list[str] = []
    with pytest.raises(DeviceError) as error:
        arrived.extend(one.name for one in timed)
    return arrived, str(error.value)
