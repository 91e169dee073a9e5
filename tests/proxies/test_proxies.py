"""Every zero-cost proxy by the contract of all, and what is each one's own."""

import math

import pytest
import torch

from hwnas.searching import proxies
from hwnas.searching.proxies import Proxy, naswot
from hwnas.support import plugins
from hwnas.testing import ProxyContract
from hwnas.testing.proxies import IDENTITY, SEPARABLE, random_images
from hwnas.training.module import Network

IMAGES = random_images()


class TestEveryProxy(ProxyContract):
    """A new file in hwnas/searching/proxies is tested here by its name alone."""

    @pytest.fixture(params=plugins.names("proxies"))
    def proxy(self, request: pytest.FixtureRequest) -> Proxy:
        return proxies.get(request.param)


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
