"""From a graph of layers to a torch module, and from a trained module to the weights that a deployed file carries."""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from hwnas.errors import InputError
from hwnas.network import Graph, Layer, Shape, pads

if TYPE_CHECKING:
    from hwnas.formats import Weights
    from hwnas.training.settings import TrainingSettings

_ACTIVATIONS = {"relu6": nn.ReLU6, "hard_swish": nn.Hardswish, "hard_sigmoid": nn.Hardsigmoid}
_FAST_COLUMNS = 3  # of a depthwise window, for oneDNN
_Pair = tuple[int, int]
FUSED: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "relu6": F.relu6}
JOINS: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "add": lambda inputs: inputs[0] + inputs[1],
    "mul": lambda inputs: inputs[0] * inputs[1],
    "concat": lambda inputs: torch.cat(inputs, dim=1),
}


class Classifier(nn.Module):
    """What is trained: images [n, channels, height, width] to logits [n, classes], and the loss of these."""

    path_drop_rate = 0.0  # see `Network`

    @property
    def learned(self) -> nn.Module:
        """What has the weights that the training's optimiser learns."""
        return self

    def loss(self, outputs: Tensor, labels: Tensor, settings: "TrainingSettings") -> Tensor:
        """Return the loss of what `forward` returned, float32, for labels, int64 [n].

        Or for soft labels, float32 [n, classes], which are smoothed already; see targets.py.
        """
        smoothing = 0.0 if labels.is_floating_point() else settings.label_smoothing
        return F.cross_entropy(outputs, labels, label_smoothing=smoothing)

    def before_step(self, step: int, steps: int) -> bool:
        """Do what is to be done before a step of training; return whether weights were made, for the optimiser to know.

        Random choices are to come from the step, and be the same where that is taken up again.
        """
        return False


class Network(Classifier):
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
        self.layers = nn.ModuleList(_module(layer, graph) for layer in graph.layers)
        self.auxiliary = _auxiliary_head(graph) if auxiliary else None
        self._free_after = free_after(graph)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n, classes] of images [n, channels, height, width]."""
        auxiliary: list[Tensor] = []

        def run(position: int, layer: Layer, inputs: list[Tensor]) -> Tensor:
            output = self._run(layer, self.layers[position], inputs) if position else images
            if self.auxiliary is not None and self.training and position == self.graph.auxiliary:
                auxiliary.append(self.auxiliary(output))
            return output

        logits = execute(self.graph, run, self._free_after)
        return torch.stack([logits, *auxiliary]) if auxiliary else logits

    def loss(self, outputs: Tensor, labels: Tensor, settings: "TrainingSettings") -> Tensor:
        """Return the loss of logits [n, classes], or of those and an auxiliary head's, [2, n, classes]."""
        if outputs.dim() == 2:
            return super().loss(outputs, labels, settings)
        logits, auxiliary = (super(Network, self).loss(each, labels, settings) for each in outputs)
        return logits + settings.auxiliary_weight * auxiliary

    def _run(self, layer: Layer, module: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> Tensor:
        if layer.kind in JOINS:
            output = JOINS[layer.kind](inputs)
        elif layer.kind == "linear" and self.training and self.dropout_rate:
            output = module(F.dropout(inputs[0], self.dropout_rate))
        else:
            output = module(inputs[0])
        if layer.activation:
            output = FUSED[layer.activation](output)
        if layer.path_drop and self.training and self.path_drop_rate:
            output = _drop_path(output, self.path_drop_rate * layer.path_drop)
        return output


def _drop_path(value: Tensor, rate: float) -> Tensor:
    """Zero the value of whole images with probability `rate`, and scale the others to keep the mean."""
    keep = torch.rand(len(value), 1, 1, 1, device=value.device, dtype=value.dtype) >= rate
    return value * keep / (1 - rate)


def execute(
    graph: Graph, run: Callable[[int, Layer, list[Tensor]], Tensor], ended: Sequence[Sequence[int]] = ()
) -> Tensor:
    """Return the logits [n, classes] of a graph; `run` computes a layer at its position of what it reads.

    `ended` are the values that nothing reads after each layer, where they are known.
    """
    values: dict[int, Tensor] = {}
    for position, (layer, over) in enumerate(zip(graph.layers, ended or free_after(graph), strict=True)):
        values[position] = run(position, layer, [values[source] for source in layer.inputs])
        for source in over:
            del values[source]
    return values[len(graph.layers) - 1].flatten(1)


def free_after(graph: Graph) -> list[list[int]]:
    """For each layer, the values that nothing reads after it."""
    ended: list[list[int]] = [[] for _ in graph.layers]
    for position, readers in enumerate(graph.consumers[:-1]):
        ended[readers[-1] if readers else position].append(position)
    return ended


class _Convolution(nn.Sequential):
    """A convolution and its BatchNorm, if any, after padding that torch's own convolution cannot do.

    Padding is no part of its own, so that weights have the same names at every resolution.
    """

    def __init__(self, sides: tuple[int, int, int, int] | None, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self._sides = sides  # left, right, top, bottom

    def forward(self, value: Tensor) -> Tensor:
        output: Tensor = super().forward(F.pad(value, self._sides) if self._sides else value)  # type: ignore[no-untyped-call]
        return output


class _Shift(nn.Module):
    """Drop the first row and column, and append zeros where the size is odd."""

    def __init__(self, size: _Pair) -> None:
        super().__init__()
        self.odd = (size[0] % 2, size[1] % 2)

    def forward(self, value: Tensor) -> Tensor:
        rest = value[:, :, 1:, 1:]
        return F.pad(rest, (0, self.odd[1], 0, self.odd[0])) if any(self.odd) else rest


class _Slice(nn.Module):
    """Keep some channels, one after another."""

    def __init__(self, start: int, channels: int) -> None:
        super().__init__()
        self.channels = (start, channels)

    def forward(self, value: Tensor) -> Tensor:
        return value.narrow(1, *self.channels)


class _Conv2d(nn.Conv2d):
    """A convolution by the fastest way that there is for it."""

    def forward(self, value: Tensor) -> Tensor:
        padding = cast(_Pair, self.padding)  # no words
        stride, dilation = cast(_Pair, self.stride), cast(_Pair, self.dilation)
        return convolved(value, self.weight, self.bias, stride, padding, dilation, self.groups)


def convolved(
    value: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Pair, dilation: _Pair, groups: int
) -> Tensor:
    """Return a convolution of [n, channels, height, width] with a weight [out, channels / groups, rows, columns].

    A 1x1 convolution on a CPU and in the layout channels_last is one matrix product for the whole batch. A depthwise
    one trains fast on a CPU for wide windows, too; autocast converts for torch's own.
    """
    if weight.shape[2:] == (1, 1) and groups == 1 and value.is_cpu and value.stride(1) == 1:
        pixels = value[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
        return F.linear(pixels, weight.flatten(1), bias).permute(0, 3, 1, 2)
    slow = 1 < groups == len(weight) and weight.shape[3] > _FAST_COLUMNS and value.is_cpu and torch.is_grad_enabled()
    if not slow or torch.is_autocast_enabled("cpu"):
        return F.conv2d(value, weight, bias, stride, padding, dilation, groups)
    output: Tensor = _DepthwiseByColumns.apply(value, weight, stride, padding, dilation)
    return output if bias is None else output + bias[:, None, None]


class _DepthwiseByColumns(torch.autograd.Function):
    """A depthwise convolution with the same gradients as torch's, without oneDNN's slow case.

    Its kernel of the gradient by the weights is 10 to 100 times slower for windows of more than three columns.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, stride: _Pair, padding: _Pair, dilation: _Pair) -> Tensor:
        ctx.save_for_backward(value, weight)
        ctx.geometry = (stride, padding, dilation)
        return F.conv2d(value, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        value, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        groups = len(weight)
        by_value = None
        if ctx.needs_input_grad[0]:
            by_value = conv2d_input(value.shape, weight, gradient, stride, padding, dilation, groups)  # type: ignore[no-untyped-call]
        padded = F.pad(value, (padding[1], padding[1]))
        parts: list[Tensor] = []
        for columns in weight.split(_FAST_COLUMNS, dim=3):
            start = len(parts) * _FAST_COLUMNS * dilation[1]
            end = padded.shape[3] - (weight.shape[3] - columns.shape[3]) * dilation[1] + start
            geometry = (stride, (padding[0], 0), dilation, groups)
            parts.append(conv2d_weight(padded[..., start:end], columns.shape, gradient, *geometry))  # type: ignore[no-untyped-call]
        return by_value, torch.cat(parts, dim=3), None, None, None


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


def _module(layer: Layer, graph: Graph) -> nn.Module:
    input_shapes = graph.input_shapes(layer)
    if layer.kind == "conv":
        return convolution_of(layer, input_shapes[0], graph.norm_epsilon)
    if layer.kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shapes[0]), layer.shape[0]))
    return without_weights(layer, input_shapes, overwrites=may_overwrite(graph, layer))


def without_weights(layer: Layer, input_shapes: tuple[Shape, ...], *, overwrites: bool) -> nn.Module:
    """Return the module of a layer that has no weights; a ReLU `overwrites` what it reads, or not."""
    if layer.kind in ("max_pool", "avg_pool"):
        return _pooling(layer, input_shapes[0])
    if layer.kind == "relu":
        return nn.ReLU(inplace=overwrites)
    if layer.kind in _ACTIVATIONS:
        return _ACTIVATIONS[layer.kind]()
    if layer.kind == "zero":
        return _Zeros(layer.shape)
    if layer.kind == "slice":
        return _Slice(layer.start, layer.shape[0])
    if layer.kind == "shuffle":
        return nn.ChannelShuffle(layer.groups)
    if layer.kind == "shift":
        return _Shift(input_shapes[0][1:])
    if layer.kind == "mean":
        return _Mean()
    return nn.Identity()  # input, add, mul and concat have no module of their own


def may_overwrite(graph: Graph, layer: Layer) -> bool:
    """Whether it is a ReLU that may write over what it reads: only it reads that, and no gradient comes from that."""
    if layer.kind != "relu":
        return False
    (source,) = layer.inputs
    producer = graph.layers[source]
    unused = producer.kind in ("add", "concat") or producer.norm  # BatchNorm, too, needs its input, not its output
    return unused and not producer.activation and len(graph.consumers[source]) == 1


def convolution_of(layer: Layer, input_shape: Shape, norm_epsilon: float) -> nn.Module:
    """Return a convolution, with its BatchNorm if it has one, of which `parts_of` returns both."""
    sides, padding = padding_of(layer, input_shape)
    convolution = _Conv2d(
        input_shape[0],
        layer.shape[0],
        layer.kernel,
        stride=layer.stride,
        padding=padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias,
    )
    norm = [nn.BatchNorm2d(layer.shape[0], eps=norm_epsilon)] if layer.norm else []
    return _Convolution(sides, convolution, *norm)


def padding_of(layer: Layer, input_shape: Shape) -> tuple[tuple[int, int, int, int] | None, _Pair]:
    """Return the zeros to add before a convolution (left, right, top, bottom), if any, and those that it adds."""
    top, bottom, left, right = pads(layer, input_shape)
    even = top == bottom and left == right
    return (None, (top, left)) if even else ((left, right, top, bottom), (0, 0))


def _pooling(layer: Layer, input_shape: Shape) -> nn.Module:
    """Padding never counts. With TensorFlow's SAME, windows that hang over the end come from ceil_mode."""
    top, _, left, _ = pads(layer, input_shape)
    same = layer.padding == "same"
    if layer.kind == "max_pool":
        return nn.MaxPool2d(layer.kernel, layer.stride, (top, left), ceil_mode=same)
    return nn.AvgPool2d(layer.kernel, layer.stride, (top, left), ceil_mode=same, count_include_pad=False)


class Weighted(NamedTuple):
    """A layer with weights of a network, its place in the graph, and the modules that have them."""

    position: int
    layer: Layer
    inner: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | None


def weighted(network: Network) -> Iterator[Weighted]:
    """Yield the convolutions and linear layers of a network, in the order of execution."""
    for position, (layer, module) in enumerate(zip(network.graph.layers, network.layers, strict=True)):
        if layer.kind in ("conv", "linear"):
            yield Weighted(position, layer, *parts_of(module))


def parts_of(module: nn.Module) -> tuple[nn.Conv2d | nn.Linear, nn.BatchNorm2d | None]:
    """Return the modules with weights of a convolution or a linear layer."""
    assert isinstance(module, nn.Sequential)  # what _module makes of both kinds
    inner = next(part for part in module if isinstance(part, nn.Conv2d | nn.Linear))
    norm = module[-1]
    return inner, norm if isinstance(norm, nn.BatchNorm2d) else None


@torch.no_grad()
def deployed_weights(network: Network) -> "Weights":
    """Return weight and bias of every convolution and linear layer by the layer's name, BatchNorm folded in.

    Weights are fp32 in torch's layout, [out, in / groups, height, width] or [out, in]; biases are [out].
    """
    weights: Weights = {}
    for _, layer, inner, norm in weighted(network):
        weight, bias = folded(inner, norm)
        weights[layer.name] = (weight.float().cpu().numpy(), bias.float().cpu().numpy())
    return weights


def folded(inner: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Return weight and bias, in double precision, of what a layer and its BatchNorm compute in eval mode."""
    weight = inner.weight.double()
    bias = inner.bias.double() if inner.bias is not None else torch.zeros(len(weight), dtype=torch.float64)
    if norm is not None:
        assert norm.running_var is not None  # hwnas never builds norms without statistics
        assert norm.running_mean is not None
        factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
        bias = norm.bias.double() + (bias.to(factor.device) - norm.running_mean.double()) * factor
    return weight, bias
