"""Structural re-parameterisation: convolutions are trained with parallel branches, which fold into them at the end.

Beside each convolution with BatchNorm and a window larger than 1x1, dense or depthwise, stand a 1x1 convolution with
BatchNorm and, where what it reads and what it writes have one shape at stride 1, a BatchNorm alone (RepVGG, Ding et
al., 2021, sections 3.2 and 3.3). With more than one convolution in parallel (MobileOne, Vasu et al., 2023, section 3.2)
there are others like itself, and 1x1 convolutions have branches, too. In eval mode all of them are linear, and their
sum is one convolution.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.network import Graph, Layer, Shape, pads
from hwnas.training.module import Network, Weighted, convolution_of, convolved, folded, parts_of, weighted


class Reparameterised(Network):
    """A network with branches beside its convolutions; all else is as in `Network`, also the names of its weights.

    `convolutions` is how many alike stand in parallel in place of each. `folded` returns the network without branches,
    which computes the same in eval mode.
    """

    def __init__(
        self, graph: Graph, *, dropout_rate: float = 0.0, auxiliary: bool = False, convolutions: int = 1
    ) -> None:
        super().__init__(graph, dropout_rate=dropout_rate, auxiliary=auxiliary)
        branching = {
            str(place): layer for place, layer in enumerate(graph.layers) if _has_branches(layer, convolutions)
        }
        self._place = {layer.name: place for place, layer in branching.items()}
        self.branches = nn.ModuleDict(
            {
                place: _Branches(layer, graph.input_shapes(layer)[0], convolutions, norm_epsilon=graph.norm_epsilon)
                for place, layer in branching.items()
            }
        )

    @torch.no_grad()
    def silence(self) -> None:
        """Let the branches begin with zeros, so that the network computes what its convolutions do."""
        for norm in self.branches.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.zero_()

    def folded(self) -> Network:
        """Return the network in eval mode without branches, of the same graph, on the same device.

        BatchNorms beside which there were branches have mean 0 and variance 1 then: what they did is in the
        convolution's weight and in their bias.
        """
        device, plain = next(self.parameters()).device, Network(self.graph, dropout_rate=self.dropout_rate)
        state = self.state_dict()
        plain.load_state_dict({name: state[name] for name in plain.state_dict()})
        for convolution in weighted(plain):
            if (place := self._place.get(convolution.layer.name)) is not None:
                branches = deepcopy(self.branches[place]).cpu()  # there it is in double precision
                assert isinstance(branches, _Branches)  # it has no others
                branches.fold_into(convolution)
        return plain.to(device).eval()

    def _run(self, layer: Layer, module: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> Tensor:
        if (place := self._place.get(layer.name)) is None:
            return super()._run(layer, module, inputs)
        branches = self.branches[place]
        return super()._run(layer, lambda value: module(value) + branches(value), inputs)


def _has_branches(layer: Layer, convolutions: int) -> bool:
    return layer.kind == "conv" and layer.norm and (convolutions > 1 or prod(layer.kernel) > 1)


def _sides(first: int, size: int, count: int, stride: int) -> tuple[int, int]:
    """Return the zeros to put before and after a row of pixels, of which every `stride`th is read; below 0, to cut.

    The first of `count` that are read is at `first`, which may lie outside, as may the last.
    """
    return -first, first + (count - 1) * stride - (size - 1)


class _Branches(nn.Module):
    """What stands beside a convolution, so that there are `convolutions` of it in parallel.

    All but those `alike` read the pixel in the middle of each window; beside a 1x1 convolution `pointwise` is alike.
    """

    def __init__(self, layer: Layer, input_shape: Shape, convolutions: int, *, norm_epsilon: float) -> None:
        super().__init__()
        channels, *size = input_shape
        self.pointwise = nn.Conv2d(channels, layer.shape[0], 1, groups=layer.groups, bias=False)
        self.norm = nn.BatchNorm2d(layer.shape[0], eps=norm_epsilon)
        is_same = layer.shape == input_shape and layer.stride == (1, 1)
        self.identity = nn.BatchNorm2d(channels, eps=norm_epsilon) if is_same else None
        others = convolutions - 1 if prod(layer.kernel) > 1 else convolutions - 2
        without_bias = layer._replace(bias=False)
        self.alike = nn.ModuleList(convolution_of(without_bias, input_shape, norm_epsilon) for _ in range(others))
        self.middle = tuple((side - 1) // 2 for side in layer.kernel)  # of the window: its row and column
        self._stride = layer.stride
        top, _, left, _ = pads(layer, input_shape)
        first = (
            at * dilation - zeros for at, dilation, zeros in zip(self.middle, layer.dilation, (top, left), strict=True)
        )
        along = zip(first, size, layer.shape[1:], layer.stride, strict=True)
        down, across = (_sides(*each) for each in along)
        self._around = (*across, *down)

    def forward(self, value: Tensor) -> Tensor:
        """Return the branches' sum [n, out, height, width] for what the convolution reads."""
        down, across = self._stride
        pixels = (F.pad(value, self._around) if any(self._around) else value)[:, :, ::down, ::across]
        pointwise = self.pointwise
        output: Tensor = self.norm(convolved(pixels, pointwise.weight, None, (1, 1), (0, 0), (1, 1), pointwise.groups))
        if self.identity is not None:
            output = output + self.identity(pixels)
        for other in self.alike:
            output = output + other(value)
        return output

    @torch.no_grad()
    def fold_into(self, convolution: Weighted) -> None:
        """Add what the branches compute to a convolution and its BatchNorm."""
        _, _, inner, norm = convolution
        assert norm is not None  # see _has_branches
        row, column = self.middle
        weight, bias = folded(inner, norm)
        for pointwise, its_norm in self._pointwise():
            more, shift = folded(pointwise, its_norm)
            weight[:, :, row, column] += more[:, :, 0, 0]
            bias += shift
        for other in self.alike:
            more, shift = folded(*parts_of(other))
            weight += more
            bias += shift
        inner.weight.copy_(weight)
        if inner.bias is not None:
            inner.bias.zero_()
        norm.weight.fill_(1.0)
        norm.bias.copy_(bias)
        norm.running_mean.zero_()  # type: ignore[union-attr]  # hwnas never builds norms without statistics
        norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]

    def _pointwise(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Yield the branches that read one pixel, as 1x1 convolutions with BatchNorm."""
        yield self.pointwise, self.norm
        if self.identity is not None:
            channels, groups = self.pointwise.in_channels, self.pointwise.groups
            identity = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
            nn.init.dirac_(identity.weight, groups=groups)
            yield identity, self.identity
