"""Published networks by name: points of the spaces, to be described and timed beside what a search finds."""

from dataclasses import replace

from hwnas.errors import UnknownNameError
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Cell
from hwnas.network.graph import Activation, Padding
from hwnas.network.hand_made import HAND_MADE
from hwnas.network.kinds._blocks import InvertedResidual
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.kinds.chain import Chain
from hwnas.network.scale import Scale


def divisible_by_8(channels: float) -> int:
    """Round channels to a multiple of 8, at least 8, and not below nine tenths (MobileNetV2's own rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v2(*, width: float = 1.0, resolution: int = 224, classes: int = 1000, padding: Padding = "same") -> Chain:
    """Return MobileNetV2 (Sandler et al., 2018, table 2); torchvision's has the padding "symmetric"."""
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    stem = channels = divisible_by_8(32 * width)
    blocks = []
    for expansion, at_width_1, depth, stride in rows:
        for position in range(depth):
            filters = divisible_by_8(at_width_1 * width)
            blocks.append(
                InvertedResidual(filters, 3, stride if position == 0 else 1, channels * expansion, activation="relu6")
            )
            channels = filters
    return Chain(
        stem=stem,
        blocks=tuple(blocks),
        head=divisible_by_8(1280 * max(1.0, width)),
        resolution=resolution,
        classes=classes,
        activation="relu6",
        padding=padding,
        norm_epsilon=1e-5,
        depths=tuple(depth for _, _, depth, _ in rows),
    )


_Row = tuple[int, int, int, bool, Activation, int]
_V3_LARGE: tuple[
    _Row, ...
] = (  # kernel, expanded, filters, squeeze-and-excite, activation, stride: Howard et al., 2019, table 1
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)
_V3_SMALL: tuple[_Row, ...] = (  # table 2
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 288, 96, True, "hard_swish", 2),
    (5, 576, 96, True, "hard_swish", 1),
    (5, 576, 96, True, "hard_swish", 1),
)


def mobilenet_v3_large(*, resolution: int = 224, classes: int = 1000, padding: Padding = "same") -> Chain:
    """Return MobileNetV3-Large (Howard et al., 2019, table 1); torchvision's has the padding "symmetric"."""
    return _mobilenet_v3(_V3_LARGE, (1, 2, 3, 4, 2, 3), 1280, resolution, classes, padding)


def mobilenet_v3_small(*, resolution: int = 224, classes: int = 1000, padding: Padding = "same") -> Chain:
    """Return MobileNetV3-Small (Howard et al., 2019, table 2); torchvision's has the padding "symmetric"."""
    return _mobilenet_v3(_V3_SMALL, (0, 1, 2, 3, 2, 3), 1024, resolution, classes, padding)


def _mobilenet_v3(
    rows: tuple[_Row, ...],
    depths: tuple[int, ...],
    hidden: int,
    resolution: int,
    classes: int,
    padding: Padding,
) -> Chain:
    """Return a chain; `depths` are the blocks of each stage of `spaces.mbconv`, which are told by their resolution."""
    blocks = tuple(
        InvertedResidual(filters, kernel, stride, expanded, activation, divisible_by_8(expanded / 4) if squeeze else 0)
        for kernel, expanded, filters, squeeze, activation, stride in rows
    )
    return Chain(
        stem=16,
        blocks=blocks,
        head=6 * blocks[-1].filters,
        hidden=hidden,
        resolution=resolution,
        classes=classes,
        padding=padding,
        depths=depths,
    )


PNASNET_5 = Cell.from_json(  # Liu et al., 2018, figure 1
    {
        "blocks": [
            [["separable_5x5", 0], ["max_pool_3x3", 0]],
            [["separable_7x7", 1], ["max_pool_3x3", 1]],
            [["separable_5x5", 1], ["separable_3x3", 1]],
            [["separable_3x3", 4], ["max_pool_3x3", 1]],
            [["separable_3x3", 0], ["identity", 1]],
        ]
    }
)
NASNET_A = Cell.from_json(  # Zoph et al., 2018, figure 4
    {
        "blocks": [
            [["separable_5x5", 1], ["separable_3x3", 0]],
            [["separable_5x5", 0], ["separable_3x3", 0]],
            [["avg_pool_3x3", 1], ["identity", 0]],
            [["avg_pool_3x3", 0], ["avg_pool_3x3", 0]],
            [["separable_3x3", 1], ["identity", 1]],
        ],
        "concat": [0, 2, 3, 4, 5, 6],
    }
)
NASNET_A_REDUCTION = Cell.from_json(
    {
        "blocks": [
            [["separable_5x5", 1], ["separable_7x7", 0]],
            [["max_pool_3x3", 1], ["separable_7x7", 0]],
            [["avg_pool_3x3", 1], ["separable_5x5", 0]],
            [["identity", 3], ["avg_pool_3x3", 2]],
            [["separable_3x3", 2], ["max_pool_3x3", 1]],
        ],
        "concat": [3, 4, 5, 6],
    }
)
TORCHVISIONS = {  # which torchvision has, layer by layer
    "mobilenet-v2": mobilenet_v2,
    "mobilenet-v3-large": mobilenet_v3_large,
    "mobilenet-v3-small": mobilenet_v3_small,
}
_OF_CELLS = {
    "nasnet-a-mobile": CellNetwork(NASNET_A, Scale(4, 44, 224, 1000, 3, "imagenet"), NASNET_A_REDUCTION),
    "pnasnet-5-mobile": CellNetwork(PNASNET_5, Scale(3, 54, 224, 1000, 3, "imagenet")),
}
PUBLISHED = (*TORCHVISIONS, *HAND_MADE, *_OF_CELLS)


def published_network(
    name: str, *, resolution: int | None = None, classes: int | None = None, channels: int = 3
) -> Architecture:
    """Return a published network, of its paper's images and classes, or of others.

    Raises UnknownNameError, which lists the known ones.
    """
    if name not in PUBLISHED:
        raise UnknownNameError("network", name, PUBLISHED)
    if name in _OF_CELLS:
        cells = _OF_CELLS[name]
        side, count = resolution or cells.scale.resolution, classes or cells.scale.classes
        return cells.at(replace(cells.scale, resolution=side, classes=count, input_channels=channels))
    chain = TORCHVISIONS[name]() if name in TORCHVISIONS else HAND_MADE[name]()
    side, count = resolution or chain.resolution, classes or chain.classes
    return replace(chain, resolution=side, classes=count, input_channels=channels)
