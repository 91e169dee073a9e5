"""What every format must do; a new file in hwnas/formats is tested here by its name alone."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import (
    TOLERANCE,
    architectures,
    chosen_networks,
    images,
    network,
    relative_error,
    repeatable,
    torch_output,
)

from hwnas import formats
from hwnas.errors import ExportError, UnknownNameError
from hwnas.formats import Format
from hwnas.network import published
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Activation, Builder, Graph, Kind, Layer, Padding, Shape, Window, one_layer
from hwnas.network.kinds.chain import Chain
from hwnas.support import plugins
from hwnas.training.module import deployed_weights

KERNELS = [(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1)]
STRIDES = [(1, 1), (2, 2), (1, 2), (2, 1)]
SIZES = [(8, 8), (9, 9), (7, 10), (1, 1), (2, 3)]


@pytest.fixture(params=plugins.names("formats"), scope="module")
def runtime(request: pytest.FixtureRequest) -> Format:
    return formats.get(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def error(runtime: Format, graph: Graph, folder: Path) -> float:
    """Return the error of the graph's file relative to the torch module."""
    module, inputs = network(graph), images(graph)
    path = folder / f"model{runtime.SUFFIX}"
    path.write_bytes(runtime.write(runtime.lower(graph), deployed_weights(module)))
    outputs = runtime.load(path)(inputs)
    return relative_error(outputs.reshape(len(inputs), -1), torch_output(module, inputs))


def alone(kind: Kind, shape: Shape, **fields: Any) -> Graph:
    """Return a convolution or pooling by itself."""
    b = Builder(shape)
    b.window(cast(Literal["conv", "max_pool", "avg_pool"], kind), 0, name="it", **fields)
    return one_layer(b.finish(1).layers[-1], [shape])


@given(architecture=st.one_of(architectures(), chosen_networks()))
@repeatable(60)
def test_a_file_computes_what_the_module_computes(runtime: Format, folder: Path, architecture: Architecture) -> None:
    assert error(runtime, architecture.graph, folder) <= TOLERANCE


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_pad_as_the_graph_says(runtime: Format, folder: Path, groups: int, dilation: int) -> None:
    for kernel, stride, size in product(KERNELS, STRIDES, SIZES):
        graph = alone("conv", (6, *size), kernel=kernel, stride=stride, dilation=dilation, groups=groups, norm=True)
        assert error(runtime, graph, folder) <= TOLERANCE, (kernel, stride, size)


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
def test_poolings_pad_as_the_graph_says(runtime: Format, folder: Path, kind: Kind) -> None:
    for kernel, stride, size in product(KERNELS, STRIDES, SIZES):
        graph = alone(kind, (3, *size), kernel=kernel, stride=stride)
        assert error(runtime, graph, folder) <= TOLERANCE, (kernel, stride, size)


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
def test_poolings_of_more_rows_than_there_are(runtime: Format, folder: Path, kind: Kind) -> None:
    """XNNPACK divides by a wrong number where a window between the first and the last hangs over both ends."""
    for kernel, stride, height in [((7, 1), (2, 1), 5), ((7, 7), (2, 2), 5), ((9, 1), (3, 1), 7), ((11, 3), (2, 2), 9)]:
        graph = alone(kind, (3, height, 6), kernel=kernel, stride=stride)
        for activation in ("", "relu6"):
            fused = Graph((graph.layers[0], graph.layers[1]._replace(activation=activation)))
            assert error(runtime, fused, folder) <= TOLERANCE, (kernel, stride, height, activation)


@pytest.mark.parametrize("kind", ["conv", "max_pool", "avg_pool"])
def test_what_reads_a_shift_pads_as_it_does_elsewhere(runtime: Format, folder: Path, kind: Window) -> None:
    """ONNX Runtime merges a Pad of zeros into the pooling that follows."""
    for size, kernel, stride in product([(6, 9), (9, 9)], [(1, 1), (1, 3), (3, 3)], [(1, 1), (2, 2)]):
        b = Builder((3, *size))
        graph = b.finish(b.window(kind, b.shift(0, name="shift"), name="it", kernel=kernel, stride=stride))
        assert error(runtime, graph, folder) <= TOLERANCE, (size, kernel, stride)


@pytest.mark.parametrize("kind", ["conv", "max_pool"])
@pytest.mark.parametrize("padding", ["symmetric", "valid"])
def test_other_paddings_are_written_too(runtime: Format, folder: Path, kind: Kind, padding: str) -> None:
    for kernel, stride, size in product([(1, 1), (3, 3)], STRIDES, [(8, 8), (9, 9), (7, 10)]):
        graph = alone(kind, (3, *size), kernel=kernel, stride=stride, padding=padding)
        assert error(runtime, graph, folder) <= TOLERANCE, (kernel, stride, size)


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 9), (1, 1), (1, 4), (2, 2)])
def test_shift_drops_the_first_row_and_column(runtime: Format, folder: Path, size: tuple[int, int]) -> None:
    b = Builder((3, *size))
    b.shift(0, name="it")
    assert error(runtime, one_layer(b.finish(1).layers[-1], [(3, *size)]), folder) <= TOLERANCE


@pytest.mark.parametrize(
    "layer",
    [
        Layer("relu", (0,), (5, 6, 7), "it"),
        Layer("relu6", (0,), (5, 6, 7), "it"),
        Layer("hard_swish", (0,), (5, 6, 7), "it"),
        Layer("hard_sigmoid", (0,), (5, 6, 7), "it"),
        Layer("mean", (0,), (5, 1, 1), "it"),
        Layer("linear", (0,), (4, 1, 1), "it", bias=True),
        Layer("linear", (0,), (4, 1, 1), "it", bias=True, activation="relu"),
        Layer("conv", (0,), (9, 6, 7), "it", kernel=(3, 3), bias=True),
        Layer("conv", (0,), (9, 6, 7), "it", kernel=(3, 3), norm=True, activation="relu"),
        Layer("conv", (0,), (10, 6, 7), "it", kernel=(3, 3), groups=5, activation="relu"),
        Layer("conv", (0,), (9, 6, 7), "it", kernel=(3, 3), norm=True, activation="relu6"),
        Layer("max_pool", (0,), (5, 6, 7), "it", kernel=(3, 3), activation="relu"),
        Layer("avg_pool", (0,), (5, 6, 7), "it", kernel=(3, 3), activation="relu"),
    ],
    ids=lambda layer: f"{layer.kind}{layer.activation and ' ' + layer.activation}{' groups' * (layer.groups > 1)}",
)
def test_a_layer_runs_by_itself(runtime: Format, folder: Path, layer: Layer) -> None:
    assert error(runtime, one_layer(layer, [(5, 6, 7)]), folder) <= TOLERANCE


@pytest.mark.parametrize("relu", [False, True])
def test_add_runs_by_itself(runtime: Format, folder: Path, relu: bool) -> None:
    shape = (3, 4, 5)
    output, (left, right) = run_alone(
        runtime, Layer("add", (1, 2), shape, "it", activation="relu" if relu else ""), [shape] * 2, folder
    )
    expected = np.maximum(left + right, 0) if relu else left + right
    np.testing.assert_array_equal(output, expected)


def test_concat_runs_by_itself(runtime: Format, folder: Path) -> None:
    shapes = [(3, 4, 5), (1, 4, 5), (2, 4, 5)]
    output, inputs = run_alone(runtime, Layer("concat", (1, 2, 3), (6, 4, 5), "it"), shapes, folder)
    np.testing.assert_array_equal(output, np.concatenate(inputs, axis=1))


def test_a_slice_keeps_its_channels(runtime: Format, folder: Path) -> None:
    output, (value,) = run_alone(runtime, Layer("slice", (0,), (3, 4, 5), "it", start=2), [(6, 4, 5)], folder)
    np.testing.assert_array_equal(output, value[:, 2:5])


@pytest.mark.parametrize(("groups", "order"), [(2, [0, 3, 1, 4, 2, 5]), (3, [0, 2, 4, 1, 3, 5])])
def test_a_shuffle_takes_a_channel_of_each_group_in_turn(
    runtime: Format, folder: Path, groups: int, order: list[int]
) -> None:
    output, (value,) = run_alone(runtime, Layer("shuffle", (0,), (6, 4, 5), "it", groups=groups), [(6, 4, 5)], folder)
    np.testing.assert_array_equal(output, value[:, order])


@pytest.mark.parametrize("activation", ["", "relu"])
def test_factors_of_channels_run_by_themselves(runtime: Format, folder: Path, activation: Literal["", "relu"]) -> None:
    shapes = [(3, 4, 5), (3, 1, 1)]
    layer = Layer("mul", (1, 2), shapes[0], "it", activation=activation)
    output, (value, factors) = run_alone(runtime, layer, shapes, folder)
    expected = value * factors
    np.testing.assert_array_equal(output, np.maximum(expected, 0) if activation else expected)


def test_a_hidden_layer_may_have_any_activation(runtime: Format, folder: Path) -> None:
    for kind in ("relu", "relu6", "hard_swish", "hard_sigmoid"):
        b = Builder((6, 3, 4))
        hidden = b.activation(b.linear(b.mean(0, name="mean"), 9, name="hidden"), cast(Activation, kind))
        assert error(runtime, b.finish(b.linear(hidden, 3, name="classifier")), folder) <= TOLERANCE, kind


def test_zeros_are_of_as_many_images_as_there_are(runtime: Format, folder: Path) -> None:
    b = Builder((3, 6, 6))
    joined = b.concat(
        [b.window("conv", 0, name="conv", filters=4, norm=True), b.zero((2, 6, 6), name="no")], name="all"
    )
    graph = b.finish(b.linear(b.mean(b.relu(joined), name="mean"), 3, name="classifier"))
    assert error(runtime, graph, folder) <= TOLERANCE


@pytest.mark.parametrize("name", [*published.TORCHVISIONS, "shufflenet-v2"])
def test_networks_that_torchvision_has_are_written(runtime: Format, folder: Path, name: str) -> None:
    paddings: tuple[Padding, ...] = ("same", "symmetric")
    for padding in paddings:
        chain = published.published_network(name, resolution=65)
        assert isinstance(chain, Chain)
        assert error(runtime, replace(chain, padding=padding).graph, folder) <= TOLERANCE


def run_alone(runtime: Format, layer: Layer, shapes: list[Shape], folder: Path) -> tuple[Any, list[Any]]:
    path = folder / f"alone{runtime.SUFFIX}"
    path.write_bytes(runtime.write(one_layer(layer, shapes), {}))
    random = np.random.default_rng(0)
    inputs = [random.standard_normal((2, *shape), dtype=np.float32) for shape in shapes]
    return runtime.load(path)(*inputs), inputs


def test_a_value_can_be_added_to_itself(runtime: Format, folder: Path) -> None:
    b = Builder((3, 8, 8))
    value = b.window("conv", 0, name="conv", filters=4, norm=True)
    graph = b.finish(b.linear(b.mean(b.add(value, value, name="twice"), name="pool"), 3, name="classifier"))
    assert error(runtime, graph, folder) <= TOLERANCE


def test_a_classifier_may_read_an_image(runtime: Format, folder: Path) -> None:
    b = Builder((3, 4, 5))
    assert error(runtime, b.finish(b.linear(0, 7, name="classifier")), folder) <= TOLERANCE


def test_lowering_keeps_what_is_computed() -> None:
    b = Builder((3, 8, 8))
    value = b.relu(b.window("conv", 0, name="conv", filters=4, norm=True))
    value = b.relu(b.add(value, b.window("max_pool", value, name="pool", kernel=(3, 3)), name="sum"))
    graph = b.finish(b.linear(b.mean(value, name="mean"), 3, name="classifier"))
    expected = torch_output(network(graph), images(graph))
    for name in plugins.names("formats"):
        lowered = formats.get(name).lower(graph)
        assert len(lowered.layers) < len(graph.layers)
        np.testing.assert_allclose(torch_output(network(lowered), images(graph)), expected)


def test_threads_do_not_change_the_outputs(runtime: Format, folder: Path) -> None:
    graph = alone("conv", (8, 16, 16), filters=16, kernel=(3, 3))
    path = folder / f"threads{runtime.SUFFIX}"
    path.write_bytes(runtime.write(graph, formats.random_weights(graph)))
    one, two = (runtime.load(path, threads=threads)(images(graph)) for threads in (1, 2))
    assert one.shape == (2, 16, 16, 16)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


def test_writing_is_repeatable(runtime: Format) -> None:
    graph = alone("conv", (8, 16, 16), kernel=(3, 3))
    first, second = (runtime.write(graph, formats.random_weights(graph, seed=1), metadata={"a": "b"}) for _ in "ab")
    assert first == second


def test_metadata_is_in_the_file(runtime: Format) -> None:
    graph = alone("conv", (2, 4, 4))
    data = runtime.write(graph, formats.random_weights(graph), metadata={"classes": '["cat", "dög"]'})
    assert b"classes" in data
    assert '["cat", "dög"]'.encode() in data


def test_an_unknown_kind_of_layer_is_refused(runtime: Format) -> None:
    layer = Layer(cast(Kind, "swish"), (0,), (2, 4, 4), "it")
    with pytest.raises(ExportError, match=r"it: hwnas has no .* operator for layers of kind 'swish'"):
        runtime.write(one_layer(layer, [(2, 4, 4)]), {})


def with_every_kind(channels: int, size: tuple[int, int]) -> Graph:
    """Return a network with a layer of each kind."""
    b = Builder((channels, *size))
    stem = b.relu(b.window("conv", 0, name="stem", filters=6, kernel=(3, 3), norm=True))
    wide = b.window(
        "conv", b.window("conv", stem, name="7x7", kernel=(7, 7), groups=6, norm=True), name="1x1", bias=True
    )
    swish = b.activation(wide, "hard_swish")
    squeezed = b.activation(b.window("conv", b.mean(swish, name="squeeze"), name="gate", bias=True), "hard_sigmoid")
    value = b.add(b.mul(swish, squeezed, name="excited"), b.activation(stem, "relu6"), name="sum")
    halves = [
        b.window("max_pool", value, name="max", kernel=(3, 3), stride=(2, 2)),
        b.window("avg_pool", value, name="average", kernel=(3, 3), stride=(2, 2)),
        b.window("conv", b.shift(value, name="shift"), name="after", stride=(2, 2), norm=True),
        b.window("conv", value, name="dilated", kernel=(3, 3), stride=(2, 2), dilation=2, groups=6, norm=True),
    ]
    halves.append(b.zero(b.shape(halves[0]), name="none"))
    shuffled = b.shuffle(b.concat(halves, name="all"), 2, name="shuffled")
    hidden = b.relu(b.linear(b.slice(shuffled, 5, 20, name="some"), 9, name="hidden"))
    return b.finish(b.linear(hidden, 5, name="classifier"))


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_a_file_of_a_batch_computes_what_one_of_single_images_does_of_any_number(
    runtime: Format, folder: Path, size: tuple[int, int]
) -> None:
    graph = runtime.lower(with_every_kind(3, size))
    weights, inputs = deployed_weights(network(with_every_kind(3, size))), images(graph, count=7)
    for precision, uint8 in product(runtime.FACTS, [False, True]):
        how: dict[str, Any] = {"precision": precision, "uint8_input": uint8}
        how["ranges"] = runtime.calibrate(graph, weights, inputs) if precision == "int8" else None
        path = folder / f"{precision}{uint8}{runtime.SUFFIX}"
        read = (inputs * 60 + 128).clip(0, 255).astype(np.uint8) if uint8 else inputs
        path.write_bytes(runtime.write(graph, weights, **how))
        expected = runtime.load(path)(read)
        path.with_stem("batch").write_bytes(runtime.write(graph, weights, batch=3, **how))
        model = runtime.load(path.with_stem("batch"))
        for count in (2, 3, 7):
            assert relative_error(model(read[:count]), expected[:count]) <= (1e-6 if precision != "dynamic" else 0.01)


def test_a_layer_by_itself_may_take_a_batch(runtime: Format, folder: Path) -> None:
    shape = (3, 4, 5)
    path = folder / f"batch{runtime.SUFFIX}"
    path.write_bytes(runtime.write(one_layer(Layer("add", (1, 2), shape, "it"), [shape] * 2), {}, batch=4))
    left, right = (np.random.default_rng(seed).standard_normal((6, *shape), dtype=np.float32) for seed in (0, 1))
    np.testing.assert_array_equal(runtime.load(path)(left, right), left + right)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_no_image_is_refused(runtime: Format, batch: int) -> None:
    graph = alone("conv", (2, 4, 4))
    with pytest.raises(ExportError, match=rf"the batch of .* file must be 1 or more; got {batch}. Leave it out"):
        runtime.write(graph, formats.random_weights(graph), batch=batch)


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_missing_weights_are_refused(runtime: Format, kind: Kind) -> None:
    layer = Layer(kind, (0,), (2, 1, 1), "it", bias=True)
    with pytest.raises(ExportError, match="'it' has none"):
        runtime.write(one_layer(layer, [(2, 1, 1)]), {})


def test_weights_of_another_shape_are_refused(runtime: Format) -> None:
    graph = alone("conv", (4, 8, 8), kernel=(3, 3))
    weight = np.zeros((4, 4, 1, 1), dtype=np.float32)
    with pytest.raises(ExportError, match=r"it: weight and bias must have the shapes \(4, 4, 3, 3\) and \(4,\)"):
        runtime.write(graph, {"it": (weight, np.zeros(4, dtype=np.float32))})


@pytest.mark.parametrize(
    ("calibrated", "words"),
    [
        (np.zeros((0, 3, 4, 5)), "got 0 x 3 x 4 x 5"),
        (np.zeros((2, 3, 5, 4)), "got 2 x 3 x 5 x 4"),
        (np.zeros((3, 4, 5)), "got 3 x 4 x 5"),
        (np.full((2, 3, 4, 5), 0.5), "all 2 have nothing but 0.5"),
        (np.full((2, 3, 4, 5), np.nan), "not finite"),
    ],
    ids=["none", "another size", "one without a batch", "constant", "not a number"],
)
def test_images_that_give_no_ranges_are_refused(runtime: Format, calibrated: Any, words: str) -> None:
    graph = alone("conv", (3, 4, 5))
    with pytest.raises(ExportError, match=rf"images that differ, N x 3 x 4 x 5; .*{words}"):
        runtime.calibrate(graph, formats.random_weights(graph), calibrated.astype(np.float32))


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_a_file_that_is_no_model_is_refused(runtime: Format, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / f"broken{runtime.SUFFIX}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=r"broken.*must be a model"):
        runtime.load(path)


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="onnx, tflite"):
        formats.get("coreml")


def test_random_weights_keep_the_variance() -> None:
    graph = alone("conv", (64, 16, 16), kernel=(3, 3))
    weights = formats.random_weights(graph)
    weight, bias = weights["it"]
    output = torch.nn.functional.conv2d(torch.randn(4, 64, 16, 16), torch.from_numpy(weight), torch.from_numpy(bias))
    assert 0.8 < output.std() < 1.2


def test_a_range_leaves_out_the_share_that_lies_beyond_its_quantiles() -> None:
    values = np.random.default_rng(0).permutation(np.arange(10_001, dtype=np.float32) - 5000)
    assert formats.range_of(values, 1.0) == (-5000, 5000)
    assert formats.range_of(values, 0.99) == pytest.approx((-4900, 4900))
    many = np.tile(values, 40).reshape(40, -1)
    assert formats.range_of(many, 0.99) == pytest.approx((-4900, 4900), abs=60)
    assert formats.range_of(np.array([0.0] * 99 + [16.0], dtype=np.float32), 0.9) == (0.0, 1.0)
