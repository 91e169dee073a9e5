"""From a graph of layers to a torch module, and from a trained module to the weights that a deployed file carries."""

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.errors import InputError
from hwnas.graph import Graph, Layer, Shape, pads

if TYPE_CHECKING:
    from hwnas.formats import Weights

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hard_swish": nn.Hardswish, "hard_sigmoid": nn.Hardsigmoid}
_FUSED = {"relu": F.relu, "relu6": F.relu6}


class Network(nn.Module):
    """A graph as a torch module: images [n, channels, height, width] to logits [n, classes].

    `path_drop_rate` is the probability with which, in training, the end of a path of the last cell is dropped for an
    image; earlier cells drop in proportion to their depth (NASNet, appendix A.7). `dropout_rate` is the classifier's.
    With `auxiliary` a second classifier reads what the graph says, in training, and the output is both:
    [2, n, classes]. Raises InputError where the graph has no place for it.
    """

    def __init__(self, graph: Graph, *, dropout_rate: float = 0.0, auxiliary: bool = False) -> None:
        super().__init__()
        self.graph = graph
        self.dropout_rate = dropout_rate
        self.path_drop_rate = 0.0
        self.layers = nn.ModuleList(
            _module(layer, graph.input_shapes(layer), graph.norm_epsilon) for layer in graph.layers
        )
        self.auxiliary = _auxiliary_head(graph) if auxiliary else None
        self._free_after = _free_after(graph)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n, classes] of images [n, channels, height, width]."""
        values = {0: images}
        auxiliary = None
        for position, (layer, module) in enumerate(zip(self.graph.layers, self.layers, strict=True)):
            if position:
                values[position] = self._run(layer, module, [values[source] for source in layer.inputs])
            if self.auxiliary is not None and self.training and position == self.graph.auxiliary:
                auxiliary = self.auxiliary(values[position])
            for ended in self._free_after[position]:
                del values[ended]
        logits = values[len(self.layers) - 1].flatten(1)
        return logits if auxiliary is None else torch.stack([logits, auxiliary])

    def _run(self, layer: Layer, module: nn.Module, inputs: list[Tensor]) -> Tensor:
        if layer.kind == "add":
            output = inputs[0] + inputs[1]
        elif layer.kind == "concat":
            output = torch.cat(inputs, dim=1)
        elif layer.kind == "mul":
            output = inputs[0] * inputs[1]
        elif layer.kind == "linear" and self.training and self.dropout_rate:
            output = module(F.dropout(inputs[0], self.dropout_rate))
        else:
            output = module(inputs[0])
        if layer.activation:
            output = _FUSED[layer.activation](output)
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


class _Zeros(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros((len(images), *self.shape))


def _auxiliary_head(graph: Graph) -> nn.Sequential:
    """Return the head of NASNet, appendix A.7, and TensorFlow slim: its last convolution covers what is left."""
    channels, *size = (0, 0, 0) if graph.auxiliary is None else graph.layers[graph.auxiliary].shape
    if min(size) < 5:
        raise InputError(
            "an auxiliary head needs a network of cells with 5x5 pixels or more before its last reduction; "
            f"got {size[0]}x{size[1]}. Train without it, or at a higher resolution"
        )
    left = ((size[0] - 5) // 3 + 1, (size[1] - 5) // 3 + 1)
    return nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, 3),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128, eps=graph.norm_epsilon),
        nn.ReLU(),
        nn.Conv2d(128, 768, left, bias=False),
        nn.BatchNorm2d(768, eps=graph.norm_epsilon),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(768, graph.output_shape[0]),
    )


def _module(layer: Layer, input_shapes: tuple[Shape, ...], norm_epsilon: float) -> nn.Module:
    if layer.kind == "conv":
        return _convolution(layer, input_shapes[0], norm_epsilon)
    if layer.kind in ("max_pool", "avg_pool"):
        return _pooling(layer, input_shapes[0])
    if layer.kind in _ACTIVATIONS:
        return _ACTIVATIONS[layer.kind]()
    if layer.kind == "zero":
        return _Zeros(layer.shape)
    if layer.kind == "shift":
        return _Pad((-1, input_shapes[0][1] % 2, -1, input_shapes[0][2] % 2))
    if layer.kind == "mean":
        return _Mean()
    if layer.kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shapes[0]), layer.shape[0]))
    return nn.Identity()  # input, add, mul and concat have no module of their own


def _convolution(layer: Layer, input_shape: Shape, norm_epsilon: float) -> nn.Module:
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
        parts.append(nn.BatchNorm2d(layer.shape[0], eps=norm_epsilon))
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
