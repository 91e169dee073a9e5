"""From a graph of layers to a torch module, and from a trained module to the weights that a deployed file carries."""

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.graph import Graph, Layer, Shape, pads

if TYPE_CHECKING:
    from hwnas.formats import Weights

_NORM_EPS = 1e-3  # as in TensorFlow slim's NASNet and PNASNet


class Network(nn.Module):
    """A graph as a torch module: images [n, channels, height, width] to logits [n, classes].

    `path_drop_rate` is the probability with which, in training, the end of a path of the last cell is dropped for an
    image; earlier cells drop in proportion to their depth (NASNet, appendix A.7). `dropout_rate` is the classifier's.
    """

    def __init__(self, graph: Graph, *, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.graph = graph
        self.dropout_rate = dropout_rate
        self.path_drop_rate = 0.0
        self.layers = nn.ModuleList(_module(layer, graph.input_shapes(layer)) for layer in graph.layers)
        self._free_after = _free_after(graph)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n, classes] of images [n, channels, height, width]."""
        values = {0: images}
        for position, (layer, module) in enumerate(zip(self.graph.layers, self.layers, strict=True)):
            if position:
                values[position] = self._run(layer, module, [values[source] for source in layer.inputs])
            for ended in self._free_after[position]:
                del values[ended]
        return values[len(self.layers) - 1].flatten(1)

    def _run(self, layer: Layer, module: nn.Module, inputs: list[Tensor]) -> Tensor:
        if layer.kind == "add":
            output = inputs[0] + inputs[1]
        elif layer.kind == "concat":
            output = torch.cat(inputs, dim=1)
        elif layer.kind == "linear" and self.training and self.dropout_rate:
            output = module(F.dropout(inputs[0], self.dropout_rate))
        else:
            output = module(inputs[0])
        if layer.relu:
            output = F.relu(output)
        if layer.path_drop and self.training and self.path_drop_rate:
            output = _drop_path(output, self.path_drop_rate * layer.path_drop)
        return output


def _drop_path(value: Tensor, rate: float) -> Tensor:
    """Zero the value of whole images with probability `rate`, and scale the others to keep the mean."""
    keep = torch.rand(len(value), 1, 1, 1, device=value.device, dtype=value.dtype) >= rate
    return value * keep / (1 - rate)


def _free_after(graph: Graph) -> list[list[int]]:
    """For each layer, the values that nothing reads after it."""
    ended: list[list[int]] = [[] for _ in graph.layers]
    for position, readers in enumerate(graph.consumers[:-1]):
        ended[readers[-1] if readers else position].append(position)
    return ended


class _Pad(nn.Module):
    def __init__(self, sides: tuple[int, int, int, int]) -> None:
        super().__init__()
        top, bottom, left, right = sides
        self.sides = (left, right, top, bottom)

    def forward(self, value: Tensor) -> Tensor:
        return F.pad(value, self.sides)


class _Mean(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value.mean((2, 3), keepdim=True)


def _module(layer: Layer, input_shapes: tuple[Shape, ...]) -> nn.Module:
    if layer.kind == "conv":
        return _convolution(layer, input_shapes[0])
    if layer.kind in ("max_pool", "avg_pool"):
        return _pooling(layer, input_shapes[0])
    if layer.kind == "relu":
        return nn.ReLU()
    if layer.kind == "shift":
        return _Pad((-1, input_shapes[0][1] % 2, -1, input_shapes[0][2] % 2))
    if layer.kind == "mean":
        return _Mean()
    if layer.kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shapes[0]), layer.shape[0]))
    return nn.Identity()  # input, add and concat have no module of their own


def _convolution(layer: Layer, input_shape: Shape) -> nn.Module:
    top, bottom, left, right = pads(layer, input_shape)
    even = top == bottom and left == right
    convolution = nn.Conv2d(
        input_shape[0],
        layer.shape[0],
        layer.kernel,
        stride=layer.stride,
        padding=(top, left) if even else 0,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias,
    )
    parts: list[nn.Module] = [] if even else [_Pad((top, bottom, left, right))]
    parts.append(convolution)
    if layer.norm:
        parts.append(nn.BatchNorm2d(layer.shape[0], eps=_NORM_EPS))
    return nn.Sequential(*parts)


def _pooling(layer: Layer, input_shape: Shape) -> nn.Module:
    """Padding never counts. With TensorFlow's SAME, windows that hang over the end come from ceil_mode."""
    top, _, left, _ = pads(layer, input_shape)
    same = layer.padding == "same"
    if layer.kind == "max_pool":
        return nn.MaxPool2d(layer.kernel, layer.stride, (top, left), ceil_mode=same)
    return nn.AvgPool2d(layer.kernel, layer.stride, (top, left), ceil_mode=same, count_include_pad=False)


@torch.no_grad()
def deployed_weights(network: Network) -> "Weights":
    """Return weight and bias of every convolution and linear layer by the layer's name, BatchNorm folded in.

    Weights are fp32 in torch's layout, [out, in / groups, height, width] or [out, in]; biases are [out].
    """
    weights: Weights = {}
    for layer, module in zip(network.graph.layers, network.layers, strict=True):
        if layer.kind not in ("conv", "linear"):
            continue
        assert isinstance(module, nn.Sequential)  # what _module makes of both kinds
        weight, bias = _fold(list(module))
        weights[layer.name] = (weight.float().cpu().numpy(), bias.float().cpu().numpy())
    return weights


def _fold(parts: list[nn.Module]) -> tuple[Tensor, Tensor]:
    inner = next(part for part in parts if isinstance(part, nn.Conv2d | nn.Linear))
    weight = inner.weight.double()
    bias = inner.bias.double() if inner.bias is not None else torch.zeros(len(weight), dtype=torch.float64)
    if isinstance(norm := parts[-1], nn.BatchNorm2d):
        assert norm.running_var is not None  # hwnas never builds norms without statistics
        assert norm.running_mean is not None
        factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
        bias = norm.bias.double() + (bias.to(factor.device) - norm.running_mean.double()) * factor
    return weight, bias
