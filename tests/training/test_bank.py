"""A bank computes what each architecture's own network computes with the same weights."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import images, repeatable
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.network import Architecture, Block, Branch, Cell, CellNetwork, Graph, Layer, Scale
from hwnas.network.graph import Apart, Step
from hwnas.spaces import mobile, random_parameters
from hwnas.support import plugins
from hwnas.training.bank import Bank
from hwnas.training.module import Network

SPACES = plugins.names("spaces")
LARGEST = Scale(2, 8, 8, 3)


def drawn(space: str, seed: int, scale: Scale) -> tuple[Architecture, Architecture]:
    """Return a random architecture at a scale, and what is the largest that shares its weights."""
    plugin = plugins.load("spaces", space)
    (parameters,) = random_parameters(plugin, 1, seed=seed)
    widest = getattr(plugin, "largest", dict)(parameters)
    return plugin.architecture(parameters, scale), plugin.architecture(widest, scale.with_filters(8))


def bank_of(*graphs: Graph) -> Bank:
    """Return a bank that holds graphs, the largest first, with norms that do something."""
    bank = Bank(seed=0)
    for graph in graphs:
        bank.hold(graph)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in bank.named_parameters():
        if ":gamma:" in name or ":beta:" in name or ":transform" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return bank


def copied(bank: Bank, graph: Graph, statistics: Any = None) -> Network:
    network = Network(graph)
    bank.fill(network, statistics)
    return network


def weights(network: Network) -> Iterator[tuple[Layer, str, Tensor]]:
    for layer, module in zip(network.graph.layers, network.layers, strict=True):
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                for name, parameter in part.named_parameters(recurse=False):
                    yield layer, f"{type(part).__name__} {name}", parameter


def pieces(layer: Layer, name: str, tensor: Tensor) -> list[tuple[tuple[Step, ...], Tensor]]:
    """Return the parts of a layer's tensor, by which of the values it reads they are for."""
    channels = [part.channels for part in layer.reads]
    if layer.depthwise:
        parts = tensor.split(channels)
    elif name in ("_Conv2d weight", "Linear weight"):
        parts = tensor.split(channels, dim=1)
    else:
        return [((), tensor)]
    return [(part.slot, piece) for part, piece in zip(layer.reads, parts, strict=True)]


def shared_origin(layer: Layer) -> tuple[Step, ...]:
    return tuple(step for step in layer.origin if not isinstance(step, Apart))


@pytest.mark.parametrize("space", SPACES)
@given(seed=st.integers(0, 999), cells=st.integers(1, 2), filters=st.sampled_from([4, 6, 8]))
@repeatable(6)
def test_an_architecture_computes_and_learns_what_its_own_network_does(
    space: str, seed: int, cells: int, filters: int
) -> None:
    architecture, largest = drawn(space, seed, replace(LARGEST, cells=cells, filters=filters))
    graph = architecture.graph
    bank = bank_of(largest.graph, graph)
    network = copied(bank, graph).train()
    value = torch.from_numpy(images(graph, count=4)).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([0, 1, 2, 0])
    outputs = [bank.train()(graph, value), network(value)]
    assert torch.equal(*outputs)
    for output in outputs:
        F.cross_entropy(output, labels).backward()
    learned = bank_of(largest.graph, graph)
    for name, parameter in learned.named_parameters():
        gradient = bank.get_parameter(name).grad
        parameter.data = torch.zeros_like(parameter) if gradient is None else gradient
    own: dict[Any, list[Tensor]] = {}
    for layer, name, parameter in weights(network):
        assert parameter.grad is not None
        for slot, gradient in pieces(layer, name, parameter.grad):
            own.setdefault((shared_origin(layer), name, slot, gradient.shape), []).append(gradient)
    for layer, name, parameter in weights(copied(learned, graph)):
        if layer.depthwise and hasattr(plugins.load("spaces", space), "largest") and "BatchNorm" not in name:
            continue  # through a matrix a gradient is another
        for slot, shared in pieces(layer, name, parameter):
            first, *others = own[shared_origin(layer), name, slot, shared.shape]
            if not others:
                assert torch.equal(first, shared), (layer.name, name)
            torch.testing.assert_close(sum(others, first), shared, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_with_statistics_taken_anew_it_computes_what_its_network_does(space: str) -> None:
    architecture, largest = drawn(space, 7, replace(LARGEST, filters=6))
    graph = architecture.graph
    bank = bank_of(largest.graph, graph)
    batches = [torch.from_numpy(images(graph, count=8, seed=seed)) for seed in range(3)]
    statistics = bank.calibrated(graph, batches)
    network = copied(bank, graph)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean over batches
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
        filled = copied(bank, graph, statistics)
        for (name, theirs), (_, ours) in zip(network.named_buffers(), filled.named_buffers(), strict=True):
            if "num_batches" not in name:
                assert torch.equal(theirs, ours), name
        expected = network.eval()(batches[0])
        assert torch.equal(bank.eval()(graph, batches[0], statistics), expected)
        assert torch.equal(filled.eval()(batches[0]), expected)


@pytest.mark.parametrize("width", mobile.WIDTHS)
def test_shuffle_units_take_their_part_of_the_largest(width: float) -> None:
    """Of width 1 the first one splits its input; the largest, which has a shortcut everywhere, holds that too."""
    parameters = {name: known.choices[0] for name, known in mobile.distributions().items()}
    each = {"block": "shuffle_3x3", "depth": 2, "width": width}
    parameters |= {f"stage{stage}_{name}": value for stage in range(1, 5) for name, value in each.items()}
    graph = mobile.architecture(parameters, LARGEST).graph
    bank = bank_of(mobile.architecture(mobile.largest(parameters), LARGEST).graph)
    assert bank.hold(graph) == []
    value = torch.from_numpy(images(graph, count=4)).contiguous(memory_format=torch.channels_last)
    assert torch.equal(bank.train()(graph, value), copied(bank, graph).train()(value))


def test_what_a_weight_begins_with_depends_on_no_order() -> None:
    graphs = [drawn("pnas", seed, LARGEST)[0].graph for seed in range(6)]
    forwards, backwards = Bank(seed=3), Bank(seed=3)
    for graph, other in zip(graphs, reversed(graphs), strict=True):
        forwards.hold(graph)
        backwards.hold(other)
    ours, theirs = dict(forwards.named_parameters()), dict(backwards.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(next(iter(Bank(seed=4).parameters()), torch.zeros(0)), next(iter(ours.values())))


def test_architectures_share_what_does_the_same_in_the_same_place() -> None:
    plugin = plugins.load("spaces", "pnas")
    (parameters,) = random_parameters(plugin, 1, seed=5)
    one, other = (plugin.architecture(parameters, replace(LARGEST, filters=filters)).graph for filters in (8, 4))
    bank = Bank(seed=0)
    bank.hold(one)
    before = len(list(bank.parameters()))
    bank.hold(other)
    assert len(list(bank.parameters())) == before


def test_the_largest_comes_first() -> None:
    bank = Bank(seed=0)
    (small, largest) = (drawn("pnas", 5, replace(LARGEST, filters=filters))[0].graph for filters in (4, 8))
    bank.hold(small)
    with pytest.raises(ValueError, match="must hold the largest network first"):
        bank.hold(largest)


@pytest.mark.parametrize("space", SPACES)
def test_every_layer_with_weights_has_an_origin_of_its_own(space: str) -> None:
    """Those that share their weights differ in what is apart."""
    for seed in range(20):
        graph = drawn(space, seed, LARGEST)[0].graph
        origins = [layer.origin for layer in graph.layers if layer.kind in ("conv", "linear")]
        assert all(origins)
        assert len(set(origins)) == len(origins)


def test_the_blocks_of_a_cell_and_the_sides_of_a_block_share_what_they_do_to_the_same_sort_of_input() -> None:
    reads: list[Branch] = [("separable_3x3", 0), ("separable_3x3", 0), ("separable_3x3", 0), ("separable_3x3", 1)]
    graph = CellNetwork(Cell((Block(*reads[:2]), Block(*reads[2:]))), LARGEST).graph
    layers = [layer for layer in graph.layers if layer.kind == "conv" and layer.name.startswith("cell1.block")]
    bank = Bank(seed=0)
    bank.hold(Graph((graph.layers[0], *layers)))
    assert len(layers) == 4 * 4  # two depthwise and two pointwise convolutions each
    assert sum(":weight:" in name for name in bank._parameters) == 2 * 4  # for each of the inputs
