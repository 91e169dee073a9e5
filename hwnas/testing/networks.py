"""Modules whose BatchNorms are worth folding, and what they compute of random images."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.network import Graph
from hwnas.training import Network


def network(graph: Graph, *, seed: int = 0) -> Network:
    """Return the graph's module in eval mode, its BatchNorms neither centred nor of unit scale."""
    torch.manual_seed(seed)
    module = Network(graph)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
            for centre in (part.bias, part.running_mean):
                torch.nn.init.uniform_(centre, -0.5, 0.5)
    return module.eval()


def images(graph: Graph, *, count: int = 2, seed: int = 0) -> NDArray[np.float32]:
    """Return random images [count, channels, height, width] for a graph."""
    return np.random.default_rng(seed).standard_normal((count, *graph.layers[0].shape), dtype=np.float32)


def torch_output(module: Network, inputs: NDArray[np.float32]) -> NDArray[Any]:
    """Return what the module computes in double precision; the module is left so."""
    with torch.no_grad():
        outputs: NDArray[Any] = module.double()(torch.from_numpy(inputs).double()).numpy()
    return outputs


def relative_error(outputs: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest error as a share of the largest output."""
    assert outputs.shape == expected.shape
    return float(np.abs(outputs - expected).max() / (np.abs(expected).max() or 1.0))
