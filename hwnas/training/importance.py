"""The channels of a trained network in order of importance, so that a slice of it has the most important ones."""

import torch
from torch import Tensor

from hwnas.network import Graph
from hwnas.training.module import Network, weighted


@torch.no_grad()
def sort_channels(network: Network) -> None:
    """Bring the most important channels of every value first; the network computes what it did.

    A channel is as important as the weights that read it are large: the sum of their absolute values (Cai et al., 2020,
    section 3.3). Values that are added or multiplied have one order. Raises ValueError where channels are
    concatenated, cut or shuffled.
    """
    groups = _groups(network.graph)
    orders = {
        group: importance.argsort(descending=True, stable=True)
        for group, importance in _importances(network, groups).items()
        if group != groups[0]  # that of the images
    }
    for position, layer, inner, norm in weighted(network):
        read, written = (orders.get(groups[at]) for at in (layer.inputs[0], position))
        if read is not None and not layer.depthwise:
            inner.weight.copy_(inner.weight[:, read])
        if written is not None:
            for tensor in (inner.weight, inner.bias, *_tensors(norm)):
                if tensor is not None:
                    tensor.copy_(tensor[written])


def _tensors(norm: torch.nn.BatchNorm2d | None) -> tuple[Tensor | None, ...]:
    return (norm.weight, norm.bias, norm.running_mean, norm.running_var) if norm is not None else ()


def _importances(network: Network, groups: list[int]) -> dict[int, Tensor]:
    """Return the importance of each channel, by the group of the values that have it; of outputs there is none."""
    importances: dict[int, Tensor] = {}
    for _, layer, inner, _ in weighted(network):
        if not layer.depthwise:  # which weighs each channel by itself
            group = groups[layer.inputs[0]]
            importance = inner.weight.abs().transpose(0, 1).flatten(1).sum(1)
            importances[group] = importances.get(group, torch.zeros_like(importance)) + importance
    return importances


def _groups(graph: Graph) -> list[int]:
    """Return a number for each value, the same for those whose channels must be in one order."""
    groups: list[int] = []
    for position, layer in enumerate(graph.layers):
        if layer.kind in ("concat", "slice", "shuffle"):
            raise ValueError(f"the channels of a {layer.kind} are not those of one value: they have no order")
        mixes = layer.kind in ("input", "linear") or (layer.kind == "conv" and not layer.depthwise)
        groups.append(position if mixes else groups[layer.inputs[0]])
        if layer.kind in ("add", "mul"):
            first, second = (groups[source] for source in layer.inputs)
            groups = [first if group == second else group for group in groups]
    return groups
