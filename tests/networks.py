"""Random networks of PNAS cells for the tests, and modules whose BatchNorms are worth folding."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hwnas.network.architecture import Architecture
from hwnas.network.cell import Block, Branch, Cell
from hwnas.network.graph import Builder, Graph, Padding, Window
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.spaces import enas_macro, pnas, random_parameters
from hwnas.support import plugins
from hwnas.testing import images as images
from hwnas.testing import network as network
from hwnas.testing import relative_error as relative_error
from hwnas.testing import torch_output as torch_output

OPERATIONS = (
    "identity",
    "separable_3x3",
    "separable_5x5",
    "separable_7x7",
    "conv_1x7_7x1",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dilated_3x3",
)
OWN_SPACES = [name for name in plugins.names("spaces") if name != "auto"]  # whose networks are those of others
TOLERANCE = 1e-5  # largest error of a file, relative to the largest output


def repeatable(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def random_cells(count: int, *, seed: int) -> list[Cell]:
    return [pnas.cells(pnas.code(parameters))[0] for parameters in random_parameters(pnas, count, seed=seed)]


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Draw 1 to 5 blocks, wired anyhow, at a small scale: even and odd sizes and filters, both skeletons."""

    def branch(states: int) -> Branch:
        return draw(st.sampled_from(OPERATIONS)), draw(st.integers(0, states - 1))

    def cell() -> Cell:
        blocks = draw(st.integers(1, 5))
        concat = draw(st.sampled_from(["all", "loose"]))
        return Cell(tuple(Block(branch(index + 2), branch(index + 2)) for index in range(blocks)), concat)

    return CellNetwork(cell(), draw(scales(skeletons=True)), cell() if draw(st.booleans()) else None)


@st.composite
def chosen_networks(draw: st.DrawFn, space: str | None = None) -> Architecture:
    """Draw a network of a space, or of any: whatever Optuna can choose, at a small scale."""
    plugin = plugins.load("spaces", space or draw(st.sampled_from(plugins.names("spaces"))))
    parameters = {name: draw(st.sampled_from(d.choices)) for name, d in plugin.distributions().items()}
    return plugin.architecture(parameters, draw(scales(skeletons=plugin is not enas_macro)))


@st.composite
def scales(draw: st.DrawFn, *, skeletons: bool) -> Scale:
    skeleton = draw(st.sampled_from(["cifar", "cifar", "imagenet"] if skeletons else ["cifar"]))
    return Scale(
        cells=draw(st.integers(1, 2)),
        filters=draw(st.integers(1, 12)),
        resolution=draw(st.integers(8, 33) if skeleton == "cifar" else st.sampled_from([64, 65])),
        classes=draw(st.integers(2, 10)),
        input_channels=draw(st.sampled_from([1, 3])),
        skeleton=skeleton,
    )


KERNELS = [(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1)]
STRIDES = [(1, 1), (1, 1), (2, 2), (1, 2), (2, 1)]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw 1 to 6 operations, wired anyhow: every kind, stride and padding, small sizes and channel counts."""
    b = Builder((draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(st.integers(1, 12))))
    values = [0]
    for index in range(draw(st.integers(1, 6))):
        value = draw(st.sampled_from(values))
        operation = draw(st.sampled_from(_OPERATIONS))
        values.append(operation(draw, b, value, values, f"layer{index}"))
    output = values[-1]
    if draw(st.booleans()):
        output = b.linear(b.mean(output, name="mean"), draw(st.integers(1, 7)), name="classifier")
    return b.finish(output if output else b.activation(0, "relu"))


def _window(draw: st.DrawFn, b: Builder, value: int, name: str, kind: Window, **fields: Any) -> int:
    _, height, width = b.shape(value)
    kernels = KERNELS if kind == "conv" else [kernel for kernel in KERNELS if kernel != (2, 2)]  # torch's pools are odd
    kernel, stride = draw(st.sampled_from(kernels)), draw(st.sampled_from(STRIDES))
    dilation = fields.pop("dilation", 1)
    paddings: list[Padding] = ["same"]
    if all(size > (along - 1) * dilation for size, along in zip((height, width), kernel, strict=True)):
        paddings += ["valid"] if kind == "avg_pool" else ["valid", "symmetric"]  # no average of TFLite's is symmetric
    padding = draw(st.sampled_from(paddings))
    return b.window(kind, value, name=name, kernel=kernel, stride=stride, padding=padding, dilation=dilation, **fields)


def _conv(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    after = draw(st.sampled_from([{"norm": True}, {"bias": True}, {}]))
    filters, dilation = draw(st.sampled_from([*range(1, 10), 24, 40])), draw(st.sampled_from([1, 1, 2]))
    return _window(draw, b, value, name, "conv", filters=filters, dilation=dilation, **after)


def _depthwise(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    channels = b.shape(value)[0]
    fields = {"dilation": draw(st.sampled_from([1, 1, 2])), "norm": draw(st.booleans())}
    return _window(draw, b, value, name, "conv", groups=channels, filters=channels * draw(st.integers(1, 2)), **fields)


def _pool(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    return _window(draw, b, value, name, draw(st.sampled_from(["max_pool", "avg_pool"])))


def _activation(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    return b.activation(value, draw(st.sampled_from(["relu", "relu6", "hard_swish", "hard_sigmoid"])))


def _squeeze_excite(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    narrow = b.window("conv", b.mean(value, name=f"{name}.mean"), name=f"{name}.squeeze", filters=3, bias=True)
    factors = b.window("conv", b.relu(narrow), name=f"{name}.excite", filters=b.shape(value)[0], bias=True)
    return b.mul(value, b.activation(factors, "hard_sigmoid"), name=name)


def _add(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    alike = [other for other in values if b.shape(other) == b.shape(value)]
    return b.add(value, draw(st.sampled_from(alike)), name=name)


def _concat(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    shape = b.shape(value)
    alike = [other for other in values if b.shape(other)[1:] == shape[1:]]
    if draw(st.booleans()):
        alike.append(b.zero((draw(st.integers(1, 3)), *shape[1:]), name=f"{name}.zero"))
    return b.concat([value, *draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2))], name=name)


def _slice(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    start = draw(st.integers(0, b.shape(value)[0] - 1))
    return b.slice(value, start, draw(st.integers(1, b.shape(value)[0] - start)), name=name)


def _shuffle(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    channels = b.shape(value)[0]
    groups = draw(st.sampled_from([groups for groups in range(1, channels + 1) if channels % groups == 0]))
    return b.shuffle(value, groups, name=name)


def _shift(draw: st.DrawFn, b: Builder, value: int, values: list[int], name: str) -> int:
    return b.shift(value, name=name)


_OPERATIONS = (_conv, _conv, _depthwise, _pool, _activation, _squeeze_excite, _add, _concat, _slice, _shuffle, _shift)
