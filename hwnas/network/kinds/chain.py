"""Chains of blocks: MobileNets, MnasNet, ProxylessNAS, FBNet, Once-for-all, ShuffleNetV2, ResNet, RepVGG.

_blocks.py has the blocks. The layers come in the order in which torchvision's MobileNets and ShuffleNetV2 list their
weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from math import inf
from typing import Annotated, Any, ClassVar

from hwnas.errors import InputError
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Activation, Builder, Graph, Padding, Place, Window
from hwnas.network.kinds._blocks import BY_FORM, AnyBlock, MixedResidual, block_to_json, check_named
from hwnas.network.ops import MOST_KERNEL
from hwnas.network.reading import STRICT, check_between, read_as
from hwnas.network.scale import MOST, MOST_FILTERS

_MOST_OF_CHAIN = {
    "stem": MOST_FILTERS,
    **{name: MOST[name] for name in ("resolution", "classes", "input_channels")},
    "stem_stride": MOST_KERNEL,
}


@dataclass(frozen=True, slots=True)
class Chain(Architecture):
    """A 3x3 stem, blocks, a 1x1 head (0: none), average pooling, a hidden layer (0: none), and the classifier."""

    __pydantic_config__: ClassVar = STRICT

    stem: int  # filters
    blocks: tuple[Annotated[AnyBlock, BY_FORM], ...]
    head: int  # filters; with 0 there is none
    resolution: int
    classes: int
    hidden: int = 0  # units
    activation: Activation = "hard_swish"  # of stem, head and hidden layer
    stem_stride: int = 2
    input_channels: int = 3
    padding: Padding = "same"
    norm_epsilon: int | float = 1e-3
    depths: tuple[int, ...] = field(default=(), compare=False)  # blocks of each stage, of one that a space has made

    def __post_init__(self) -> None:
        for name, most in _MOST_OF_CHAIN.items():
            check_between(f"chain: {name}", getattr(self, name), 1, most)
        for name in ("head", "hidden"):
            if getattr(self, name) < 0:
                raise InputError(f"chain: {name} must be 0, for none, or more; got {getattr(self, name)}")
            check_between(f"chain: {name}", getattr(self, name), 0, MOST_FILTERS)
        if not 0 < self.norm_epsilon < inf:
            raise InputError(f"chain: norm_epsilon must be a number above 0; got {self.norm_epsilon}")
        check_named("chain: activation", self.activation, Activation)
        check_named("chain: padding", self.padding, Padding)

    @property
    def size(self) -> str:
        """The resolution."""
        return f"{self.resolution}x{self.resolution}"

    @property
    def choice(self) -> str:
        """The blocks, in words."""
        head = [f"head {self.head}"] if self.head else []
        return "; ".join([f"stem {self.stem}", *map(str, self.blocks), *head])

    def walk(self) -> Graph:
        """Walk the network from the image to the logits; raises InputError where the image is too small."""
        return self.walk_with(self.blocks)

    def walk_with(self, blocks: Sequence[AnyBlock | MixedResidual]) -> Graph:
        """Walk the network with others in place of its blocks, one for each."""
        b = Builder((self.input_channels, self.resolution, self.resolution))
        value = self._conv(
            b,
            0,
            self.stem,
            Place("stem", "chain", "stem"),
            kernel=3,
            stride=self.stem_stride,
            activation=self.activation,
        )
        for place, block in zip(self._places(), blocks, strict=True):
            value = self._any_block(b, value, block, place)
        if self.head:
            value = self._conv(b, value, self.head, Place("head", "chain", "head"), activation=self.activation)
        value = b.mean(value, name="pool")
        if self.hidden:
            value = b.activation(b.linear(value, self.hidden, name=Place("hidden", "chain", "hidden")), self.activation)
        return b.finish(
            b.linear(value, self.classes, name=Place("classifier", "chain", "classifier")),
            norm_epsilon=self.norm_epsilon,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the architecture as JSON values."""
        fields = {name: value for name, value in asdict(self).items() if name != "depths"}
        return {"kind": "chain", **fields, "blocks": [block_to_json(block) for block in self.blocks]}

    def _places(self) -> list[Place]:
        """Return where each block stands: in which stage, where that is known, and its position there."""
        depths = self.depths or (1,) * len(self.blocks)
        origins = [("stage", stage, "block", block) for stage, depth in enumerate(depths) for block in range(depth)]
        return [Place(f"block{index}", *origin) for index, origin in enumerate(origins)]

    def _any_block(self, b: Builder, value: int, block: AnyBlock | MixedResidual, place: Place) -> int:
        convolve = partial(self._conv, b)
        if not isinstance(block, MixedResidual):
            return block.walk(b, convolve, value, place)
        mixed = [
            (one.walk(b, convolve, value, Place(f"{place}.{name}", *place.origin)), option)
            for name, one, option in block.taken
        ]
        shape = b.shape(mixed[0][0])
        return b.mix([*mixed, *((value, option) for option in block.skipped)], shape, name=place)

    def _conv(
        self,
        b: Builder,
        value: int,
        filters: int,
        place: Place,
        *,
        kind: Window = "conv",
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
    ) -> int:
        value = b.window(
            kind,
            value,
            name=place,
            filters=filters,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            groups=groups,
            padding=self.padding,
            norm=kind == "conv",
        )
        return b.activation(value, activation) if activation else value


def read(value: Mapping[str, Any]) -> Chain:
    """Read what `to_json` wrote; raises InputError for anything else."""
    rule = "a chain must have stem, blocks, head, resolution and classes, as `hwnas describe` prints"
    return read_as(Chain, value, rule=rule)
