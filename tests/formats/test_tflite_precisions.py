"""Files with smaller weights, fp16 and dynamic-range int8: what they compute, how large they are, how they run."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given
from networks import OWN_SPACES, TOLERANCE, architectures, images, relative_error, repeatable
from numpy.typing import NDArray

from hwnas import formats
from hwnas.errors import ExportError
from hwnas.formats import made_up_ranges, random_weights, tflite
from hwnas.network import published
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Builder, Graph, Layer, one_layer
from hwnas.network.scale import Scale
from hwnas.support import plugins

OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
SCALES = [Scale(1, 24, 16, 10), Scale(1, 20, 17, 10, input_channels=1)]
MOST = {"fp16": 2e-3, "dynamic": 0.05}  # error of a network's outputs, relative to the largest
MOST_ALONE = {"fp16": 1e-3, "dynamic": 0.02}  # of a layer's by itself
PRECISIONS: list[Literal["fp16", "dynamic"]] = ["fp16", "dynamic"]


def weights_of(graph: Graph) -> Any:
    """Return random weights, with biases."""
    random = np.random.default_rng(1)
    weights = random_weights(graph)
    return {name: (w, 0.1 * random.standard_normal(b.shape, dtype=np.float32)) for name, (w, b) in weights.items()}


def with_every_operator(space: str, scale: Scale) -> list[Architecture]:
    """Return networks of a space's cover that add a kind of operator to those before them."""
    known: set[Any] = set()
    found = []
    for architecture in plugins.load("spaces", space).cover(scale):
        layers = tflite.lower(architecture.graph).layers
        kinds = {(x.kind, x.kernel, x.stride, x.dilation, x.depthwise, x.activation, x.padding) for x in layers}
        if not kinds <= known:
            found.append(architecture)
            known |= kinds
    return found


def interpreter_of(data: bytes, *, delegates: bool = True) -> Any:
    kind = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    return interpreter


def computed(data: bytes, inputs: NDArray[np.float32], *, delegates: bool = True) -> NDArray[np.float32]:
    interpreter = interpreter_of(data, delegates=delegates)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in inputs:
        interpreter.set_tensor(source["index"], np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"]).ravel())
    return np.array(outputs)


def is_one_piece(data: bytes) -> bool:
    """Whether XNNPACK takes all from the input to the output."""
    interpreter = interpreter_of(data)
    delegates = [details for details in interpreter._get_ops_details() if details["op_name"] == "DELEGATE"]
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    return (
        len(delegates) == 1
        and source["index"] in delegates[0]["inputs"]
        and [target["index"]] == list(delegates[0]["outputs"])
    )


def used(data: bytes) -> list[tuple[str, int, list[int]]]:
    """Return each operator's name and version, and the types of what it reads."""
    model = schema.ModelT.InitFromPackedBuf(data)
    (main,) = model.subgraphs
    codes = [model.operatorCodes[operator.opcodeIndex] for operator in main.operators]
    return [
        (OPERATORS[code.builtinCode], code.version, [main.tensors[number].type for number in operator.inputs])
        for code, operator in zip(codes, main.operators, strict=True)
    ]


def window(channels: int, size: int, **fields: Any) -> Graph:
    b = Builder((channels, size, size))
    return b.finish(b.window("conv", 0, name="it", **fields))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("space", OWN_SPACES)
def test_every_operator_of_a_space_computes_nearly_what_fp32_does(
    space: str, scale: Scale, precision: Literal["fp16", "dynamic"]
) -> None:
    for architecture in with_every_operator(space, scale):
        graph = tflite.lower(architecture.graph)
        weights, inputs = weights_of(graph), images(graph, count=3)
        whole = tflite.write(graph, weights)
        data = tflite.write(graph, weights, precision=precision)
        expected = computed(whole, inputs)
        for delegates in (True, False):
            error = relative_error(computed(data, inputs, delegates=delegates), expected)
            assert error <= MOST[precision], (architecture.name, delegates)
        assert is_one_piece(data) == is_one_piece(whole), architecture.name
        assert len(data) == tflite.memory(graph, precision=precision).file_bytes


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large"])
def test_xnnpack_takes_the_whole_network_in_one_piece(name: str, precision: Literal["fp16", "dynamic"]) -> None:
    graph = tflite.lower(getattr(published, name)(resolution=33).graph)
    data = tflite.write(graph, random_weights(graph), precision=precision)
    assert is_one_piece(data)
    share = {"fp16": 0.51, "dynamic": 0.28}[precision]
    assert len(data) < share * tflite.memory(graph).file_bytes


@given(architecture=architectures())
@repeatable(15)
def test_the_files_size_is_exact(architecture: Architecture) -> None:
    graph = tflite.lower(architecture.graph)
    for precision in PRECISIONS:
        data = tflite.write(graph, random_weights(graph), precision=precision)
        assert len(data) == tflite.memory(graph, precision=precision).file_bytes


def test_fp16_is_fp32_of_rounded_weights() -> None:
    for architecture in with_every_operator("mbconv", SCALES[1]):
        graph = tflite.lower(architecture.graph)
        weights = {
            name: (weight.astype(np.float16).astype(np.float32), bias.astype(np.float16).astype(np.float32))
            for name, (weight, bias) in weights_of(graph).items()
        }
        inputs = images(graph)
        expected = computed(tflite.write(graph, weights), inputs)
        outputs = computed(tflite.write(graph, weights, precision="fp16"), inputs)
        assert relative_error(outputs, expected) <= TOLERANCE, architecture.name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "fields",
    [
        {"kernel": (1, 1)},
        {"kernel": (3, 3), "stride": (2, 2)},
        {"kernel": (3, 3), "dilation": 2},
        {"kernel": (1, 7), "padding": "symmetric", "stride": (2, 2)},
        {"kernel": (5, 5), "groups": 48},
        {"kernel": (5, 5), "groups": 48, "stride": (2, 2)},
        {"kernel": (5, 5), "groups": 48, "dilation": 2},
        {"kernel": (3, 3), "groups": 48, "filters": 144},
    ],
    ids=str,
)
def test_a_convolution_by_itself_is_near_fp32(
    tmp_path: Path, fields: dict[str, Any], precision: Literal["fp16", "dynamic"]
) -> None:
    for size in (8, 9):
        graph = window(48, size, **fields)
        weights, inputs = weights_of(graph), images(graph)
        data = tflite.write(graph, weights, precision=precision)
        expected = computed(tflite.write(graph, weights), inputs)
        for delegates in (True, False):
            error = relative_error(computed(data, inputs, delegates=delegates), expected)
            assert 0 < error <= MOST_ALONE[precision], (size, delegates)
        assert is_one_piece(data)
        (tmp_path / "model.tflite").write_bytes(data)
        loaded = tflite.load(tmp_path / "model.tflite")(inputs)
        assert loaded.shape[1:] == graph.layers[-1].shape


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_classifier_by_itself_is_near_fp32(precision: Literal["fp16", "dynamic"]) -> None:
    b = Builder((320, 1, 1))
    graph = b.finish(b.linear(0, 10, name="classifier"))
    weights, inputs = weights_of(graph), images(graph)
    data = tflite.write(graph, weights, precision=precision)
    expected = computed(tflite.write(graph, weights), inputs)
    for delegates in (True, False):
        assert 0 < relative_error(computed(data, inputs, delegates=delegates), expected) <= MOST_ALONE[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_large_zeros_are_small_in_the_file_and_stay_zeros(
    tmp_path: Path, precision: Literal["fp16", "dynamic"]
) -> None:
    b = Builder((3, 16, 16))
    value = b.window("conv", 0, name="conv", filters=4, norm=True)
    graph = b.finish(b.concat([value, b.zero((60, 16, 16), name="no")], name="all"))
    data = tflite.write(graph, weights_of(graph), precision=precision)
    (tmp_path / "model.tflite").write_bytes(data)
    outputs = tflite.load(tmp_path / "model.tflite")(images(graph))
    assert outputs[:, :4].any()
    assert not outputs[:, 4:].any()
    assert len(data) < 0.6 * tflite.memory(graph).file_bytes
    assert len(data) == tflite.memory(graph, precision=precision).file_bytes
    assert is_one_piece(data)


def test_operators_are_of_the_versions_that_take_their_weights() -> None:
    """Those of LiteRT's op_version.cc; all of them are in tflite-runtime 2.14, too."""
    b = Builder((48, 8, 8))
    value = b.window("conv", 0, name="dense", kernel=(3, 3))
    value = b.window("conv", value, name="depthwise", kernel=(5, 5), groups=48, dilation=2)
    graph = b.finish(b.linear(b.mean(value, name="mean"), 100, name="classifier"))
    kind = schema.TensorType
    floats = [kind.FLOAT32] * 3
    half = ("DEQUANTIZE", 3, [kind.FLOAT16])
    hybrid = [kind.FLOAT32, kind.INT8, kind.FLOAT32]
    data = {precision: tflite.write(graph, weights_of(graph), precision=precision) for precision in PRECISIONS}
    assert [entry for entry in used(data["fp16"]) if entry[0] != "MEAN"] == [
        half,
        ("CONV_2D", 1, floats),
        half,
        ("DEPTHWISE_CONV_2D", 2, floats),
        half,
        ("FULLY_CONNECTED", 1, floats),
    ]
    assert [entry for entry in used(data["dynamic"]) if entry[0] != "MEAN"] == [
        ("CONV_2D", 5, hybrid),
        ("DEQUANTIZE", 5, [kind.INT8]),
        ("DEPTHWISE_CONV_2D", 2, floats),
        ("FULLY_CONNECTED", 9, hybrid),
    ]
    model = schema.ModelT.InitFromPackedBuf(data["dynamic"])
    assert model.subgraphs[0].operators[-1].builtinOptions.asymmetricQuantizeInputs


def test_int8_weights_use_all_numbers_of_each_channel() -> None:
    graph = window(48, 8, kernel=(3, 3))
    weights = weights_of(graph)
    weights["it"][0][7] *= 1000
    weights["it"][0][8] = 0
    model = schema.ModelT.InitFromPackedBuf(tflite.write(graph, weights, precision="dynamic"))
    (main,) = model.subgraphs
    (weight,) = [tensor for tensor in main.tensors if tensor.type == schema.TensorType.INT8]
    assert (len(weight.quantization.scale), weight.quantization.quantizedDimension) == (48, 0)
    numbers = np.asarray(model.buffers[weight.buffer].data).view(np.int8).reshape(weight.shape)
    most = np.abs(numbers).max(axis=(1, 2, 3))
    assert most[8] == 0
    assert set(np.delete(most, 8)) == {127}
    restored = numbers * np.asarray(weight.quantization.scale)[:, None, None, None]
    wanted = weights["it"][0].transpose(0, 2, 3, 1)
    assert (np.abs(restored - wanted) <= 0.501 * np.asarray(weight.quantization.scale)[:, None, None, None]).all()


@pytest.mark.parametrize(("channels", "kind"), [(31, schema.TensorType.FLOAT32), (32, schema.TensorType.INT8)])
def test_weights_of_fewer_than_1024_numbers_stay_fp32(channels: int, kind: int) -> None:
    data = tflite.write(graph := window(channels, 4, filters=32), weights_of(graph), precision="dynamic")
    assert used(data) == [("CONV_2D", 5 if kind == schema.TensorType.INT8 else 1, [0, kind, 0])]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_is_known_by_its_name(precision: Literal["fp16", "dynamic"]) -> None:
    written = formats.get("tflite", precision=precision)
    graph = window(48, 8, kernel=(3, 3))
    data = written.write(graph, random_weights(graph), precision=precision)
    assert len(data) < 0.6 * len(written.write(graph, random_weights(graph)))


def test_ranges_are_for_int8_alone() -> None:
    graph = window(3, 4)
    weights, ranges = random_weights(graph), made_up_ranges(graph)
    assert tflite.write(graph, weights, ranges=ranges, precision="int8") == tflite.write(graph, weights, ranges=ranges)
    with pytest.raises(ExportError, match=r"takes ranges; got int8 without them.*calibrate"):
        tflite.write(graph, weights, precision="int8")
    with pytest.raises(ExportError, match="takes ranges; got fp16 with them"):
        tflite.write(graph, weights, ranges=ranges, precision="fp16")
    with pytest.raises(ExportError, match="got bf16"):
        tflite.write(graph, weights, precision="bf16")  # type: ignore[arg-type]


def test_a_weight_that_fp16_does_not_hold_is_refused() -> None:
    graph = window(16, 4)
    weight = np.full((16, 16, 1, 1), 7e4, dtype=np.float32)
    with pytest.raises(ExportError, match=r"it.weight: fp16 holds numbers up to 65504; got 70000. Write the file in"):
        tflite.write(graph, {"it": (weight, np.zeros(16, dtype=np.float32))}, precision="fp16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_layers_run_as_in_fp32(precision: Literal["fp16", "dynamic"]) -> None:
    for kind in ("relu", "relu6", "hard_swish", "hard_sigmoid", "max_pool", "avg_pool"):
        kernel = (3, 3) if kind.endswith("pool") else (1, 1)
        graph = one_layer(Layer(kind, (0,), (5, 6, 7), "it", kernel=kernel), [(5, 6, 7)])  # type: ignore[arg-type]
        data = tflite.write(graph, {}, precision=precision)
        np.testing.assert_array_equal(computed(data, images(graph)), computed(tflite.write(graph, {}), images(graph)))
