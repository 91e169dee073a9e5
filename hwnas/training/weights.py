"""Weights as files, and what a network takes over from another."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from hwnas.support import write_atomically
from hwnas.training.module import Network

if TYPE_CHECKING:
    from hwnas.network import Architecture


def save_weights(network: Network, path: Path) -> None:
    """Write a network's parameters and BatchNorm statistics to a safetensors file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary))


@torch.no_grad()
def inherit(network: nn.Module, path: Path) -> None:
    """Copy those weights and statistics of a file of `save_weights` that the network has, too, by name and shape."""
    state = network.state_dict()
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (it is no mapping)
            if name in state and list(state[name].shape) == file.get_slice(name).get_shape():
                state[name].copy_(file.get_tensor(name))


def in_common(architecture: "Architecture", path: Path) -> int:
    """Return how many of a network's weights and statistics `inherit` would copy from a file."""
    with torch.device("meta"):
        state = Network(architecture.graph).state_dict()
    with safe_open(path, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    return sum(tensor.numel() for name, tensor in state.items() if list(tensor.shape) == shapes.get(name))
