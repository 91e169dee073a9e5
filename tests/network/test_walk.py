"""The walk: published networks come out to the parameter, shapes and sharing are right."""

import pytest

from hwnas.errors import InputError, UnknownNameError
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Cell
from hwnas.network.graph import fuse_relu, key, one_layer, pads
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.ops import steps
from hwnas.network.published import NASNET_A, NASNET_A_REDUCTION, PNASNET_5, published_network
from hwnas.network.scale import Scale
from hwnas.spaces import pnas


@pytest.mark.parametrize(
    ("architecture", "parameters", "mult_adds"),
    [
        pytest.param(published_network("pnasnet-5-mobile"), 5.1e6, 588e6, id="PNASNet-5 mobile"),
        pytest.param(
            CellNetwork(PNASNET_5, Scale(4, 216, 331, 1000, skeleton="imagenet", stem_multiplier=3)),
            86.1e6,
            25.0e9,
            id="PNASNet-5 large",
        ),
        pytest.param(CellNetwork(PNASNET_5, Scale(3, 48, 32, 10)), 3.2e6, 574.9e6, id="PNASNet-5 CIFAR"),
        pytest.param(
            published_network("nasnet-a-mobile"),
            5.3e6,
            564e6,
            id="NASNet-A mobile",
        ),
        pytest.param(
            CellNetwork(
                NASNET_A,
                Scale(6, 168, 331, 1000, skeleton="imagenet", stem_multiplier=3, skip_reduction_input=True),
                NASNET_A_REDUCTION,
            ),
            88.9e6,
            23.8e9,
            id="NASNet-A large",
        ),
        pytest.param(
            CellNetwork(NASNET_A, Scale(6, 32, 32, 10), NASNET_A_REDUCTION), 3.3e6, 544.3e6, id="NASNet-A CIFAR"
        ),
    ],
)
def test_published_networks_have_their_published_costs(
    architecture: Architecture, parameters: float, mult_adds: float
) -> None:
    """PNAS, table 3 and 5; NASNet, tables 1 to 3, all rounded there; the CIFAR Mult-Adds were counted independently."""
    assert architecture.graph.parameters == pytest.approx(parameters, rel=0.015)
    assert architecture.graph.mult_adds == pytest.approx(mult_adds, rel=0.003)


def test_an_architecture_survives_its_json() -> None:
    architecture = CellNetwork(NASNET_A, Scale(2, 8, 32, 10), NASNET_A_REDUCTION)
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_a_relu_is_shared_by_all_that_read_the_same_state() -> None:
    graph = CellNetwork(PNASNET_5, Scale(2, 8, 28, 10, 1)).graph
    read = [layer.inputs for layer in graph.layers if layer.kind == "relu"]
    assert len(read) == len(set(read))


def test_fusing_keeps_the_relus_whose_input_something_else_reads_too() -> None:
    graph = CellNetwork(PNASNET_5, Scale(1, 8, 28, 10, 1)).graph
    fused = fuse_relu(graph, into=frozenset({"conv"}))
    for layer in fused.layers:
        if layer.kind == "relu":
            (source,) = layer.inputs
            assert fused.layers[source].kind != "conv" or len(fused.consumers[source]) > 1
    relus = sum(layer.kind == "relu" or bool(layer.activation) for layer in fused.layers)
    assert relus == sum(layer.kind == "relu" for layer in graph.layers)


def test_cells_that_nothing_reads_are_left_out() -> None:
    skips = Cell.from_json({"blocks": [[["identity", 0], ["max_pool_3x3", 0]]]})
    graph = CellNetwork(skips, Scale(2, 8, 28, 10, 1)).graph
    cells = {layer.name.split(".")[0] for layer in graph.layers if layer.name.startswith("cell")}
    assert cells == {"cell1", "cell3", "cell5"}


def test_peak_memory_of_a_chain_is_its_largest_pair() -> None:
    graph = CellNetwork(PNASNET_5, Scale(1, 8, 28, 10, 1)).graph
    (conv,) = [layer for layer in graph.layers if layer.name == "stem"]
    alone = one_layer(conv, graph.input_shapes(conv))
    assert alone.peak_activation_bytes == 4 * (28 * 28 + 24 * 28 * 28)


def test_a_key_says_all_that_a_layer_costs_by() -> None:
    graph = CellNetwork(PNASNET_5, Scale(1, 8, 28, 10, 1)).graph
    keys = {layer.name: key(layer, graph.input_shapes(layer)) for layer in graph.layers}
    assert keys["stem"] == "conv 3x3 1x28x28 > 24x28x28"
    assert keys["cell1.block1.left.1"] == "conv 5x5/2 g16 16x28x28 > 16x14x14"
    assert keys["classifier"] == "linear 160x1x1 > 10x1x1"


def test_same_padding_puts_the_odd_row_at_the_bottom_and_the_right() -> None:
    graph = CellNetwork(PNASNET_5, Scale(1, 8, 28, 10, 1)).graph
    (layer,) = [layer for layer in graph.layers if layer.name == "cell1.block1.right.0"]
    assert layer.kernel == (3, 3)
    assert layer.stride == (2, 2)
    assert pads(layer, (16, 28, 28)) == (0, 1, 0, 1)
    assert pads(layer, (16, 27, 27)) == (1, 1, 1, 1)


@pytest.mark.parametrize("name", ["seperable_3x3", "conv_2x2", "separable_3x5", "conv_1x7_5x1", "max_pool"])
def test_an_unknown_operation_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown operation '{name}'; known: avg_pool_KxK, .*separable_KxK"):
        steps(name)


def test_a_scale_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="filters must be at least 1; got 0"):
        Scale(1, 0, 28, 10)
    with pytest.raises(InputError, match="too small"):
        _ = CellNetwork(PNASNET_5, Scale(1, 8, 2, 10, skeleton="imagenet")).graph


def test_unused_blocks_do_not_matter_to_optunas_parameters() -> None:
    code = pnas.grow(pnas.first_level()[:3])[:5]
    for row in code:
        parameters = pnas.parameters(row[None])
        assert set(parameters) == set(pnas.distributions())
        assert (pnas.code(parameters) == row).all()
        assert (pnas.code({**parameters, "block5_operation1": "dilated_3x3"}) == row).all()


@pytest.mark.parametrize(
    ("name", "parameters", "mult_adds"),
    [
        ("mobilenet-v2", 3_504_872, 300_774_272),
        ("mobilenet-v3-large", 5_483_032, None),
        ("mobilenet-v3-small", 2_542_856, None),
    ],
)
def test_known_networks_have_torchvisions_parameters(name: str, parameters: int, mult_adds: int | None) -> None:
    graph = published_network(name).graph
    assert graph.parameters == parameters
    assert mult_adds is None or graph.mult_adds == mult_adds
    assert published_network(name, resolution=32, classes=10).graph.output_shape == (10, 1, 1)


def test_an_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="mobilenet-v2, mobilenet-v3-large"):
        published_network("mobilenet-v4")
