"""NASWOT (Mellor et al., 2021, equation 2): how differently the ReLUs see the images of a batch.

Each image has a binary code, which ReLUs let it through; the score is the logarithm of the determinant of the kernel
that counts, for each two images, the ReLUs that treat them alike.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from hwnas.searching.proxies._untrained import untrained
from hwnas.training import Network

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.network import Architecture, Layer

_JITTER = 1e-3  # of a ReLU: equal codes would make the determinant 0


class _Watched(Network):
    """A network that keeps the kernel of the codes of its ReLUs."""

    kernel: "Tensor | float" = 0.0

    def _run(self, layer: "Layer", module: "Callable[[Tensor], Tensor]", inputs: "list[Tensor]") -> "Tensor":
        output = super()._run(layer, module, inputs)
        if layer.activation or layer.kind in ("relu", "relu6"):
            passes = (output > 0).flatten(1).float()
            self.kernel = self.kernel + passes @ passes.T + (1 - passes) @ (1 - passes).T
        return output


@torch.no_grad()
def score(architecture: "Architecture", images: "Tensor", *, seed: int) -> float:
    """Return the logarithm of the kernel's determinant; 0 for a network without a ReLU."""
    with untrained(architecture, seed, _Watched) as network:
        network(images)
        assert isinstance(network, _Watched)
        if isinstance(network.kernel, float):
            return 0.0
        kernel = network.kernel.double() + _JITTER * torch.eye(len(images), dtype=torch.float64)
    return float(torch.linalg.slogdet(kernel).logabsdet)
