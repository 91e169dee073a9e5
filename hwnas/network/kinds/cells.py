"""Networks of cells (NASNet, PNAS, AmoebaNet, ENAS, DARTS): the walk from two cells and a scale to the graph.

Conventions, with which the published parameters and Mult-Adds come out (PNAS, section 3; NASNet, section 3 and appendix
A; TensorFlow slim's implementation of both): every cell squeezes h[l-1] to F filters (ReLU, 1x1, BatchNorm), and h[l-2]
where its channels differ, by factorised reduction where its size differs; the first cell reads the stem twice, squeezed
as h[l-1] and as it is as h[l-2]; filters double at each stride-2 cell; the ImageNet stem is a stride-2 3x3 convolution
without padding and two stride-2 stem cells. A branch that reads another number of channels than F gives F: convolutions
do, pooling is followed by 1x1 and BatchNorm.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, assert_never

from hwnas.network import ops
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Block, Branch, Cell, CellRecord, MixedBlock
from hwnas.network.graph import Apart, Builder, Graph, Option, Place, Step
from hwnas.network.reading import STRICT, read_as
from hwnas.network.scale import Scale, Skeleton


@dataclass(frozen=True, slots=True)
class CellNetwork(Architecture):
    """A normal cell, a reduction cell (without one the normal cell with stride 2) and the scale."""

    normal: Cell
    scale: Scale
    reduction: Cell | None = None

    @property
    def size(self) -> str:
        """N, F and the resolution."""
        return str(self.scale)

    @property
    def choice(self) -> str:
        """The cells, in words."""
        return f"{self.normal} | reduction: {self.reduction}" if self.reduction else str(self.normal)

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cells by their role; a reduction cell where it is another."""
        return {"normal": self.normal} | ({"reduction": self.reduction} if self.reduction else {})

    def walk(self) -> Graph:
        """Walk the network from the image to the logits.

        Raises InputError where the image is too small for the strides.
        """
        return _Walk(self.scale, self.normal, self.reduction).run()

    def at(self, scale: Scale) -> "CellNetwork":
        """Return the same cells at another scale."""
        return replace(self, scale=scale)

    def to_json(self) -> dict[str, Any]:
        """Return the architecture as JSON values."""
        reduction = self.reduction.to_json() if self.reduction else None
        return {"scale": asdict(self.scale), "normal": self.normal.to_json(), "reduction": reduction}


def read(value: Mapping[str, Any]) -> CellNetwork:
    """Read what `to_json` wrote.

    Raises InputError for anything else.
    """
    record = read_as(_Record, value, rule="an architecture must have a scale and a normal cell")
    return CellNetwork(record.normal.cell, record.scale, record.reduction.cell if record.reduction else None)


@dataclass(frozen=True, slots=True)
class _Record:
    """A network of cells as it is written down."""

    __pydantic_config__: ClassVar = STRICT

    scale: Scale
    normal: CellRecord
    reduction: CellRecord | None = None


def mixed_cells(scale: Scale, normal: Sequence[MixedBlock], reduction: Sequence[MixedBlock] | None = None) -> Graph:
    """Return the graph of all networks of cells at a scale in one, mixed by options; the output are all blocks.

    With one option for certain it computes what that network does, with the same weights. But for one thing: h[l-2] is
    squeezed, which a cell leaves out where all blocks together have as many channels as F (of one block, or two before
    a reduction).
    """
    return _Walk(scale, normal, reduction).run()


class _Walk:
    def __init__(
        self, scale: Scale, normal: Cell | Sequence[MixedBlock], reduction: Cell | Sequence[MixedBlock] | None
    ) -> None:
        self.scale, self.normal, self.reduction = scale, normal, reduction
        self.builder = Builder((scale.input_channels, scale.resolution, scale.resolution))

    def run(self) -> Graph:
        b, scale = self.builder, self.scale
        plan = self._plan()
        previous = current = self._stem()
        auxiliary = None
        for index, (filters, stride, reads_reduction, origin) in enumerate(plan):
            place = Place(f"cell{index}", *origin)
            if stride == 2 and not reads_reduction:
                auxiliary = current  # in the end the last output before the last reduction (NASNet, appendix A.7)
            output = self._cell(place, (previous, current), filters, stride, (index + 1) / len(plan))
            if stride == 2 and scale.skip_reduction_input and not reads_reduction:
                current = output
            else:
                previous, current = current, output
        features = b.mean(b.relu(current), name="pool")
        return b.finish(b.linear(features, scale.classes, name=Place("classifier")), auxiliary=auxiliary)

    def _stem(self) -> int:
        scale = self.scale
        window = partial(self.builder.window, "conv", 0, name=Place("stem"), kernel=(3, 3), norm=True)
        match scale.skeleton:
            case "cifar":
                return window(filters=round((scale.stem_multiplier or 3) * scale.filters))
            case "imagenet":
                filters = round((scale.stem_multiplier or 1) * 32)
                return window(filters=filters, stride=(2, 2), padding="valid")
            case _:
                assert_never(scale.skeleton)

    def _plan(self) -> "list[_Planned]":
        """Return each cell's filters, its stride, whether it is a stem cell, and its origin."""
        scale = self.scale
        stem = [_Planned(max(1, scale.filters // share), 2, True, ("stem", share)) for share in (4, 2)]
        stems: dict[Skeleton, list[_Planned]] = {"cifar": [], "imagenet": stem}
        cells = stems[scale.skeleton]
        reductions = scale.reductions or ("extra" if self.reduction else "inline")
        extra = {"inline": False, "extra": True}[reductions]
        for stage in range(3):
            filters = scale.filters * 2**stage
            if stage and extra:
                cells.append(_Planned(filters, 2, False, ("reduction", stage)))
            for position in range(scale.cells):
                inline = stage > 0 and position == 0 and not extra
                cells.append(_Planned(filters, 2 if inline else 1, False, ("cell", stage, position)))
        return cells

    def _cell(self, place: Place, inputs: tuple[int, int], filters: int, stride: int, depth: float) -> int:
        cell = self.reduction if stride == 2 and self.reduction else self.normal
        blocks, output_states, is_sorted = _parts(cell)
        read = {source for block in blocks for _, source in _branches(block)} | set(output_states)
        states = list(inputs)
        if 1 in read:
            states[1] = self._squeeze(inputs[1], filters, place.then("prev"))
        if 0 in read and inputs[0] != inputs[1]:  # the first cell reads the stem as it is
            states[0] = self._fit(inputs[0], inputs[1], filters, place.then("prev_prev"))
        for index, block in enumerate(blocks):
            states.append(self._block(states, block, filters, stride, place.then(Apart(f"block{index + 1}")), depth))
        outputs = [(s, self._reduced(states[s], filters, stride, place.then(f"out{s}"), s < 2)) for s in output_states]
        if is_sorted:  # no order was asked for: fewer operators differ
            outputs.sort(key=lambda output: self.builder.shape(output[1])[0])
        slots, values = zip(*outputs, strict=True)
        return self.builder.concat(values, name=place, slots=slots)

    def _block(
        self, states: list[int], block: Block | MixedBlock, filters: int, stride: int, place: Place, depth: float
    ) -> int:
        if isinstance(block, MixedBlock):
            return self._mixed(states, block, filters, stride, place, depth)
        left = self._branch(states, block.left, filters, stride, _of_branch(place, "left", block.left), depth)
        right = self._branch(states, block.right, filters, stride, _of_branch(place, "right", block.right), depth)
        match block.combination:
            case "add":
                return self.builder.add(left, right, name=place)
            case "concat":
                return self.builder.concat([left, right], name=place, slots=("left", "right"))
            case _:
                assert_never(block.combination)

    def _mixed(
        self, states: list[int], block: MixedBlock, filters: int, stride: int, place: Place, depth: float
    ) -> int:
        """Mix all that the branches may be, with the weights of either side."""
        taken: list[tuple[int, Option]] = []
        for branch, options in block.taken.items():
            operation, source = branch
            if operation != ops.ZERO:
                at = _of_branch(place, f"{operation}{source}", branch)
                value = self._branch(states, branch, filters, stride, at, depth)
                taken += [(value, option) for option in options]
        return self.builder.mix(taken, self.builder.shape(taken[0][0]), name=place)

    def _reduced(self, value: int, filters: int, stride: int, place: Place, is_input: bool) -> int:
        """Bring a cell's input that is also its output to the size of the blocks."""
        return factorised_reduction(self.builder, value, filters, place) if is_input and stride == 2 else value

    def _squeeze(self, value: int, filters: int, place: Place) -> int:
        return self.builder.window("conv", self.builder.relu(value), name=place, filters=filters, norm=True)

    def _fit(self, value: int, reference: int, filters: int, place: Place) -> int:
        """Bring h[l-2] to the size of h[l-1] and to F filters."""
        shape, target = self.builder.shape(value), self.builder.shape(reference)
        if shape[1:] != target[1:]:
            return factorised_reduction(self.builder, value, filters, place)
        return value if shape[0] == filters else self._squeeze(value, filters, place)

    def _branch(self, states: list[int], branch: Branch, filters: int, stride: int, place: Place, depth: float) -> int:
        operation, source = branch
        value = states[source]
        stride = stride if source < 2 else 1
        if operation == ops.ZERO:
            height, width = (-(-size // stride) for size in self.builder.shape(value)[1:])
            return self.builder.zero((filters, height, width), name=place)
        if operation == ops.IDENTITY:
            if stride == 1 and self.builder.shape(value)[0] == filters:
                return value
            value = self.builder.relu(value)
            value = self.builder.window("conv", value, name=place, filters=filters, stride=(stride, stride), norm=True)
        else:
            value = run_steps(self.builder, value, operation, filters=filters, stride=stride, place=place)
            if self.builder.shape(value)[0] != filters:  # a pooling of the raw stem
                value = self.builder.window("conv", value, name=place.then("fit"), filters=filters, norm=True)
        self.builder.drop_path(value, depth)
        return value


def _parts(cell: Cell | Sequence[MixedBlock]) -> tuple[Sequence[Block | MixedBlock], Sequence[int], bool]:
    """Return a cell's blocks, the states that are its output, and whether their order is free."""
    if isinstance(cell, Cell):
        return cell.blocks, cell.output_states, isinstance(cell.concat, str)
    return cell, range(2, len(cell) + 2), True


def _branches(block: Block | MixedBlock) -> Collection[Branch]:
    return tuple(block.taken) if isinstance(block, MixedBlock) else (block.left, block.right)


def _of_branch(place: Place, side: str, branch: Branch) -> Place:
    """Return the place of a branch: what it does to h[l-2], h[l-1] or any block, it does with the same weights."""
    operation, source = branch
    return place.then(Apart(side)).doing(operation, min(source, 2))


class _Planned(NamedTuple):
    """A cell of the network."""

    filters: int
    stride: int
    reads_reduction: bool
    origin: tuple[Step, ...]


def factorised_reduction(builder: Builder, value: int, filters: int, place: Place, *, relu: bool = True) -> int:
    """Halve the size: two 1x1 convolutions of stride 2, one a row and a column further (NASNet, appendix A.4)."""
    b = builder
    first = b.relu(value) if relu else value
    second = b.shift(first, name=place.then("shift"))
    halves = (("path1", first, filters // 2), ("path2", second, filters - filters // 2))
    paths = [
        b.window("conv", source, name=place.then(path), filters=share, stride=(2, 2), norm=True)
        for path, source, share in halves
        if share
    ]
    return b.concat(paths, name=place)


def run_steps(builder: Builder, value: int, operation: str, *, filters: int, stride: int, place: Place) -> int:
    """Add the layers of an operation other than `identity` and `zero`; return its output."""
    for index, step in enumerate(ops.steps(operation)):
        value = _step(builder, step, value, filters, stride, place.then(index))
    return value


def _step(builder: Builder, step: ops.Step, value: int, filters: int, stride: int, place: Place) -> int:
    down, across = (stride if strided else 1 for strided in step.strided)
    window = partial(builder.window, name=place, kernel=step.kernel, stride=(down, across))
    channels = builder.shape(value)[0]
    match step.kind:
        case "relu":
            return builder.relu(value)
        case "max_pool" | "avg_pool":
            return window(step.kind, value)
        case "conv":
            wide = max(1, filters // step.squeeze)
            return window("conv", value, filters=wide, dilation=step.dilation, norm=step.norm)
        case "depthwise":
            return window("conv", value, filters=channels, groups=channels, dilation=step.dilation, norm=step.norm)
        case _:
            assert_never(step.kind)
