"""Equalisation across layers: what int8 loses where a tensor's channels differ, one scale being for all of them.

Between a convolution and another that alone reads it, with nothing or a ReLU in between, each channel may be multiplied
by a positive factor and divided by it again: the network computes the same (Nagel et al., 2019, section 4.1). Factors
are the square roots of how much wider the widest channel is: half of what channels differ is left to activations, half
goes to the weights of the convolution that reads them (as in SmoothQuant: Xiao et al., 2023, section 4).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hwnas.network import Graph, Layer
from hwnas.training.module import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.formats import Weights

_BATCH = 64
_NARROWEST = 1e-3  # of the widest channel: narrower ones count as this wide


def equalise(network: Network, weights: "Weights", images: Tensor) -> "Weights":
    """Return weights with which the network computes the same in fp32, and is nearer to that in int8.

    `weights` are those of `network`, by the layers' names, in torch's layout, with BatchNorm folded; other layers' are
    returned as they are. The channels' widths are those on `images`, normalised, [n, channels, height, width].
    """
    pairs = list(_pairs(network.graph))
    watched = _Watched(network, {pair.between.name for pair in pairs})
    with torch.no_grad():
        for batch in torch.split(images, _BATCH):
            watched(batch)
    equal = dict(weights)
    for pair in pairs:
        factors = _factors(watched.widths[pair.between.name].numpy())
        weight, bias = equal[pair.writer.name]
        equal[pair.writer.name] = (weight * factors.reshape(-1, 1, 1, 1), bias * factors)
        weight, bias = equal[pair.reader.name]
        by_input = (-1, 1, 1, 1) if pair.reader.depthwise else (1, -1, 1, 1)
        equal[pair.reader.name] = (weight / factors.reshape(by_input), bias)
    return equal


class _Pair(NamedTuple):
    """Two convolutions, and the layer whose output the second reads: the first, or a ReLU after it."""

    writer: Layer
    between: Layer
    reader: Layer


def _pairs(graph: Graph) -> Iterator[_Pair]:
    for reader in graph.layers:
        if reader.kind != "conv" or not (reader.depthwise or reader.groups == 1):
            continue
        (source,) = reader.inputs
        between = graph.layers[source]
        while graph.layers[source].kind == "relu" and len(graph.consumers[source]) == 1:
            (source,) = graph.layers[source].inputs
        writer = graph.layers[source]
        if writer.kind == "conv" and writer.activation in ("", "relu") and len(graph.consumers[source]) == 1:
            yield _Pair(writer, between, reader)


def _factors(widths: "NDArray[Any]") -> "NDArray[Any]":
    """Return what each channel is multiplied by, given its largest magnitude; 1 for the widest."""
    widest = widths.max()
    if not widest > 0:
        return np.ones_like(widths)
    factors: NDArray[Any] = np.sqrt(widest / np.maximum(widths, _NARROWEST * widest))
    return factors


class _Watched(Network):
    """A network that notes the largest magnitude of each channel of some layers' outputs."""

    def __init__(self, network: Network, names: set[str]) -> None:
        super().__init__(network.graph)
        self.layers.load_state_dict(network.layers.state_dict())
        self.eval()
        self._names = names
        self.widths: dict[str, Tensor] = {}

    def _run(self, layer: Layer, module: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> Tensor:
        output = super()._run(layer, module, inputs)
        if layer.name in self._names:
            widths = output.abs().amax((0, 2, 3))
            self.widths[layer.name] = torch.maximum(self.widths.get(layer.name, widths), widths)
        return output
