from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from networks import TOLERANCE, architectures, images, network, relative_error, repeatable, torch_output

from hwnas.errors import ExportError
from hwnas.formats import random_weights, tflite
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Block, Cell
from hwnas.network.graph import Builder, Graph, Layer, Shape, one_layer
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.training.module import deployed_weights

OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
CELL = Cell(
    (
        Block(("separable_3x3", 0), ("max_pool_3x3", 1)),
        Block(("dilated_3x3", 1), ("avg_pool_3x3", 0)),
        Block(("conv_1x7_7x1", 2), ("identity", 1)),
    )
)


def model_of(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data)


def written(graph: Graph) -> Any:
    lowered = tflite.lower(graph)
    return model_of(tflite.write(lowered, random_weights(lowered)))


def operators(model: Any) -> list[str]:
    (subgraph,) = model.subgraphs
    return [OPERATORS[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in subgraph.operators]


def windows(shape: Shape, **fields: Any) -> Graph:
    b = Builder(shape)
    b.window("conv", 0, name="it", **fields)
    return one_layer(b.finish(1).layers[-1], [shape])


@given(architecture=architectures())
@repeatable(20)
def test_nothing_is_transposed_and_only_odd_shifts_are_padded(architecture: Architecture) -> None:
    graph = architecture.graph
    odd = [
        layer
        for layer in graph.layers
        if layer.kind == "shift" and any(s % 2 for s in graph.input_shapes(layer)[0][1:])
    ]
    counts = Counter(operators(written(graph)))
    assert counts["PAD"] == len(odd)
    assert not counts.keys() & {"TRANSPOSE", "RESHAPE", "PADV2", "MUL", "QUANTIZE"}


@given(architecture=architectures())
@repeatable(10)
def test_each_layer_is_one_operator(architecture: Architecture) -> None:
    lowered = tflite.lower(architecture.graph)
    names = [name for name in operators(model_of(tflite.write(lowered, random_weights(lowered)))) if name != "PAD"]
    assert len(names) == sum(layer.kind != "input" for layer in lowered.layers)
    assert names.count("RELU") == sum(layer.kind == "relu" for layer in lowered.layers)


def test_xnnpack_takes_the_whole_network(tmp_path: Path) -> None:
    graph = tflite.lower(CellNetwork(CELL, Scale(1, 8, 33, 10, skeleton="cifar")).graph)
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite.write(graph, random_weights(graph)))
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (delegate,) = [details for details in interpreter._get_ops_details() if details["op_name"] == "DELEGATE"]
    assert interpreter.get_input_details()[0]["index"] in delegate["inputs"]
    assert list(delegate["outputs"]) == [interpreter.get_output_details()[0]["index"]]


def test_the_file_is_well_formed() -> None:
    graph = tflite.lower(CellNetwork(CELL, Scale(1, 8, 32, 10)).graph)
    data = tflite.write(graph, random_weights(graph), metadata={"classes": "a b"})
    model = model_of(data)
    assert data[4:8] == b"TFL3"
    assert model.version == 3
    assert model.buffers[0].data is None
    assert all(buffer.data is not None for buffer in model.buffers[1:])
    assert [(entry.name, bytes(model.buffers[entry.buffer].data)) for entry in model.metadata] == [(b"classes", b"a b")]
    names = [tensor.name for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == len(names)


def test_the_data_of_a_buffer_is_aligned() -> None:
    graph = tflite.lower(CellNetwork(CELL, Scale(1, 5, 9, 3)).graph)
    data = tflite.write(graph, random_weights(graph), metadata={"odd": "xyz"})
    model = schema.Model.GetRootAsModel(data)
    whole = np.frombuffer(data, dtype=np.uint8).ctypes.data
    starts = [model.Buffers(index).DataAsNumpy().ctypes.data - whole for index in range(1, model.BuffersLength())]
    assert all(start % 16 == 0 for start in starts)


def test_a_network_has_a_signature(tmp_path: Path) -> None:
    graph = tflite.lower(CellNetwork(CELL, Scale(1, 8, 32, 10)).graph)
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite.write(graph, random_weights(graph)))
    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    assert runner(images=np.zeros((1, 32, 32, 3), dtype=np.float32))["logits"].shape == (1, 10)


def test_several_inputs_have_names() -> None:
    layer = Layer("concat", (1, 2), (5, 4, 4), "it")
    model = model_of(tflite.write(one_layer(layer, [(3, 4, 4), (2, 4, 4)]), {}))
    (signature,) = model.signatureDefs
    assert [entry.name for entry in signature.inputs] == [b"input0", b"input1"]
    assert [entry.name for entry in signature.outputs] == [b"output"]


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        ({"kernel": (1, 1)}, "VALID"),
        ({"kernel": (1, 1), "stride": (2, 2)}, "VALID"),
        ({"kernel": (3, 3)}, "SAME"),
        ({"kernel": (3, 3), "padding": "symmetric"}, "SAME"),
        ({"kernel": (3, 3), "padding": "valid"}, "VALID"),
        ({"kernel": (3, 3), "stride": (2, 2), "padding": "symmetric"}, "PAD"),
    ],
)
def test_padding_is_a_scheme_where_one_fits(fields: dict[str, Any], scheme: str) -> None:
    model = written(windows((3, 8, 8), **fields))
    assert operators(model) == (["PAD", "CONV_2D"] if scheme == "PAD" else ["CONV_2D"])
    wanted = schema.Padding.SAME if scheme == "SAME" else schema.Padding.VALID
    assert model.subgraphs[0].operators[-1].builtinOptions.padding == wanted


@pytest.mark.parametrize(("size", "cut"), [((8, 9), True), ((9, 9), False)])
def test_rows_that_no_window_reads_are_cut_off(size: tuple[int, int], cut: bool) -> None:
    """tflite-runtime 2.14 pads another number of columns otherwise."""
    model = written(windows((3, *size), kernel=(1, 7), stride=(2, 1)))
    assert operators(model) == ["SLICE"] * cut + ["CONV_2D"]
    assert model.subgraphs[0].operators[-1].builtinOptions.padding == schema.Padding.SAME


def test_average_pooling_cannot_be_padded_otherwise() -> None:
    b = Builder((3, 8, 8))
    b.window("avg_pool", 0, name="it", kernel=(3, 3), stride=(2, 2), padding="symmetric")
    with pytest.raises(ExportError, match="it: TFLite has no average pooling with symmetric padding"):
        tflite.write(b.finish(1), {})


def test_grouped_convolutions_are_refused() -> None:
    graph = windows((6, 8, 8), groups=2)
    with pytest.raises(ExportError, match=r"it: .* got 2 groups of 6 channels"):
        tflite.write(graph, random_weights(graph))


def test_a_relu_that_cannot_be_fused_is_refused() -> None:
    layer = Layer("concat", (0, 1), (4, 4, 4), "it", activation="relu")
    with pytest.raises(ExportError, match="it: TFLite fuses no activation into concat"):
        tflite.write(one_layer(layer, [(2, 4, 4)] * 2), {})


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_versions_and_multipliers(tmp_path: Path, multiplier: int) -> None:
    graph = windows((4, 9, 8), kernel=(3, 3), dilation=2, groups=4, filters=4 * multiplier, norm=True)
    module, inputs = network(graph), images(graph)
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite.write(graph, deployed_weights(module)))
    model = model_of(path.read_bytes())
    assert operators(model) == ["DEPTHWISE_CONV_2D"]
    assert model.operatorCodes[0].version == 2
    outputs = tflite.load(path)(inputs).reshape(len(inputs), -1)
    assert relative_error(outputs, torch_output(module, inputs)) <= TOLERANCE


@pytest.mark.parametrize(("kernel", "parts"), [((7, 7), 3), ((7, 5), 2), ((5, 7), 2), ((9, 7), 4), ((27, 1), 2)])
def test_large_depthwise_convolutions_are_split_exactly(tmp_path: Path, kernel: tuple[int, int], parts: int) -> None:
    for stride, size in product([(1, 1), (2, 2), (1, 2), (3, 1)], [(14, 14), (15, 10), (2, 3)]):
        graph = windows((5, *size), kernel=kernel, stride=stride, groups=5, norm=True)
        graph = Graph((graph.layers[0], graph.layers[1]._replace(activation="relu")))
        lowered = tflite.lower(graph)
        module, inputs = network(graph), images(graph)
        path = tmp_path / "model.tflite"
        path.write_bytes(tflite.write(lowered, deployed_weights(module)))
        outputs = tflite.load(path)(inputs).reshape(len(inputs), -1)
        found = [name for name in operators(model_of(path.read_bytes())) if name != "SLICE"]
        assert found == ["DEPTHWISE_CONV_2D"] * parts + ["ADD"] * (parts - 1)
        assert lowered.mult_adds == graph.mult_adds
        assert relative_error(outputs, torch_output(module, inputs)) <= TOLERANCE


@pytest.mark.parametrize(
    "fields",
    [
        {"kernel": (5, 5)},
        {"kernel": (13, 13)},  # its parts would be too large as well
        {"kernel": (8, 7)},
        {"kernel": (7, 7), "dilation": 2},
        {"kernel": (7, 7), "padding": "symmetric"},
        {"kernel": (7, 7), "stride": (4, 1)},
    ],
)
def test_other_depthwise_convolutions_stay_whole(fields: dict[str, Any]) -> None:
    graph = windows((5, 32, 32), groups=5, **fields)
    assert tflite.lower(graph) == graph
