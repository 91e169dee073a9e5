"""Published networks by name: points of the spaces, to be described and timed beside what a search finds."""

from dataclasses import replace

from hwnas.cell import Cell
from hwnas.errors import UnknownNameError
from hwnas.networks import Architecture, Scale
from hwnas.networks.cells import CellNetwork
from hwnas.spaces import mbconv

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
NAMES = ("mobilenet-v2", "mobilenet-v3-large", "mobilenet-v3-small", "nasnet-a-mobile", "pnasnet-5-mobile")
_MOBILENETS = {
    "mobilenet-v2": mbconv.mobilenet_v2,
    "mobilenet-v3-large": mbconv.mobilenet_v3_large,
    "mobilenet-v3-small": mbconv.mobilenet_v3_small,
}


def get(name: str, *, resolution: int = 224, classes: int = 1000, channels: int = 3) -> Architecture:
    """Return a published network of images of 224 x 224 pixels and ImageNet's classes, or of others.

    Raises UnknownNameError, which lists the known ones.
    """
    if name in _MOBILENETS:
        return replace(_MOBILENETS[name](resolution=resolution, classes=classes), input_channels=channels)
    if name == "pnasnet-5-mobile":
        return CellNetwork(PNASNET_5, Scale(3, 54, resolution, classes, channels, "imagenet"))
    if name == "nasnet-a-mobile":
        return CellNetwork(NASNET_A, Scale(4, 44, resolution, classes, channels, "imagenet"), NASNET_A_REDUCTION)
    raise UnknownNameError("network", name, NAMES)
