"""The picture of a cell, or of a network's cells: where everything is, and the drawing.

Columns go by the longest path from the inputs; edges that pass a column have a lane there, so none crosses a box.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.path import Path as Curve

from hwnas.errors import InputError
from hwnas.network import ZERO, Block, Cell, Combination
from hwnas.pages.pictures import COLOURS, Box, draw_arrow, draw_box, draw_circle, draw_curve, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In inches.
_BOX_HEIGHT = 0.30
_BOX_GAP = 0.09
_PAD = 0.09  # of a block's panel
_PLUS = 0.09  # radius
_TO_PLUS = 0.2  # from a block's boxes to the rim of its plus
_LANE = 0.06
_GAP = 0.15  # between what is stacked in a column
_GUTTER = 0.55  # between columns
_MARGIN = 0.12
_TITLE = 0.34  # above a cell
_SWEEPS = 24
_MOST_BLOCKS = 24  # which takes a second; the time grows with their fourth power


def short_name(operation: str) -> str:
    """Return an operation's name as a picture has room for: `separable_5x5` is `sep 5×5`."""
    words = {"separable": "sep", "dilated": "dil", "single": "once", "bottleneck": "btl"}
    return " ".join(re.sub(r"^(\d+)x(\d+)$", r"\1×\2", words.get(part, part)) for part in operation.split("_"))


def family(operation: str) -> str:
    """Return the colour that an operation has in pictures: its family's."""
    for name in ("dilated", "separable", "conv", "pool"):
        if name in operation:
            return name
    return "identity"


class Edge(NamedTuple):
    """A connection, from left to right; one that is `faint` carries nothing but zeros."""

    x: float
    y: float
    to_x: float
    to_y: float
    arrow: bool
    faint: bool = False


class Join(NamedTuple):
    """The centre of a circle in which a block's two branches are added or concatenated."""

    x: float
    y: float
    combination: Combination


@dataclass(frozen=True, slots=True)
class CellLayout:
    """Where everything of a cell's picture is, in inches.

    `panels` are the blocks, `boxes` the inputs, operations and the output, `joins` where branches come together,
    `edges` the connections.
    """

    width: float
    height: float
    panels: tuple[Box, ...]
    boxes: tuple[Box, ...]
    joins: tuple[Join, ...]
    edges: tuple[Edge, ...]

    def moved(self, across: float, up: float) -> "CellLayout":
        """Return the picture elsewhere, its size as it was."""
        return replace(
            self,
            panels=tuple(panel.moved(across, up) for panel in self.panels),
            boxes=tuple(box.moved(across, up) for box in self.boxes),
            joins=tuple(join._replace(x=join.x + across, y=join.y + up) for join in self.joins),
            edges=tuple(
                edge._replace(x=edge.x + across, y=edge.y + up, to_x=edge.to_x + across, to_y=edge.to_y + up)
                for edge in self.edges
            ),
        )


@dataclass(eq=False)
class _Item:
    """What is stacked in a column: a state (an input, a block, the output), or the lane of a state that passes by."""

    state: int
    column: int
    height: float
    inputs: "list[tuple[_Item, str]]"  # what is read, and by which operation; from the top
    block: Block | None = None
    lane: bool = False
    y: float = 0.0  # of its middle

    def port_y(self, port: int) -> float:
        """Return where inputs[port] arrives."""
        step = 0.2 if self.state == _OUTPUT else _BOX_HEIGHT + _BOX_GAP
        return self.y + ((len(self.inputs) - 1) / 2 - port) * step


_OUTPUT = -1  # the state that stands for the cell's output
_Columns = list[list[_Item]]


def layout_cell(cell: Cell) -> CellLayout:
    """Return a picture's geometry: columns by the longest path from the inputs, few crossings, no overlaps.

    Raises InputError for a cell of more blocks than anybody would look at, or whose output is put together of more.
    """
    if (most := max(len(cell.blocks), len(cell.output_states))) > _MOST_BLOCKS:
        raise InputError(f"a picture shows a cell of up to {_MOST_BLOCKS} blocks; got {most}")
    columns = _columns(cell)
    _order(columns)
    _place(columns)
    return _geometry(columns)


def _columns(cell: Cell) -> _Columns:
    """Return the states by column; a state that is read further on has a lane in every column between."""
    reads = {state: _branches(cell, state) for state in (*range(2, len(cell.blocks) + 2), _OUTPUT)}
    sources = {state: [source for _, source in branches] for state, branches in reads.items()}
    column_of = {source: 0 for read in sources.values() for source in read if source < 2}
    for state, read in sources.items():  # blocks read earlier ones, the output comes last
        column_of[state] = 1 + max(column_of[source] for source in read)
    column_of[_OUTPUT] = 1 + max(at for state, at in column_of.items() if state != _OUTPUT)
    columns: _Columns = [[] for _ in range(column_of[_OUTPUT] + 1)]
    items: dict[tuple[int, int], _Item] = {}
    for state, at in sorted(column_of.items(), key=lambda pair: (pair[1], pair[0])):
        inputs = [(items[source, at - 1], operation) for operation, source in reads.get(state, ())]
        block = cell.blocks[state - 2] if state >= 2 else None
        columns[at].append(_Item(state, at, _height(state, len(inputs)), inputs, block))
        items[state, at] = columns[at][-1]
        last = max((column_of[reader] for reader in reads if state in sources[reader]), default=at)
        for between in range(at + 1, last):
            columns[between].append(_Item(state, between, _LANE, [(items[state, between - 1], "")], lane=True))
            items[state, between] = columns[between][-1]
    return columns


def _branches(cell: Cell, state: int) -> tuple[tuple[str, int], ...]:
    if state == _OUTPUT:
        return tuple(("", source) for source in cell.output_states)
    return cell.blocks[state - 2].left, cell.blocks[state - 2].right


def _height(state: int, ports: int) -> float:
    if state == _OUTPUT:
        return max(_BOX_HEIGHT, ports * 0.2 + 0.1)
    return 2 * (_BOX_HEIGHT + _PAD) + _BOX_GAP if state >= 2 else _BOX_HEIGHT


def _order(columns: _Columns) -> None:
    """Order each column so that few connections cross: barycentres to and fro, then exchanges of neighbours."""
    best, fewest = [list(column) for column in columns], _crossings(columns)
    for sweep in range(_SWEEPS):
        for near, column in pairwise(columns if sweep % 2 == 0 else columns[::-1]):
            _sort_by_neighbours(column, near)
        _exchange(columns)
        if (found := _crossings(columns)) < fewest:
            best, fewest = [list(column) for column in columns], found
    columns[:] = best


def _sort_by_neighbours(column: list[_Item], near: list[_Item]) -> None:
    rank = {item: at for at, item in enumerate(near)}
    links = [(item, source) for item in column for source, _ in item.inputs if source in rank]
    links += [(source, reader) for reader in near for source, _ in reader.inputs]
    centre = {item: _mean([rank[other] for one, other in links if one is item] or [0]) for item in column}
    column.sort(key=centre.__getitem__)


def _exchange(columns: _Columns) -> None:
    """Exchange neighbours in a column as long as that saves crossings."""
    fewest, before = _crossings(columns), -1
    while fewest != before:
        before = fewest
        for column in columns:
            for at in range(len(column) - 1):
                column[at : at + 2] = column[at + 1], column[at]
                found = _crossings(columns)
                if found >= fewest:
                    column[at : at + 2] = column[at + 1], column[at]
                fewest = min(found, fewest)


def _crossings(columns: _Columns) -> int:
    """Count the crossings; those of one item's inputs do not count, for their order is free."""
    total = 0
    for left, right in pairwise(columns):
        rank = {item: at for at, item in enumerate(left)}
        ends = [(rank[source], at) for at, item in enumerate(right) for source, _ in item.inputs]
        total += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(ends, 2))
    return total


def _place(columns: _Columns) -> None:
    """Give every item its height: near what it is linked to, and a gap below the one above it."""
    for sweep in range(_SWEEPS):
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            _stack(column, [_wanted(item, columns) for item in column])
        for item in chain.from_iterable(columns):
            item.inputs.sort(key=lambda read: -read[0].y)


def _wanted(item: _Item, columns: _Columns) -> float:
    """Return the mean height of what an item reads, and of where it is read."""
    linked = [source.y for source, _ in item.inputs]
    for reader in chain.from_iterable(columns):
        linked += [reader.port_y(port) for port, (source, _) in enumerate(reader.inputs) if source is item]
    return _mean(linked)


def _stack(column: list[_Item], wanted: Sequence[float]) -> None:
    """Set the heights nearest to those wanted, by least squares, that keep order and gaps (pool adjacent violators)."""
    offsets = [0.0]
    for above, below in pairwise(column):
        offsets.append(offsets[-1] - (above.height + below.height) / 2 - _GAP)
    pools: list[list[float]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        pools.append([want - offset])
        while len(pools) > 1 and _mean(pools[-2]) < _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    bases = [_mean(pool) for pool in pools for _ in pool]
    for item, base, offset in zip(column, bases, offsets, strict=True):
        item.y = base + offset


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _geometry(columns: _Columns) -> CellLayout:
    """Turn placed items into boxes and connections."""
    items = list(chain.from_iterable(columns))
    base = min(item.y - item.height / 2 for item in items) - _MARGIN
    for item in items:
        item.y -= base
    operation_width = 0.22 + 0.075 * max(len(short_name(operation)) for item in items for _, operation in item.inputs)
    block_width = operation_width + 2 * (_PAD + _PLUS) + _TO_PLUS
    widths = [0.62, *[block_width] * (len(columns) - 2), 0.72]
    starts = [_MARGIN + sum(widths[:at]) + at * _GUTTER for at in range(len(columns))]
    spans = [(start, start + width) for start, width in zip(starts, widths, strict=True)]
    drawing = _Drawing(spans, operation_width)
    for item in items:
        drawing.add(item)
    height = max(item.y + item.height / 2 for item in items) + _MARGIN
    return CellLayout(
        width=spans[-1][1] + _MARGIN,
        height=height,
        panels=tuple(drawing.panels),
        boxes=tuple(drawing.boxes),
        joins=tuple(drawing.joins),
        edges=tuple(drawing.edges),
    )


class _Drawing:
    """Collects the parts of a cell's picture; `spans` are the columns' left and right ends."""

    def __init__(self, spans: Sequence[tuple[float, float]], operation_width: float) -> None:
        self._spans, self._operation_width = spans, operation_width
        self.panels: list[Box] = []
        self.boxes: list[Box] = []
        self.joins: list[Join] = []
        self.edges: list[Edge] = []

    def add(self, item: _Item) -> None:
        """Add a state or a lane, and the connections to it."""
        left, right = self._spans[item.column]
        for port, (source, operation) in enumerate(item.inputs):
            arrives = left + (_PAD if item.block else 0.0)
            ends = (self._right_of(source), source.y, arrives, item.port_y(port))
            self.edges.append(Edge(*ends, not item.lane, operation == ZERO))
        if item.lane:
            self.edges.append(Edge(left, item.y, right, item.y, False))
        elif item.block:
            self._add_block(item, item.block)
        else:
            label = {0: "h[l-2]", 1: "h[l-1]"}.get(item.state, "concat" if len(item.inputs) > 1 else "output")
            self.boxes.append(Box(label, "state", left, item.y - item.height / 2, right - left, item.height))

    def _add_block(self, item: _Item, block: Block) -> None:
        left, right = self._spans[item.column]
        self.panels.append(Box(str(item.state - 1), "block", left, item.y - item.height / 2, right - left, item.height))
        join = Join(right - _PAD - _PLUS, item.y, block.combination)
        self.joins.append(join)
        for port, (_, operation) in enumerate(item.inputs):
            y, width, nothing = item.port_y(port), self._operation_width, operation == ZERO
            size = (left + _PAD, y - _BOX_HEIGHT / 2, width, _BOX_HEIGHT)
            colour = "state" if nothing else family(operation)
            self.boxes.append(Box(short_name(operation), colour, *size, nothing))
            self.edges.append(Edge(left + _PAD + width, y, join.x - _PLUS, item.y, False, nothing))

    def _right_of(self, source: _Item) -> float:
        return self._spans[source.column][1] - (_PAD if source.block else 0.0)


def cells_figure(cells: Mapping[str, Cell]) -> Figure:
    """Return the picture of a network's cells, one above the other, each under its title."""
    layouts = [layout_cell(cell) for cell in cells.values()]
    width, y = max(layout.width for layout in layouts), sum(layout.height + _TITLE for layout in layouts)
    style: dict[str, Any] = {"va": "center_baseline", "fontsize": 10, "color": COLOURS["ink"]}
    with page(width, y) as (figure, axes):
        for title, layout in zip(cells, layouts, strict=True):
            axes.text(_MARGIN, y - 0.6 * _TITLE, title, **style)
            y -= layout.height + _TITLE
            _draw_cell(axes, layout.moved(0, y))
    return figure


def _draw_cell(axes: "Axes", layout: CellLayout) -> None:
    for panel in layout.panels:
        draw_box(axes, panel, edge="grid", zorder=1)
        x, y = panel.x + panel.width - 0.06, panel.y + panel.height - 0.05
        axes.text(x, y, panel.label, ha="right", va="top", fontsize=7, color=COLOURS["muted"])
    for edge in layout.edges:
        draw_edge(axes, edge)
    for box in layout.boxes:
        draw_box(axes, box, edge="muted", zorder=3)
        x, y, ink = box.x + box.width / 2, box.y + box.height / 2, COLOURS["muted" if box.faint else "ink"]
        axes.text(x, y, box.label, ha="center", va="center_baseline", fontsize=8.5, color=ink, zorder=4)
    for join in layout.joins:
        _draw_join(axes, join)


def _draw_join(axes: "Axes", join: Join) -> None:
    """Draw a circle with a plus, or with two bars and the word where the branches are concatenated."""
    x, y, combination = join
    draw_circle(axes, x, y, radius=_PLUS, sign="plus" if combination == "add" else "bars")
    if combination == "concat":
        style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 7, "color": COLOURS["muted"]}
        axes.text(x + _PLUS + 0.04, y - _BOX_HEIGHT - _BOX_GAP / 2 - 0.04, "concat", **style)


def edge_curve(edge: Edge) -> Curve:
    """Return a connection as a curve that leaves and arrives horizontally."""
    middle = (edge.x + edge.to_x) / 2
    points = [(edge.x, edge.y), (middle, edge.y), (middle, edge.to_y), (edge.to_x, edge.to_y)]
    return Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * 3])


def draw_edge(axes: "Axes", edge: Edge) -> None:
    """Draw a connection, with its arrow."""
    draw_curve(axes, edge_curve(edge), dashed=edge.faint)
    if edge.arrow:
        draw_arrow(axes, edge.to_x, edge.to_y)
