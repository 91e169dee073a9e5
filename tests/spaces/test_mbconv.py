"""The published MobileNets are points of the kind: torchvision's own, to the parameter and to the output."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable

from hwnas.errors import InputError
from hwnas.network.architecture import Architecture
from hwnas.network.kinds.chain import Chain
from hwnas.network.published import divisible_by_8, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from hwnas.network.scale import Scale
from hwnas.spaces import mbconv, random_parameters
from hwnas.training.module import Network
from hwnas.training.pretrained import load_in_order

Make = Callable[..., Chain]
PUBLISHED = {
    "mobilenet_v2": (mobilenet_v2, 3_504_872, 300.8e6),
    "mobilenet_v3_large": (mobilenet_v3_large, 5_483_032, 216.6e6),
    "mobilenet_v3_small": (mobilenet_v3_small, 2_542_856, 56.5e6),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_costs(name: str) -> None:
    """The parameters and Mult-Adds that torchvision's documentation gives."""
    make, parameters, mult_adds = PUBLISHED[name]
    assert make().graph.parameters == parameters
    assert make().graph.mult_adds == pytest.approx(mult_adds, rel=0.003)


def trained(name: str, **options: float) -> torch.nn.Module:
    """Return torchvision's network with weights and BatchNorm statistics that are worth comparing."""
    torch.manual_seed(0)
    theirs: torch.nn.Module = getattr(torchvision.models, name)(num_classes=17, **options)
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
            torch.nn.init.uniform_(part.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
    return theirs.eval()


@pytest.mark.parametrize("resolution", [75, 224])
@pytest.mark.parametrize("name", PUBLISHED)
def test_with_torchvisions_weights_the_outputs_are_torchvisions(name: str, resolution: int) -> None:
    theirs = trained(name)
    ours = Network(PUBLISHED[name][0](resolution=resolution, classes=17, padding="symmetric").graph)
    load_in_order(ours, theirs.state_dict())
    images = torch.randn(2, 3, resolution, resolution)
    with torch.no_grad():
        expected, outputs = theirs(images), ours.eval()(images)
    assert (outputs - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.4])
def test_mobilenet_v2_of_other_widths_is_torchvisions_too(width: float) -> None:
    theirs = trained("mobilenet_v2", width_mult=width)
    ours = Network(mobilenet_v2(width=width, resolution=32, classes=17).graph)
    load_in_order(ours, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_weights_of_another_network_are_refused() -> None:
    network = Network(mobilenet_v2(resolution=32, classes=10).graph)
    with pytest.raises(InputError, match=r"must be \(10, 1280\); got classifier.1.weight \(17, 1280\)"):
        load_in_order(network, trained("mobilenet_v2").state_dict())
    with pytest.raises(InputError, match="it has 262 tensors, got 210"):
        load_in_order(network, trained("mobilenet_v3_small").state_dict())


@pytest.mark.parametrize("make", [make for make, _, _ in PUBLISHED.values()])
def test_a_chain_survives_its_json(make: Make) -> None:
    architecture = make()
    assert Architecture.from_json(architecture.to_json()) == architecture


@given(width=st.floats(1, 2000))
@repeatable(100)
def test_channels_are_rounded_to_8_by_a_tenth_at_most(width: float) -> None:
    rounded = divisible_by_8(width)
    assert rounded % 8 == 0
    assert rounded >= 0.9 * width
    assert rounded <= max(8, width + 8)


def test_the_scale_limits_the_depth_and_sets_the_width() -> None:
    (parameters,) = random_parameters(mbconv, 1, seed=0)
    deep = {**parameters, **{f"stage{stage}_depth": 4 for stage in range(1, 6)}}
    blocks = [len(mbconv.architecture(deep, Scale(n, 16, 64, 10)).blocks) for n in (1, 2, 4, 6)]
    assert blocks == [6, 11, 21, 21]
    assert mbconv.architecture(deep, Scale(1, 16, 64, 10)).blocks[-1].filters == 160
    assert mbconv.architecture(deep, Scale(1, 32, 64, 10)).blocks[-1].filters == 320


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "chain"}, "a chain must have stem, blocks"),
        ({"kind": "chain", "blocks": [{"filters": 3}]}, "a chain must have stem, blocks"),
        ({**mobilenet_v2().to_json(), "head": -1}, "head must be 0, for none, or more; got -1"),
        ({"kind": "chian"}, "unknown kind of network 'chian'; known: cells, chain, macro"),
    ],
)
def test_what_is_no_chain_is_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Architecture.from_json(content)
