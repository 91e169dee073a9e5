import pytest
import torch
from hypothesis import given
from networks import architectures, images, network, repeatable, torch_output
from torch.utils.flop_counter import FlopCounterMode

from hwnas.cell import Block, Cell
from hwnas.graph import Builder, Graph, Layer, one_layer
from hwnas.module import Network, deployed_weights
from hwnas.networks import Architecture, Scale
from hwnas.networks.cells import CellNetwork

CELL = Cell((Block(("separable_3x3", 1), ("separable_5x5", 1)), Block(("max_pool_3x3", 2), ("identity", 0))))


@given(architecture=architectures())
@repeatable(25)
def test_mult_adds_and_parameters_are_torchs_own(architecture: Architecture) -> None:
    graph = architecture.graph
    module = Network(graph).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = module(torch.from_numpy(images(graph)[:1]))
    assert output.shape == (1, architecture.scale.classes)
    assert graph.mult_adds == counter.get_total_flops() // 2
    assert graph.parameters == sum(parameter.numel() for parameter in module.parameters())


@given(architecture=architectures())
@repeatable(25)
def test_layers_have_the_shapes_that_the_graph_says(architecture: Architecture) -> None:
    graph = architecture.graph
    module = Network(graph).eval()
    shapes: dict[int, torch.Size] = {}
    for position, part in enumerate(module.layers):
        part.register_forward_hook(lambda _, __, output, at=position: shapes.update({at: output.shape[1:]}))
    with torch.no_grad():
        module(torch.from_numpy(images(graph)))
    for position, shape in shapes.items():
        wanted = graph.layers[position].shape
        assert tuple(shape) == (wanted[:1] if graph.layers[position].kind == "linear" else wanted)


@given(architecture=architectures())
@repeatable(15)
def test_every_parameter_gets_a_gradient(architecture: Architecture) -> None:
    module = Network(architecture.graph, dropout_rate=0.5).train()
    module.path_drop_rate = 0.2
    module(torch.from_numpy(images(architecture.graph, count=4))).square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@given(architecture=architectures())
@repeatable(40)
def test_a_value_has_one_relu(architecture: Architecture) -> None:
    read = [layer.inputs for layer in architecture.graph.layers if layer.kind == "relu"]
    assert len(set(read)) == len(read)


def path(share: float = 1.0) -> Network:
    graph = one_layer(Layer("relu", (0,), (2, 3, 3), "path", path_drop=share), [(2, 3, 3)])
    module = Network(graph).train()
    module.path_drop_rate = 0.3
    return module


def test_path_dropping_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    outputs = path()(torch.ones(4000, 2, 3, 3))
    assert ((outputs == 0).all(dim=1) | (outputs - 1 / 0.7).abs().lt(1e-6).all(dim=1)).all()
    assert outputs.mean().item() == pytest.approx(1, abs=0.05)
    assert (outputs == 0).all(dim=1).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_earlier_cells_drop_less() -> None:
    torch.manual_seed(0)
    outputs = path(share=0.5)(torch.ones(4000, 2, 3, 3))
    assert (outputs == 0).all(dim=1).float().mean().item() == pytest.approx(0.15, abs=0.03)


def test_nothing_is_dropped_outside_training() -> None:
    assert torch.equal(path().eval()(torch.ones(100, 2, 3, 3)), torch.ones(100, 18))


def test_dropping_is_set_for_the_last_cell_in_full() -> None:
    shares = [layer.path_drop for layer in CellNetwork(CELL, Scale(2, 8, 32, 10)).graph.layers if layer.path_drop]
    assert max(shares) == 1
    assert min(shares) == pytest.approx(1 / 6)
    assert shares == sorted(shares)


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
def test_poolings_have_the_graphs_size(kind: str, padding: str) -> None:
    for size in range(3, 12):
        for stride in (1, 2, 3):
            b = Builder((1, size, size))
            b.window(kind, 0, name="it", kernel=(3, 3), stride=(stride, stride), padding=padding)
            (output,) = Network(b.finish(1)).layers[1](torch.ones(1, 1, size, size))
            assert output.shape == b.shape(1)


def test_a_fused_relu_is_applied() -> None:
    layer = Layer("conv", (0,), (4, 5, 5), "it", kernel=(3, 3), norm=True, activation="relu")
    graph = one_layer(layer, [(4, 5, 5)])
    assert torch_output(network(graph), images(graph)).min() == 0


def test_folded_weights_are_the_whole_convolution() -> None:
    graph = one_layer(Layer("conv", (0,), (4, 5, 5), "it", kernel=(3, 3), norm=True), [(4, 5, 5)])
    module, inputs = network(graph), images(graph)
    weight, bias = (torch.from_numpy(value) for value in deployed_weights(module)["it"])
    output = torch.nn.functional.conv2d(torch.from_numpy(inputs), weight, bias, padding=1)
    torch.testing.assert_close(output.flatten(1).double().numpy(), torch_output(module, inputs), rtol=1e-4, atol=1e-5)


def test_intermediate_values_are_freed() -> None:
    graph = Graph(CellNetwork(CELL, Scale(1, 4, 16, 2)).graph.layers)
    freed = [position for ended in Network(graph)._free_after for position in ended]
    assert sorted(freed) == list(range(len(graph.layers) - 1))
