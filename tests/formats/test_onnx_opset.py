"""The opset and the batch of .onnx files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import OWN_SPACES, TOLERANCE, images, network, relative_error
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from hwnas.errors import ExportError
from hwnas.formats import made_up_ranges, random_weights
from hwnas.formats import onnx as onnx_format
from hwnas.network.graph import Builder, Graph
from hwnas.network.scale import Scale
from hwnas.support import plugins
from hwnas.training.module import deployed_weights

LOADED = 26  # the highest opset that ONNX Runtime 1.31 loads


def small() -> Graph:
    b = Builder((3, 8, 8))
    b.window("conv", 0, name="it", kernel=(3, 3))
    return b.finish(1)


def passes(data: bytes, opset: int) -> None:
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", opset)]


@pytest.mark.parametrize("resolution", [16, 17])
@pytest.mark.parametrize("space", OWN_SPACES)
def test_files_of_either_bound_are_valid_and_compute_the_same(tmp_path: Path, space: str, resolution: int) -> None:
    highest = onnx_format.HIGHEST_OPSET
    cover = list(plugins.load("spaces", space).cover(Scale(1, 4, resolution, 10)))
    for architecture in cover[:: len(cover) // 2]:
        graph = onnx_format.lower(architecture.graph)
        weights, inputs = deployed_weights(network(graph)), images(graph, count=4)
        for ranges in (None, onnx_format.calibrate(graph, weights, inputs)):
            lowest = 11 if ranges is None else 13
            outputs = []
            for opset in (lowest, onnx_format.OPSET, min(highest, LOADED), highest):
                data = onnx_format.write(graph, weights, ranges=ranges, opset=opset)
                passes(data, opset)
                if opset <= LOADED:
                    (tmp_path / "model.onnx").write_bytes(data)
                    outputs.append(onnx_format.load(tmp_path / "model.onnx")(inputs))
            for output in outputs:
                assert relative_error(output, outputs[0]) <= TOLERANCE, architecture.name


@pytest.mark.parametrize(("ranges", "lowest"), [(False, 11), (True, 13)])
def test_an_opset_outside_the_bounds_is_refused(ranges: bool, lowest: int) -> None:
    graph, highest = small(), onnx_format.HIGHEST_OPSET
    options: dict[str, Any] = {"ranges": made_up_ranges(graph) if ranges else None}
    for opset in (lowest - 1, highest + 1):
        message = rf"in {'int8' if ranges else 'fp32'} must be from {lowest} to {highest}.*got {opset}. Leave it out"
        with pytest.raises(ExportError, match=message):
            onnx_format.write(graph, random_weights(graph), opset=opset, **options)
    onnx_format.write(graph, random_weights(graph), opset=lowest, **options)


def test_below_the_lowest_opset_the_operators_do_not_take_their_inputs() -> None:
    """The bound is the operators': a ReLU6 as Clip and a shift as Pad are no valid nodes of opset 10."""
    b = Builder((3, 9, 9))
    for graph, name in (
        (b.finish(b.activation(0, "relu6")), "Clip"),
        (b.finish(b.shift(0, name="it")), "Pad"),
    ):
        model = onnx.load_from_string(onnx_format.write(graph, {}, opset=11))
        model.opset_import[0].version = 10
        with pytest.raises(onnx.checker.ValidationError, match=name):
            onnx.checker.check_model(model)


@pytest.mark.parametrize("int8", [False, True])
def test_the_batch_may_be_fixed(tmp_path: Path, int8: bool) -> None:
    graph, path = small(), tmp_path / "model.onnx"
    weights, inputs = random_weights(graph), images(graph, count=5)
    ranges = onnx_format.calibrate(graph, weights, inputs) if int8 else None
    path.write_bytes(onnx_format.write(graph, weights, ranges=ranges))
    expected = onnx_format.load(path)(inputs[:4])
    path.write_bytes(onnx_format.write(graph, weights, ranges=ranges, batch=4))
    model = onnx.load(path)
    for info in (*model.graph.input, *model.graph.output):
        assert info.type.tensor_type.shape.dim[0].dim_value == 4
    np.testing.assert_allclose(onnx_format.load(path)(inputs[:4]), expected, rtol=1e-5, atol=1e-6)
    assert len(onnx_format.load(path)(inputs)) == 5  # the file itself takes 4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with pytest.raises(InvalidArgument, match="Expected: 4"):
        session.run(None, {session.get_inputs()[0].name: inputs})
