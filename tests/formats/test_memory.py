"""What a file takes, worked out of the graph: its size beside the file's, its arena beside what LiteRT allocates."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given
from hypothesis import strategies as st
from networks import OWN_SPACES, chosen_networks, graphs, repeatable

from hwnas import formats
from hwnas.formats import made_up_ranges, random_weights, tflite
from hwnas.network import Architecture, Graph, Scale
from hwnas.spaces import pnas, random_parameters
from hwnas.support import plugins

METADATA = {"classes": "cat,dog", "mean": "0.5,0.25,0.1", "std": "0.25,0.5,0.1", "input": "normalised"}


def written(runtime: str, graph: Graph, precision: str, **options: Any) -> bytes:
    ranges = made_up_ranges(graph) if precision == "int8" else None
    return formats.get(runtime).write(graph, random_weights(graph), ranges=ranges, precision=precision, **options)


def allocated(data: bytes) -> int:
    """Return how many bytes lie between the first and the last that LiteRT has for activations."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    tensors = dict(enumerate(schema.ModelT.InitFromObj(schema.Model.GetRootAs(data)).subgraphs[0].tensors))
    spans = []
    for number in (detail["index"] for detail in interpreter.get_tensor_details()):
        if number not in tensors or not tensors[number].buffer:  # constants lie in the file
            array = interpreter.tensor(number)()
            start = array.__array_interface__["data"][0]
            spans.append((start, start + array.nbytes))
    return max(end for _, end in spans) - min(start for start, _ in spans)


@pytest.mark.parametrize(
    ("runtime", "precision"), [(name, kind) for name in plugins.names("formats") for kind in formats.get(name).FACTS]
)
def test_the_size_of_a_file_is_known_to_the_byte(runtime: str, precision: str) -> None:
    written_as = formats.get(runtime)

    @given(architecture=chosen_networks(), metadata=st.sampled_from([None, METADATA]), rewrites=st.booleans())
    @repeatable(8)
    def is_known(architecture: Architecture, metadata: Mapping[str, str] | None, rewrites: bool) -> None:
        if metadata and architecture.graph.layers[0].shape[0] == 1:
            metadata = {**metadata, "mean": "0.5", "std": "0.25"}
        without = () if rewrites else tuple(written_as.REWRITES)
        graph = written_as.lower(architecture.graph, without=without)
        known = written_as.memory(graph, precision=precision, metadata=metadata, without=without)
        data = written(runtime, graph, precision, metadata=metadata, without=without)
        assert known.file_bytes == len(data)

    is_known()


@pytest.mark.parametrize("precision", tflite.FACTS)
def test_the_number_of_a_trial_makes_a_tflite_file_no_larger_up_to_9999(precision: str) -> None:
    (parameters,) = random_parameters(pnas, 1, seed=0)
    graph = tflite.lower(pnas.architecture(parameters, Scale(1, 4, 8, 2)).graph)
    sizes = {
        len(written("tflite", graph, precision, metadata={"hwnas_trial": number, **METADATA}))
        for number in ("0", "27", "345", "9999")
    }
    assert len(sizes) == 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_arena_is_what_the_interpreter_allocates_with_its_reference_kernels(precision: str, tmp_path: Path) -> None:
    """Of graphs without a MEAN: its kernel has some bytes of its own, which count where nothing else has more."""
    path = tmp_path / "model.tflite"

    def is_allocated(graph: Graph) -> None:
        lowered = tflite.lower(graph)
        data = written("tflite", lowered, precision)
        path.write_bytes(data)
        arena = tflite.memory(lowered, precision=precision).arena_bytes
        assert tflite.arena_bytes(path) == arena == allocated(data)

    @given(graph=graphs().filter(lambda graph: all(layer.kind != "mean" for layer in graph.layers)))
    @repeatable(40)
    def of_graphs(graph: Graph) -> None:
        is_allocated(graph)

    of_graphs()
    for space in map(partial(plugins.load, "spaces"), OWN_SPACES):
        for parameters in random_parameters(space, 2, seed=0):
            is_allocated(space.architecture(parameters, Scale(1, 8, 24, 3)).graph)
