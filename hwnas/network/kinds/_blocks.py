"""The blocks of chains, each a record that knows how it is walked and how it is written down.

`inverted` is the one that has no `form` in JSON, as older records have none. In every block BatchNorm follows each
convolution, and the input is added where it has the output's shape, unless the block says otherwise.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, get_args

from hwnas.errors import InputError, short
from hwnas.network.graph import Activation, Builder, Option, Place, Window
from hwnas.network.ops import MOST_KERNEL
from hwnas.network.reading import STRICT, check_between
from hwnas.network.scale import MOST_FILTERS

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_MOST = {"filters": MOST_FILTERS, "kernel": MOST_KERNEL, "stride": MOST_KERNEL, "expanded": MOST_FILTERS}


class Convolve(Protocol):
    """Adds a convolution with BatchNorm, or a pooling, and an activation if one is given, with the chain's padding."""

    def __call__(
        self,
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
        """Return the value."""
        ...


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """1x1 to the expanded channels, depthwise, squeeze-and-excite, 1x1 to the filters (Sandler et al., 2018, 3.3).

    Without an expansion where `expanded` are the channels of its input. `filters` are the output's channels, `squeezed`
    those between the two convolutions of squeeze-and-excite: none with 0. `start` is the window of a depthwise
    convolution before the expansion; with it, and a `kernel` of 0 for none after, there are the other forms of
    MobileNetV4's universal inverted bottleneck (Qin et al., 2024, section 4): with both windows it is ExtraDW, with the
    start alone ConvNext-like, with neither a feed-forward network.
    """

    __pydantic_config__: ClassVar = STRICT
    FORM: ClassVar = "inverted"

    filters: int
    kernel: int
    stride: int
    expanded: int
    activation: Activation = "relu"
    squeezed: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        for name in ("filters", "stride", "expanded"):
            check_between(f"a block's {name}", getattr(self, name), 1, _MOST[name])
        for name in ("kernel", "start"):
            check_between(f"a block's {name}", getattr(self, name), 0, MOST_KERNEL)
        if self.stride > 1 and not self.kernel and not self.start:
            raise InputError(f"a block without a depthwise convolution must have stride 1; got {self.stride}")
        _check_squeezed(self.squeezed)
        check_named("a block's activation", self.activation, Activation)

    def __str__(self) -> str:
        start = [f"start {_window(self.start, 1 if self.kernel else self.stride)}"] if self.start else []
        middle = [_window(self.kernel, self.stride)] if self.kernel else []
        return " ".join([*start, *middle, f"e{self.expanded}", *_squeeze(self.squeezed), f"{self.filters}"])

    def walk(self, b: Builder, convolve: Convolve, value: int, place: Place) -> int:
        """Add the block's layers, and return its output."""
        branch = value
        if self.start:
            stride, channels = 1 if self.kernel else self.stride, b.shape(value)[0]
            branch = convolve(branch, channels, place.then("start"), kernel=self.start, stride=stride, groups=channels)
        if self.expanded != b.shape(branch)[0]:
            branch = convolve(branch, self.expanded, place.then("expand"), activation=self.activation)
        if self.kernel:
            branch = convolve(
                branch,
                self.expanded,
                place.then("depthwise"),
                kernel=self.kernel,
                stride=self.stride,
                groups=self.expanded,
                activation=self.activation,
            )
        return _projected(b, convolve, value, branch, self, place, "project")


@dataclass(frozen=True, slots=True)
class FusedInvertedResidual:
    """KxK to the expanded channels, squeeze-and-excite, 1x1 to the filters (EfficientNetV2, Tan and Le, 2021, 3.2)."""

    __pydantic_config__: ClassVar = STRICT
    FORM: ClassVar = "fused"

    filters: int
    kernel: int
    stride: int
    expanded: int
    activation: Activation = "relu"
    squeezed: int = 0
    form: Literal["fused"] = "fused"

    def __post_init__(self) -> None:
        _check(self, "filters", "kernel", "stride", "expanded")
        _check_squeezed(self.squeezed)

    def __str__(self) -> str:
        parts = ["fused", _window(self.kernel, self.stride), f"e{self.expanded}", *_squeeze(self.squeezed)]
        return " ".join([*parts, f"{self.filters}"])

    def walk(self, b: Builder, convolve: Convolve, value: int, place: Place) -> int:
        """Add the block's layers, and return its output."""
        branch = convolve(
            value,
            self.expanded,
            place.then("fused"),
            kernel=self.kernel,
            stride=self.stride,
            activation=self.activation,
        )
        return _projected(b, convolve, value, branch, self, place, "fused_project")


@dataclass(frozen=True, slots=True)
class BasicBlock:
    """Two KxK convolutions, and what goes by them: ResNet's (He et al., 2016, section 3.3).

    What goes by is the input, or a 1x1 convolution of it where the output has another shape (option B), or always with
    `projects` (option C); the activation comes after the sum.
    """

    __pydantic_config__: ClassVar = STRICT
    FORM: ClassVar = "basic"

    filters: int
    kernel: int
    stride: int
    activation: Activation = "relu"
    projects: bool = False
    form: Literal["basic"] = "basic"

    def __post_init__(self) -> None:
        _check(self, "filters", "kernel", "stride")

    def __str__(self) -> str:
        return f"basic {_window(self.kernel, self.stride)}{' projected' * self.projects} {self.filters}"

    def walk(self, b: Builder, convolve: Convolve, value: int, place: Place) -> int:
        """Add the block's layers, and return its output."""
        branch = convolve(
            value,
            self.filters,
            place.then("first"),
            kernel=self.kernel,
            stride=self.stride,
            activation=self.activation,
        )
        branch = convolve(branch, self.filters, place.then("second"), kernel=self.kernel)
        if self.projects or b.shape(value) != b.shape(branch):
            value = convolve(value, self.filters, place.then("shortcut"), stride=self.stride)
        return b.activation(b.add(branch, value, name=place), self.activation)


@dataclass(frozen=True, slots=True)
class Convolution:
    """One KxK convolution and its activation, with nothing added: VGG's and RepVGG's, or one half of MobileNetV1's.

    A depthwise one must have as many filters as it reads channels.
    """

    __pydantic_config__: ClassVar = STRICT
    FORM: ClassVar = "plain"

    filters: int
    kernel: int
    stride: int
    activation: Activation = "relu"
    depthwise: bool = False
    form: Literal["plain"] = "plain"

    def __post_init__(self) -> None:
        _check(self, "filters", "kernel", "stride")

    def __str__(self) -> str:
        return f"{'depthwise' if self.depthwise else 'plain'} {_window(self.kernel, self.stride)} {self.filters}"

    def walk(self, b: Builder, convolve: Convolve, value: int, place: Place) -> int:
        """Add the convolution, and return its output; raises InputError for other filters of a depthwise one."""
        channels = b.shape(value)[0]
        if self.depthwise:
            _check_kept(channels, self.filters, place, what="a depthwise convolution")
        return convolve(
            value,
            self.filters,
            place.then("plain_depthwise" if self.depthwise else "plain"),
            kernel=self.kernel,
            stride=self.stride,
            groups=channels if self.depthwise else 1,
            activation=self.activation,
        )


@dataclass(frozen=True, slots=True)
class ShuffleUnit:
    """ShuffleNetV2's unit (Ma et al., 2018, figure 3 (c), (d)): two halves of the filters, which are shuffled.

    One half is 1x1, depthwise, 1x1. The other is the first half of the input's channels, of which the branch reads the
    second half then; or where the output has another shape, or always with `projects`, depthwise and 1x1, both halves
    of all channels.
    """

    __pydantic_config__: ClassVar = STRICT
    FORM: ClassVar = "shuffle"

    filters: int
    kernel: int
    stride: int
    activation: Activation = "relu"
    projects: bool = False
    form: Literal["shuffle"] = "shuffle"

    def __post_init__(self) -> None:
        _check(self, "filters", "kernel", "stride")
        if self.filters % 2:
            raise InputError(f"a shuffle block's filters must be even, for two halves; got {self.filters}")

    def __str__(self) -> str:
        return f"shuffle {_window(self.kernel, self.stride)}{' projected' * self.projects} {self.filters}"

    def walk(self, b: Builder, convolve: Convolve, value: int, place: Place) -> int:
        """Add the block's layers, and return its output."""
        half = self.filters // 2
        if self.projects or self.stride > 1 or b.shape(value)[0] != self.filters:
            other = self._filtered(b, convolve, value, place.then("shortcut"))
        else:
            other = b.slice(value, 0, half, name=place.then("kept"))
            value = b.slice(value, half, half, name=place.then("passed"))
        branch = place.then("branch")
        value = convolve(value, half, branch.then("first"), activation=self.activation)
        value = self._filtered(b, convolve, value, branch)
        return b.shuffle(b.concat([other, value], name=place.then("concat")), 2, name=place.then("shuffle"))

    def _filtered(self, b: Builder, convolve: Convolve, value: int, place: Place) -> int:
        """Add the depthwise convolution and the 1x1 to half of the filters, and return their output."""
        channels, depthwise = b.shape(value)[0], place.then("depthwise")
        value = convolve(value, channels, depthwise, kernel=self.kernel, stride=self.stride, groups=channels)
        return convolve(value, self.filters // 2, place.then("last"), activation=self.activation)


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Max-pooling, as after a stem: it must have as many filters as it reads channels."""

    __pydantic_config__: ClassVar = STRICT
    FORM: ClassVar = "max_pool"

    filters: int
    kernel: int
    stride: int
    form: Literal["max_pool"] = "max_pool"

    def __post_init__(self) -> None:
        _check_numbers(self, "filters", "kernel", "stride")

    def __str__(self) -> str:
        return f"max_pool {_window(self.kernel, self.stride)}"

    def walk(self, b: Builder, convolve: Convolve, value: int, place: Place) -> int:
        """Add the pooling, and return its output; raises InputError for other filters than it reads."""
        _check_kept(b.shape(value)[0], self.filters, place, what="max-pooling")
        pool = place.then("pool")
        return convolve(value, self.filters, pool, kind="max_pool", kernel=self.kernel, stride=self.stride)


class _ByForm:
    """Tells pydantic, which is not imported before something is read, to choose a block's class by its `form`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        def form(value: Any) -> Any:
            return value.get("form", InvertedResidual.FORM) if isinstance(value, Mapping) else None

        return core_schema.tagged_union_schema(
            {kind.FORM: handler.generate_schema(kind) for kind in get_args(AnyBlock)},
            form,
            custom_error_type="block_form",
            custom_error_message=f"must be a table of fields, whose form is {', '.join(FORMS[1:])} or not given",
        )


AnyBlock = InvertedResidual | FusedInvertedResidual | BasicBlock | Convolution | ShuffleUnit | MaxPool
FORMS = tuple(kind.FORM for kind in get_args(AnyBlock))  # the first is not written down
BY_FORM = _ByForm()


class MixedResidual(NamedTuple):
    """All that one block may be, by name and each under an option, and the options under which there is none."""

    taken: tuple[tuple[str, AnyBlock, Option], ...]
    skipped: tuple[Option, ...] = ()


def block_to_json(block: AnyBlock) -> dict[str, Any]:
    """Return a block as JSON values; a start and a projection only where there are, as older records have none."""
    usual = (("start", 0), ("projects", False))
    return {name: value for name, value in asdict(block).items() if (name, value) not in usual}


def _projected(
    b: Builder,
    convolve: Convolve,
    value: int,
    branch: int,
    block: InvertedResidual | FusedInvertedResidual,
    place: Place,
    step: str,
) -> int:
    """Squeeze and excite what was expanded, project it, and add the block's input where it has that shape."""
    if block.squeezed:
        branch = _squeeze_and_excite(b, branch, block.squeezed, place.then("squeeze"))
    branch = convolve(branch, block.filters, place.then(step))
    return b.add(value, branch, name=place) if b.shape(value) == b.shape(branch) else branch


def _squeeze_and_excite(b: Builder, value: int, squeezed: int, place: Place) -> int:
    """Multiply each channel by a factor from the means of all (Hu et al., 2018; MobileNetV3, section 5.3)."""
    means = b.mean(value, name=place.then("mean"))
    reduced = b.relu(b.window("conv", means, name=place.then("reduce"), filters=squeezed, bias=True))
    factors = b.window("conv", reduced, name=place.then("restore"), filters=b.shape(value)[0], bias=True)
    return b.mul(value, b.activation(factors, "hard_sigmoid"), name=place)


def _check(
    block: InvertedResidual | FusedInvertedResidual | BasicBlock | Convolution | ShuffleUnit, *names: str
) -> None:
    _check_numbers(block, *names)
    check_named("a block's activation", block.activation, Activation)


def _check_numbers(block: AnyBlock, *names: str) -> None:
    for name in names:
        check_between(f"a block's {name}", getattr(block, name), 1, _MOST[name])


def _check_kept(channels: int, filters: int, place: Place, *, what: str) -> None:
    if channels != filters:
        raise InputError(f"{place}: {what} must have the {channels} filters that it reads; got {filters}")


def _check_squeezed(squeezed: int) -> None:
    if squeezed < 0:
        raise InputError(f"a block's squeezed must be 0, for none, or more; got {squeezed}")
    check_between("a block's squeezed", squeezed, 0, MOST_FILTERS)


def check_named(what: str, value: str, names: Any) -> None:
    """Raise InputError for a value that is none of a Literal's."""
    if value not in get_args(names):
        raise InputError(f"{what} must be one of {', '.join(get_args(names))}; got {short(value)}")


def _window(kernel: int, stride: int) -> str:
    return f"{kernel}x{kernel}{_stride(stride)}"


def _stride(stride: int) -> str:
    return f"/{stride}" if stride > 1 else ""


def _squeeze(squeezed: int) -> list[str]:
    return [f"se{squeezed}"] if squeezed else []
