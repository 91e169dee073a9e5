"""Hand-made networks as chains, beside the MobileNets of published.py: what a search's winners have to be better than.

Each is as its paper has it, of 224x224 pixels and ImageNet's classes, or of CIFAR-10's 32x32 and ten; scaling.py makes
them for other images. A chain's factors of squeeze-and-excite are by the hard sigmoid, also where a paper has the
sigmoid, which costs as much. ResNet's 7x7 stem no chain can say.
"""

from hwnas.network.graph import Activation
from hwnas.network.kinds._blocks import AnyBlock, BasicBlock, Convolution, InvertedResidual, MaxPool, ShuffleUnit
from hwnas.network.kinds.chain import Chain

_Row = tuple[int, int, int, int, int, bool]  # expansion, kernel, filters, depth, stride, squeeze-and-excite
_MNASNET_A1: tuple[_Row, ...] = (
    (1, 3, 16, 1, 1, False),
    (6, 3, 24, 2, 2, False),
    (3, 5, 40, 3, 2, True),
    (6, 3, 80, 4, 2, False),
    (6, 3, 112, 2, 1, True),
    (6, 5, 160, 3, 2, True),
    (6, 3, 320, 1, 1, False),
)
_EFFICIENTNET_LITE0: tuple[_Row, ...] = (
    (1, 3, 16, 1, 1, False),
    (6, 3, 24, 2, 2, False),
    (6, 5, 40, 2, 2, False),
    (6, 3, 80, 3, 2, False),
    (6, 5, 112, 3, 1, False),
    (6, 5, 192, 4, 2, False),
    (6, 3, 320, 1, 1, False),
)
_V4_CONV_SMALL: tuple[tuple[int, int, int, int, int], ...] = (  # start, kernel, expansion, filters, stride
    (5, 5, 3, 96, 2),
    (0, 3, 2, 96, 1),
    (0, 3, 2, 96, 1),
    (0, 3, 2, 96, 1),
    (0, 3, 2, 96, 1),
    (3, 0, 4, 96, 1),
    (3, 3, 6, 128, 2),
    (5, 5, 4, 128, 1),
    (0, 5, 4, 128, 1),
    (0, 5, 3, 128, 1),
    (0, 3, 4, 128, 1),
    (0, 3, 4, 128, 1),
)


def mobilenet_v1() -> Chain:
    """Return MobileNetV1 (Howard et al., 2017, table 1); the last stride there, of 2, is the text's 1."""
    rows = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    blocks: list[AnyBlock] = []
    channels = 32
    for filters, stride in rows:
        blocks += [Convolution(channels, 3, stride, depthwise=True), Convolution(filters, 1, 1)]
        channels = filters
    return _imagenet(32, blocks, head=0, activation="relu")


def mnasnet_a1() -> Chain:
    """Return MnasNet-A1 (Tan et al., 2019, figure 7); torchvision's MnasNet is B1, another one."""
    return _imagenet(32, _rows(_MNASNET_A1, 32, "relu"), head=1280, activation="relu")


def efficientnet_lite0() -> Chain:
    """Return EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, 2019, table 1) without squeeze-and-excite, with ReLU6.

    Its source is the README of EfficientNet-Lite in TensorFlow's repository of TPU models (2020).
    """
    return _imagenet(32, _rows(_EFFICIENTNET_LITE0, 32, "relu6"), head=1280, activation="relu6")


def mobilenet_v4_conv_small() -> Chain:
    """Return MobileNetV4-Conv-S (Qin et al., 2024, appendix D); its 1280 units have a bias here, and no BatchNorm."""
    blocks: list[AnyBlock] = [
        Convolution(32, 3, 2),
        Convolution(32, 1, 1),
        Convolution(96, 3, 2),
        Convolution(64, 1, 1),
    ]
    channels = 64
    for start, kernel, expansion, filters, stride in _V4_CONV_SMALL:
        blocks.append(InvertedResidual(filters, kernel, stride, channels * expansion, start=start))
        channels = filters
    return _imagenet(32, blocks, head=960, hidden=1280, activation="relu")


def repvgg_a0() -> Chain:
    """Return RepVGG-A0 as it is deployed: 3x3 convolutions alone (Ding et al., 2021, table 2)."""
    blocks: list[AnyBlock] = []
    for filters, depth in ((48, 2), (96, 4), (192, 14), (1280, 1)):
        blocks += [Convolution(filters, 3, 2 if position == 0 else 1) for position in range(depth)]
    return _imagenet(48, blocks, head=0, activation="relu")


def shufflenet_v2() -> Chain:
    """Return ShuffleNetV2 of width 1 (Ma et al., 2018, table 5)."""
    blocks: list[AnyBlock] = [MaxPool(24, 3, 2)]
    for filters, depth in ((116, 4), (232, 8), (464, 4)):
        blocks += [ShuffleUnit(filters, 3, 2 if position == 0 else 1) for position in range(depth)]
    return _imagenet(24, blocks, head=1024, activation="relu")


def resnet_8() -> Chain:
    """Return the ResNet of 8 layers for CIFAR-10 (He et al., 2016, section 4.2), that of MLPerf Tiny."""
    return _resnet(1)


def resnet_20() -> Chain:
    """Return the ResNet of 20 layers for CIFAR-10 (He et al., 2016, section 4.2), with shortcuts of option B."""
    return _resnet(3)


def resnet_9() -> Chain:
    """Return the ResNet of 9 layers of DAWNBench (Page, 2018), with strides of 2 in the place of max-pooling.

    So it has that one's parameters, without its Mult-Adds: it is not among the published ones. The sum is before the
    last activation, as in other ResNets.
    """
    blocks = (
        Convolution(128, 3, 2),
        BasicBlock(128, 3, 1),
        Convolution(256, 3, 2),
        Convolution(512, 3, 2),
        BasicBlock(512, 3, 1),
    )
    return _cifar(64, blocks)


HAND_MADE = {
    "efficientnet-lite0": efficientnet_lite0,
    "mnasnet-a1": mnasnet_a1,
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v4-conv-small": mobilenet_v4_conv_small,
    "repvgg-a0": repvgg_a0,
    "resnet-20": resnet_20,
    "resnet-8": resnet_8,
    "shufflenet-v2": shufflenet_v2,
}


def _rows(rows: tuple[_Row, ...], channels: int, activation: Activation) -> list[AnyBlock]:
    """Return the blocks of MnasNet's rows; squeeze-and-excite has a quarter of the block's input channels."""
    blocks: list[AnyBlock] = []
    for expansion, kernel, filters, depth, stride, squeezes in rows:
        for position in range(depth):
            squeezed = channels // 4 if squeezes else 0
            first = stride if position == 0 else 1
            blocks.append(InvertedResidual(filters, kernel, first, channels * expansion, activation, squeezed))
            channels = filters
    return blocks


def _imagenet(stem: int, blocks: list[AnyBlock], *, head: int, activation: Activation, hidden: int = 0) -> Chain:
    return Chain(stem, tuple(blocks), head, 224, 1000, hidden=hidden, activation=activation)


def _cifar(stem: int, blocks: tuple[AnyBlock, ...]) -> Chain:
    return Chain(stem, blocks, head=0, resolution=32, classes=10, activation="relu", stem_stride=1, norm_epsilon=1e-5)


def _resnet(depth: int) -> Chain:
    """Return a ResNet of three stages of so many blocks: of 6 n + 2 layers."""
    stages = ((16, 1), (32, 2), (64, 2))
    return _cifar(16, tuple(BasicBlock(f, 3, stride if at == 0 else 1) for f, stride in stages for at in range(depth)))
