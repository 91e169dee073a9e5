"""Chains of inverted residual blocks: MobileNetV2 and V3, MnasNet, ProxylessNAS, FBNet, Once-for-all.

A block is 1x1 to the expanded channels, depthwise, squeeze-and-excite, 1x1 to the filters, with BatchNorm after each
convolution; the input is added where it has the output's shape (MobileNetV2, Sandler et al., 2018, section 3.3;
MobileNetV3, Howard et al., 2019, sections 4 and 5). The layers come in the order in which torchvision's MobileNets list
their weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, ClassVar, NamedTuple, get_args

from hwnas.errors import InputError, short
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Activation, Builder, Graph, Option, Padding, Place
from hwnas.network.ops import MOST_KERNEL
from hwnas.network.reading import STRICT, check_between, read_as
from hwnas.network.scale import MOST, MOST_FILTERS

_MOST_OF_BLOCK = {"filters": MOST_FILTERS, "kernel": MOST_KERNEL, "stride": MOST_KERNEL, "expanded": MOST_FILTERS}
_MOST_OF_CHAIN = {
    "stem": MOST_FILTERS,
    "head": MOST_FILTERS,
    **{name: MOST[name] for name in ("resolution", "classes", "input_channels")},
    "stem_stride": MOST_KERNEL,
}


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """One block; without an expansion where `expanded` are the channels of its input.

    `filters` are the output's channels, `expanded` those of the depthwise convolution, `squeezed` those between the two
    convolutions of squeeze-and-excite: none with 0.
    """

    __pydantic_config__: ClassVar = STRICT

    filters: int
    kernel: int
    stride: int
    expanded: int
    activation: Activation = "relu"
    squeezed: int = 0

    def __post_init__(self) -> None:
        for name, most in _MOST_OF_BLOCK.items():
            check_between(f"a block's {name}", getattr(self, name), 1, most)
        if self.squeezed < 0:
            raise InputError(f"a block's squeezed must be 0, for none, or more; got {self.squeezed}")
        check_between("a block's squeezed", self.squeezed, 0, MOST_FILTERS)
        _check_named("a block's activation", self.activation, Activation)

    def __str__(self) -> str:
        squeeze = f" se{self.squeezed}" if self.squeezed else ""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel}{stride} e{self.expanded}{squeeze} {self.filters}"


class MixedResidual(NamedTuple):
    """All that one block may be, by name and each under an option, and the options under which there is none."""

    taken: tuple[tuple[str, InvertedResidual, Option], ...]
    skipped: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain(Architecture):
    """A 3x3 stem, blocks, a 1x1 head, average pooling, a hidden layer if `hidden` is not 0, and the classifier."""

    __pydantic_config__: ClassVar = STRICT

    stem: int  # filters
    blocks: tuple[InvertedResidual, ...]
    head: int  # filters
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
        if self.hidden < 0:
            raise InputError(f"chain: hidden must be 0, for none, or more; got {self.hidden}")
        check_between("chain: hidden", self.hidden, 0, MOST_FILTERS)
        if not 0 < self.norm_epsilon < inf:
            raise InputError(f"chain: norm_epsilon must be a number above 0; got {self.norm_epsilon}")
        _check_named("chain: activation", self.activation, Activation)
        _check_named("chain: padding", self.padding, Padding)

    @property
    def size(self) -> str:
        """The resolution."""
        return f"{self.resolution}x{self.resolution}"

    @property
    def choice(self) -> str:
        """The blocks, in words."""
        return f"stem {self.stem}; {'; '.join(map(str, self.blocks))}; head {self.head}"

    def walk(self) -> Graph:
        """Walk the network from the image to the logits; raises InputError where the image is too small."""
        return self.walk_with(self.blocks)

    def walk_with(self, blocks: "Sequence[InvertedResidual | MixedResidual]") -> Graph:
        """Walk the network with others in place of its blocks, one for each."""
        b = Builder((self.input_channels, self.resolution, self.resolution))
        value = self._conv(
            b, 0, self.stem, Place("stem"), kernel=3, stride=self.stem_stride, activation=self.activation
        )
        for place, block in zip(self._places(), blocks, strict=True):
            value = self._any_block(b, value, block, place)
        value = self._conv(b, value, self.head, Place("head"), activation=self.activation)
        value = b.mean(value, name="pool")
        if self.hidden:
            value = b.activation(b.linear(value, self.hidden, name=Place("hidden")), self.activation)
        return b.finish(b.linear(value, self.classes, name=Place("classifier")), norm_epsilon=self.norm_epsilon)

    def to_json(self) -> dict[str, Any]:
        """Return the architecture as JSON values."""
        fields = {name: value for name, value in asdict(self).items() if name != "depths"}
        return {"kind": "chain", **fields, "blocks": [asdict(block) for block in self.blocks]}

    def _places(self) -> list[Place]:
        """Return where each block stands: in which stage, where that is known, and its position there."""
        depths = self.depths or (1,) * len(self.blocks)
        origins = [("stage", stage, "block", block) for stage, depth in enumerate(depths) for block in range(depth)]
        return [Place(f"block{index}", *origin) for index, origin in enumerate(origins)]

    def _any_block(self, b: Builder, value: int, block: "InvertedResidual | MixedResidual", place: Place) -> int:
        if isinstance(block, InvertedResidual):
            return self._block(b, value, block, place)
        mixed = [
            (self._block(b, value, one, Place(f"{place}.{name}", *place.origin)), option)
            for name, one, option in block.taken
        ]
        shape = b.shape(mixed[0][0])
        return b.mix([*mixed, *((value, option) for option in block.skipped)], shape, name=place)

    def _block(self, b: Builder, value: int, block: InvertedResidual, place: Place) -> int:
        branch, channels = value, b.shape(value)[0]
        if block.expanded != channels:
            branch = self._conv(b, branch, block.expanded, place.then("expand"), activation=block.activation)
        branch = self._conv(
            b,
            branch,
            block.expanded,
            place.then("depthwise"),
            kernel=block.kernel,
            stride=block.stride,
            groups=block.expanded,
            activation=block.activation,
        )
        if block.squeezed:
            branch = _squeeze_and_excite(b, branch, block.squeezed, place.then("squeeze"))
        branch = self._conv(b, branch, block.filters, place.then("project"))
        return b.add(value, branch, name=place) if b.shape(value) == b.shape(branch) else branch

    def _conv(
        self,
        b: Builder,
        value: int,
        filters: int,
        place: Place,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
    ) -> int:
        value = b.window(
            "conv",
            value,
            name=place,
            filters=filters,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            groups=groups,
            padding=self.padding,
            norm=True,
        )
        return b.activation(value, activation) if activation else value


def _squeeze_and_excite(b: Builder, value: int, squeezed: int, place: Place) -> int:
    """Multiply each channel by a factor from the means of all (Hu et al., 2018; MobileNetV3, section 5.3)."""
    means = b.mean(value, name=place.then("mean"))
    reduced = b.relu(b.window("conv", means, name=place.then("reduce"), filters=squeezed, bias=True))
    factors = b.window("conv", reduced, name=place.then("restore"), filters=b.shape(value)[0], bias=True)
    return b.mul(value, b.activation(factors, "hard_sigmoid"), name=place)


def read(value: Mapping[str, Any]) -> Chain:
    """Read what `to_json` wrote; raises InputError for anything else."""
    rule = "a chain must have stem, blocks, head, resolution and classes, as `hwnas describe` prints"
    return read_as(Chain, value, rule=rule)


def _check_named(what: str, value: str, names: Any) -> None:
    """Raise InputError for a value that is none of a Literal's."""
    if value not in get_args(names):
        raise InputError(f"{what} must be one of {', '.join(get_args(names))}; got {short(value)}")
