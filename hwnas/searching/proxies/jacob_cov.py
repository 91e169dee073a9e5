"""Jacobian covariance (Abdelfattah et al., 2021, section 3.2, after the first version of Mellor et al.).

How little the gradients of the summed logits by the images, one for each image of a batch, have to do with each other:
from the eigenvalues v of their correlations, -sum(log(v + k) + 1 / (v + k)).
"""

from typing import TYPE_CHECKING

import torch

from hwnas.searching.proxies._untrained import untrained

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.network import Architecture

_K = 1e-5  # the papers'


def score(architecture: "Architecture", images: "Tensor", *, seed: int) -> float:
    """Return the score; it is at most -n for n images."""
    with untrained(architecture, seed) as network:
        inputs = images.clone().requires_grad_()
        network(inputs).sum().backward()
        assert inputs.grad is not None
        gradients = inputs.grad.flatten(1).double()
    gradients = gradients - gradients.mean(1, keepdim=True)
    gradients = gradients / gradients.norm(dim=1, keepdim=True).clamp(min=1e-300)
    values = torch.linalg.eigvalsh(gradients @ gradients.T).clamp(min=0.0)
    return float(-(torch.log(values + _K) + 1 / (values + _K)).sum())
