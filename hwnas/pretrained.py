"""Weights from other libraries' checkpoints, for networks that are theirs layer by layer: torchvision's MobileNets."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from hwnas.errors import InputError

if TYPE_CHECKING:
    from hwnas.module import Network


def load_in_order(network: "Network", weights: Mapping[str, Tensor]) -> None:
    """Load a state dict whose layers come in the network's order of execution, whatever their names.

    torchvision's MobileNetV2 and V3 do, for `spaces.mbconv`'s networks of those names with the padding "symmetric".
    Raises InputError where a tensor has another shape or role than the one in its place.
    """
    own = network.state_dict()
    if len(own) != len(weights):
        raise InputError(
            f"the weights must be those of the network; it has {len(own)} tensors, got {len(weights)}. "
            "Take the network with the checkpoint's width and number of classes"
        )
    found = {}
    for (name, tensor), (their_name, value) in zip(own.items(), weights.items(), strict=True):
        same_role = name.rpartition(".")[2] == their_name.rpartition(".")[2]
        if not same_role or tensor.shape != value.shape:
            raise InputError(
                f"{name} must be {tuple(tensor.shape)}; got {their_name} {tuple(value.shape)}. "
                "Take the network with the checkpoint's width and number of classes"
            )
        found[name] = value
    network.load_state_dict(found)
