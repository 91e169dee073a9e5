"""Equalisation: the network computes the same in fp32, and comes nearer to that in int8 where channels differ."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_images
from hypothesis import given
from networks import TOLERANCE, chosen_networks, graphs, images, network, relative_error, repeatable, torch_output
from numpy.typing import NDArray

from hwnas import datasets, formats
from hwnas.artefacts import writing as export_files
from hwnas.device.device import Setting
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Builder, Graph
from hwnas.training.equalisation import _pairs, equalise
from hwnas.training.module import Network, deployed_weights

SPREAD = torch.logspace(0, 3, 8)


def separable(channels: int = len(SPREAD)) -> Graph:
    """Two separable convolutions with ReLU, as in a cell."""
    b = Builder((1, 8, 8))
    value = b.window("conv", 0, name="first", filters=channels)
    for name in ("a", "b"):
        value = b.window("conv", b.relu(value), name=f"{name} depthwise", kernel=(3, 3), groups=channels)
        value = b.window("conv", value, name=f"{name} pointwise", filters=channels)
    return b.finish(b.linear(b.mean(value, name="mean"), 3, name="classifier"))


def weight_of(part: torch.nn.Module) -> torch.Tensor:
    weight = next(part.children()).weight
    assert isinstance(weight, torch.Tensor)
    return weight


def with_unequal_channels(graph: Graph) -> Network:
    """Return a network whose first depthwise convolution has channels from 1 to 1000 times as wide."""
    module = network(graph)
    with torch.no_grad():
        for layer, part in zip(graph.layers, module.layers, strict=True):
            if layer.name == "a depthwise":
                weight_of(part).mul_(SPREAD.reshape(-1, 1, 1, 1))
            if layer.name == "a pointwise":
                weight_of(part).div_(SPREAD.reshape(1, -1, 1, 1))
    return module


def written(graph: Graph, weights: Any, path: Path, runtime: str, images: NDArray[np.float32] | None = None) -> Any:
    """Return a file of a graph, int8 where there are images to calibrate on."""
    runs = formats.get(runtime)
    lowered = runs.lower(graph)
    ranges = None if images is None else runs.calibrate(lowered, weights, images)
    path.write_bytes(runs.write(lowered, weights, ranges=ranges, precision="fp32" if ranges is None else "int8"))
    return runs.load(path)


def test_pairs_are_what_one_convolution_reads_of_another() -> None:
    found = [(pair.writer.name, pair.between.kind, pair.reader.name) for pair in _pairs(separable())]
    assert found == [
        ("first", "relu", "a depthwise"),
        ("a depthwise", "conv", "a pointwise"),
        ("a pointwise", "relu", "b depthwise"),
        ("b depthwise", "conv", "b pointwise"),
    ]


@pytest.mark.parametrize("between", ["relu6", "hard_swish", "two readers", "sum", "grouped"])
def test_what_does_not_commute_with_a_factor_is_no_pair(between: str) -> None:
    b = Builder((4, 6, 6))
    value = b.window("conv", 0, name="writer", filters=4)
    if between in ("relu6", "hard_swish"):
        value = b.activation(value, between)  # type: ignore[arg-type]
    other = b.add(value, 0, name="sum") if between == "sum" else value
    read = b.window("conv", other, name="reader", filters=4, groups=2 if between == "grouped" else 1)
    output = b.add(read, value, name="end") if between == "two readers" else read
    assert not list(_pairs(b.finish(output)))


@repeatable(40)
@given(graph=graphs())
def test_any_graph_computes_the_same(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_same(network(graph), tmp_path_factory.mktemp("equal") / "model.tflite")


@repeatable(20)
@given(architecture=chosen_networks())
def test_any_network_computes_the_same(architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_same(network(architecture.graph), tmp_path_factory.mktemp("equal") / "model.tflite")


def check_same(module: Network, path: Path) -> None:
    inputs = images(module.graph)
    before = deployed_weights(module)
    kept = {name: (weight.copy(), bias.copy()) for name, (weight, bias) in before.items()}
    equal = equalise(module, before, torch.from_numpy(inputs))
    assert all(np.array_equal(a, b) for name in kept for a, b in zip(before[name], kept[name], strict=True))
    changed = {name for name in equal if not np.array_equal(equal[name][0], before[name][0])}
    assert changed <= {layer.name for pair in _pairs(module.graph) for layer in (pair.writer, pair.reader)}
    expected = written(module.graph, before, path, "tflite")(inputs)
    outputs = written(module.graph, equal, path.with_suffix(".equal"), "tflite")(inputs)
    assert relative_error(outputs, expected) < TOLERANCE


@pytest.mark.parametrize("runtime", ["tflite", "onnx"])
def test_int8_loses_less_where_channels_differ(runtime: str, tmp_path: Path) -> None:
    module = with_unequal_channels(separable())
    inputs = images(module.graph, count=20)
    before = deployed_weights(module)
    equal = equalise(module, before, torch.from_numpy(inputs))
    expected = torch_output(module, inputs)
    lost = [
        np.abs(written(module.graph, weights, tmp_path / f"{number}", runtime, inputs)(inputs) - expected).mean()
        for number, weights in enumerate((before, equal))
    ]
    assert lost[1] < 0.5 * lost[0]


def test_dead_channels_and_dead_layers_stay_dead() -> None:
    module = with_unequal_channels(separable())
    for layer, part in zip(module.graph.layers, module.layers, strict=True):
        if dead := {"a depthwise": 3, "b depthwise": 8}.get(layer.name):
            torch.nn.init.zeros_(weight_of(part)[:dead])
    equal = equalise(module, deployed_weights(module), torch.from_numpy(images(module.graph)))
    assert all(np.isfinite(array).all() for pair in equal.values() for array in pair)
    assert not equal["b depthwise"][0].any()
    assert not equal["a depthwise"][0][:3].any()


@pytest.mark.parametrize("runtime", ["tflite", "onnx"])
def test_export_equalises_where_that_is_nearer_to_pytorch(runtime: str, tmp_path: Path) -> None:
    write_images(tmp_path / "images.npz", train=60, test=20)
    data = datasets.load(f"npz:{tmp_path / 'images.npz'}")
    module, setting = with_unequal_channels(separable()), Setting(runtime=runtime, precision="int8")
    card = export_files.write_checked(module, data, tmp_path, {"model": setting}, {}, trusted=False)
    calibration = card["model"].calibration
    assert calibration is not None
    assert calibration.method.startswith("equalised, ")
    assert calibration.rmse["equalised, min-max"] < 0.5 * calibration.rmse["min-max"]
