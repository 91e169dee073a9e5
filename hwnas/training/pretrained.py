"""Weights from files, for published networks: hwnas's own, and torchvision's for those that are its layer by layer."""

import pickle
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hwnas.errors import InputError, cut
from hwnas.network import TORCHVISIONS, Chain, published_network
from hwnas.training.module import Network
from hwnas.training.weights import tensor_shapes

if TYPE_CHECKING:
    from hwnas.network import Architecture

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
_MORE = (
    "it holds more than tensors, as what torch.save(network, PATH) writes does, and is not read, as that could run any "
    "code. Where you have the network, save it by torch.save(network.state_dict(), PATH)"
)
_ROLES = ("weight", "bias", "running_mean", "running_var")  # in the order of a state dict
_COUNTER = "num_batches_tracked"  # of a BatchNorm: of no use in a trained network, and older checkpoints have none


def read(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a file: hwnas's own where that ends in .safetensors, otherwise one that torch saved.

    Raises InputError where it is missing, broken or something else, and where weights are no numbers.
    """
    try:
        content: Any = load_file(path) if path.suffix == OWN else torch.load(path, "cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    except MemoryError:
        raise unreadable(path, "it asks for more memory than there is, so it is broken or too large") from None
    except _BROKEN as error:
        refused = any(word in str(error) for word in ("Unsupported", "TorchScript"))  # torch's words for what it is not
        why = _MORE if refused and is_zipfile(path) else "it is broken, or holds something else"
        raise unreadable(path, why) from None
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
    if not isinstance(architecture, Chain):
        raise not_torchvisions()
    architecture = replace(architecture, padding="symmetric")
    network = Network(architecture.graph)
    load_in_order(network, weights)
    return architecture, network.eval()


def not_torchvisions() -> InputError:
    """Return the error for torchvision's weights of a network that it has not."""
    return InputError(f"torchvision has no such network: give weights that hwnas saved, a file *{OWN}")


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


def torchvisions_network(path: Path, *, channels: int) -> Network:
    """Return one of torchvision's MobileNets with the weights of its checkpoint, in eval mode.

    Raises InputError for a file of anything else, and for a network of images of other channels.
    """
    weights = _without_counters(read(path))
    if path.suffix == OWN:  # in which tensors come in no order
        weights = dict(sorted(weights.items(), key=lambda item: _place_of(item[0])))
    shapes = [tuple(tensor.shape) for tensor in weights.values()]
    if not shapes or not shapes[-1] or len(shapes[0]) != 4:
        raise _no_mobilenet(path, weights)
    if shapes[0][1] != channels:
        raise InputError(
            f"{path} must be of a network that reads images of {channels} channels, as the data have; it reads "
            f"{shapes[0][1]}. Give the data in as many, or leave --weights out"
        )
    for name in TORCHVISIONS:
        architecture = published_network(name, classes=shapes[-1][0], channels=channels)
        expected = tensor_shapes(architecture)
        if [shape for tensor, shape in expected.items() if not tensor.endswith(_COUNTER)] == shapes:
            return load_torchvisions(architecture, weights)[1]
    raise _no_mobilenet(path, weights)


def _no_mobilenet(path: Path, weights: Mapping[str, Tensor]) -> InputError:
    """Return the error for weights of none of torchvision's MobileNets."""
    first = next((f", the first {name} {tuple(tensor.shape)}" for name, tensor in weights.items()), "")
    return InputError(
        f"{path} must be torchvision's checkpoint of one of {', '.join(TORCHVISIONS)}, of width 1; it has "
        f"{len(weights)} tensors{cut(first)}. Give the file as torchvision's weights are downloaded, or leave "
        "--weights out"
    )


def _place_of(name: str) -> tuple[bool, list[tuple[int, str]], int]:
    """Return what puts torchvision's names in the order of its state dict: the classifier is the last."""
    module, _, role = name.rpartition(".")
    steps = [(int(step), "") if step.isdecimal() else (-1, step) for step in module.split(".")]
    return module.startswith("classifier"), steps, _ROLES.index(role) if role in _ROLES else len(_ROLES)


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.endswith(_COUNTER)}
