"""Hand-made networks are those of their papers: in costs, and where timm has them in what they compute; and scaled."""

from dataclasses import replace
from math import prod

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import shufflenet_v2_x1_0

from hwnas.errors import InputError
from hwnas.network import (
    HAND_MADE,
    TORCHVISIONS,
    Architecture,
    BasicBlock,
    Chain,
    MaxPool,
    adapted,
    mobilenet_v2,
    mobilenet_v3_small,
    published_network,
    resnet_9,
    scaled,
    with_total_stride,
)
from hwnas.training.module import Network
from hwnas.training.pretrained import load_in_order

COSTS = {  # M parameters and M Mult-Adds as printed, to half a unit of the last digit
    "mobilenet-v1": (4.2, 569),  # Howard et al., 2017, table 6
    "mnasnet-a1": (3.9, 312),  # Tan et al., 2019, table 1
    "mobilenet-v4-conv-small": (3.8, 200),  # Qin et al., 2024, table 5: 0.2 G
    "resnet-20": (0.27, 40.8),  # He et al., 2016, table 6; its Mult-Adds in later papers, with option B
    "resnet-8": (0.078, 12.5),  # Banbury et al., 2021 (MLPerf Tiny)
    "shufflenet-v2": (2.28, 146),  # Ma et al., 2018, table 8; parameters as later papers and torchvision have them
    "repvgg-a0": (8.30, 1400),  # Ding et al., 2021, table 4: 1.4 B
}
HALF = {"mobilenet-v1": (0.05, 0.5), "mnasnet-a1": (0.05, 0.5), "mobilenet-v4-conv-small": (0.05, 50)}
HALF |= {"resnet-20": (0.005, 0.05), "resnet-8": (0.0005, 0.05), "repvgg-a0": (0.015, 50)}  # its biases are norms here
HALF |= {"shufflenet-v2": (0.005, 1.5)}  # theirs are 1.1 M more than those of its layers, as of torchvision's
TIMMS = {
    "mobilenet-v1": "mobilenetv1_100",
    "mnasnet-a1": "semnasnet_100",
    "efficientnet-lite0": "efficientnet_lite0",
    "mobilenet-v4-conv-small": "mobilenetv4_conv_small",
}
CHAINS = {**TORCHVISIONS, **HAND_MADE, "resnet-9": resnet_9}


@pytest.mark.parametrize("name", COSTS)
def test_hand_made_networks_have_their_published_costs(name: str) -> None:
    graph, (parameters, mult_adds), halves = published_network(name).graph, COSTS[name], HALF[name]
    assert graph.parameters / 1e6 == pytest.approx(parameters, abs=halves[0])
    assert graph.mult_adds / 1e6 == pytest.approx(mult_adds, abs=halves[1])


@pytest.mark.parametrize(
    ("width", "parameters", "mult_adds"),
    [(0.75, 2.6, 325), (0.5, 1.3, 149), (0.25, 0.5, 41)],  # Howard et al., 2017, table 6
)
def test_mobilenet_v1_of_other_widths_has_its_published_costs(width: float, parameters: float, mult_adds: int) -> None:
    graph = scaled(HAND_MADE["mobilenet-v1"](), width=width).graph
    assert graph.parameters / 1e6 == pytest.approx(parameters, abs=0.05)
    assert graph.mult_adds / 1e6 == pytest.approx(mult_adds, abs=0.5)


def test_resnet_9_has_the_weights_of_dawnbenchs() -> None:
    """Its 6,568,640 are those of convolutions and the classifier without its biases."""
    norms = 2 * (64 + 3 * 128 + 256 + 3 * 512)
    assert resnet_9().graph.parameters == 6_568_640 + norms + 10


@pytest.mark.parametrize("name", TIMMS)
def test_hand_made_networks_have_timms_costs(name: str) -> None:
    """EfficientNet-Lite0's README says 4.7 M and 407 M, in which there are more than Mult-Adds of convolutions."""
    theirs, graph = timm.create_model(TIMMS[name]).eval(), published_network(name).graph
    of_norm = 1280 if name.startswith("mobilenet-v4") else 0  # two numbers a unit, where a bias is one
    assert graph.parameters == sum(p.numel() for p in theirs.parameters()) - of_norm
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.zeros(1, 3, 224, 224))
    assert graph.mult_adds == counter.get_total_flops() // 2


def check_outputs(chain: Chain, theirs: nn.Module) -> None:
    """With their weights a chain of 75x75 pixels computes what they do."""
    ours = Network(chain.graph)
    load_in_order(ours, theirs.state_dict())
    images = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        expected, outputs = theirs.eval()(images), ours.eval()(images)
    assert (outputs - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["mobilenet-v1", "efficientnet-lite0"])
def test_with_timms_weights_the_outputs_are_timms(name: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(TIMMS[name], num_classes=17)
    theirs.train()(torch.randn(8, 3, 64, 64))  # for statistics that are worth comparing
    chain = replace(HAND_MADE[name](), resolution=75, classes=17, padding="symmetric", norm_epsilon=1e-5)
    check_outputs(chain, theirs)


def test_shufflenet_v2_is_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = shufflenet_v2_x1_0()
    theirs.train()(torch.randn(8, 3, 64, 64))  # for statistics that are worth comparing
    chain = HAND_MADE["shufflenet-v2"]()
    assert chain.graph.parameters == sum(p.numel() for p in theirs.parameters()) == 2_278_604
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs.eval()(torch.zeros(1, 3, 224, 224))
    assert chain.graph.mult_adds == counter.get_total_flops() // 2
    check_outputs(replace(chain, resolution=75, padding="symmetric", norm_epsilon=1e-5), theirs)


def test_of_small_images_shufflenet_v2_has_no_pooling_and_of_any_depth_one() -> None:
    chain = HAND_MADE["shufflenet-v2"]()
    assert adapted(chain, resolution=32, classes=10).blocks == chain.blocks[1:]
    for depth, units in ((0.25, 1 + 2 + 1), (0.5, 2 + 4 + 2), (2, 8 + 16 + 8)):
        blocks = scaled(chain, depth=depth).blocks
        assert [isinstance(block, MaxPool) for block in blocks] == [True] + [False] * units


def test_a_stage_of_one_block_after_a_pooling_is_made_deeper_without_another_pooling() -> None:
    chain = Chain(8, (MaxPool(8, 3, 2), BasicBlock(8, 3, 1)), 0, 32, 3)
    assert scaled(chain, depth=3).blocks == (MaxPool(8, 3, 2), *[BasicBlock(8, 3, 1)] * 3)


@pytest.mark.parametrize("name", CHAINS)
def test_a_hand_made_network_survives_its_json(name: str) -> None:
    chain = CHAINS[name]()
    assert Architecture.from_json(chain.to_json()) == chain


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.4])
def test_scaled_by_width_mobilenet_v2_is_its_papers(width: float) -> None:
    by_rule, papers = scaled(mobilenet_v2(), width=width), mobilenet_v2(width=width)
    assert (by_rule.stem, by_rule.blocks) == (papers.stem, papers.blocks)


def test_scaled_by_depth_resnet_20_is_the_deeper_ones() -> None:
    resnet_20 = HAND_MADE["resnet-20"]()
    assert scaled(resnet_20, depth=1 / 3) == HAND_MADE["resnet-8"]()
    resnet_56 = scaled(resnet_20, depth=3).graph
    assert resnet_56.parameters / 1e6 == pytest.approx(0.85, abs=0.01)  # He et al., 2016, table 6
    assert sum(layer.kind in ("conv", "linear") for layer in resnet_56.layers) == 56 + 2  # with two shortcuts


@pytest.mark.parametrize("name", CHAINS)
def test_of_multipliers_of_1_nothing_is_changed(name: str) -> None:
    chain = CHAINS[name]()
    assert scaled(chain) == chain
    assert replace(scaled(chain, depth=1 + 1e-12), depths=chain.depths) == chain


@pytest.mark.parametrize("name", CHAINS)
@given(width=st.floats(0.05, 2), depth=st.floats(0.1, 3), resolution=st.integers(28, 64))
@repeatable(15)
def test_small_images_have_a_total_stride_of_8_at_most(name: str, width: float, depth: float, resolution: int) -> None:
    chain = adapted(CHAINS[name](), resolution=resolution, classes=7, channels=1, width=width, depth=depth)
    assert chain.stem_stride == 1
    assert prod(block.stride for block in chain.blocks) == (4 if name in ("resnet-8", "resnet-20") else 8)
    graph = chain.graph
    assert graph.layers[0].shape == (1, resolution, resolution)
    assert graph.output_shape == (7, 1, 1)
    assert all(layer.shape[0] % 8 == 0 for layer in graph.layers[1:-1] if layer.name.endswith(("stem", "project")))


@pytest.mark.parametrize(("resolution", "stride"), [(64, 8), (96, 16), (128, 16), (160, 32), (224, 32)])
def test_larger_images_have_the_papers_stride(resolution: int, stride: int) -> None:
    chain = adapted(mobilenet_v2(), resolution=resolution, classes=10)
    assert prod((chain.stem_stride, *(block.stride for block in chain.blocks))) == stride


def test_the_first_strides_go() -> None:
    assert [block.stride for block in with_total_stride(mobilenet_v3_small(), 8).blocks] == [
        1,
        2,
        1,
        2,
        *[1] * 4,
        2,
        1,
        1,
    ]
    assert with_total_stride(mobilenet_v2(), 32) == mobilenet_v2()


def test_more_width_and_depth_cost_more() -> None:
    def mult_adds(chain: Chain, **multipliers: float) -> int:
        return adapted(chain, resolution=32, classes=10, **multipliers).graph.mult_adds  # type: ignore[arg-type]

    for make in CHAINS.values():
        assert mult_adds(make(), width=0.5) < mult_adds(make()) < mult_adds(make(), depth=2)


@pytest.mark.parametrize("multipliers", [{"width": 0}, {"depth": -1.0}, {"width": float("nan")}])
def test_a_multiplier_must_be_above_0(multipliers: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"a (width|depth) multiplier must be above 0; got"):
        scaled(mobilenet_v2(), **multipliers)
