"""Int8 in .onnx files: what every operator computes, what ONNX Runtime runs, and what `quantize_static` would do."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import OWN_SPACES, images, network, torch_output
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from hwnas import formats, spaces
from hwnas.errors import ExportError
from hwnas.formats import made_up_ranges, random_weights
from hwnas.formats import onnx as onnx_format
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Builder, Graph, Layer, one_layer
from hwnas.network.scale import Scale
from hwnas.support import plugins
from hwnas.training.module import deployed_weights

STRIDES = [(1, 1), (2, 2), (1, 2), (2, 1)]
SIZES = [(8, 8), (9, 9), (7, 10), (1, 1), (2, 3)]
IN_UINT8 = {"NhwcMaxPool", "MaxPool", "Transpose", "Slice", "Pad", "Flatten", "Reshape", "QGemm"}
OF_SHAPES = {"Shape", "Concat", "ConstantOfShape"}  # of zeros, for as many images as there are


def in_int8(graph: Graph, weights: Any, inputs: NDArray[np.float32]) -> bytes:
    return onnx_format.write(graph, weights, ranges=onnx_format.calibrate(graph, weights, inputs))


def run(data: bytes, folder: Path, *inputs: NDArray[np.float32]) -> NDArray[Any]:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return onnx_format.load(path)(*inputs)


def steps_off(graph: Graph, folder: Path) -> float:
    """Return how far the int8 file's outputs are from PyTorch's at the most, in steps of its output."""
    module, inputs = network(graph), images(graph, count=4)
    lowered, weights = onnx_format.lower(graph), deployed_weights(module)
    ranges = onnx_format.calibrate(lowered, weights, inputs)
    output = run(onnx_format.write(lowered, weights, ranges=ranges), folder, inputs).reshape(len(inputs), -1)
    low, high = ranges[lowered.layers[-1].name]
    step = (max(high, 0) - min(low, 0)) / 255
    return float(np.abs(output - torch_output(module, inputs)).max() / step)


def window(kind: Literal["conv", "max_pool", "avg_pool"], channels: int, size: tuple[int, int], **fields: Any) -> Graph:
    b = Builder((channels, *size))
    return b.finish(b.window(kind, 0, name="it", **fields))


def executed(data: bytes, folder: Path) -> Counter[str]:
    """Return how many nodes of each kind are left in what ONNX Runtime executes."""
    path = folder / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def covers(space: str) -> Iterator[Architecture]:
    for resolution in (16, 17):
        yield from plugins.load("spaces", space).cover(Scale(1, 4, resolution, 10))


def some_of_covers(space: str) -> list[Architecture]:
    found = list(covers(space))
    return found[:: len(found) // 6]


def rmse(output: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean((output - expected) ** 2)))


@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (1, 2), (6, 1), (6, 2), (2, 1)])
def test_convolutions_are_within_a_few_steps_of_fp32(tmp_path: Path, groups: int, dilation: int) -> None:
    for kernel, stride, size in product([(1, 1), (3, 3), (7, 7), (1, 7)], STRIDES, SIZES):
        graph = window("conv", 6, size, kernel=kernel, stride=stride, dilation=dilation, groups=groups, norm=True)
        assert steps_off(graph, tmp_path) <= 3.0, (kernel, stride, size)


@pytest.mark.parametrize(("kind", "most"), [("max_pool", 1.1), ("avg_pool", 3.0)])
def test_poolings_are_within_a_few_steps(tmp_path: Path, kind: Literal["max_pool", "avg_pool"], most: float) -> None:
    for kernel, stride, size in product([(1, 1), (3, 3), (5, 5), (1, 3)], STRIDES, SIZES):
        assert steps_off(window(kind, 3, size, kernel=kernel, stride=stride), tmp_path) <= most, (kernel, stride, size)


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 9), (1, 1), (1, 4), (2, 2)])
def test_a_shift_copies_numbers(tmp_path: Path, size: tuple[int, int]) -> None:
    b = Builder((3, *size))
    module = b.finish(b.shift(0, name="it"))
    if min(size) == 1:
        assert not run(in_int8(module, {}, images(module)), tmp_path, images(module)).any()
    else:
        assert steps_off(module, tmp_path) <= 1.1


@pytest.mark.parametrize(
    "layer",
    [Layer("slice", (0,), (3, 6, 7), "it", start=2), Layer("shuffle", (0,), (6, 6, 7), "it", groups=2)],
    ids=lambda layer: layer.kind,
)
def test_slices_and_shuffles_copy_numbers(tmp_path: Path, layer: Layer) -> None:
    b = Builder((6, 6, 7))
    module = Graph((*b.finish(0).layers, layer))
    assert steps_off(module, tmp_path) <= 1.1
    left = executed(in_int8(module, {}, images(module)), tmp_path)
    assert set(left) <= {"QuantizeLinear", "DequantizeLinear", *IN_UINT8}


@pytest.mark.parametrize(
    ("layer", "most"),
    [
        (Layer("relu", (0,), (5, 6, 7), "it"), 1.6),
        (Layer("relu6", (0,), (5, 6, 7), "it"), 1.6),
        (Layer("hard_swish", (0,), (5, 6, 7), "it"), 3.0),
        (Layer("hard_sigmoid", (0,), (5, 6, 7), "it"), 3.0),
        (Layer("mean", (0,), (5, 1, 1), "it"), 2.0),
        (Layer("linear", (0,), (4, 1, 1), "it", bias=True), 2.0),
        (Layer("linear", (0,), (4, 1, 1), "it", bias=True, activation="relu"), 2.0),
        (Layer("conv", (0,), (10, 6, 7), "it", kernel=(3, 3), groups=5, activation="relu"), 2.5),  # weights of 7 bits
        (Layer("conv", (0,), (9, 6, 7), "it", kernel=(3, 3), norm=True, activation="relu6"), 3.0),
        (Layer("max_pool", (0,), (5, 6, 7), "it", kernel=(3, 3), activation="relu"), 1.6),
    ],
    ids=lambda value: f"{value.kind} {value.activation}" if isinstance(value, Layer) else "",
)
def test_a_layer_is_within_a_few_steps(tmp_path: Path, layer: Layer, most: float) -> None:
    alone = one_layer(layer, [(5, 6, 7)])
    network_of_it = Graph((alone.layers[0]._replace(name="input"), alone.layers[1]))
    assert steps_off(network_of_it, tmp_path) <= most


@pytest.mark.parametrize(
    ("layer", "second", "computed"),
    [
        (Layer("add", (1, 2), (3, 4, 5), "it"), (3, 4, 5), np.add),
        (Layer("mul", (1, 2), (3, 4, 5), "it"), (3, 1, 1), np.multiply),
        (Layer("concat", (1, 2), (5, 4, 5), "it"), (2, 4, 5), lambda x, y: np.concatenate([x, y], axis=1)),
    ],
    ids=["add", "mul", "concat"],
)
def test_a_layer_by_itself_reads_and_writes_uint8(
    tmp_path: Path, layer: Layer, second: Any, computed: Callable[..., Any]
) -> None:
    graph = one_layer(layer, [(3, 4, 5), second])
    data = onnx_format.write(graph, {}, ranges=made_up_ranges(graph))
    model = onnx.load_from_string(data)
    types = {info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)}
    assert types == {onnx.TensorProto.UINT8}
    assert [(name, count) for name, count in executed(data, tmp_path).items() if not name.startswith("QLinear")] == []
    inputs = [np.random.default_rng(0).uniform(-1.9, 1.9, (2, *shape)).astype("f") for shape in ((3, 4, 5), second)]
    np.testing.assert_allclose(run(data, tmp_path, *inputs), computed(*inputs), atol=4 * 8 / 255)


def test_a_layer_by_itself_keeps_its_metadata_beside_its_scales() -> None:
    graph = one_layer(Layer("hard_sigmoid", (0,), (5, 6, 7), "it"), [(5, 6, 7)])
    model = onnx.load_from_string(
        onnx_format.write(graph, {}, metadata={"a": "b"}, ranges={"input0": (-5.0, 5.2), "it": (0.0, 1.0)})
    )
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["a"] == "b"
    assert json.loads(told["scales"]) == {
        "input0": [pytest.approx(0.04), 125],
        "output": [pytest.approx(1 / 255), 0],
    }


@pytest.mark.parametrize("space", OWN_SPACES)
def test_what_is_timed_runs_in_int8_alone(tmp_path: Path, space: str) -> None:
    """The layers of a table's entries, of made-up ranges, are loaded and have no float in them."""
    seen = {}
    for architecture in covers(space):
        graph = onnx_format.lower(architecture.graph)
        for layer in graph.layers:
            if layer.kind not in ("input", "zero"):
                seen.setdefault((layer.kind, layer.kernel, layer.stride, layer.activation), (layer, graph))
    for layer, graph in seen.values():
        alone = one_layer(layer, graph.input_shapes(layer))
        data = onnx_format.write(alone, random_weights(alone), ranges=made_up_ranges(alone))
        left = {name for name in executed(data, tmp_path) if not name.startswith("QLinear")}
        assert left <= IN_UINT8, layer


@pytest.mark.parametrize("space", OWN_SPACES)
def test_networks_of_every_space_are_near_fp32_and_convert_only_at_their_ends(tmp_path: Path, space: str) -> None:
    for architecture in some_of_covers(space):
        module, inputs = network(architecture.graph), images(architecture.graph, count=8)
        data = in_int8(onnx_format.lower(architecture.graph), deployed_weights(module), inputs)
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        expected = torch_output(module, inputs)
        assert rmse(run(data, tmp_path, inputs), expected) <= 0.04 * expected.std(), architecture.name
        counts = executed(data, tmp_path)
        graph = architecture.graph
        idle = all(graph.layers[reader].kind == "zero" for reader in graph.consumers[0])  # nothing reads the images
        assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (0 if idle else 1, 1)
        del counts["QuantizeLinear"], counts["DequantizeLinear"]
        left = {name for name in counts if not name.startswith("QLinear")} - IN_UINT8
        zeros = any(layer.kind == "zero" for layer in architecture.graph.layers)
        assert left <= (OF_SHAPES if zeros else set()), architecture.name


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._left = iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._left, None)
        return None if image is None else {"images": image[None]}


def peer(graph: Graph, weights: Any, inputs: NDArray[np.float32], folder: Path) -> bytes:
    """Return what `quantize_static` makes of the fp32 file."""
    source, target = folder / "fp32.onnx", folder / "static.onnx"
    source.write_bytes(onnx_format.write(graph, weights))
    quantize_static(
        source,
        target,
        _Images(inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return target.read_bytes()


@pytest.mark.parametrize("space", ["pnas", "mbconv"])
def test_the_error_is_at_most_a_fifth_above_that_of_quantize_static(tmp_path: Path, space: str) -> None:
    plugin = plugins.load("spaces", space)
    for parameters in spaces.random_parameters(plugin, 3, seed=7):
        graph = onnx_format.lower(plugin.architecture(parameters, Scale(1, 6, 13, 10)).graph)
        module, inputs = network(graph), images(graph, count=64)
        weights = deployed_weights(module)
        theirs = peer(graph, weights, inputs[:16], tmp_path)
        ours = in_int8(graph, weights, inputs[:16])
        expected = torch_output(module, inputs)
        errors = [rmse(run(data, tmp_path, inputs), expected) for data in (ours, theirs)]
        assert errors[0] <= 1.2 * errors[1], parameters


def numbers(data: bytes, kind: str) -> list[list[NDArray[Any]]]:
    """Return the constants of the DequantizeLinears that each node of a kind reads, and of what quantises its output.

    They are, in the order of the file, the input's scale and zero point, a weight's and a bias's numbers, and so on.
    """
    model = onnx.load_from_string(data)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    writes = {output: node for node in model.graph.node for output in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type == kind:
            (after,) = [reader for reader in model.graph.node if node.output[0] in reader.input]
            parts = [writes[name] for name in node.input]
            found.append([constants[name] for part in (*parts, after) for name in part.input if name in constants])
    return found


@pytest.mark.parametrize(("kind", "count"), [("Conv", 2), ("Add", 1), ("MaxPool", 1), ("GlobalAveragePool", 1)])
def test_the_numbers_are_those_of_quantize_static(tmp_path: Path, kind: str, count: int) -> None:
    b = Builder((3, 8, 8))
    first = b.relu(b.window("conv", 0, name="first", filters=4, kernel=(3, 3), norm=True))
    second = b.window("conv", first, name="second", filters=4, kernel=(3, 3), groups=4, norm=True)
    both = b.add(b.window("max_pool", second, name="pool", kernel=(3, 3)), first, name="both")
    graph = onnx_format.lower(b.finish(b.linear(b.mean(both, name="mean"), 5, name="classifier")))
    weights, inputs = deployed_weights(network(graph)), images(graph, count=8)
    ours, theirs = in_int8(graph, weights, inputs), peer(graph, weights, inputs, tmp_path)
    assert len(numbers(ours, kind)) == count
    for mine, reference in zip(numbers(ours, kind), numbers(theirs, kind), strict=True):
        assert [value.dtype for value in mine] == [value.dtype for value in reference]
        for value, expected in zip(mine, reference, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_channel_of_tiny_weights_keeps_its_bias(tmp_path: Path) -> None:
    graph = window("conv", 3, (4, 4), filters=3)
    weight = np.ones((3, 3, 1, 1), dtype=np.float32)
    weight[1], weight[2] = 1e-12, 0.0
    bias = np.array([0.0, 2.0, -2.0], dtype=np.float32)
    inputs = images(graph)
    outputs = run(in_int8(graph, {"it": (weight, bias)}, inputs), tmp_path, inputs)
    np.testing.assert_allclose(outputs[:, 1], 2.0, atol=0.05)
    np.testing.assert_allclose(outputs[:, 2], -2.0, atol=0.05)


@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_a_relu_beside_other_readers_of_its_value_clips(tmp_path: Path, kind: Literal["relu", "relu6"]) -> None:
    b = Builder((3, 4, 4))
    value = b.window("conv", 0, name="conv", filters=4)
    graph = b.finish(b.concat([b.activation(value, kind), value], name="all"))
    weights = {"conv": (np.full((4, 3, 1, 1), 4.0, dtype=np.float32), np.zeros(4, dtype=np.float32))}
    inputs = images(graph)
    clipped, whole = np.split(run(in_int8(onnx_format.lower(graph), weights, inputs), tmp_path, inputs), 2, axis=1)
    assert whole.min() < -1
    assert whole.max() > 7
    np.testing.assert_allclose(clipped, np.clip(whole, 0, 6 if kind == "relu6" else None), atol=0.2)


def test_zeros_stay_zeros_in_a_concatenation(tmp_path: Path) -> None:
    b = Builder((3, 6, 6))
    value = b.window("conv", 0, name="conv", filters=4, norm=True)
    graph = b.finish(b.concat([value, b.zero((2, 6, 6), name="no")], name="all"))
    module, inputs = network(graph), images(graph, count=3)
    outputs = run(in_int8(onnx_format.lower(graph), deployed_weights(module), inputs), tmp_path, inputs)
    assert outputs.shape == (3, 6, 6, 6)
    assert outputs[:, :4].any()
    assert not outputs[:, 4:].any()


def test_ranges_are_those_of_all_images() -> None:
    b = Builder((4, 9, 9))
    value = b.relu(b.window("conv", 0, name="conv", kernel=(3, 3), groups=4))
    graph = onnx_format.lower(b.finish(b.window("max_pool", value, name="pool", kernel=(3, 3))))
    inputs, weights = images(graph, count=11), random_weights(graph)
    ranges = onnx_format.calibrate(graph, weights, inputs)
    assert ranges.keys() == {"input", "conv", "pool"}
    assert ranges["input"] == (inputs.min(), inputs.max())
    assert ranges["conv"][0] == 0.0
    parts = [onnx_format.calibrate(graph, weights, image[None]) for image in inputs]
    assert ranges["pool"][1] == pytest.approx(max(part["pool"][1] for part in parts))


def test_a_layer_without_a_range_is_refused() -> None:
    graph = window("conv", 3, (4, 4))
    with pytest.raises(ExportError, match=r"needs the range of its output; 'it' has none.*onnx.calibrate"):
        onnx_format.write(graph, random_weights(graph), ranges={"input": (-1.0, 1.0)})


def test_an_unknown_precision_lists_the_known_ones() -> None:
    assert formats.get("onnx", precision="int8").SUFFIX == ".onnx"
    with pytest.raises(ExportError, match=r"runtime onnx in fp32, int8; got int4"):
        formats.get("onnx", precision="int4")
