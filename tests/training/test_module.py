from copy import deepcopy
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given
from networks import architectures, images, network, repeatable, torch_output
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hwnas.errors import InputError
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Block, Cell
from hwnas.network.graph import Builder, Graph, Layer, one_layer
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.published import mobilenet_v2
from hwnas.network.scale import Scale
from hwnas.training.module import Network, deployed_weights

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


def test_weights_of_one_resolution_load_at_another() -> None:
    even, odd = (Network(CellNetwork(CELL, Scale(1, 4, side, 2)).graph) for side in (16, 15))
    odd.load_state_dict(even.state_dict())


def test_intermediate_values_are_freed() -> None:
    graph = Graph(CellNetwork(CELL, Scale(1, 4, 16, 2)).graph.layers)
    freed = [position for ended in Network(graph)._free_after for position in ended]
    assert sorted(freed) == list(range(len(graph.layers) - 1))


def gradients(module: nn.Module, value: Tensor) -> list[Tensor]:
    """Return the output for a copy of the value, then its gradient and those of the parameters."""
    value = value.clone(memory_format=torch.preserve_format).requires_grad_()
    output = module(value)
    output.square().sum().backward()
    return [output, *(leaf.grad for leaf in (value, *module.parameters()))]


def plain(module: nn.Module) -> nn.Module:
    """Return a copy whose convolutions and ReLUs are torch's own, none in place."""
    module = deepcopy(module)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.forward = partial(nn.Conv2d.forward, part)
        elif isinstance(part, nn.ReLU):
            part.inplace = False
    return module


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("padding", ["same", "symmetric", "valid"])
@pytest.mark.parametrize(
    "kernel", [(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (9, 5)], ids=lambda kernel: f"{kernel[0]}x{kernel[1]}"
)
def test_convolutions_compute_what_torchs_compute(
    kernel: tuple[int, int], padding: str, layout: torch.memory_format
) -> None:
    for groups, stride, dilation, bias in product((1, 4), (1, 2), (1, 2), (False, True)):
        b = Builder((4, 17, 18))
        sizes = {"kernel": kernel, "stride": (stride, stride), "dilation": dilation if kernel != (9, 5) else 1}
        b.window("conv", 0, name="it", filters=4, groups=groups, bias=bias, norm=True, padding=padding, **sizes)
        module = Network(b.finish(1)).double().to(memory_format=layout)
        value = torch.randn(3, 4, 17, 18, dtype=torch.float64).contiguous(memory_format=layout)
        torch.testing.assert_close(gradients(module, value), gradients(plain(module), value), rtol=1e-9, atol=1e-9)


@given(architecture=architectures())
@repeatable(10)
def test_networks_compute_and_train_as_of_torchs_own_modules(architecture: Architecture) -> None:
    module = network(architecture.graph).double().to(memory_format=torch.channels_last).train()
    value = torch.from_numpy(images(architecture.graph, count=4)).double().contiguous(memory_format=torch.channels_last)
    for mode in (True, False):
        reference = plain(module.train(mode))
        torch.testing.assert_close(gradients(module, value), gradients(reference, value), rtol=1e-7, atol=1e-9)
        module.zero_grad()


def test_a_relu_writes_only_over_what_nothing_else_needs() -> None:
    module = Network(CellNetwork(CELL, Scale(2, 8, 32, 10)).graph)
    over = [at for at, part in enumerate(module.layers) if isinstance(part, nn.ReLU) and part.inplace]
    assert over
    for position in over:
        (source,) = module.graph.layers[position].inputs
        assert source > 0
        assert module.graph.consumers[source] == (position,)
    relu = Network(one_layer(Layer("relu", (0,), (2, 3, 3), "it"), [(2, 3, 3)]))
    value = -torch.ones(1, 2, 3, 3)
    relu(value)
    assert (value == -1).all()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_network_trains_in_reduced_precision(layout: torch.memory_format) -> None:
    module = Network(CellNetwork(CELL, Scale(1, 8, 16, 10)).graph).to(memory_format=layout).train()
    value = torch.randn(4, 3, 16, 16).contiguous(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(value)
    output.float().square().sum().backward()
    assert output.dtype == torch.bfloat16
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.slow
def test_a_network_can_be_compiled() -> None:
    module = Network(CellNetwork(CELL, Scale(1, 4, 16, 10)).graph).double().to(memory_format=torch.channels_last)
    value = torch.randn(2, 3, 16, 16, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    expected = gradients(deepcopy(module), value)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(gradients(compiled, value), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("resolution", [20, 21, 32])
def test_an_auxiliary_head_classifies_in_training_only(resolution: int) -> None:
    module = Network(CellNetwork(CELL, Scale(1, 4, resolution, 7)).graph, auxiliary=True).train()
    value = torch.randn(3, 3, resolution, resolution)
    both = module(value)
    assert both.shape == (2, 3, 7)
    both[1].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.auxiliary.parameters() if parameter.dim() > 1)
    assert module.layers[-1][-1].weight.grad.abs().sum() == 0
    assert module.eval()(value).shape == (3, 7)


def test_an_auxiliary_head_is_not_deployed() -> None:
    graph = CellNetwork(CELL, Scale(1, 4, 32, 7)).graph
    assert deployed_weights(Network(graph, auxiliary=True)).keys() == deployed_weights(Network(graph)).keys()


def test_an_auxiliary_head_needs_a_place() -> None:
    with pytest.raises(InputError, match="5x5 pixels or more before its last reduction; got 4x4"):
        Network(CellNetwork(CELL, Scale(1, 4, 8, 7)).graph, auxiliary=True)
    chain = mobilenet_v2(classes=10).graph
    with pytest.raises(InputError, match="a network of cells"):
        Network(chain, auxiliary=True)
