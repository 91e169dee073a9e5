"""The published PNASNet-5 large and NASNet-A large are timm's: parameters, wiring and padding, with timm's weights."""

from typing import Any

import pytest
import torch
from timm.layers.pool2d_same import AvgPool2dSame
from timm.models.nasnet import nasnetalarge
from timm.models.pnasnet import pnasnet5large
from torch import Tensor, nn

from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.published import NASNET_A, NASNET_A_REDUCTION, PNASNET_5
from hwnas.network.scale import Scale
from hwnas.training.module import Network

PEERS = {"pnasnet5large": pnasnet5large, "nasnetalarge": nasnetalarge}
_SEPARABLE = {
    "1": ("separable_1.depthwise_conv2d", ""),
    "2": ("separable_1.pointwise_conv2d", "bn_sep_1"),
    "4": ("separable_2.depthwise_conv2d", ""),
    "5": ("separable_2.pointwise_conv2d", "bn_sep_2"),
}
_INPUTS = {
    "prev": ("conv_1x1.conv", "conv_1x1.bn"),
    "prev_prev": ("conv_prev_1x1.conv", "conv_prev_1x1.bn"),
    "prev_prev.path1": ("path_1.conv", "final_path_bn"),
    "prev_prev.path2": ("path_2.conv", "final_path_bn"),
}


def large(name: str, resolution: int = 331) -> CellNetwork:
    """Return our architecture of one of timm's networks."""
    if name == "pnasnet5large":
        return CellNetwork(PNASNET_5, Scale(4, 216, resolution, 1000, skeleton="imagenet", stem_multiplier=3))
    scale = Scale(6, 168, resolution, 1000, skeleton="imagenet", stem_multiplier=3, skip_reduction_input=True)
    return CellNetwork(NASNET_A, scale, NASNET_A_REDUCTION)


def ours(name: str, resolution: int, peer: Any) -> Network:
    """Return our network with the tensors of timm's, in the same mode."""
    with torch.device("meta"):
        network = Network(large(name, resolution).graph)
    network.load_state_dict(_peer_weights(network, peer), assign=True)
    return network.train(peer.training)


def _peer_weights(network: Network, peer: Any) -> dict[str, Tensor]:
    """Return timm's tensors by our names; it has one norm over both paths of a factorised reduction, ours has two."""
    theirs, found = peer.state_dict(), {}
    for position, (layer, module) in enumerate(zip(network.graph.layers, network.layers, strict=True)):
        for index, part in module.named_children():
            for tensor, value in part.state_dict().items():
                source = theirs[f"{_peer_name(layer.name, peer, isinstance(part, nn.BatchNorm2d))}.{tensor}"]
                if source.shape != value.shape:
                    source = source.chunk(2)[layer.name.endswith("path2")]
                found[f"layers.{position}.{index}.{tensor}"] = source
    return found


def _peer_name(name: str, peer: Any, norm: bool) -> str:
    """Return timm's name of the convolution or the norm of one of our layers, such as `cell3.block1.left.4`."""
    stem, *cells = peer.layer_names
    cell, _, inside = name.partition(".")
    if cell == "classifier":
        return "last_linear"
    if cell == "stem":
        return f"{stem}.{'bn' if norm else 'conv'}"
    cell = cells[int(cell.removeprefix("cell"))]
    if inside in _INPUTS:
        reduction = "path" in inside and hasattr(peer.get_submodule(cell), "conv_prev_1x1")
        return f"{cell}.{'conv_prev_1x1.' * reduction}{_INPUTS[inside][norm]}"
    block, side, step = (*inside.split("."), "")[:3]
    branch = f"comb_iter_{int(block.removeprefix('block')) - 1}_{side}"
    return f"{cell}.{branch}.{_SEPARABLE.get(step, ('conv', 'bn'))[norm]}"


def peer_network(name: str, resolution: int) -> Any:
    """Return timm's network in double precision, in eval mode, its norms with random parameters and fitted statistics.

    Fitted, for the logits to depend on the images as they would after training.
    """
    torch.manual_seed(0)
    peer = PEERS[name]()
    for part in peer.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    with torch.no_grad():
        peer.train()(torch.randn(2, 3, resolution, resolution))
    return peer.double().eval()


def without_counting_padding(pool: AvgPool2dSame) -> nn.Module:
    """Return timm's SAME average pooling, without the zeros beside the image in the mean."""

    class Pool(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return pool(value) / pool(torch.ones_like(value[:1, :1]))

    return Pool()


@pytest.mark.parametrize("name", PEERS)
def test_large_networks_have_timms_parameters(name: str) -> None:
    with torch.device("meta"):
        peer = PEERS[name]()
    assert large(name).graph.parameters == sum(parameter.numel() for parameter in peer.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [96, 75])
@pytest.mark.parametrize("name", PEERS)
def test_large_networks_compute_what_timms_compute(name: str, resolution: int) -> None:
    """At 96 the cells see 47, 24, 12, 6 and 3 pixels, at 75 they see 37, 19, 10, 5 and 3: even and odd everywhere.

    One difference is meant: an average pooling of stride 2 counts no padding here, as in TensorFlow, where the weights
    come from; timm's counts it.
    """
    peer = peer_network(name, resolution)
    images = torch.randn(2, 3, resolution, resolution, dtype=torch.float64)
    network = ours(name, resolution, peer)
    for path, part in list(peer.named_modules()):
        if isinstance(part, AvgPool2dSame):
            peer.set_submodule(path, without_counting_padding(part))
    with torch.no_grad():
        expected, output = peer(images), network(images)
    assert (expected[0] - expected[1]).abs().max() > 0.1 * expected.abs().max()
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
