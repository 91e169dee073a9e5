"""Synaptic flow (Tanaka et al., 2020; as a proxy Abdelfattah et al., 2021, section 3.2): needs no images.

The sum over the weights of |weight x gradient| of the summed logits, with all weights made positive, BatchNorm left out
and an image of ones; here its logarithm, as it grows by orders of magnitude with depth.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from hwnas.searching.proxies._untrained import untrained

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.network import Architecture


def score(architecture: "Architecture", images: "Tensor", *, seed: int) -> float:
    """Return the logarithm of the summed synaptic flow."""
    with untrained(architecture, seed) as network:
        network.double()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda module, inputs, output: inputs[0])
        weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.abs_()
        network(torch.ones_like(images[:1], dtype=torch.float64)).sum().backward()
        flow = sum(float((weight.detach() * weight.grad).abs().sum()) for weight in weights if weight.grad is not None)
    return float(torch.tensor(flow, dtype=torch.float64).clamp(min=1e-300).log())
