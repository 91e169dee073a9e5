"""The one walk: from a network of cells to its graph of layers.

Conventions, with which the published parameters and Mult-Adds come out (PNAS, section 3; NASNet, section 3 and appendix
A; TensorFlow slim's implementation of both): every cell squeezes h[l-1] to F filters (ReLU, 1x1, BatchNorm), and h[l-2]
where its channels differ, by factorised reduction where its size differs; the first cell reads the stem twice, squeezed
as h[l-1] and as it is as h[l-2]; filters double at each stride-2 cell; the ImageNet stem is a stride-2 3x3 convolution
without padding and two stride-2 stem cells.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from hwnas import ops
from hwnas.cell import Branch, Cell
from hwnas.errors import InputError
from hwnas.graph import Builder, Graph


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a network is made of a cell.

    `cells` is N, the normal cells of each of three stages, `filters` is F, `resolution` the side of the input (pixels).
    The stem has stem_multiplier x F filters (cifar) or stem_multiplier x 32 (imagenet). With reductions "inline" the
    first cell of stages 2 and 3 has stride 2 (3N cells); with "extra" a reduction cell precedes them (3N + 2).
    """

    cells: int
    filters: int
    resolution: int
    classes: int
    input_channels: int = 3
    skeleton: Literal["cifar", "imagenet"] = "cifar"
    stem_multiplier: float | None = None
    reductions: Literal["inline", "extra"] | None = None
    skip_reduction_input: bool = False

    def __post_init__(self) -> None:
        for name in ("cells", "filters", "resolution", "classes", "input_channels"):
            if getattr(self, name) < 1:
                raise InputError(f"scale: {name} must be at least 1; got {getattr(self, name)}")
        if self.skeleton not in ("cifar", "imagenet"):
            raise InputError(f'scale: skeleton must be "cifar" or "imagenet"; got {self.skeleton!r}')

    def with_filters(self, filters: int) -> "Scale":
        """Return the same scale with other filters F."""
        return replace(self, filters=filters)

    def __str__(self) -> str:
        return f"N={self.cells} F={self.filters} {self.resolution}x{self.resolution}"


def ladder(
    cells: Sequence[int], filters: Sequence[int], *, resolution: int, classes: int, channels: int
) -> tuple[Scale, ...]:
    """Return the scales that a search chooses from: every N with every F, CIFAR's skeleton."""
    return tuple(Scale(n, f, resolution, classes, channels) for n in sorted(set(cells)) for f in sorted(set(filters)))


@dataclass(frozen=True, slots=True)
class Architecture:
    """A normal cell, a reduction cell (without one the normal cell with stride 2) and the scale."""

    normal: Cell
    scale: Scale
    reduction: Cell | None = None

    @property
    def graph(self) -> Graph:
        """The graph of layers."""
        return build_graph(self)

    def at(self, scale: Scale) -> "Architecture":
        """Return the same cells at another scale."""
        return replace(self, scale=scale)

    def to_json(self) -> dict[str, Any]:
        """Return the architecture as JSON values."""
        reduction = self.reduction.to_json() if self.reduction else None
        return {"scale": asdict(self.scale), "normal": self.normal.to_json(), "reduction": reduction}

    @classmethod
    def from_json(cls, value: Any) -> "Architecture":
        """Read what `to_json` wrote.

        Raises InputError for anything else.
        """
        try:
            scale = Scale(**value["scale"])
            reduction = value.get("reduction")
            return cls(Cell.from_json(value["normal"]), scale, Cell.from_json(reduction) if reduction else None)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"an architecture must have a scale and a normal cell; {error}") from None


@lru_cache(maxsize=256)
def build_graph(architecture: Architecture) -> Graph:
    """Walk the network from the image to the logits.

    Raises InputError where the image is too small for the strides.
    """
    return _Walk(architecture).run()


class _Walk:
    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.scale = scale = architecture.scale
        self.builder = Builder((scale.input_channels, scale.resolution, scale.resolution))

    def run(self) -> Graph:
        b, scale = self.builder, self.scale
        plan = self._plan()
        previous = current = self._stem()
        for index, (filters, stride, reads_reduction) in enumerate(plan):
            name = f"cell{index}"
            output = self._cell(name, (previous, current), filters, stride, (index + 1) / len(plan))
            if stride == 2 and scale.skip_reduction_input and not reads_reduction:
                current = output
            else:
                previous, current = current, output
        features = b.mean(b.relu(current), name="pool")
        return b.finish(b.linear(features, scale.classes, name="classifier"))

    def _stem(self) -> int:
        scale = self.scale
        if scale.skeleton == "cifar":
            filters = round((scale.stem_multiplier or 3) * scale.filters)
            return self.builder.window("conv", 0, name="stem", filters=filters, kernel=(3, 3), norm=True)
        filters = round((scale.stem_multiplier or 1) * 32)
        return self.builder.window(
            "conv", 0, name="stem", filters=filters, kernel=(3, 3), stride=(2, 2), norm=True, padding="valid"
        )

    def _plan(self) -> list[tuple[int, int, bool]]:
        """Return each cell's filters, its stride, and whether it is a stem cell."""
        scale = self.scale
        stem = [(max(1, scale.filters // 4), 2, True), (max(1, scale.filters // 2), 2, True)]
        cells = stem if scale.skeleton == "imagenet" else []
        extra = (scale.reductions or ("extra" if self.architecture.reduction else "inline")) == "extra"
        for stage in range(3):
            filters = scale.filters * 2**stage
            if stage and extra:
                cells.append((filters, 2, False))
            for position in range(scale.cells):
                inline = stage > 0 and position == 0 and not extra
                cells.append((filters, 2 if inline else 1, False))
        return cells

    def _cell(self, name: str, inputs: tuple[int, int], filters: int, stride: int, depth: float) -> int:
        cell = self.architecture.reduction if stride == 2 and self.architecture.reduction else self.architecture.normal
        read = {source for block in cell.blocks for _, source in (block.left, block.right)} | set(cell.output_states)
        states = list(inputs)
        if 1 in read:
            states[1] = self._squeeze(inputs[1], filters, f"{name}.prev")
        if 0 in read and inputs[0] != inputs[1]:  # the first cell reads the stem as it is
            states[0] = self._fit(inputs[0], inputs[1], filters, f"{name}.prev_prev")
        for index, block in enumerate(cell.blocks):
            left = self._branch(states, block.left, filters, stride, f"{name}.block{index + 1}.left", depth)
            right = self._branch(states, block.right, filters, stride, f"{name}.block{index + 1}.right", depth)
            states.append(self.builder.add(left, right, name=f"{name}.block{index + 1}"))
        outputs = [self._reduced(states[s], filters, stride, f"{name}.out{s}", s < 2) for s in cell.output_states]
        return self.builder.concat(outputs, name=name)

    def _reduced(self, value: int, filters: int, stride: int, name: str, is_input: bool) -> int:
        """Bring a cell's input that is also its output to the size of the blocks."""
        return self._factorised_reduction(value, filters, name) if is_input and stride == 2 else value

    def _squeeze(self, value: int, filters: int, name: str) -> int:
        return self.builder.window("conv", self.builder.relu(value), name=name, filters=filters, norm=True)

    def _fit(self, value: int, reference: int, filters: int, name: str) -> int:
        """Bring h[l-2] to the size of h[l-1] and to F filters."""
        shape, target = self.builder.shape(value), self.builder.shape(reference)
        if shape[1:] != target[1:]:
            return self._factorised_reduction(value, filters, name)
        return value if shape[0] == filters else self._squeeze(value, filters, name)

    def _factorised_reduction(self, value: int, filters: int, name: str) -> int:
        b = self.builder
        positive = b.relu(value)
        shifted = b.shift(positive, name=f"{name}.shift")
        first = b.window("conv", positive, name=f"{name}.path1", filters=filters // 2, stride=(2, 2), norm=True)
        second = b.window(
            "conv", shifted, name=f"{name}.path2", filters=filters - filters // 2, stride=(2, 2), norm=True
        )
        return b.concat([first, second], name=name)

    def _branch(self, states: list[int], branch: Branch, filters: int, stride: int, name: str, depth: float) -> int:
        operation, source = branch
        value = states[source]
        stride = stride if source < 2 else 1
        if operation == ops.IDENTITY:
            if stride == 1 and self.builder.shape(value)[0] == filters:
                return value
            value = self.builder.relu(value)
            value = self.builder.window("conv", value, name=name, filters=filters, stride=(stride, stride), norm=True)
        else:
            for index, step in enumerate(ops.steps(operation)):
                value = self._step(step, value, filters, stride, f"{name}.{index}")
            if self.builder.shape(value)[0] != filters:  # a pooling of the raw stem
                value = self.builder.window("conv", value, name=f"{name}.fit", filters=filters, norm=True)
        self.builder.drop_path(value, depth)
        return value

    def _step(self, step: ops.Step, value: int, filters: int, stride: int, name: str) -> int:
        if step.kind == "relu":
            return self.builder.relu(value)
        down, across = (stride if strided else 1 for strided in step.strided)
        if step.kind in ("max_pool", "avg_pool"):
            return self.builder.window(step.kind, value, name=name, kernel=step.kernel, stride=(down, across))
        depthwise = step.kind == "depthwise"
        channels = self.builder.shape(value)[0]
        return self.builder.window(
            "conv",
            value,
            name=name,
            filters=channels if depthwise else max(1, filters // step.squeeze),
            kernel=step.kernel,
            stride=(down, across),
            dilation=step.dilation,
            groups=channels if depthwise else 1,
            norm=step.norm,
        )
