"""Chains made wider, deeper and for other images, by the rules that the papers of hand-made networks have for it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from math import ceil, prod

from hwnas.errors import InputError
from hwnas.network.kinds._blocks import AnyBlock, BasicBlock, Convolution, MaxPool, ShuffleUnit
from hwnas.network.kinds.chain import Chain
from hwnas.network.published import divisible_by_8

_Reading = tuple[AnyBlock, int]  # a block, and how many channels it reads in the network that is scaled
_STRIDES = {64: 8, 128: 16}  # the total stride by the largest resolution that has it; 32 of larger ones


def adapted(
    chain: Chain, *, resolution: int, classes: int, channels: int = 3, width: float = 1.0, depth: float = 1.0
) -> Chain:
    """Return a hand-made network for other images, with a width and a depth multiplier.

    Small images have the usual adaptation: a total stride of 8 up to 64 pixels, 16 up to 128, then the paper's. The
    padding is "same", which takes no operator of its own in TFLite. Raises InputError as `scaled`.
    """
    stride = next((stride for most, stride in _STRIDES.items() if resolution <= most), 32)
    fitted = with_total_stride(scaled(chain, width=width, depth=depth), stride)
    return replace(fitted, resolution=resolution, classes=classes, input_channels=channels, padding="same")


def with_total_stride(chain: Chain, most: int) -> Chain:
    """Return a chain with strides of 1 in place of its first ones, until their product is at most `most`.

    A max-pooling goes with its stride.
    """
    strides = [chain.stem_stride, *(block.stride for block in chain.blocks)]
    for at, stride in enumerate(strides):
        if prod(strides) <= most:
            break
        strides[at] = min(stride, 1)
    blocks = tuple(
        replace(block, stride=stride)
        for block, stride in zip(chain.blocks, strides[1:], strict=True)
        if not (isinstance(block, MaxPool) and stride < block.stride)
    )
    return replace(chain, stem_stride=strides[0], blocks=blocks)


def scaled(chain: Chain, *, width: float = 1.0, depth: float = 1.0) -> Chain:
    """Return a chain with more or fewer blocks in each stage and filters, by EfficientNet's rule (Tan and Le, 2019, 3).

    A stage is what has the same filters. Blocks are rounded up, filters by `divisible_by_8`, the head's and the hidden
    layer's as well; a block's expansion stays. Raises InputError for multipliers that are not above 0.
    """
    for name, multiplier in (("width", width), ("depth", depth)):
        if not multiplier > 0:
            raise InputError(f"a {name} multiplier must be above 0; got {multiplier:g}")
    if width == depth == 1:
        return chain
    channels = stem = _wider(chain.stem, width)
    blocks: list[AnyBlock] = []
    for block, read in _deepened(_reading(chain), depth):
        blocks.append(_fitted(block, read, channels, width))
        channels = blocks[-1].filters
    head, hidden = (_wider(filters, width) if filters else 0 for filters in (chain.head, chain.hidden))
    return replace(chain, stem=stem, blocks=tuple(blocks), head=head, hidden=hidden, depths=())


def _reading(chain: Chain) -> list[_Reading]:
    return list(zip(chain.blocks, (chain.stem, *(block.filters for block in chain.blocks)), strict=False))


def _deepened(blocks: Sequence[_Reading], depth: float) -> list[_Reading]:
    """Return the first units of each stage, or all and the last one several times, without its stride."""
    deep: list[_Reading] = []
    for _, stage in groupby(_units(blocks), key=lambda unit: unit[-1][0].filters):
        units = list(stage)
        count = ceil(len(units) * depth - 1e-9)
        repeated = tuple(
            (replace(block, stride=1), read) for block, read in units[-1] if not isinstance(block, MaxPool)
        )
        units += [repeated] * (count - len(units))
        deep += [each for unit in units[:count] for each in unit]
    return deep


def _units(blocks: Sequence[_Reading]) -> list[tuple[_Reading, ...]]:
    """Return what is repeated for depth: blocks, convolutions with the 1x1 that follows, and a pooling with a block."""
    units: list[tuple[_Reading, ...]] = []
    for block, read in blocks:
        if units and _are_one(units[-1][-1][0], block):
            units[-1] = (*units[-1], (block, read))
        else:
            units.append(((block, read),))
    return units


def _are_one(before: AnyBlock, block: AnyBlock) -> bool:
    pointwise = isinstance(block, Convolution) and block.kernel == 1 and isinstance(before, Convolution)
    return pointwise or isinstance(before, MaxPool)


def _fitted(block: AnyBlock, read: int, channels: int, width: float) -> AnyBlock:
    """Return a block that read so many channels as it is where it reads `channels`."""
    if isinstance(block, MaxPool) or (isinstance(block, Convolution) and block.depthwise):
        return replace(block, filters=channels)
    filters = _wider(block.filters, width)
    if isinstance(block, Convolution | BasicBlock | ShuffleUnit):
        return replace(block, filters=filters)
    expansion, rest = divmod(block.expanded, read)
    expanded = _wider(block.expanded, width) if rest else expansion * channels
    squeezed = max(1, round(block.squeezed * expanded / block.expanded)) if block.squeezed else 0
    return replace(block, filters=filters, expanded=expanded, squeezed=squeezed)


def _wider(filters: int, width: float) -> int:
    return filters if width == 1 else divisible_by_8(filters * width)
