"""A bank of weights that all architectures of a space share, and the executor that runs their graphs with it.

A weight is known by its layer's origin, which the walk tells (`hwnas.network.Place`): two networks that do the same in
the same place compute it with the same weights (Pham et al., 2018, section 2.4; Guo et al., 2020, section 3.2). So do
the blocks of a cell, and the sides of a block: with weights of their own each learns too seldom to be judged by. It is
as large as the largest network of the space needs, and smaller ones take its first channels. What reads a
concatenation has a piece for each of the values in it, by what they are. A smaller kernel is the middle of the largest
one, transformed by a matrix that is learned for the layer (Cai et al., 2020, section 3.3).
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from math import prod
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.network import Graph, Layer, Option, Shape
from hwnas.network.graph import Apart, Part, Step
from hwnas.training.batches import random_seed
from hwnas.training.module import (
    FUSED,
    JOINS,
    Network,
    convolved,
    execute,
    may_overwrite,
    padding_of,
    weighted,
    without_weights,
)

Statistics = dict[int, tuple[Tensor, Tensor]]
"""Mean and variance of each channel, by the position of the layer in a graph."""
_KEPT = 2**14  # names, and operators without weights: each step has other layers, but most do what others did


class _Weights(NamedTuple):
    """What a layer computes with."""

    weight: Tensor  # [out, in / groups, rows, columns] or [out, in]
    bias: Tensor | None
    gamma: Tensor | None  # of the BatchNorm that follows
    beta: Tensor | None


class Bank(nn.Module):
    """Weights by origin. They are made when a graph first needs them, as large as it needs them: `hold` the largest.

    What a weight begins with depends on the seed and its name alone, not on the order in which weights are made.
    """

    def __init__(self, *, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def hold(self, graph: Graph) -> list[str]:
        """Make the weights of a graph that the bank does not have, and return their names.

        Raises ValueError where those it has are smaller than the graph needs.
        """
        before = len(self._parameters)
        for layer in graph.layers:
            for name, shape in _pieces(layer):
                if name not in self._parameters:
                    self.register_parameter(name, nn.Parameter(self._initial(name, shape)))
                elif any(had < needed for had, needed in zip(self._piece(name).shape, shape, strict=True)):
                    raise ValueError(f"the bank must hold the largest network first; {name} must be of {shape}")
            if layer.kind == "conv":
                self._hold_transforms(layer)
        return list(self._parameters)[before:]

    def forget(self, names: Iterable[str]) -> None:
        """Remove weights."""
        for name in names:
            del self._parameters[name]

    def _hold_transforms(self, layer: Layer) -> None:
        """Make the matrices that bring a layer's kernel to a smaller one: at first they change nothing."""
        for part in layer.reads:
            rows = self._piece(_name(layer, "weight", part)).shape[2]
            for smaller in range(rows - 2, layer.kernel[0] - 1, -2):
                name = _name(layer, f"transform{smaller}")
                if name not in self._parameters:
                    self.register_parameter(name, nn.Parameter(torch.eye(smaller * smaller)))

    def forward(
        self,
        graph: Graph,
        images: Tensor,
        statistics: Statistics | None = None,
        *,
        momentum: float = 0.0,
        weights: Mapping[Option, Tensor] | None = None,
    ) -> Tensor:
        """Return logits [n, classes] of images [n, channels, height, width].

        In training BatchNorm takes the statistics of the batch, and with `momentum` notes them in `statistics`; else
        it takes those given, of this graph. Of a mixed graph `weights` are those of each option that it has.
        """

        def run(position: int, layer: Layer, inputs: list[Tensor]) -> Tensor:
            if layer.kind == "input":
                return images
            if layer.kind in JOINS:
                output = JOINS[layer.kind](inputs)
            elif layer.kind == "mix":
                output = _mixed(layer, inputs, images, weights or {})
            elif layer.kind in ("conv", "linear"):
                output = self._computed(graph, position, inputs[0], statistics, momentum)
            else:
                output = _operator(_anonymous(layer), graph.input_shapes(layer), may_overwrite(graph, layer))(inputs[0])
            return FUSED[layer.activation](output) if layer.activation else output

        return execute(graph, run)

    @torch.no_grad()
    def calibrated(self, graph: Graph, batches: Iterable[Tensor]) -> Statistics:
        """Return BatchNorm's statistics of a graph, taken anew: the mean over batches of normalised images."""
        was_training, statistics = self.training, Statistics()
        self.train()
        for number, images in enumerate(batches):
            self(graph, images, statistics, momentum=1 / (number + 1))
        self.train(was_training)
        return statistics

    @torch.no_grad()
    def fill(self, network: Network, statistics: Statistics | None = None) -> None:
        """Copy the weights of a network's graph into it, and BatchNorm's statistics where they are given."""
        for position, layer, inner, norm in weighted(network):
            weights = self._weights(layer)
            inner.weight.copy_(weights.weight)
            if inner.bias is not None and weights.bias is not None:
                inner.bias.copy_(weights.bias)
            if norm is not None:
                norm.weight.copy_(weights.gamma)  # type: ignore[arg-type]  # a layer with a norm has them
                norm.bias.copy_(weights.beta)  # type: ignore[arg-type]
                if statistics:
                    norm.running_mean, norm.running_var = (value.clone() for value in statistics[position])

    @torch.no_grad()
    def take(self, network: Network) -> list[str]:
        """Copy a network's weights into those of the same origins, and return the names of these.

        Where the network has fewer channels they are the first ones here, and read nothing but each other; where it has
        more, its first ones are taken. A smaller kernel becomes the middle of the larger one. So a network that holds
        another computes what that one does. The classifier is taken where it is of as many classes.
        """
        taken = []
        for _, layer, inner, norm in weighted(network):
            tensors = {"weight": inner.weight, "bias": inner.bias}
            tensors |= {"gamma": norm.weight, "beta": norm.bias} if norm is not None else {}
            for what, tensor in tensors.items():
                name = _name(layer, what)
                if tensor is None or name not in self._parameters:  # or it reads a concatenation, of which are pieces
                    continue
                if layer is not network.graph.layers[-1] or len(tensor) == len(self._piece(name)):
                    _lay(tensor, self._piece(name))
                    taken.append(name)
        return taken

    def _computed(
        self, graph: Graph, position: int, value: Tensor, statistics: Statistics | None, momentum: float
    ) -> Tensor:
        """Return what a layer with weights computes."""
        layer = graph.layers[position]
        weights = self._weights(layer)
        if layer.kind == "linear":
            return F.linear(value.flatten(1), weights.weight, weights.bias)
        sides, padding = _padding(_anonymous(layer), graph.input_shapes(layer)[0])
        padded = F.pad(value, sides) if sides else value
        output = convolved(padded, weights.weight, weights.bias, layer.stride, padding, layer.dilation, layer.groups)
        if not layer.norm:
            return output
        mean = variance = None
        if statistics is not None:
            if position not in statistics:
                statistics[position] = (output.new_zeros(layer.shape[0]), output.new_ones(layer.shape[0]))
            mean, variance = statistics[position]
        return F.batch_norm(
            output, mean, variance, weights.gamma, weights.beta, self.training, momentum, graph.norm_epsilon
        )

    def _weights(self, layer: Layer) -> _Weights:
        out = layer.shape[0]
        if layer.kind == "linear":
            pieces = [self._piece(_name(layer, "weight", part))[:out, : part.channels] for part in layer.reads]
            return _Weights(_joined(pieces, 1), self._piece(_name(layer, "bias"))[:out], None, None)
        across = 0 if layer.depthwise else 1  # the dimension along which there are pieces
        pieces = [self._kernel(layer, part) for part in layer.reads]
        bias = self._piece(_name(layer, "bias"))[:out] if layer.bias else None
        gamma, beta = (
            _joined([self._piece(_name(layer, what, part))[: part.channels] for part in _written(layer)], 0)
            if layer.norm
            else None
            for what in ("gamma", "beta")
        )
        return _Weights(_joined(pieces, across), bias, gamma, beta)

    def _kernel(self, layer: Layer, part: Part) -> Tensor:
        """Return a piece of a convolution's weight, of the layer's channels and kernel."""
        piece = self._piece(_name(layer, "weight", part))
        piece = piece[: part.channels] if layer.depthwise else piece[: layer.shape[0], : part.channels]
        while piece.shape[2] > layer.kernel[0]:
            middle = piece[:, :, 1:-1, 1:-1]
            matrix = self._piece(_name(layer, f"transform{middle.shape[2]}"))
            piece = F.linear(middle.flatten(2), matrix).reshape(middle.shape)
        return piece

    def _piece(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        assert parameter is not None
        return parameter

    def _initial(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return what a piece begins with: as torch's own layers do."""
        kind = name.split(":")[1]
        if kind in ("gamma", "beta", "bias"):
            return torch.ones(shape) if kind == "gamma" else torch.zeros(shape)
        generator = torch.Generator().manual_seed(random_seed(self.seed, crc32(name.encode())))
        bound = prod(shape[1:]) ** -0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _mixed(layer: Layer, inputs: list[Tensor], images: Tensor, weights: Mapping[Option, Tensor]) -> Tensor:
    """Return the weighed sum of what a mix reads, zeros where it reads nothing; what it reads twice it takes once."""
    weight_of: dict[int, Tensor] = {}
    value_of = dict(zip(layer.inputs, inputs, strict=True))
    for position, option in zip(layer.inputs, layer.options, strict=True):
        weight_of[position] = weight_of[position] + weights[option] if position in weight_of else weights[option]
    terms = [weight * value_of[position] for position, weight in weight_of.items()]
    return sum(terms[1:], terms[0]) if terms else images.new_zeros((len(images), *layer.shape))


def _pieces(layer: Layer) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of what a layer's weights are put together of."""
    if layer.kind not in ("conv", "linear"):
        return
    out = layer.shape[0]
    for part in layer.reads:
        if layer.kind == "linear":
            shape: tuple[int, ...] = (out, part.channels)
        else:
            shape = ((part.channels, 1) if layer.depthwise else (out, part.channels)) + layer.kernel
        yield _name(layer, "weight", part), shape
    if layer.bias:
        yield _name(layer, "bias"), (out,)
    if layer.norm:
        for part in _written(layer):
            yield _name(layer, "gamma", part), (part.channels,)
            yield _name(layer, "beta", part), (part.channels,)


def _written(layer: Layer) -> tuple[Part, ...]:
    """Return what the channels of a convolution's output are of: those of its input where it keeps them."""
    return layer.reads if layer.depthwise else (Part((), layer.shape[0]),)


def _name(layer: Layer, what: str, part: Part | None = None) -> str:
    if not layer.origin:
        raise ValueError(f"a layer whose weights are shared must have an origin; {layer.name} has none")
    shared = tuple(step for step in layer.origin if not isinstance(step, Apart))
    return _name_of(shared, what, part.slot if part else ())


@lru_cache(maxsize=_KEPT)
def _name_of(origin: tuple[Step, ...], what: str, slot: tuple[Step, ...]) -> str:
    return f"{'/'.join(map(str, origin))}:{what}:{'/'.join(map(str, slot))}"


def _anonymous(layer: Layer) -> Layer:
    """Return a layer without where it stands: of many layers what they do is the same."""
    return layer._replace(inputs=(), name="", origin=(), reads=())


@lru_cache(maxsize=_KEPT)
def _operator(layer: Layer, input_shapes: tuple[Shape, ...], overwrites: bool) -> nn.Module:
    return without_weights(layer, input_shapes, overwrites=overwrites)


@lru_cache(maxsize=_KEPT)
def _padding(layer: Layer, input_shape: Shape) -> tuple[tuple[int, int, int, int] | None, tuple[int, int]]:
    return padding_of(layer, input_shape)


def _lay(tensor: Tensor, piece: Tensor) -> None:
    """Copy a tensor into a larger or smaller one: their first channels, and the middle of their kernels."""
    common = [min(sizes) for sizes in zip(tensor.shape, piece.shape, strict=True)]
    piece[: common[0]] = 0.0

    def shared(whole: Tensor) -> Tensor:
        for dimension, size in enumerate(common):
            first = (whole.shape[dimension] - size) // 2 if dimension > 1 else 0
            whole = whole.narrow(dimension, first, size)
        return whole

    shared(piece).copy_(shared(tensor))


def _joined(pieces: list[Tensor], dimension: int) -> Tensor:
    """Return the pieces as one tensor of its own: a view of a larger one would be computed with otherwise."""
    return pieces[0].contiguous() if len(pieces) == 1 else torch.cat(pieces, dim=dimension)
