"""Full int8: what every operator computes, what TFLite's specification asks of the file, and what XNNPACK takes."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from networks import OWN_SPACES, images, network, torch_output
from numpy.typing import NDArray

from hwnas import formats, spaces
from hwnas.errors import ExportError
from hwnas.formats import made_up_ranges, random_weights, tflite
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Builder, Graph, Layer, one_layer
from hwnas.network.published import mobilenet_v2, published_network
from hwnas.network.scale import Scale
from hwnas.support import plugins
from hwnas.training.module import deployed_weights

OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
STRIDES = [(1, 1), (2, 2), (1, 2), (2, 1)]
SIZES = [(8, 8), (9, 9), (7, 10), (1, 1), (2, 3)]


def in_int8(graph: Graph, weights: Any, inputs: NDArray[np.float32]) -> bytes:
    return tflite.write(graph, weights, ranges=tflite.calibrate(graph, weights, inputs))


def steps_off(graph: Graph, folder: Path) -> float:
    """Return how far the int8 file's outputs are from PyTorch's at the most, in steps of its output."""
    module, inputs = network(graph), images(graph, count=4)
    path = folder / "model.tflite"
    path.write_bytes(in_int8(tflite.lower(graph), deployed_weights(module), inputs))
    outputs = tflite.load(path)(inputs).reshape(len(inputs), -1)
    step, _ = Interpreter(model_path=str(path)).get_output_details()[0]["quantization"]
    return float(np.abs(outputs - torch_output(module, inputs)).max() / step)


def window(kind: Literal["conv", "max_pool", "avg_pool"], channels: int, size: tuple[int, int], **fields: Any) -> Graph:
    b = Builder((channels, *size))
    return b.finish(b.window(kind, 0, name="it", **fields))


def model_of(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data)


def operators(data: bytes) -> list[str]:
    model = model_of(data)
    (main,) = model.subgraphs
    return [OPERATORS[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in main.operators]


def random_networks(space: str, count: int) -> list[Architecture]:
    plugin = plugins.load("spaces", space)
    chosen = spaces.random_parameters(plugin, count, seed=5)
    return [plugin.architecture(parameters, Scale(1, 6, 17, 10)) for parameters in chosen]


@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (1, 2), (6, 1), (6, 2)])
def test_convolutions_are_within_two_steps_of_fp32(tmp_path: Path, groups: int, dilation: int) -> None:
    for kernel, stride, size in product([(1, 1), (3, 3), (5, 5), (1, 7), (7, 1)], STRIDES, SIZES):
        graph = window("conv", 6, size, kernel=kernel, stride=stride, dilation=dilation, groups=groups, norm=True)
        assert steps_off(graph, tmp_path) <= 2.1, (kernel, stride, size)


def test_the_sum_of_a_split_convolutions_four_parts_is_within_four_steps(tmp_path: Path) -> None:
    for stride, size in product(STRIDES, SIZES):
        graph = window("conv", 6, size, kernel=(7, 7), stride=stride, groups=6, norm=True)
        assert steps_off(graph, tmp_path) <= 4, (stride, size)


@pytest.mark.parametrize(("kind", "most"), [("max_pool", 1.1), ("avg_pool", 3.0)])
def test_poolings_are_within_a_few_steps(tmp_path: Path, kind: Literal["max_pool", "avg_pool"], most: float) -> None:
    for kernel, stride, size in product([(1, 1), (3, 3), (5, 5), (1, 3)], STRIDES, SIZES):
        assert steps_off(window(kind, 3, size, kernel=kernel, stride=stride), tmp_path) <= most, (kernel, stride, size)


def test_a_large_average_is_tflites_own(tmp_path: Path) -> None:
    graph = window("avg_pool", 3, (9, 9), kernel=(7, 7))
    assert "AVERAGE_POOL_2D" in operators(tflite.write(graph, {}, ranges=made_up_ranges(graph)))
    assert steps_off(graph, tmp_path) <= 1.1


@pytest.mark.parametrize("kind", ["conv", "max_pool"])
def test_other_paddings_are_written_too(tmp_path: Path, kind: Literal["conv", "max_pool"]) -> None:
    for padding, stride, size in product(["symmetric", "valid"], STRIDES, SIZES[:3]):
        graph = window(kind, 3, size, kernel=(3, 3), stride=stride, padding=padding)
        assert steps_off(graph, tmp_path) <= 2.1, (padding, stride, size)


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 9), (1, 1), (1, 4), (2, 2)])
def test_a_shift_copies_numbers(tmp_path: Path, size: tuple[int, int]) -> None:
    b = Builder((3, *size))
    assert steps_off(b.finish(b.shift(0, name="it")), tmp_path) <= 0.51


@pytest.mark.parametrize(
    "layer",
    [Layer("slice", (0,), (3, 6, 7), "it", start=2), Layer("shuffle", (0,), (6, 6, 7), "it", groups=2)],
    ids=lambda layer: layer.kind,
)
def test_slices_and_shuffles_copy_numbers(tmp_path: Path, layer: Layer) -> None:
    assert steps_off(one_layer(layer, [(6, 6, 7)]), tmp_path) <= 0.51


@pytest.mark.parametrize(
    ("layer", "most"),
    [
        (Layer("relu", (0,), (5, 6, 7), "it"), 1.6),
        (Layer("relu6", (0,), (5, 6, 7), "it"), 1.6),
        (Layer("hard_swish", (0,), (5, 6, 7), "it"), 3.0),
        (Layer("hard_sigmoid", (0,), (5, 6, 7), "it"), 2.0),
        (Layer("mean", (0,), (5, 1, 1), "it"), 2.0),
        (Layer("linear", (0,), (4, 1, 1), "it", bias=True), 2.0),
        (Layer("linear", (0,), (4, 1, 1), "it", bias=True, activation="relu"), 2.0),
        (Layer("conv", (0,), (10, 6, 7), "it", kernel=(3, 3), groups=5, activation="relu"), 2.0),
        (Layer("conv", (0,), (9, 6, 7), "it", kernel=(3, 3), norm=True, activation="relu6"), 3.0),
        (Layer("max_pool", (0,), (5, 6, 7), "it", kernel=(3, 3), activation="relu"), 1.1),
        (Layer("avg_pool", (0,), (5, 6, 7), "it", kernel=(3, 3), activation="relu"), 3.0),
    ],
    ids=lambda value: f"{value.kind} {value.activation}" if isinstance(value, Layer) else "",
)
def test_a_layer_by_itself_is_within_a_few_steps(tmp_path: Path, layer: Layer, most: float) -> None:
    assert steps_off(one_layer(layer, [(5, 6, 7)]), tmp_path) <= most


@pytest.mark.parametrize(
    ("layer", "second", "computed"),
    [
        (Layer("add", (1, 2), (3, 4, 5), "it"), (3, 4, 5), np.add),
        (Layer("add", (1, 2), (3, 4, 5), "it", activation="relu"), (3, 4, 5), lambda x, y: np.maximum(x + y, 0)),
        (Layer("mul", (1, 2), (3, 4, 5), "it"), (3, 1, 1), np.multiply),
        (Layer("concat", (1, 2), (5, 4, 5), "it"), (2, 4, 5), lambda x, y: np.concatenate([x, y], axis=1)),
    ],
    ids=["add", "add relu", "mul", "concat"],
)
def test_layers_of_two_inputs_run_by_themselves(
    tmp_path: Path, layer: Layer, second: Any, computed: Callable[..., Any]
) -> None:
    graph = one_layer(layer, [(3, 4, 5), second])
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite.write(graph, {}, ranges=made_up_ranges(graph)))
    inputs = [np.random.default_rng(0).uniform(-1.9, 1.9, (2, *shape)).astype("f") for shape in ((3, 4, 5), second)]
    np.testing.assert_allclose(tflite.load(path)(*inputs), computed(*inputs), atol=4 * 8 / 255)


@pytest.mark.parametrize("space", OWN_SPACES)
def test_whole_networks_of_every_space_are_near_fp32(tmp_path: Path, space: str) -> None:
    for architecture in random_networks(space, 3):
        module, inputs = network(architecture.graph), images(architecture.graph, count=16)
        path = tmp_path / "model.tflite"
        path.write_bytes(in_int8(tflite.lower(architecture.graph), deployed_weights(module), inputs))
        expected = torch_output(module, inputs)
        error = np.sqrt(np.mean((tflite.load(path)(inputs) - expected) ** 2))
        assert error <= 0.03 * expected.std(), architecture.name


@pytest.mark.parametrize("name", [*OWN_SPACES, "shufflenet-v2"])
def test_xnnpack_takes_the_whole_network_in_one_piece(name: str) -> None:
    in_space = name in OWN_SPACES
    for architecture in random_networks(name, 3) if in_space else [published_network(name, resolution=64)]:
        graph = tflite.lower(architecture.graph)
        data = tflite.write(graph, random_weights(graph), ranges=made_up_ranges(graph))
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        (delegate,) = [one for one in interpreter._get_ops_details() if one["op_name"] == "DELEGATE"]
        assert interpreter.get_input_details()[0]["index"] in delegate["inputs"]
        assert list(delegate["outputs"]) == [interpreter.get_output_details()[0]["index"]]


@pytest.mark.parametrize("space", OWN_SPACES)
def test_what_is_timed_has_the_operators_of_what_is_shipped(space: str) -> None:
    """A table's entries are layers by themselves, of made-up ranges; a file's are calibrated."""
    for architecture in random_networks(space, 2):
        graph = tflite.lower(architecture.graph)
        weights = deployed_weights(network(architecture.graph))
        shipped = operators(in_int8(graph, weights, images(architecture.graph)))
        alone = [one_layer(layer, graph.input_shapes(layer)) for layer in graph.layers if layer.kind != "input"]
        timed = [tflite.write(one, random_weights(one), ranges=made_up_ranges(one)) for one in alone]
        assert shipped == [name for data in timed for name in operators(data)]


def test_the_file_is_as_the_specification_says() -> None:
    graph = tflite.lower(mobilenet_v2(resolution=32).graph)
    weights = random_weights(graph)
    model = model_of(tflite.write(graph, weights, ranges=made_up_ranges(graph)))
    (main,) = model.subgraphs
    for operator in main.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = OPERATORS[code.builtinCode]
        assert code.version == {"FULLY_CONNECTED": 4, "ADD": 2, "MEAN": 2}.get(name, 3), name
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        value, weight, bias = (main.tensors[number] for number in operator.inputs)
        axis = 3 if name == "DEPTHWISE_CONV_2D" else 0
        assert (weight.type, bias.type) == (schema.TensorType.INT8, schema.TensorType.INT32)
        assert weight.quantization.quantizedDimension == axis
        assert len(weight.quantization.scale) == weight.shape[axis]
        assert not np.any(weight.quantization.zeroPoint)
        numbers = np.asarray(model.buffers[weight.buffer].data).view(np.int8).reshape(weight.shape)
        most = np.abs(numbers).max(axis=tuple(other for other in range(numbers.ndim) if other != axis))
        assert set(most) == {127}
        np.testing.assert_allclose(bias.quantization.scale, value.quantization.scale[0] * weight.quantization.scale)
    assert {main.tensors[number].type for number in (*main.inputs, *main.outputs)} == {schema.TensorType.INT8}


def test_a_channel_of_tiny_weights_keeps_its_bias(tmp_path: Path) -> None:
    graph = window("conv", 3, (4, 4), filters=3)
    weight = np.ones((3, 3, 1, 1), dtype=np.float32)
    weight[1], weight[2] = 1e-12, 0.0
    bias = np.array([0.0, 2.0, -2.0], dtype=np.float32)
    inputs = images(graph)
    path = tmp_path / "model.tflite"
    path.write_bytes(in_int8(graph, {"it": (weight, bias)}, inputs))
    outputs = tflite.load(path)(inputs)
    np.testing.assert_allclose(outputs[:, 1], 2.0, atol=0.05)
    np.testing.assert_allclose(outputs[:, 2], -2.0, atol=0.05)


@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_a_relu_whose_numbers_must_be_signed_still_clips(tmp_path: Path, kind: Literal["relu", "relu6"]) -> None:
    """A concatenation gives its scale to what it reads, here one that reaches below 0 and above 6."""
    b = Builder((3, 4, 4))
    value = b.window("conv", 0, name="conv", filters=4)
    graph = b.finish(b.concat([b.activation(value, kind), value], name="all"))
    weights = {"conv": (np.full((4, 3, 1, 1), 4.0, dtype=np.float32), np.zeros(4, dtype=np.float32))}
    inputs = images(graph)
    data = in_int8(tflite.lower(graph), weights, inputs)
    (tmp_path / "model.tflite").write_bytes(data)
    assert kind.upper() in operators(data)
    clipped, whole = np.split(tflite.load(tmp_path / "model.tflite")(inputs), 2, axis=1)
    assert whole.min() < -1
    assert whole.max() > 7
    np.testing.assert_allclose(clipped, np.clip(whole, 0, 6 if kind == "relu6" else None), atol=0.2)


def test_zeros_stay_zeros_in_a_concatenation(tmp_path: Path) -> None:
    b = Builder((3, 6, 6))
    value = b.window("conv", 0, name="conv", filters=4, norm=True)
    graph = b.finish(b.concat([value, b.zero((2, 6, 6), name="no")], name="all"))
    module, inputs = network(graph), images(graph)
    (tmp_path / "model.tflite").write_bytes(in_int8(tflite.lower(graph), deployed_weights(module), inputs))
    assert not tflite.load(tmp_path / "model.tflite")(inputs)[:, 4:].any()


def test_ranges_are_those_of_all_images_and_of_the_parts_of_split_convolutions() -> None:
    b = Builder((4, 9, 9))
    graph = tflite.lower(b.finish(b.relu(b.window("conv", 0, name="conv", kernel=(7, 7), groups=4))))
    inputs = images(graph, count=5)
    ranges = tflite.calibrate(graph, random_weights(graph), inputs)
    assert ranges.keys() == {layer.name for layer in graph.layers}
    assert len(graph.layers) == 1 + 3 + 2
    assert ranges["input"] == (inputs.min(), inputs.max())
    assert ranges["conv"][0] == 0.0
    assert all(ranges[layer.name][0] < 0 for layer in graph.layers[1:-1])


def test_a_layer_without_a_range_is_refused() -> None:
    graph = window("conv", 3, (4, 4))
    with pytest.raises(ExportError, match=r"needs the range of its output; 'it' has none.*calibrate"):
        tflite.write(graph, random_weights(graph), ranges={"input": (-1.0, 1.0)})


def test_a_precision_that_a_runtime_does_not_write_is_refused() -> None:
    with pytest.raises(ExportError, match=r"runtime tflite in fp32, fp16, dynamic, int8; got int4"):
        formats.get("tflite", precision="int4")
