"""What every zero-cost proxy keeps to; what they are worth is measured by benchmarks/early_evidence.py."""

import math

import pytest
import torch

from hwnas.network.cell import Block, Cell
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.searching import proxies
from hwnas.searching.proxies import naswot
from hwnas.support import plugins
from hwnas.training.module import Network

NAMES = plugins.names("proxies")
SCALE = Scale(1, 8, 16, 10, 1)
SEPARABLE = CellNetwork(Cell((Block(("separable_3x3", 1), ("separable_5x5", 0)),)), SCALE)
IDENTITY = CellNetwork(Cell((Block(("identity", 1), ("identity", 0)),)), SCALE)
IMAGES = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("network", [SEPARABLE, IDENTITY])
def test_a_score_is_finite_and_the_seed_decides_it(name: str, network: CellNetwork) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    score = proxies.get(name).score(network, IMAGES, seed=0)
    assert torch.equal(torch.rand(1), expected)
    assert math.isfinite(score)
    assert proxies.get(name).score(network, IMAGES, seed=0) == score


@pytest.mark.parametrize("name", ["synflow", "naswot"])
def test_a_network_that_computes_more_scores_higher(name: str) -> None:
    scores = [proxies.get(name).score(network, IMAGES, seed=0) for network in (SEPARABLE, IDENTITY)]
    assert scores[0] > scores[1]


def test_synflow_is_that_of_its_definition_and_reads_no_image() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Network(IDENTITY.graph).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # at first it only divides by sqrt(1 + eps)
            module.eps = 0.0
    flow = 0.0
    for parameter in network.parameters():
        parameter.data.abs_()
    network(torch.ones(1, 1, 16, 16).double()).sum().backward()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            assert parameter.grad is not None
            flow += float((parameter.detach() * parameter.grad).sum())
    found = proxies.get("synflow").score(IDENTITY, IMAGES, seed=3)
    assert found == pytest.approx(math.log(flow))
    assert proxies.get("synflow").score(IDENTITY, 0 * IMAGES, seed=3) == found


def test_naswot_counts_the_relus_that_treat_two_images_alike() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = naswot._Watched(SEPARABLE.graph).train()
        network(IMAGES)
    relus = float(network.kernel[0, 0])  # type: ignore[index]
    assert torch.equal(network.kernel.diagonal(), torch.full((16,), relus))  # type: ignore[union-attr]
    assert bool((network.kernel <= relus).all())  # type: ignore[union-attr]


def test_equal_images_have_equal_codes_and_gradients() -> None:
    same = IMAGES[:1].expand(16, -1, -1, -1).clone()
    for name in ("naswot", "jacob-cov"):
        score = proxies.get(name).score
        assert score(SEPARABLE, same, seed=0) < score(SEPARABLE, IMAGES, seed=0)


def test_jacobian_covariance_has_a_largest_score() -> None:
    assert proxies.get("jacob-cov").score(SEPARABLE, IMAGES, seed=0) <= -16 + 0.01
