"""Weights from files, for published networks: hwnas's own, and torchvision's for those that are its layer by layer."""

import pickle
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hwnas.errors import InputError, cut
from hwnas.network import Chain

if TYPE_CHECKING:
    from hwnas.network import Architecture
    from hwnas.training import Network

OWN = ".safetensors"  # the suffix of weights that hwnas saved
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels from 0 to 1: torchvision's
_BROKEN = (  # what reading a file that is none, or has been cut off, raises
    SafetensorError,
    pickle.UnpicklingError,  # torch's own files are pickles; weights_only runs no code of theirs
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
_COUNTER = "num_batches_tracked"  # of a BatchNorm: of no use in a trained network, and older checkpoints have none


def read(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a file: hwnas's own where that ends in .safetensors, otherwise one that torch saved.

    Raises InputError where it is missing, broken or something else, and where weights are no numbers.
    """
    try:
        content: Any = load_file(path) if path.suffix == OWN else torch.load(path, "cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    except _BROKEN:
        raise unreadable(path, "it is broken, or holds something else") from None
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        found = cut(", ".join(map(str, list(content)[:3]))) if isinstance(content, Mapping) else type(content).__name__
        raise unreadable(path, f"it holds {found}, and not tensors alone")
    for name, value in content.items():
        if not bool(torch.isfinite(value).all()):
            raise unreadable(path, f"{name} has numbers that are not finite")
    return dict(content)


def unreadable(path: Path, why: str) -> InputError:
    """Return the error for a file that has no weights."""
    return InputError(
        f"{path} must be a network's weights, a state dict; {why}. Give torchvision's checkpoint as it was "
        f"downloaded, what torch.save(network.state_dict(), PATH) wrote, or hwnas's own weights{OWN}"
    )


def load_own(architecture: "Architecture", weights: Mapping[str, Tensor]) -> "Network":
    """Return the network with weights that hwnas saved, in eval mode; raises InputError where they are another's."""
    from hwnas.training import Network

    network = Network(architecture.graph)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(" ".join(str(error).split())) from None
    return network.eval()


def load_torchvisions(architecture: "Architecture", weights: Mapping[str, Tensor]) -> "tuple[Architecture, Network]":
    """Return the architecture with torchvision's padding, and its network with torchvision's weights, in eval mode.

    Raises InputError where they are another network's, or torchvision has none of the kind.
    """
    from hwnas.training import Network

    if not isinstance(architecture, Chain):
        raise InputError(f"torchvision has no such network: give weights that hwnas saved, a file *{OWN}")
    architecture = replace(architecture, padding="symmetric")
    network = Network(architecture.graph)
    load_in_order(network, weights)
    return architecture, network.eval()


def load_in_order(network: "Network", weights: Mapping[str, Tensor]) -> None:
    """Load a state dict whose layers come in the network's order of execution, whatever their names.

    torchvision's MobileNetV2 and V3 do, for `spaces.mbconv`'s networks of those names with the padding "symmetric".
    Raises InputError where a tensor has another shape or role than the one in its place.
    """
    expected, theirs = (_without_counters(tensors) for tensors in (network.state_dict(), weights))
    if len(expected) != len(theirs):
        raise InputError(
            f"the weights must be those of the network; it has {len(expected)} tensors, got {len(theirs)}. "
            "Take the network with the checkpoint's width and number of classes"
        )
    weights_by_name = {}
    for (name, tensor), (their_name, value) in zip(expected.items(), theirs.items(), strict=True):
        same_role = name.rpartition(".")[2] == their_name.rpartition(".")[2]
        if not same_role or tensor.shape != value.shape:
            raise InputError(
                f"{name} must be {tuple(tensor.shape)}; got {their_name} {tuple(value.shape)}. "
                "Take the network with the checkpoint's width and number of classes"
            )
        weights_by_name[name] = value
    network.load_state_dict(weights_by_name)


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.endswith(_COUNTER)}
