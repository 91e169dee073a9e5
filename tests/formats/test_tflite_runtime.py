"""Files in tflite-runtime 2.14, the last one, which boards in the field have; and what LiteRT's loader verifies."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from networks import TOLERANCE, chosen_networks, graphs, images, network, repeatable
from winners import MODELS, trained_run

import hwnas
from hwnas.device.device import Device, Setting
from hwnas.formats import random_weights, tflite
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Graph
from hwnas.network.published import mobilenet_v2
from hwnas.support.files import write_text
from hwnas.training.module import deployed_weights
from hwnas.verbs.verify import verify_files

PYTHON = Path(__file__).parents[2] / ".venv" / "tflite-runtime" / "bin" / "python"
SETTING = Setting(runtime="tflite")
MOST = {"fp32": TOLERANCE, "fp16": TOLERANCE, "dynamic": 0.05}  # relative error
MOST_STEPS = 8  # of int8: LiteRT's XNNPACK and the other's own kernels round otherwise; 6 with AVX2
older = pytest.mark.skipif(not PYTHON.exists(), reason="no tflite-runtime here: make tflite-runtime")


def drawn(count: int) -> dict[str, Graph]:
    """Return random graphs of every operation and networks of every space, by names."""
    found: list[Graph] = []

    @given(graph=graphs())
    @repeatable(count)
    def some_graphs(graph: Graph) -> None:
        found.append(graph)

    @given(architecture=chosen_networks())
    @repeatable(count // 4)
    def some_networks(architecture: Architecture) -> None:
        found.append(architecture.graph)

    some_graphs()
    some_networks()
    return {str(number): graph for number, graph in enumerate(found)}


@older
def test_every_operation_is_loaded_in_every_precision_and_computes_what_it_does_in_litert(tmp_path: Path) -> None:
    files = {}
    for name, graph in drawn(40).items():
        lowered, weights = tflite.lower(graph), deployed_weights(network(graph))
        for precision in tflite.FACTS:
            ranges = tflite.calibrate(lowered, weights, images(graph)) if precision == "int8" else None
            path = files[f"{name} {precision}"] = tmp_path / f"{name}.{precision}.tflite"
            path.write_bytes(tflite.write(lowered, weights, ranges=ranges, precision=precision))
    device = Device(name="older", python=str(PYTHON), settings=(SETTING,))
    verified = verify_files(files, device, SETTING)
    assert [one.file for one in verified] == list(files)
    for one in verified:
        precision = one.file.split()[1]
        assert (one.relative_error or 0.0) <= MOST.get(precision, 0.0), one.file
        assert (one.steps or 0) <= MOST_STEPS, one.file


@older
def test_an_artefact_is_verified_in_it(tmp_path: Path) -> None:
    names = [name for name in MODELS if name.endswith(".tflite")]
    (exported,) = hwnas.export(str(trained_run(tmp_path)), out=str(tmp_path / "export"), files=names)
    write_text(tmp_path / "older.toml", f'name = "older"\npython = "{PYTHON}"\n[[settings]]\nruntime = "tflite"\n')
    verified = hwnas.verify(exported.folder, device=str(tmp_path / "older.toml"))
    assert sorted(one.file for one in verified) == sorted(names)
    assert all(one.fine for one in verified)


def cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def point_beyond_the_end(data: bytearray) -> None:
    data[:4] = (len(data) + 16).to_bytes(4, "little")


def leave_a_name_open(data: bytearray) -> None:
    data[data.index(b"logits\0") + 6] = 1


def misalign_the_operators(data: bytearray) -> None:
    """Move the root by 2 bytes, so that none of its fields lies where its type may."""
    data[:4] = (int.from_bytes(data[:4], "little") + 2).to_bytes(4, "little")


def lengthen_a_shape(data: bytearray) -> None:
    at = data.index(np.array([4, 1, 33, 33, 3], dtype="<i4").tobytes())
    data[at : at + 4] = (1 << 28).to_bytes(4, "little")


@pytest.mark.parametrize(
    "spoil", [cut, point_beyond_the_end, leave_a_name_open, misalign_the_operators, lengthen_a_shape]
)
def test_litert_verifies_the_flatbuffer_that_it_loads(spoil: Callable[[bytearray], None]) -> None:
    """Hence each file that a test loads has passed the verifier that the schema generates."""
    graph = tflite.lower(mobilenet_v2(width=0.35, resolution=33).graph)
    data = bytearray(tflite.write(graph, random_weights(graph)))
    Interpreter(model_content=bytes(data)).allocate_tensors()
    assert schema.Model.ModelBufferHasIdentifier(data, 0)
    spoil(data)
    with pytest.raises(ValueError, match="not a valid Flatbuffer"):
        Interpreter(model_content=bytes(data))
