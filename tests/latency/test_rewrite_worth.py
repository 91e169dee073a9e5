"""Rewrites: what is written with and without each, how often each applies, and what each is worth."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from networks import images, network, torch_output
from pretended import ScriptedDevice

from hwnas import formats
from hwnas.device.device import Device, Setting
from hwnas.formats import tflite
from hwnas.formats._rewrites import rewritten_layers, without_rewrite
from hwnas.latency.rewrite_worth import measure_rewrites
from hwnas.network.graph import Builder, Graph
from hwnas.training.module import deployed_weights

INT8 = Setting(runtime="tflite", precision="int8")
OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


def all_rewritten() -> Graph:
    """Return a graph to which each rewrite applies, split-depthwise twice."""
    b = Builder((4, 9, 9))
    value = b.activation(b.window("conv", 0, name="first", filters=6, norm=True), "hard_swish")
    for name in ("a", "b"):
        value = b.window("conv", b.relu(value), name=name, kernel=(7, 7), groups=6, norm=True)
    value = b.concat([value, b.window("avg_pool", value, name="average", kernel=(3, 3))], name="both")
    return b.finish(b.linear(b.mean(b.relu(value), name="mean"), 5, name="classifier"))


def operators(data: bytes) -> list[str]:
    model = schema.ModelT.InitFromPackedBuf(data)
    return [OPERATORS[model.operatorCodes[one.opcodeIndex].builtinCode] for one in model.subgraphs[0].operators]


@pytest.mark.parametrize(
    ("name", "gone", "there"),
    [
        ("split-depthwise", "ADD", "DEPTHWISE_CONV_2D"),
        ("quantize-for-relu", "QUANTIZE", "RELU"),
        ("convolution-for-average", "", "AVERAGE_POOL_2D"),
        ("arithmetic-for-hard-swish", "MUL", "HARD_SWISH"),
    ],
)
def test_without_a_rewrite_there_are_the_layers_own_operators_which_compute_the_same(
    tmp_path: Path, name: str, gone: str, there: str
) -> None:
    graph = all_rewritten()
    module, inputs = network(graph), images(graph, count=4)
    weights, wanted = deployed_weights(module), torch_output(module, inputs)
    written = {}
    for without in ((), (name,), tuple(tflite.REWRITES)):
        lowered = tflite.lower(graph, without=without)
        ranges = tflite.calibrate(lowered, weights, inputs)
        data = tflite.write(lowered, weights, ranges=ranges, without=without)
        path = tmp_path / f"{len(without)}.tflite"
        path.write_bytes(data)
        assert np.abs(tflite.load(path)(inputs) - wanted).max() < 0.1 * np.abs(wanted).max(), without
        written[without] = operators(data)
    assert written[name,].count(there) != written[()].count(there)
    bare = written[tuple(tflite.REWRITES)]
    assert there in bare
    assert gone not in bare


def test_a_rewrite_counts_where_the_setting_has_it_and_it_applies() -> None:
    found = {"split-depthwise": 2, "quantize-for-relu": 2, "convolution-for-average": 1, "arithmetic-for-hard-swish": 1}
    assert rewritten_layers(all_rewritten(), INT8) == found
    assert rewritten_layers(all_rewritten(), Setting(runtime="tflite")) == {"split-depthwise": 2}
    assert rewritten_layers(all_rewritten(), without_rewrite(Setting(runtime="tflite"), "split-depthwise")) == {}
    assert rewritten_layers(all_rewritten(), Setting(runtime="onnx")) == {}
    b = Builder((4, 9, 9))
    assert rewritten_layers(b.finish(b.window("conv", 0, name="it", filters=4)), INT8) == {}


def test_its_worth_is_the_median_over_the_rounds_and_a_few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    device = ScriptedDevice(monkeypatch)

    def takes(name: str) -> tuple[float, ...]:
        factor = 1.0 if name == "with" else 1.0 + len(device.jobs)
        return factor, 2.0 * factor, 9.0 if name == "with" else 1.0

    device.takes = takes
    here = Device(name="here", transport="pretend", settings=(INT8,))
    found = measure_rewrites(here, INT8, [all_rewritten()] * 6)
    assert found == dict.fromkeys(tflite.REWRITES, pytest.approx((1 / 3 + 1 / 4) / 2))
    assert len(device.jobs) == 4


def test_every_rewrite_is_of_precisions_that_are_written() -> None:
    for runtime in ("tflite", "onnx"):
        written = formats.get(runtime)
        assert {precision for one in written.REWRITES.values() for precision in one.precisions} <= written.FACTS.keys()
