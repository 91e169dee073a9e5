"""Chains whose stages choose their block, depth and width each: what mobile and plain networks have in common.

Each of four stages has its block (its form, window, expansion and, or not, squeeze-and-excite), how many of them there
are, and its width. The forms are plain 3x3 convolutions (VGG; RepVGG, Ding et al., 2021), separable ones (MobileNetV1,
Howard et al., 2017, section 3.1), ResNet's basic block (He et al., 2016, section 3.3), the fused inverted residual
(EfficientNetV2, Tan and Le, 2021, section 3.2), the inverted residual (MobileNetV2, Sandler et al., 2018, section 3.3),
the other forms of MobileNetV4's universal inverted bottleneck (Qin et al., 2024, section 4) and ShuffleNetV2's unit (Ma
et al., 2018, section 3). Dense convolutions are cheap on wide vector units and in int8, depthwise ones elsewhere; the
latency table of the device knows. At scale (N, F) a stage has N blocks at most; F is the first stage's filters at width
1, which each stage after it doubles. The skeleton "imagenet" divides the resolution by 32; "cifar", for small images,
by 8.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

from hwnas.network import (
    AnyBlock,
    BasicBlock,
    Chain,
    Convolution,
    FusedInvertedResidual,
    InvertedResidual,
    Scale,
    ShuffleUnit,
    divisible_by_8,
)
from hwnas.spaces import one_step_away

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution

STAGES = 4
CELLS = (4,)
FILTERS = (*range(4, 24, 2), 24, 28, 32, 40, 48, 64)
DEPTHS = (1, 2, 3, 4)
WIDTHS = (0.75, 1.0, 1.5)  # by those of the stage at width 1
HEADS = (0, 4)  # filters of the head by those of the last stage; with 0 there is none
EXPANSIONS = (2, 4)
_STRIDES = {"cifar": (1, 2, 2, 2), "imagenet": (2, 2, 2, 2)}  # of each stage's first block
_Make = Callable[[int, int, int], tuple[AnyBlock, ...]]  # of the channels that it reads, filters and stride


def _inverted(expansion: int, kernel: int = 0, start: int = 0, squeeze: bool = False) -> _Make:
    def make(channels: int, filters: int, stride: int) -> tuple[AnyBlock, ...]:
        expanded = expansion * channels
        middle = kernel or (3 if stride > 1 and not start else 0)  # what has no window cannot halve the resolution
        squeezed = divisible_by_8(expanded / 4) if squeeze else 0
        return (InvertedResidual(filters, middle, stride, expanded, "relu", squeezed, start),)

    return make


def _fused(expansion: int) -> _Make:
    return lambda channels, filters, stride: (FusedInvertedResidual(filters, 3, stride, expansion * channels),)


def _separable(kernel: int) -> _Make:
    return lambda channels, filters, stride: (
        Convolution(channels, kernel, stride, depthwise=True),
        Convolution(filters, 1, 1),
    )


_CHOSEN: dict[str, _Make] = {
    "plain_3x3": lambda channels, filters, stride: (Convolution(filters, 3, stride),),
    **{f"separable_{k}x{k}": _separable(k) for k in (3, 5)},
    "basic_3x3": lambda channels, filters, stride: (BasicBlock(filters, 3, stride),),
    **{f"fused_3x3_e{e}": _fused(e) for e in EXPANSIONS},
    **{
        f"mbconv_{k}x{k}_e{e}{'_se' * se}": _inverted(e, k, squeeze=se)
        for k, e, se in product((3, 5), EXPANSIONS, (False, True))
    },
    **{f"extra_dw_{k}x{k}_e{e}": _inverted(e, k, k) for k, e in product((3, 5), EXPANSIONS)},
    **{f"convnext_{k}x{k}_e{e}": _inverted(e, start=k) for k, e in product((5, 7), EXPANSIONS)},
    **{f"ffn_e{e}": _inverted(e) for e in EXPANSIONS},
    "shuffle_3x3": lambda channels, filters, stride: (ShuffleUnit(filters, 3, stride),),
}
OPERATIONS = tuple(_CHOSEN)
_UNIVERSAL = "universal"
_HOLDING = {  # by form, what holds the weights of all its blocks, also where that is no choice; _UNIVERSAL of others
    "plain": "plain_3x3",
    "separable": "separable_5x5",
    "basic": "basic_3x3_projected",
    "fused": f"fused_3x3_e{max(EXPANSIONS)}",
    "shuffle": "shuffle_3x3_projected",
}
_MAKE: dict[str, _Make] = {
    **_CHOSEN,
    _HOLDING["basic"]: lambda channels, filters, stride: (BasicBlock(filters, 3, stride, projects=True),),
    _HOLDING["shuffle"]: lambda channels, filters, stride: (ShuffleUnit(filters, 3, stride, projects=True),),
    _UNIVERSAL: _inverted(max(EXPANSIONS), kernel=5, start=7, squeeze=True),
}
CHOICES = (len(OPERATIONS) * len(DEPTHS) * len(WIDTHS),) * STAGES  # of each stage


def distributions() -> "dict[str, CategoricalDistribution]":
    """Return what Optuna chooses from."""
    from optuna.distributions import CategoricalDistribution

    choices: dict[str, CategoricalDistribution] = {}
    for stage in range(1, STAGES + 1):
        choices[f"stage{stage}_block"] = CategoricalDistribution(OPERATIONS)
        choices[f"stage{stage}_depth"] = CategoricalDistribution(DEPTHS)
        choices[f"stage{stage}_width"] = CategoricalDistribution(WIDTHS)
    return {**choices, "head": CategoricalDistribution(HEADS)}


def architecture(parameters: Mapping[str, Any], scale: Scale) -> Chain:
    """Return the network of what Optuna chose."""

    def chosen(what: str) -> list[Any]:
        return [parameters[f"stage{stage}_{what}"] for stage in range(1, STAGES + 1)]

    return _chain(chosen("block"), chosen("depth"), chosen("width"), parameters["head"], scale)


def largest(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choice whose weights hold this one's, and those of all of the same forms: as deep and wide as can be.

    Every form of the inverted residual is a part of one with all windows, the largest.
    """
    most = {"depth": max(DEPTHS), "width": max(WIDTHS), "head": max(HEADS)}
    return {
        name: _largest_block(chosen) if name.endswith("block") else most.get(name.rpartition("_")[2], chosen)
        for name, chosen in parameters.items()
    }


def _largest_block(name: str) -> str:
    return _HOLDING.get(name.partition("_")[0], _UNIVERSAL)


def neighbours(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the choices that are a step deeper or wider, or less so, in one stage, or have a head or none."""
    orders = {"depth": DEPTHS, "width": WIDTHS, "head": HEADS}
    return one_step_away(
        parameters, {name: orders[kind] for name in parameters if (kind := name.rpartition("_")[2]) in orders}
    )


def cover(scale: Scale) -> Iterator[Chain]:
    """Yield networks that between them have every operator of the space at a scale."""
    for operation in OPERATIONS:
        for width in WIDTHS:
            for depth, head in ((1, HEADS[-1]), (min(2, scale.cells), HEADS[0])):
                yield _chain([operation] * STAGES, [depth] * STAGES, [width] * STAGES, head, scale)
        for one, other in permutations(WIDTHS, 2):
            yield _chain([operation] * STAGES, [1] * STAGES, [one, other] * (STAGES // 2), HEADS[0], scale)


def _chain(blocks: list[str], depths: list[int], widths: list[float], head: int, scale: Scale) -> Chain:
    stem = channels = divisible_by_8(scale.filters)
    chain: list[AnyBlock] = []
    made: list[int] = []  # blocks of each stage
    for stage, (name, depth, width) in enumerate(zip(blocks, depths, widths, strict=True)):
        filters = divisible_by_8(scale.filters * 2**stage * width)
        for position in range(min(depth, scale.cells)):
            chain += _MAKE[name](channels, filters, 1 if position else _STRIDES[scale.skeleton][stage])
            channels = filters
        made.append(len(chain) - sum(made))
    return Chain(
        stem=stem,
        blocks=tuple(chain),
        head=head * channels,
        resolution=scale.resolution,
        classes=scale.classes,
        activation="relu",
        stem_stride=1 if scale.skeleton == "cifar" else 2,
        input_channels=scale.input_channels,
        depths=tuple(made),
    )
