"""Files that read pixels or bytes compute what PyTorch does of the normalised images."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from networks import TOLERANCE, network, relative_error, torch_output
from numpy.typing import NDArray

from hwnas import formats
from hwnas.errors import InputError
from hwnas.formats import tflite
from hwnas.formats._inputs import NAME, Input, Reading, checked_form
from hwnas.network.graph import Builder, Graph
from hwnas.support import plugins
from hwnas.training.module import deployed_weights

FILES = [(name, precision) for name in plugins.names("formats") for precision in formats.get(name).FACTS]
MEAN, STD = (0.5, 0.45, 0.3), (0.2, 0.25, 0.125)
MOST = {"fp32": TOLERANCE, "fp16": 2e-3, "dynamic": 0.05, "int8": 0.05}


def pixels(channels: int, *, count: int = 12) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, channels, 7, 9), dtype=np.uint8)


def network_of(channels: int, *, padding: Any = "same", groups: int = 1, pooled: bool = False) -> Graph:
    """Return a network whose outputs show what is computed at the borders."""
    b = Builder((channels, 7, 9))
    conv = b.window("conv", 0, name="first", filters=6, kernel=(3, 3), padding=padding, groups=groups, norm=True)
    values = [b.relu(conv), b.zero((2, *b.shape(conv)[1:]), name="none")]
    if pooled:
        values.append(b.window("max_pool", 0, name="pool", kernel=(3, 3)))
    return b.finish(b.linear(b.concat(values, name="all"), 8, name="classifier"))


def written(graph: Graph, reading: Reading, runtime: str, path: Path) -> Graph:
    """Write the network's file, and return what was written."""
    written = formats.get(runtime, precision=reading.precision)
    baked, weights = reading.bake(graph, deployed_weights(network(graph)))
    lowered, ranges = written.lower(baked), None
    if reading.precision == "int8":
        found = written.calibrate(lowered, weights, reading.seen(pixels(len(reading.mean), count=50)))
        ranges = {**found, "input": reading.input_range or found["input"]}
    how: Any = {"metadata": {"classes": "a,b", **reading.left}, "ranges": ranges, "uint8_input": reading.uint8}
    path.write_bytes(written.write(lowered, weights, precision=reading.precision, **how))
    return lowered


def error(graph: Graph, reading: Reading, runtime: str, folder: Path) -> float:
    """Return the error of the network's file beside PyTorch, of normalised images."""
    path = folder / f"{reading.input}-{reading.precision}.{runtime}"
    written(graph, reading, runtime, path)
    images = pixels(len(reading.mean))
    normalised = (images / 255 - np.reshape(reading.mean, (-1, 1, 1))) / np.reshape(reading.std, (-1, 1, 1))
    expected = torch_output(network(graph), normalised.astype(np.float32))
    return relative_error(formats.get(runtime).load(path)(reading.read(images)), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("input", ["normalised", "pixels", "uint8"])
@pytest.mark.parametrize(("runtime", "precision"), FILES)
def test_a_file_computes_the_same_whatever_it_reads_at_the_borders_too(
    runtime: str, precision: str, input: Input, channels: int, tmp_path: Path
) -> None:
    reading = Reading(input, MEAN[:channels], STD[:channels], precision)
    for how in ({}, {"padding": "symmetric"}, {"padding": "valid"}, {"pooled": True}):
        assert error(network_of(channels, **how), reading, runtime, tmp_path) <= MOST[precision], how


@pytest.mark.parametrize("groups", [1, 3])
def test_a_first_convolution_that_pads_nothing_normalises_without_a_layer_more(tmp_path: Path, groups: int) -> None:
    graph = network_of(3, padding="valid", groups=groups)
    for runtime in plugins.names("formats"):
        reading = Reading("uint8", MEAN, STD)
        baked, weights = reading.bake(graph, deployed_weights(network(graph)))
        assert baked == graph
        assert NAME not in weights
        assert error(graph, reading, runtime, tmp_path) <= TOLERANCE


def test_others_get_a_layer_between_the_images_and_all_that_computes_with_them() -> None:
    graph = network_of(3, pooled=True)
    baked, weights = Reading("pixels", MEAN, STD).bake(graph, deployed_weights(network(graph)))
    assert [layer.name for layer in baked.layers] == ["input", NAME, *(layer.name for layer in graph.layers[1:])]
    readers = {layer.name: layer.inputs for layer in baked.layers if set(layer.inputs) & {0, 1}}
    assert readers == {NAME: (0,), "first": (1,), "none": (0,), "pool": (1,)}
    assert weights[NAME][0].shape == (3, 1, 1, 1)


@pytest.mark.parametrize("mean", [0.0, 0.2861, 0.5, 126.5 / 255, 1.0])
def test_in_int8_one_mean_and_std_are_the_scale_and_zero_point_of_the_bytes(tmp_path: Path, mean: float) -> None:
    graph, reading = network_of(3), Reading("uint8", (mean,) * 3, (0.25,) * 3, "int8")
    for runtime in plugins.names("formats"):
        path = tmp_path / f"model.{runtime}"
        assert [layer.kind for layer in written(graph, reading, runtime, path).layers].count("conv") == 1
        assert error(graph, reading, runtime, tmp_path) <= MOST["int8"]
    (source,) = Interpreter(model_path=str(tmp_path / "model.tflite")).get_input_details()
    assert source["dtype"] == np.uint8
    assert source["quantization"] == (pytest.approx(1 / (255 * 0.25)), round(255 * mean))
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert kinds[0] == "DequantizeLinear"  # the first convolution reads the bytes themselves


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.2861,) * 3, (0.353,) * 3)])
def test_what_the_metadata_tells_and_the_inputs_scale_make_bytes_of_bytes(
    tmp_path: Path, precision: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    reading = Reading("uint8", mean, std, precision)
    written(network_of(3), reading, "tflite", tmp_path / "model.tflite")
    (source,) = Interpreter(model_path=str(tmp_path / "model.tflite")).get_input_details()
    assert source["shape"].tolist() == [1, 7, 9, 3]
    step, zero_point = source["quantization"]
    left = [np.array(reading.left[name].split(","), float) for name in ("mean", "std")]
    numbers = (np.arange(256)[:, None] / 255 - left[0]) / left[1] / step + zero_point
    np.testing.assert_allclose(numbers, np.arange(256)[:, None] + np.zeros(3), atol=1e-3)


def test_xnnpack_takes_bytes_and_all_the_rest_of_an_fp32_network(tmp_path: Path) -> None:
    written(network_of(3), Reading("uint8", MEAN, STD), "tflite", tmp_path / "model.tflite")
    interpreter = tflite._runtime().Interpreter(model_path=str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    (delegate,) = [details for details in interpreter._get_ops_details() if details["op_name"] == "DELEGATE"]
    assert interpreter.get_input_details()[0]["index"] in delegate["inputs"]


def test_another_input_no_batch_and_a_normalisation_of_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match="must be one of normalised, pixels, uint8; got 'bytes'"):
        checked_form(cast(Input, "bytes"), None)
    with pytest.raises(InputError, match="a batch must be 1 image or more; got 0"):
        checked_form("pixels", 0)
    graph = network_of(3)
    with pytest.raises(InputError, match="a mean and a std for each of 3 channels; got 1 and 3"):
        Reading("pixels", MEAN[:1], STD).bake(graph, deployed_weights(network(graph)))
