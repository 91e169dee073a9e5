"""The operations of cells, by name: each is a list of steps that `network.py` turns into layers.

    identity                 nothing; with stride 2 or other channels ReLU, 1x1 convolution, BatchNorm
    zero                     zeros: no connection
    separable_KxK            two stacked (ReLU, depthwise KxK, 1x1, BatchNorm), the stride on the first depthwise
    separable_KxK_single     one of them
    dilated_KxK              ReLU, KxK convolution of rate 2, BatchNorm
    dilated_separable_KxK    ReLU, depthwise KxK of rate 2, 1x1, BatchNorm
    conv_KxK                 ReLU, KxK convolution, BatchNorm
    conv_1xK_Kx1             ReLU, 1xK, BatchNorm, ReLU, Kx1, BatchNorm
    ..._bottleneck           the convolution between 1x1 convolutions to F/4 and back to F
    avg_pool_KxK, max_pool_KxK

Sources: NASNet, appendix A.4 (Zoph et al., 2018); PNAS, section 3.1 (Liu et al., 2018); DARTS, section 3.1.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from hwnas.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Step:
    """One layer of an operation, before shapes are known."""

    kind: Literal["relu", "conv", "depthwise", "max_pool", "avg_pool"]
    kernel: tuple[int, int] = (1, 1)
    strided: tuple[bool, bool] = (False, False)  # whether it carries the operation's stride down and across
    dilation: int = 1
    norm: bool = True
    squeeze: int = 1  # a convolution's filters are F / squeeze


IDENTITY = "identity"
ZERO = "zero"
_RELU = Step("relu")
_POINTWISE = Step("conv")
_BOTH = (True, True)
MOST_KERNEL = 99  # pixels
_PATTERN = re.compile(
    r"(?P<family>[a-z_]+?)_(?P<h>\d{1,2})x(?P<w>\d{1,2})(?P<rest>(?:_\d+x\d+)?(?:_[a-z]+)*)", re.ASCII
)
_EXAMPLES = (
    IDENTITY,
    ZERO,
    "separable_KxK",
    "separable_KxK_single",
    "dilated_KxK",
    "dilated_separable_KxK",
    "conv_KxK",
    "conv_KxK_bottleneck",
    "conv_1xK_Kx1",
    "conv_1xK_Kx1_bottleneck",
    "avg_pool_KxK",
    "max_pool_KxK",
)


@cache
def steps(operation: str) -> tuple[Step, ...]:
    """Return the steps of an operation other than `identity` and `zero`, the stride on the steps that are `strided`.

    Raises UnknownNameError, which lists the known forms.
    """
    match = _PATTERN.fullmatch(operation)
    known = _family(match["family"], (int(match["h"]), int(match["w"])), match["rest"]) if match else None
    if known is None:
        raise UnknownNameError("operation", operation, _EXAMPLES, hint="K is an odd number below 100")
    return known


def _family(family: str, kernel: tuple[int, int], rest: str) -> tuple[Step, ...] | None:
    if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        return None
    if family == "conv":
        return _convolution(kernel, rest)
    if kernel[0] != kernel[1]:
        return None
    if family == "separable" and rest in ("", "_single"):
        first = (_RELU, Step("depthwise", kernel, _BOTH, norm=False), _POINTWISE)
        second = (_RELU, Step("depthwise", kernel, norm=False), _POINTWISE)
        return first if rest else first + second
    if rest:
        return None
    if family == "dilated":
        return (_RELU, Step("conv", kernel, _BOTH, dilation=2))
    if family == "dilated_separable":
        return (_RELU, Step("depthwise", kernel, _BOTH, dilation=2, norm=False), _POINTWISE)
    if family == "avg_pool":
        return (Step("avg_pool", kernel, _BOTH),)
    if family == "max_pool":
        return (Step("max_pool", kernel, _BOTH),)
    return None


def _convolution(kernel: tuple[int, int], rest: str) -> tuple[Step, ...] | None:
    """Return the steps of conv_KxK and conv_1xK_Kx1, with or without a bottleneck."""
    bottleneck = rest.endswith("_bottleneck")
    rest = rest.removesuffix("_bottleneck")
    if rest == f"_{kernel[1]}x{kernel[0]}" and kernel[0] == 1 < kernel[1]:
        across = Step("conv", kernel, (False, True))
        down = Step("conv", kernel[::-1], (True, False))
        body: tuple[Step, ...] = (_RELU, across, _RELU, down)
    elif not rest and kernel[0] == kernel[1]:
        body = (_RELU, Step("conv", kernel, _BOTH))
    else:
        return None
    if not bottleneck:
        return body
    narrow = tuple(step if step.kind == "relu" else replace(step, squeeze=4) for step in body)
    return (_RELU, replace(_POINTWISE, squeeze=4), *narrow, _RELU, _POINTWISE)
