"""The mobile chain of MnasNet, ProxylessNAS, FBNet and Once-for-all, in the macro architecture of MobileNetV3.

Five stages of one to four inverted residual blocks; each block has its kernel, its expansion and, or not, squeeze-and-
excite (Cai et al., 2020, section 3.1; Tan et al., 2019, section 4.1). A skipped block is a smaller depth. At scale (N,
F) a stage has N blocks at most, and F / 16 is the width multiplier. The skeleton "imagenet" divides the resolution by
32 and ends in MobileNetV3's hidden layer; "cifar", for small images, divides it by 8.

`mobilenet_v2`, `mobilenet_v3_large` and `mobilenet_v3_small` are the published networks as points of the kind.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from hwnas.network import Activation, AnyBlock, Chain, Graph, InvertedResidual, MixedResidual, Scale, divisible_by_8
from hwnas.spaces import one_step_away

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
SQUEEZES = (False, True)
DEPTHS = (1, 2, 3, 4)
OPERATIONS = tuple(
    f"mbconv_{kernel}x{kernel}_e{expansion}{'_se' * squeeze}"
    for kernel, expansion, squeeze in product(KERNELS, EXPANSIONS, SQUEEZES)
)


class _Stage(NamedTuple):
    filters: int  # at width 1: F = 16
    stride: int  # of the first block, with the skeleton "imagenet"
    small_stride: int  # with "cifar"
    activation: Activation


_WIDTH_1 = 16  # filters of the stem
_STAGES = (  # MobileNetV3-Large, Howard et al., 2019, table 1
    _Stage(24, 2, 1, "relu"),
    _Stage(40, 2, 2, "relu"),
    _Stage(80, 2, 2, "hard_swish"),
    _Stage(112, 1, 1, "hard_swish"),
    _Stage(160, 2, 2, "hard_swish"),
)
CHOICES = (sum(len(OPERATIONS) ** depth for depth in DEPTHS),) * len(_STAGES)  # of each stage


def distributions() -> "dict[str, CategoricalDistribution]":
    """Return what Optuna chooses from; blocks beyond a stage's depth are ignored."""
    from optuna.distributions import CategoricalDistribution

    choices: dict[str, CategoricalDistribution] = {}
    for stage in range(1, len(_STAGES) + 1):
        choices[f"stage{stage}_depth"] = CategoricalDistribution(DEPTHS)
        for block in DEPTHS:
            choices[f"stage{stage}_block{block}"] = CategoricalDistribution(OPERATIONS)
    return choices


def architecture(parameters: Mapping[str, Any], scale: Scale) -> Chain:
    """Return the network of what Optuna chose."""
    stages = [
        [parameters[f"stage{stage}_block{block}"] for block in range(1, parameters[f"stage{stage}_depth"] + 1)]
        for stage in range(1, len(_STAGES) + 1)
    ]
    return _chain([stage[: scale.cells] for stage in stages], scale)


def largest(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choice whose weights hold those of every other: all blocks, the largest kernels and expansions."""
    return {name: max(DEPTHS) if name.endswith("depth") else OPERATIONS[-1] for name in parameters}


def neighbours(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the choices that have a block more or less in one stage."""
    return one_step_away(parameters, {name: DEPTHS for name in parameters if name.endswith("depth")})


def mixed(scale: Scale) -> Graph:
    """Return the graph of all chains in one; where a stage may be shorter, a block's value may be passed by it."""
    blocks_of_stage = min(scale.cells, max(DEPTHS))
    chains = {operation: _chain([[operation] * blocks_of_stage] * len(_STAGES), scale) for operation in OPERATIONS}
    places = [(stage, block) for stage in range(1, len(_STAGES) + 1) for block in range(blocks_of_stage)]
    largest = chains[OPERATIONS[-1]]
    blocks = [
        _mixed_block({name: chain.blocks[position] for name, chain in chains.items()}, *place)
        for position, place in enumerate(places, start=1)
    ]
    return largest.walk_with([largest.blocks[0], *blocks])


def _mixed_block(alternatives: Mapping[str, AnyBlock], stage: int, block: int) -> MixedResidual:
    """Return what a block may be: the largest first, whose weights hold the others'."""
    depth = f"stage{stage}_depth"
    there = ((depth, tuple(place for place, blocks in enumerate(DEPTHS) if blocks > block)),) if block else ()
    skipped = (((depth, tuple(place for place, blocks in enumerate(DEPTHS) if blocks <= block)),),) if block else ()
    taken = tuple(
        (name, alternatives[name], ((f"stage{stage}_block{block + 1}", (place,)), *there))
        for place, name in reversed(list(enumerate(OPERATIONS)))
    )
    return MixedResidual(taken, skipped)


def smallest(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choice whose weights are in every other's: one block a stage, the smallest kernel and expansion."""
    return {name: min(DEPTHS) if name.endswith("depth") else OPERATIONS[0] for name in parameters}


def cover(scale: Scale) -> Iterator[Chain]:
    """Yield networks that between them have every operator of the space at a scale."""
    for operation, depth in product(OPERATIONS, {1, min(2, scale.cells)}):
        yield _chain([[operation] * depth] * len(_STAGES), scale)


def _chain(stages: list[list[str]], scale: Scale) -> Chain:
    small = {"cifar": True, "imagenet": False}[scale.skeleton]

    def filters(at_width_1: int) -> int:
        return divisible_by_8(at_width_1 * scale.filters / _WIDTH_1)

    stem = filters(_WIDTH_1)
    blocks = [InvertedResidual(stem, 3, 1, stem)]
    for (at_width_1, stride, small_stride, activation), operations in zip(_STAGES, stages, strict=True):
        for position, operation in enumerate(operations):
            kernel, expansion, squeeze = _PARTS[operation]
            expanded = blocks[-1].filters * expansion
            blocks.append(
                InvertedResidual(
                    filters(at_width_1),
                    kernel,
                    (small_stride if small else stride) if position == 0 else 1,
                    expanded,
                    activation,
                    divisible_by_8(expanded / 4) if squeeze else 0,
                )
            )
    return Chain(
        stem=stem,
        blocks=tuple(blocks),
        head=6 * blocks[-1].filters,
        hidden=0 if small else filters(1280),
        stem_stride=1 if small else 2,
        resolution=scale.resolution,
        classes=scale.classes,
        input_channels=scale.input_channels,
        depths=(1, *map(len, stages)),
    )


_PARTS = dict(zip(OPERATIONS, product(KERNELS, EXPANSIONS, SQUEEZES), strict=True))
