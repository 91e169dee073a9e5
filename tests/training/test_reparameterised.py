"""Branches beside convolutions: which there are, and that they fold into the convolution exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import architectures, images, repeatable
from torch import nn

from hwnas.network.architecture import Architecture
from hwnas.network.graph import Builder, Graph, Padding
from hwnas.training.module import Network, deployed_weights, weighted
from hwnas.training.reparameterised import Reparameterised

TOLERANCE = 1e-5  # relative to the largest output


def unlike(network: Network) -> Network:
    """Return a network in eval mode whose BatchNorms are neither centred nor of unit scale."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            for tensor, low, high in (
                (part.weight, 0.5, 1.5),
                (part.bias, -0.5, 0.5),
                (part.running_mean, -0.5, 0.5),
                (part.running_var, 0.5, 2.0),
            ):
                nn.init.uniform_(tensor, low, high)
    return network.eval()


def assert_folds(graph: Graph, count: int) -> None:
    torch.manual_seed(0)
    network = unlike(Reparameterised(graph, convolutions=count))
    assert isinstance(network, Reparameterised)
    inputs = torch.from_numpy(images(graph))
    with torch.no_grad():
        expected, outputs = network(inputs), network.folded()(inputs)
    assert (outputs - expected).abs().max() <= TOLERANCE * expected.abs().max()


@st.composite
def convolutions(draw: st.DrawFn) -> Graph:
    """Draw one convolution with BatchNorm: window, stride, dilation, padding, dense, grouped or depthwise."""
    padding: Padding = draw(st.sampled_from(["same", "valid", "symmetric"]))
    kernel, stride = (draw(st.tuples(st.integers(1, most), st.integers(1, most))) for most in (5, 3))
    groups, each, filters = draw(st.sampled_from([(1, 3, 3), (1, 2, 5), (2, 2, 2), (2, 1, 3), (4, 1, 1)]))
    b = Builder((groups * each, draw(st.integers(9, 12)), draw(st.integers(9, 12))))
    value = b.window(
        "conv",
        0,
        name="conv",
        filters=groups * filters,
        kernel=kernel,
        stride=stride,
        dilation=draw(st.sampled_from([1, 1, 2])),
        groups=groups,
        norm=True,
        bias=draw(st.booleans()),
        padding=padding,
    )
    return b.finish(value)


@given(graph=convolutions(), count=st.integers(1, 4))
@repeatable(150)
def test_branches_fold_into_the_one_convolution(graph: Graph, count: int) -> None:
    assert_folds(graph, count)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("side", "groups"), [(3, 1), (5, 6), (1, 1)], ids=["dense", "depthwise", "pointwise"])
def test_each_kind_of_convolution_folds(side: int, groups: int, stride: int, count: int) -> None:
    b = Builder((6, 9, 9))
    kernel, strides = (side, side), (stride, stride)
    value = b.window("conv", 0, name="conv", filters=6, kernel=kernel, stride=strides, groups=groups, norm=True)
    assert_folds(b.finish(value), count)


@given(architecture=architectures(), count=st.integers(1, 4))
@repeatable(10)
def test_whole_networks_fold(architecture: Architecture, count: int) -> None:
    assert_folds(architecture.graph, count)


def of_three() -> Graph:
    b = Builder((4, 8, 8))
    value = b.window("conv", 0, name="wide", filters=8, kernel=(3, 3), norm=True)
    value = b.window("conv", b.relu(value), name="depthwise", filters=8, kernel=(3, 3), groups=8, norm=True)
    value = b.window("conv", value, name="pointwise", filters=8, norm=True)
    value = b.window("conv", b.relu(value), name="smaller", filters=8, kernel=(3, 3), stride=(2, 2), norm=True)
    return b.finish(b.linear(b.mean(value, name="mean"), 3, name="classifier"))


def test_windows_larger_than_1x1_have_branches_and_a_batchnorm_alone_where_shapes_are_equal() -> None:
    network = Reparameterised(of_three())
    names = [network.graph.layers[int(position)].name for position in network.branches]
    assert names == ["wide", "depthwise", "smaller"]
    assert [branches.identity is not None for branches in network.branches.values()] == [False, True, False]


@pytest.mark.parametrize("count", [2, 4])
def test_with_convolutions_in_parallel_all_have_branches_and_as_many_windows_alike(count: int) -> None:
    network = Reparameterised(of_three(), convolutions=count)
    alike = {"wide": 0, "depthwise": 0, "pointwise": 0, "smaller": 0}
    for position, layer, inner, _ in weighted(network):
        if layer.kind == "conv":
            branches = network.branches[str(position)]
            parts = [inner, *(part for part in branches.modules() if isinstance(part, nn.Conv2d))]
            alike[layer.name] = sum(part.weight.shape == inner.weight.shape for part in parts)
            assert len(parts) - alike[layer.name] == (layer.name != "pointwise")  # beside larger ones one of 1x1
            assert (branches.identity is not None) == (layer.name in ("depthwise", "pointwise"))
    assert set(alike.values()) == {count}


def test_one_convolution_in_parallel_has_the_weights_of_which_checkpoints_of_before_are() -> None:
    branches = Reparameterised(of_three()).branches
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"pointwise.weight", *(f"norm.{part}" for part in norm)}
    wide, depthwise, smaller = (each.state_dict().keys() for each in branches.values())
    assert wide == smaller == names
    assert depthwise == names | {f"identity.{part}" for part in norm}


@pytest.mark.parametrize("count", [1, 3])
def test_silent_branches_leave_what_the_convolutions_compute(count: int) -> None:
    network = Reparameterised(of_three(), convolutions=count)
    network.silence()
    plain = Network(of_three())
    plain.load_state_dict({name: network.state_dict()[name] for name in plain.state_dict()})
    inputs = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(network.eval()(inputs), plain.eval()(inputs))


@pytest.mark.parametrize("count", [1, 4])
def test_in_training_every_branch_learns_and_the_folded_network_has_none(count: int) -> None:
    network = Reparameterised(of_three(), convolutions=count).train()
    network(torch.randn(4, 4, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    plain = network.folded()
    assert type(plain) is Network
    assert not plain.training
    assert plain.state_dict().keys() == Network(of_three()).state_dict().keys()
    assert sum(parameter.numel() for parameter in plain.parameters()) == plain.graph.parameters


def test_what_is_deployed_of_the_folded_network_computes_the_same() -> None:
    torch.manual_seed(1)
    network = unlike(Reparameterised(of_three()))
    assert isinstance(network, Reparameterised)
    plain = network.folded()
    bare = Network(Graph(tuple(layer._replace(norm=False, bias=layer.kind == "conv") for layer in of_three().layers)))
    weights = deployed_weights(plain)
    for layer, module in zip(bare.graph.layers, bare.layers, strict=True):
        if layer.name in weights:
            inner = next(part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear))
            inner.weight.data, inner.bias.data = map(torch.from_numpy, weights[layer.name])  # type: ignore[union-attr]
    inputs = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert bare.eval()(inputs).numpy() == pytest.approx(np.asarray(network(inputs)), rel=1e-4, abs=1e-5)
