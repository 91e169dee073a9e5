"""What every zero-cost proxy must keep to; what one is worth is measured by benchmarks/early_evidence.py."""

import math

import pytest
import torch

from hwnas.network import Block, Cell, CellNetwork, Scale
from hwnas.searching.proxies import Proxy

_SCALE = Scale(1, 8, 16, 10, 1)
SEPARABLE = CellNetwork(Cell((Block(("separable_3x3", 1), ("separable_5x5", 0)),)), _SCALE)
IDENTITY = CellNetwork(Cell((Block(("identity", 1), ("identity", 0)),)), _SCALE)


def random_images() -> torch.Tensor:
    """Return 16 grey images of 16 x 16 pixels."""
    return torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))


class ProxyContract:
    """Takes the fixture `proxy`: a module of hwnas/searching/proxies, or like one."""

    @pytest.mark.parametrize("network", [SEPARABLE, IDENTITY], ids=["separable", "identity"])
    def test_a_score_is_finite_and_the_seed_decides_it(self, proxy: Proxy, network: CellNetwork) -> None:
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        score = proxy.score(network, random_images(), seed=0)
        assert torch.equal(torch.rand(1), expected)
        assert math.isfinite(score)
        assert proxy.score(network, random_images(), seed=0) == score
