"""ONNX files, and what ONNX Runtime makes of them."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from networks import TOLERANCE, architectures, images, network, relative_error, repeatable

from hwnas.formats import onnx as onnx_format
from hwnas.formats import random_weights
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Block, Cell
from hwnas.network.graph import Builder, Graph, Layer, one_layer
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.training.module import deployed_weights

CELL = Cell(
    (
        Block(("separable_3x3", 0), ("max_pool_3x3", 1)),
        Block(("dilated_3x3", 1), ("avg_pool_3x3", 0)),
        Block(("conv_1x7_7x1", 2), ("identity", 1)),
    )
)


def written(graph: Graph) -> bytes:
    lowered = onnx_format.lower(graph)
    return onnx_format.write(lowered, random_weights(lowered))


def shape(info: onnx.ValueInfoProto) -> list[int | str]:
    return [size.dim_param or size.dim_value for size in info.type.tensor_type.shape.dim]


@given(architecture=architectures())
@repeatable(20)
def test_files_pass_the_checker_and_shape_inference(architecture: Architecture) -> None:
    graph = onnx_format.lower(architecture.graph)
    model = onnx.load_from_string(onnx_format.write(graph, random_weights(graph)))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    found = {info.name: shape(info) for info in inferred.graph.value_info}
    for layer in graph.layers[1:-1]:
        assert found[layer.name] == ["batch", *layer.shape]


def test_the_batch_is_dynamic_and_inputs_are_named() -> None:
    model = onnx.load_from_string(written(CellNetwork(CELL, Scale(1, 8, 32, 10)).graph))
    assert [(info.name, shape(info)) for info in model.graph.input] == [("images", ["batch", 3, 32, 32])]
    assert [(info.name, shape(info)) for info in model.graph.output] == [("logits", ["batch", 10])]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", onnx_format.OPSET)]
    assert model.ir_version == 7  # the one that came with opset 13


def test_several_inputs_have_names() -> None:
    layer = Layer("add", (1, 2), (3, 4, 4), "it")
    model = onnx.load_from_string(onnx_format.write(one_layer(layer, [(3, 4, 4)] * 2), {}))
    assert [info.name for info in model.graph.input] == ["input0", "input1"]
    assert [info.name for info in model.graph.output] == ["output"]


def test_the_outputs_of_an_image_do_not_depend_on_its_batch(tmp_path: Path) -> None:
    graph = CellNetwork(CELL, Scale(1, 8, 32, 10)).graph
    path = tmp_path / "model.onnx"
    path.write_bytes(written(graph))
    model, inputs = onnx_format.load(path), images(graph, count=3)
    one_by_one = np.concatenate([model(image[None]) for image in inputs])
    assert relative_error(model(inputs), one_by_one) <= TOLERANCE


def optimised(graph: Graph, folder: Path) -> Counter[str]:
    """Return how many nodes of each kind are left in what ONNX Runtime executes."""
    path = folder / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(written(graph), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "linear", "max_pool", "avg_pool", "mean", "add", "shift"])
def test_lowering_fuses_relu_where_onnx_runtime_does(tmp_path: Path, kind: str) -> None:
    b = Builder((16, 8, 8))
    values = {
        "conv": lambda: b.window("conv", 0, name="it", kernel=(3, 3)),
        "depthwise": lambda: b.window("conv", 0, name="it", kernel=(3, 3), groups=16),
        "linear": lambda: b.linear(0, 4, name="it"),
        "max_pool": lambda: b.window("max_pool", 0, name="it", kernel=(3, 3)),
        "avg_pool": lambda: b.window("avg_pool", 0, name="it", kernel=(3, 3)),
        "mean": lambda: b.mean(0, name="it"),
        "add": lambda: b.add(0, 0, name="it"),
        "shift": lambda: b.shift(0, name="it"),
    }
    graph = b.finish(b.relu(values[kind]()))
    left = sum(layer.kind == "relu" for layer in onnx_format.lower(graph).layers)
    assert optimised(graph, tmp_path)["Relu"] == left


@given(architecture=architectures())
@repeatable(10)
def test_onnx_runtime_fuses_all_that_lowering_fuses(
    tmp_path_factory: pytest.TempPathFactory, architecture: Architecture
) -> None:
    counts = optimised(architecture.graph, tmp_path_factory.mktemp("optimised"))
    left = sum(layer.kind == "relu" for layer in onnx_format.lower(architecture.graph).layers)
    assert counts["Relu"] <= left  # fewer where it merges a sum and its ReLU into a convolution
    assert counts["Pad"] == 0 or min(layer.shape[1] for layer in architecture.graph.layers[:-2]) == 1


def test_average_pooling_may_be_padded_symmetrically(tmp_path: Path) -> None:
    b = Builder((3, 8, 8))
    b.window("avg_pool", 0, name="it", kernel=(3, 3), stride=(2, 2), padding="symmetric")
    graph = b.finish(1)
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_format.write(graph, {}))
    inputs = images(graph)
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(inputs), 3, 2, 1, count_include_pad=False).numpy()
    assert relative_error(onnx_format.load(path)(inputs), expected) <= TOLERANCE


def test_grouped_convolutions_are_written(tmp_path: Path) -> None:
    b = Builder((6, 8, 8))
    b.window("conv", 0, name="it", kernel=(3, 3), groups=2, norm=True)
    module, inputs = network(b.finish(1)), images(b.finish(1))
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_format.write(b.finish(1), deployed_weights(module)))
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs)).numpy()
    assert relative_error(onnx_format.load(path)(inputs).reshape(2, -1), expected) <= TOLERANCE


@pytest.mark.slow
def test_torchs_own_exporter_agrees(tmp_path: Path) -> None:
    graph = CellNetwork(CELL, Scale(1, 8, 33, 10)).graph
    module, inputs = network(graph), images(graph, count=1)
    ours, theirs = tmp_path / "ours.onnx", tmp_path / "theirs.onnx"
    ours.write_bytes(onnx_format.write(onnx_format.lower(graph), deployed_weights(module)))
    torch.onnx.export(module, (torch.from_numpy(inputs),), theirs, dynamo=True, verbose=False, external_data=False)
    assert relative_error(onnx_format.load(ours)(inputs), onnx_format.load(theirs)(inputs)) <= TOLERANCE


@pytest.mark.parametrize(
    "imports",
    [
        "import hwnas.formats.onnx; import onnxruntime",
        "from hwnas.device import runner; runner.find_onnx(runner.Job('onnx', []))",
    ],
)
def test_onnx_runtime_writes_nothing_into_the_users_cache(tmp_path: Path, imports: str) -> None:
    """See findings/onnxruntime-keeps-a-device-id.sh."""
    (tmp_path / "tmp").mkdir()
    unset = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    subprocess.run([sys.executable, "-c", imports], env=environment, check=True, cwd=Path(__file__).parents[2])
    written = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert not {"deviceid", "onnxruntime.db", ".ses"} & set(written)
