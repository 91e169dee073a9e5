"""The blocks of chains: what each computes is what torch's own layers compute, and each is written down and read."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.errors import InputError
from hwnas.network import (
    AnyBlock,
    Architecture,
    BasicBlock,
    Chain,
    Convolution,
    FusedInvertedResidual,
    InvertedResidual,
    MaxPool,
    ShuffleUnit,
)
from hwnas.training.module import Network

CHANNELS = 8  # that a block reads
BLOCKS: dict[str, AnyBlock] = {
    "extra-dw": InvertedResidual(8, 3, 1, 24, start=5),
    "extra-dw, half": InvertedResidual(12, 5, 2, 24, start=3),
    "convnext-like": InvertedResidual(8, 0, 1, 16, start=7),
    "convnext-like, half": InvertedResidual(16, 0, 2, 16, start=3),
    "feed-forward": InvertedResidual(8, 0, 1, 16),
    "fused": FusedInvertedResidual(8, 3, 1, 24),
    "fused, half, squeezed": FusedInvertedResidual(12, 3, 2, 24, "hard_swish", 8),
    "basic": BasicBlock(8, 3, 1),
    "basic, half": BasicBlock(16, 3, 2),
    "plain": Convolution(16, 3, 2),
    "depthwise": Convolution(8, 5, 1, "relu6", depthwise=True),
    "shuffle": ShuffleUnit(8, 3, 1),
    "shuffle, half": ShuffleUnit(12, 5, 2, "hard_swish"),
    "shuffle, wider": ShuffleUnit(10, 3, 1),
    "shuffle, projected": ShuffleUnit(8, 3, 1, projects=True),
    "max_pool": MaxPool(8, 3, 2),
}


def chain(block: AnyBlock) -> Chain:
    return Chain(
        CHANNELS, (block,), head=0, resolution=8, classes=3, stem_stride=1, padding="symmetric", activation="relu"
    )


def trained(block: AnyBlock) -> Network:
    """Return a network whose BatchNorms do something."""
    torch.manual_seed(0)
    network = Network(chain(block).graph).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def in_words_of_torch(block: AnyBlock, parts: dict[str, nn.Module], value: Tensor) -> Tensor:
    """Return what a block computes, as its paper says it, of the modules of its convolutions by name."""
    if isinstance(block, MaxPool):
        return F.max_pool2d(value, block.kernel, block.stride, padding=block.kernel // 2)
    activate = {"relu": F.relu, "relu6": F.relu6, "hard_swish": F.hardswish}[block.activation]
    if isinstance(block, Convolution):
        return activate(parts["plain_depthwise" if block.depthwise else "plain"](value))
    if isinstance(block, BasicBlock):
        branch = parts["second"](activate(parts["first"](value)))
        return activate(branch + (parts["shortcut"](value) if "shortcut" in parts else value))
    if isinstance(block, ShuffleUnit):
        kept, passed = value.chunk(2, dim=1) if block == BLOCKS["shuffle"] else (value, value)
        if block != BLOCKS["shuffle"]:
            kept = activate(parts["shortcut.last"](parts["shortcut.depthwise"](kept)))
        branch = parts["branch.depthwise"](activate(parts["branch.first"](passed)))
        return F.channel_shuffle(torch.cat([kept, activate(parts["branch.last"](branch))], dim=1), 2)
    branch = value
    if isinstance(block, FusedInvertedResidual):
        branch = activate(parts["fused"](branch))
    else:
        branch = parts["start"](branch) if block.start else branch
        branch = activate(parts["expand"](branch))
        branch = activate(parts["depthwise"](branch)) if block.kernel else branch
    if block.squeezed:
        means = branch.mean((2, 3), keepdim=True)
        branch = branch * F.hardsigmoid(parts["squeeze.restore"](F.relu(parts["squeeze.reduce"](means))))
    branch = parts["fused_project" if isinstance(block, FusedInvertedResidual) else "project"](branch)
    return branch + value if branch.shape == value.shape else branch


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_computes_what_its_paper_says(name: str) -> None:
    block, network = BLOCKS[name], trained(BLOCKS[name])
    parts = {
        layer.name.removeprefix("block0."): module
        for layer, module in zip(network.graph.layers, network.layers, strict=True)
        if layer.name.startswith("block0.") and list(module.parameters())
    }
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        by_layer = dict(zip((layer.name for layer in network.graph.layers), network.layers, strict=True))
        value = in_words_of_torch(block, parts, F.relu(by_layer["stem"](images)))
        expected = by_layer["classifier"](value.mean((2, 3)))
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
    assert value.shape[1] == block.filters


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_survives_its_json(name: str) -> None:
    assert Architecture.from_json(chain(BLOCKS[name]).to_json()) == chain(BLOCKS[name])


def test_a_block_is_named_by_what_it_is() -> None:
    assert [str(block) for block in BLOCKS.values()] == [
        "start 5x5 3x3 e24 8",
        "start 3x3 5x5/2 e24 12",
        "start 7x7 e16 8",
        "start 3x3/2 e16 16",
        "e16 8",
        "fused 3x3 e24 8",
        "fused 3x3/2 e24 se8 12",
        "basic 3x3 8",
        "basic 3x3/2 16",
        "plain 3x3/2 16",
        "depthwise 5x5 8",
        "shuffle 3x3 8",
        "shuffle 5x5/2 12",
        "shuffle 3x3 10",
        "shuffle 3x3 projected 8",
        "max_pool 3x3/2",
    ]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"form": "dense"},
            "blocks.0 must be a table of fields, whose form is fused, basic, plain, shuffle, max_pool or not given",
        ),
        (3, "blocks.0 must be a table of fields"),
        ({"form": "basic", "filters": 3}, "blocks.0.kernel is missing; blocks.0.stride is missing"),
        ({"form": "plain", "filters": 8, "kernel": 0, "stride": 1}, "a block's kernel must be at least 1; got 0"),
        ({"filters": 8, "kernel": 0, "stride": 2, "expanded": 8}, "without a depthwise convolution must have stride 1"),
        (
            {"form": "plain", "filters": 9, "kernel": 3, "stride": 1, "depthwise": True},
            "block0: a depthwise convolution must have the 8 filters that it reads; got 9",
        ),
        (
            {"form": "max_pool", "filters": 16, "kernel": 3, "stride": 2},
            "block0: max-pooling must have the 8 filters that it reads; got 16",
        ),
        (
            {"form": "shuffle", "filters": 9, "kernel": 3, "stride": 1},
            "a shuffle block's filters must be even, for two halves; got 9",
        ),
    ],
)
def test_what_is_no_block_is_refused(block: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = Architecture.from_json({**chain(BLOCKS["plain"]).to_json(), "blocks": [block]}).graph
