"""Random graphs of every operation: in each format and precision the file loads and computes what the module does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from networks import TOLERANCE, graphs, images, network, relative_error, repeatable, torch_output
from numpy.typing import NDArray

from hwnas import formats
from hwnas.formats import input_name, output_name
from hwnas.network.graph import Graph, Layer
from hwnas.support import plugins
from hwnas.training.module import Network, deployed_weights

FLOAT = [(name, p) for name in plugins.names("formats") for p in formats.get(name).FACTS if p != "int8"]
ROUNDING = {"fp16": 2**-10, "dynamic": 0.01}  # of a layer with weights: what it may add to the relative error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def outputs(runtime: str, precision: str, data: bytes, inputs: NDArray[np.float32], folder: Path) -> NDArray[Any]:
    written = formats.get(runtime)
    path = folder / f"{precision}{written.SUFFIX}"
    path.write_bytes(data)
    return written.load(path)(inputs).reshape(len(inputs), -1)


@given(graph=graphs())
@repeatable(80)
def test_floating_point_files_compute_what_the_module_computes(folder: Path, graph: Graph) -> None:
    module, inputs = network(graph), images(graph)
    weights, expected = deployed_weights(module), torch_output(module, inputs)
    for runtime, precision in FLOAT:
        written = formats.get(runtime)
        data = written.write(written.lower(graph), weights, precision=precision)
        allowed = TOLERANCE + (1 + len(weights)) * ROUNDING.get(precision, 0.0)
        assert relative_error(outputs(runtime, precision, data, inputs, folder), expected) <= allowed, precision


@given(graph=graphs())
@repeatable(80)
def test_int8_files_err_as_rounding_each_layer_does(folder: Path, graph: Graph) -> None:
    module, inputs = network(graph), images(graph, count=4)
    weights, expected = deployed_weights(module), torch_output(module, inputs)
    for runtime in plugins.names("formats"):
        written = formats.get(runtime, precision="int8")
        lowered = written.lower(graph)
        ranges = written.calibrate(lowered, weights, inputs)
        data = written.write(lowered, weights, ranges=ranges, precision="int8")
        found = outputs(runtime, "int8", data, inputs, folder)
        steps = tflite_steps(data, lowered) if runtime == "tflite" else {n: step(*r) for n, r in ranges.items()}
        least = rmse(rounded_output(graph, module, steps, inputs), expected)
        # with AVX2 alone XNNPACK is two steps off where a classifier is a bias and nothing else
        assert rmse(found, expected) <= 1.5 * least + 2 * steps[lowered.layers[-1].name], runtime


def rmse(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2)))


def step(low: float, high: float) -> float:
    return (max(high, 0.0) - min(low, 0.0)) / 255 or 1.0


def tflite_steps(data: bytes, graph: Graph) -> dict[str, float]:
    """Return the steps of a file's layers by their names; layers that copy numbers share a wider one."""
    details = Interpreter(model_content=data).get_tensor_details()
    found = {detail["name"]: detail["quantization"][0] for detail in details}
    names = {graph.layers[0].name: input_name(graph.layers[0]), graph.layers[-1].name: output_name(graph)}
    return {layer.name: found[names.get(layer.name, layer.name)] for layer in graph.layers}


class RoundedNetwork(Network):
    steps: Mapping[str, float]

    def _run(self, layer: Layer, module: torch.nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
        value = super()._run(layer, module, inputs)
        return in_steps(value, self.steps[layer.name]) if layer.name in self.steps else value  # else it is fused


def rounded_output(
    graph: Graph, module: Network, steps: Mapping[str, float], inputs: NDArray[np.float32]
) -> NDArray[Any]:
    """Return what a module computes that rounds every weight, and every value to its layer's steps."""
    rounded = RoundedNetwork(graph).eval()
    rounded.load_state_dict(module.state_dict())
    rounded.double().steps = steps
    for part in rounded.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            largest = part.weight.data.abs().amax(tuple(range(1, part.weight.dim())), keepdim=True)
            part.weight.data = in_steps(part.weight.data, (largest / 127).clamp(min=1e-12))
    with torch.no_grad():
        found: NDArray[Any] = rounded(in_steps(torch.from_numpy(inputs).double(), steps["input"])).numpy()
    return found


def in_steps(value: torch.Tensor, step: "torch.Tensor | float") -> torch.Tensor:
    return (value / step).round() * step
