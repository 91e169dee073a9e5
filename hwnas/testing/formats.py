"""What every format must keep to."""

from pathlib import Path

import pytest

from hwnas import formats, spaces
from hwnas.errors import ExportError
from hwnas.formats import Format
from hwnas.network import Graph, Scale
from hwnas.support import plugins
from hwnas.testing.networks import images, network, relative_error, torch_output
from hwnas.training import deployed_weights

_TOLERANCE = 1e-5  # of the largest output


def _graph(space: str, seed: int) -> Graph:
    module = plugins.load("spaces", space)
    (parameters,) = spaces.random_parameters(module, 1, seed=seed)
    graph: Graph = module.architecture(parameters, Scale(1, 4 + seed, 12 + seed, 5, 1 + 2 * (seed % 2))).graph
    return graph


def _without_origin(graph: Graph) -> set[str]:
    """Return the names of the layers of which it is not told where they stand."""
    return {layer.name for layer in graph.layers if not layer.origin}


class FormatContract:
    """Takes the fixture `runtime`: a module of hwnas/formats, or like one, whose runtime is installed."""

    @pytest.mark.parametrize("space", plugins.names("spaces"))
    def test_a_file_computes_what_the_module_computes(self, runtime: Format, space: str, tmp_path: Path) -> None:
        for seed in range(3):
            graph = _graph(space, seed)
            module, inputs = network(graph, seed=seed), images(graph, seed=seed)
            path = tmp_path / f"model{runtime.SUFFIX}"
            path.write_bytes(runtime.write(runtime.lower(graph), deployed_weights(module)))
            outputs = runtime.load(path)(inputs)
            assert relative_error(outputs.reshape(len(inputs), -1), torch_output(module, inputs)) <= _TOLERANCE

    @pytest.mark.parametrize("space", plugins.names("spaces"))
    def test_every_precision_is_written_and_loaded(self, runtime: Format, space: str, tmp_path: Path) -> None:
        graph = runtime.lower(_graph(space, 0))
        weights, inputs = formats.random_weights(graph), images(graph)
        for precision in runtime.FACTS:
            ranges = runtime.calibrate(graph, weights, inputs) if precision == "int8" else None
            path = tmp_path / f"model.{precision}{runtime.SUFFIX}"
            path.write_bytes(runtime.write(graph, weights, ranges=ranges, precision=precision))
            assert runtime.load(path)(inputs).reshape(len(inputs), -1).shape == (len(inputs), graph.output_shape[0])

    def test_what_a_file_takes_is_known_before_there_are_weights(self, runtime: Format, tmp_path: Path) -> None:
        graph, path = runtime.lower(_graph("pnas", 0)), tmp_path / f"model{runtime.SUFFIX}"
        for precision in runtime.FACTS:
            ranges = formats.made_up_ranges(graph) if precision == "int8" else None
            path.write_bytes(runtime.write(graph, formats.random_weights(graph), ranges=ranges, precision=precision))
            known = runtime.memory(graph, precision=precision)
            assert known == (path.stat().st_size, runtime.arena_bytes(path))

    def test_the_same_network_is_the_same_file(self, runtime: Format) -> None:
        graph = runtime.lower(_graph("pnas", 0))
        weights = formats.random_weights(graph)
        assert runtime.write(graph, weights) == runtime.write(graph, weights)

    @pytest.mark.parametrize("space", plugins.names("spaces"))
    def test_a_lowered_graph_keeps_inputs_outputs_and_what_is_lowered_already(
        self, runtime: Format, space: str
    ) -> None:
        graph = _graph(space, 1)
        for without in ((), tuple(runtime.REWRITES)):
            lowered = runtime.lower(graph, without=without)
            assert lowered.layers[0].shape == graph.layers[0].shape
            assert lowered.output_shape == graph.output_shape
            assert _without_origin(lowered) <= _without_origin(graph)
            assert runtime.lower(lowered, without=without) == lowered

    def test_missing_weights_and_an_unknown_precision_are_refused(self, runtime: Format) -> None:
        graph = runtime.lower(_graph("pnas", 0))
        with pytest.raises(ExportError):
            runtime.write(graph, {})
        with pytest.raises(ExportError, match="fp7"):
            runtime.write(graph, formats.random_weights(graph), precision="fp7")

    def test_what_is_no_model_is_refused(self, runtime: Format, tmp_path: Path) -> None:
        path = tmp_path / f"model{runtime.SUFFIX}"
        path.write_bytes(b"no model")
        with pytest.raises(ExportError, match="must be a model that its runtime can load"):
            runtime.load(path)
