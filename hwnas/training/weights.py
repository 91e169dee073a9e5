"""Weights as files, and what a network takes over from another."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from hwnas.errors import InputError, TrainingError, quoted
from hwnas.support import check_file
from hwnas.training.checkpoint import write_tensors
from hwnas.training.module import Network

if TYPE_CHECKING:
    from hwnas.network import Architecture


def save_weights(network: Network, path: Path) -> None:
    """Write a network's parameters and BatchNorm statistics to a safetensors file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_tensors(path, tensors)


@torch.no_grad()
def inherit(network: nn.Module, path: Path) -> None:
    """Copy those weights and statistics of a file of `save_weights` that the network has, too, by name and shape."""
    state = network.state_dict()
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118  (it is no mapping)
            if name in state and list(state[name].shape) == file.get_slice(name).get_shape():
                state[name].copy_(file.get_tensor(name))


def tensor_shapes(architecture: "Architecture") -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's weights and statistics, by name; it is not built."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Network(architecture.graph).state_dict().items()}


def file_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a file of `save_weights`, by name; only its head is read."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file of `save_weights`; raises TrainingError for another one."""
    try:
        check_file(path, what="kept weights")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, InputError) as error:
        raise TrainingError(
            f"{path} must be weights that hwnas kept; it cannot be read: {quoted(error)}. Delete it"
        ) from None


def in_common(architecture: "Architecture", path: Path) -> int:
    """Return how many of a network's weights and statistics `inherit` would copy from a file."""
    shapes = file_shapes(path)
    return sum(math.prod(shape) for name, shape in tensor_shapes(architecture).items() if shapes.get(name) == shape)
