"""The picture of a cell: where everything is, and the drawing.

Columns go by the longest path from the inputs; edges that pass a column have a lane there, so none crosses a box.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise
from typing import TYPE_CHECKING, Any

import matplotlib
import networkx as nx
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

from hwnas.cell import Cell
from hwnas.pictures import COLOURS, STYLE

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
_SWEEPS = 24


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


Edge = tuple[float, float, float, float, bool]  # from x, y to x, y, and whether it ends in an arrow


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a cell's picture: its lower left corner and its size in inches, and a colour of the palette."""

    label: str
    colour: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class CellLayout:
    """Where everything of a cell's picture is, in inches.

    `panels` are the blocks, `boxes` the inputs, operations and the output, `pluses` the centres of the additions,
    `edges` the connections, from left to right.
    """

    width: float
    height: float
    panels: tuple[Box, ...]
    boxes: tuple[Box, ...]
    pluses: tuple[tuple[float, float], ...]
    edges: tuple[Edge, ...]


@dataclass(eq=False)
class _Item:
    """What is stacked in a column: a state (an input, a block, the output), or the lane of a state that passes by."""

    state: int
    column: int
    height: float
    inputs: "list[tuple[_Item, str]]"  # what is read, and by which operation; from the top
    lane: bool = False
    y: float = 0.0  # of its middle

    def port_y(self, port: int) -> float:
        """Return where inputs[port] arrives."""
        step = 0.2 if self.state == _OUTPUT else _BOX_HEIGHT + _BOX_GAP
        return self.y + ((len(self.inputs) - 1) / 2 - port) * step


_OUTPUT = -1  # the state that stands for the cell's output
_Columns = list[list[_Item]]


def layout_cell(cell: Cell) -> CellLayout:
    """Return a picture's geometry: columns by the longest path from the inputs, few crossings, no overlaps."""
    columns = _columns(cell)
    _order(columns)
    _place(columns)
    return _geometry(columns)


def _columns(cell: Cell) -> _Columns:
    """Return the states by column; a state that is read further on has a lane in every column between."""
    reads = {state: _branches(cell, state) for state in (*range(2, len(cell.blocks) + 2), _OUTPUT)}
    graph: nx.DiGraph[int] = nx.DiGraph((source, state) for state in reads for _, source in reads[state])
    column_of = {state: at for at, states in enumerate(nx.topological_generations(graph)) for state in states}
    column_of[_OUTPUT] = 1 + max(at for state, at in column_of.items() if state != _OUTPUT)
    columns: _Columns = [[] for _ in range(column_of[_OUTPUT] + 1)]
    items: dict[tuple[int, int], _Item] = {}
    for state, at in sorted(column_of.items(), key=lambda pair: (pair[1], pair[0])):
        inputs = [(items[source, at - 1], operation) for operation, source in reads.get(state, ())]
        columns[at].append(_Item(state, at, _height(state, len(inputs)), inputs))
        items[state, at] = columns[at][-1]
        for between in range(at + 1, max((column_of[reader] for reader in graph.successors(state)), default=at)):
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
        pluses=tuple(drawing.pluses),
        edges=tuple(drawing.edges),
    )


class _Drawing:
    """Collects the parts of a cell's picture; `spans` are the columns' left and right ends."""

    def __init__(self, spans: Sequence[tuple[float, float]], operation_width: float) -> None:
        self._spans, self._operation_width = spans, operation_width
        self.panels: list[Box] = []
        self.boxes: list[Box] = []
        self.pluses: list[tuple[float, float]] = []
        self.edges: list[Edge] = []

    def add(self, item: _Item) -> None:
        """Add a state or a lane, and the connections to it."""
        left, right = self._spans[item.column]
        for port, (source, _) in enumerate(item.inputs):
            arrives = left + (_PAD if _is_block(item) else 0.0)
            self.edges.append((self._right_of(source), source.y, arrives, item.port_y(port), not item.lane))
        if item.lane:
            self.edges.append((left, item.y, right, item.y, False))
        elif _is_block(item):
            self._add_block(item)
        else:
            label = {0: "h[l-2]", 1: "h[l-1]"}.get(item.state, "concat" if len(item.inputs) > 1 else "output")
            self.boxes.append(Box(label, "state", left, item.y - item.height / 2, right - left, item.height))

    def _add_block(self, item: _Item) -> None:
        left, right = self._spans[item.column]
        self.panels.append(Box(str(item.state - 1), "block", left, item.y - item.height / 2, right - left, item.height))
        plus = right - _PAD - _PLUS
        self.pluses.append((plus, item.y))
        for port, (_, operation) in enumerate(item.inputs):
            y, width = item.port_y(port), self._operation_width
            self.boxes.append(
                Box(short_name(operation), family(operation), left + _PAD, y - _BOX_HEIGHT / 2, width, _BOX_HEIGHT)
            )
            self.edges.append((left + _PAD + width, y, plus - _PLUS, item.y, False))

    def _right_of(self, source: _Item) -> float:
        return self._spans[source.column][1] - (_PAD if _is_block(source) else 0.0)


def _is_block(item: _Item) -> bool:
    return item.state >= 2 and not item.lane


def cell_figure(cell: Cell) -> Figure:
    """Return the picture of a cell: its inputs at the left, its output at the right."""
    layout = layout_cell(cell)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(layout.width, layout.height))
        figure.patch.set_alpha(0)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, layout.width), ylim=(0, layout.height))
        axes.axis("off")
        for panel in layout.panels:
            _draw_box(axes, panel, edge="grid", zorder=1)
            x, y = panel.x + panel.width - 0.06, panel.y + panel.height - 0.05
            axes.text(x, y, panel.label, ha="right", va="top", fontsize=7, color=COLOURS["muted"])
        for edge in layout.edges:
            _draw_edge(axes, edge)
        for box in layout.boxes:
            _draw_box(axes, box, edge="muted", zorder=3)
            x, y, ink = box.x + box.width / 2, box.y + box.height / 2, COLOURS["ink"]
            axes.text(x, y, box.label, ha="center", va="center_baseline", fontsize=8.5, color=ink, zorder=4)
        for x, y in layout.pluses:
            _draw_plus(axes, x, y)
    return figure


def _draw_box(axes: "Axes", box: Box, *, edge: str, zorder: int) -> None:
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.06", "linewidth": 0.8, "zorder": zorder}
    colours: dict[str, Any] = {"facecolor": COLOURS[box.colour], "edgecolor": COLOURS[edge]}
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, **colours, **style))


def _draw_plus(axes: "Axes", x: float, y: float) -> None:
    ink, arm = COLOURS["ink"], 0.5 * _PLUS
    axes.add_patch(Circle((x, y), _PLUS, facecolor=COLOURS["paper"], edgecolor=ink, linewidth=0.9, zorder=3))
    axes.plot([x - arm, x + arm], [y, y], color=ink, linewidth=1, zorder=4)
    axes.plot([x, x], [y - arm, y + arm], color=ink, linewidth=1, zorder=4)


def edge_curve(edge: Edge) -> Curve:
    """Return a connection as a curve that leaves and arrives horizontally."""
    x, y, to_x, to_y, _ = edge
    middle = (x + to_x) / 2
    return Curve([(x, y), (middle, y), (middle, to_y), (to_x, to_y)], [Curve.MOVETO, *[Curve.CURVE4] * 3])


def _draw_edge(axes: "Axes", edge: Edge) -> None:
    _, _, x, y, arrow = edge
    colour = COLOURS["muted"]
    line = PathPatch(edge_curve(edge), facecolor="none", edgecolor=colour, linewidth=0.9, zorder=2)
    line.set_snap(False)
    axes.add_patch(line)
    if arrow:
        head = [(x, y), (x - 0.07, y + 0.035), (x - 0.07, y - 0.035)]
        axes.add_patch(Polygon(head, facecolor=colour, edgecolor="none", zorder=2))
