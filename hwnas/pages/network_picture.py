"""The picture of a network of any kind: its cells, its chain of blocks, or its layers and skip connections.

Chains and macro networks are laid out here, in inches, and drawn in the style of the cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from math import log2
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.path import Path as Curve

from hwnas.errors import InputError
from hwnas.network import AnyBlock, CellNetwork, Chain, FusedInvertedResidual, InvertedResidual, MacroNetwork
from hwnas.pages.cell_picture import cells_figure, family, short_name
from hwnas.pages.pictures import COLOURS, Box, draw_arrow, draw_box, draw_circle, draw_curve, page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwnas.network import Architecture, Cell, Shape

# In inches.
_MARGIN = 0.14
_LINE = 0.15  # of text
_LETTER = 0.053  # of small text, at the most in the mean
_GAP = 0.32  # between the boxes of a row
_BLOCK = 0.78  # a block's width
_SIDE = 0.95  # what stands left of a row
_LOW, _DOUBLED = 0.40, 0.11  # a block's height at the least resolution, and what it is higher at twice that
_BETWEEN = 0.40  # rows
_RISE = 0.09  # over a block whose input is added
_PLUS = 0.055  # radius
_TO_PLUS = 0.13  # from a block to the plus's centre
_BEFORE = 0.11  # a block, where the way round it begins
_CORNER = 0.06  # radius
_LAYER = 0.66  # a macro layer's width and height
_STEP = 0.20  # between macro layers, and twice that between stages
_PAD = 0.10  # of a stage's panel
_ARC, _ARC_STEP = 0.16, 0.12  # height of a skip connection, and for each layer that it passes
_MOST_BLOCKS = 8  # in a row
_KERNELS = {3: "separable", 5: "conv", 7: "dilated"}  # colours

_Point = tuple[float, float]


class Text(NamedTuple):
    """A line of text beside the boxes: where its left end and its middle are."""

    text: str
    x: float
    y: float
    colour: str = "muted"
    size: float = 7.5


class Line(NamedTuple):
    """A connection of straight pieces with round corners."""

    points: tuple[_Point, ...]
    arrow: bool = False  # to the right


class Arc(NamedTuple):
    """A connection over boxes: it leaves upwards at x, and arrives at to_x from above, both at the same y."""

    x: float
    to_x: float
    y: float
    height: float


@dataclass
class NetworkLayout:
    """Where everything of a network's picture is, in inches.

    `panels` are the stages behind the boxes, `pluses` the centres of additions.
    """

    width: float = 0.0
    height: float = 0.0
    panels: list[Box] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    arcs: list[Arc] = field(default_factory=list)
    pluses: list[_Point] = field(default_factory=list)

    def explain(self, lines: Sequence[str]) -> None:
        """Write what the signs mean at the bottom, and make the picture wide enough for it."""
        for number, text in enumerate(reversed(lines)):
            self.texts.append(Text(text, _MARGIN, _MARGIN + (number + 0.5) * _LINE))
            self.width = max(self.width, 2 * _MARGIN + _LETTER * len(text))


def network_figure(architecture: "Architecture") -> "Figure":
    """Return the picture of a network; raises InputError for a kind that has none."""
    if isinstance(architecture, CellNetwork):
        return cells_figure(_titled(architecture))
    if isinstance(architecture, Chain):
        return _figure(layout_chain(architecture))
    if isinstance(architecture, MacroNetwork):
        return _figure(layout_macro(architecture))
    raise InputError(
        f"hwnas draws networks of cells, chains and macro networks; got a {type(architecture).__name__}. "
        "Leave --picture out, or add its picture to hwnas/network_picture.py"
    )


def _titled(network: CellNetwork) -> "dict[str, Cell]":
    if network.reduction in (None, network.normal):
        return {"normal and reduction cell": network.normal}
    return {f"{role} cell": cell for role, cell in network.cells.items()}


class _Part(NamedTuple):
    """A box of a chain's picture; `added` says whether its input is added to its output."""

    label: str
    colour: str
    size: int  # of its output, in pixels
    filters: int
    added: bool = False


def layout_chain(chain: Chain) -> NetworkLayout:
    """Return a chain's geometry: a row of boxes for each stage, higher where the resolution is."""
    signs = [
        "In a block: kernel and stride of its window; e: the channels between by those of the block's input;",
        "SE: squeeze-and-excite; +: the block's input is added. All blocks of a row have the same output.",
    ]
    rows = _rows(chain)
    heights = [_LOW + _DOUBLED * log2(row[0].size / rows[-1][0].size) for row in rows]
    layout = NetworkLayout(
        height=2 * _MARGIN + sum(heights) + (len(rows) - 1) * _BETWEEN + _RISE + _LINE * (len(signs) + 1)
    )
    layout.explain(signs)
    y = layout.height - _MARGIN - _RISE
    leaves: _Point | None = None
    for row, height in zip(rows, heights, strict=True):
        arrives = (_MARGIN + _SIDE, y - height / 2)
        if leaves:
            layout.lines.append(_turn(leaves, arrives, y + _BETWEEN - 0.11))
        leaves = _add_row(layout, row, arrives, height)
        y -= height + _BETWEEN
    return layout


def _rows(chain: Chain) -> list[list[_Part]]:
    """Return the blocks by their output's shape, stem and head with them, not too many in a row."""
    shapes = {layer.name: layer.shape for layer in chain.graph.layers}
    ends = {
        layer.name.partition(".")[0]: layer.shape for layer in chain.graph.layers
    }  # of each block, the last layer's
    stem = _Part(f"stem\n3×3{_stride(chain.stem_stride)}", "state", shapes["stem"][1], chain.stem)
    parts = [stem]
    for index, block in enumerate(chain.blocks):
        parts.append(_part(block, parts[-1].filters, ends[f"block{index}"], f"block{index}" in shapes))
    size = parts[-1].size
    rows = [list(members) for _, members in groupby(parts, key=lambda part: (part.size, part.filters))]
    rows = [row[at : at + _MOST_BLOCKS] for row in rows for at in range(0, len(row), _MOST_BLOCKS)]
    labels = [*["head\n1×1"] * bool(chain.head), "average", *[f"hidden\n{chain.hidden}"] * bool(chain.hidden)]
    filters = chain.head or parts[-1].filters
    return [*rows, [_Part(label, "state", size, filters) for label in (*labels, f"classes\n{chain.classes}")]]


def _part(block: AnyBlock, channels: int, shape: "Shape", added: bool) -> _Part:
    kernel = block.kernel
    if isinstance(block, InvertedResidual):
        kernel = max(block.kernel, block.start)
        windows = "+".join(f"{side}×{side}" for side in (block.start, block.kernel) if side) or "1×1"
        label = f"{windows}{_stride(block.stride)}\n{_expansion(block, channels)}"
    elif isinstance(block, FusedInvertedResidual):
        label = f"fused {kernel}×{kernel}{_stride(block.stride)}\n{_expansion(block, channels)}"
    else:
        form = "depthwise" if getattr(block, "depthwise", False) else block.form.replace("_", " ")
        label = f"{form}\n{kernel}×{kernel}{_stride(block.stride)}"
    return _Part(label, _KERNELS.get(kernel, "identity"), shape[1], block.filters, added)


def _expansion(block: InvertedResidual | FusedInvertedResidual, channels: int) -> str:
    return f"e{block.expanded / channels:.2g}{' SE' * bool(block.squeezed)}"


def _stride(stride: int) -> str:
    return f" /{stride}" if stride > 1 else ""


def _add_row(layout: NetworkLayout, row: list[_Part], start: _Point, height: float) -> _Point:
    """Add a row of boxes whose first one's left side has its middle at `start`; return where the next row goes on."""
    x, y = start
    first = row[0]
    layout.texts.append(Text(f"{first.size}×{first.size}", _MARGIN, y + _LINE / 2, "ink", 8.5))
    layout.texts.append(Text(f"{first.filters} filters", _MARGIN, y - _LINE / 2))
    leaves = start
    for number, part in enumerate(row):
        if number:
            layout.lines.append(Line((leaves, (x, y)), arrow=True))
        layout.boxes.append(Box(part.label, part.colour, x, y - height / 2, _BLOCK, height))
        leaves = (x + _BLOCK, y)
        if part.added:
            leaves = _add_shortcut(layout, x, y, height)
        x += _BLOCK + _GAP
    layout.width = max(layout.width, leaves[0] + _GAP + _MARGIN)
    return leaves


def _add_shortcut(layout: NetworkLayout, x: float, y: float, height: float) -> _Point:
    """Add the way round a box and the plus behind it; return where the plus ends."""
    before, plus, top = x - _BEFORE, x + _BLOCK + _TO_PLUS, y + height / 2 + _RISE
    layout.lines.append(Line(((before, y), (before, top), (plus, top), (plus, y + _PLUS))))
    layout.lines.append(Line(((x + _BLOCK, y), (plus - _PLUS, y))))
    layout.pluses.append((plus, y))
    return plus + _PLUS, y


def _turn(leaves: _Point, arrives: _Point, between: float) -> Line:
    """Return the way from the end of a row to the next one, at the height `between`."""
    (x, y), (to_x, to_y) = leaves, arrives
    right, left = x + 0.1, to_x - 0.17
    return Line(((x, y), (right, y), (right, between), (left, between), (left, to_y), (to_x, to_y)), arrow=True)


def layout_macro(network: MacroNetwork) -> NetworkLayout:
    """Return a macro network's geometry: stem and layers in a row, the skip connections above them."""
    signs = [
        "An arc joins an earlier output to a layer's own. Between stages all outputs are halved (factorised reduction)."
    ]
    longest = max((number + 1 - skip for number, layer in enumerate(network.layers) for skip in layer.skips), default=0)
    bottom = _MARGIN + len(signs) * _LINE + 0.08 + 2 * _LINE + _PAD
    layout = NetworkLayout(height=bottom + _LAYER + _PAD + (_ARC + longest * _ARC_STEP) + _MARGIN)
    layout.explain(signs)
    _add_layers(layout, network, bottom)
    _add_arcs(layout, network)
    return layout


def _add_layers(layout: NetworkLayout, network: MacroNetwork, bottom: float) -> None:
    """Add the boxes, stem and classifier among them, and the stages' panels."""
    stage = len(network.layers) // 3
    operations = [layer.operation for layer in network.layers]
    labels = ["stem\n3×3", *(short_name(operation).replace(" ", "\n") for operation in operations)]
    labels.append(f"classes\n{network.scale.classes}")
    colours = ["state", *map(family, operations), "state"]
    starts = {stage + 1, 2 * stage + 1, 3 * stage + 1}  # a gap before them
    x = _MARGIN + _PAD
    for position, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        x += _STEP * (position in starts)
        layout.boxes.append(Box(label, colour, x, bottom, _LAYER, _LAYER))
        x += _LAYER + _STEP
    y = bottom + _LAYER / 2
    for one, other in pairwise(layout.boxes):
        layout.lines.append(Line(((one.x + _LAYER, y), (other.x, y)), arrow=True))
    shapes = {layer.name: layer.shape for layer in network.graph.layers}
    for number in range(3):
        first, last = layout.boxes[number * stage + (number > 0)], layout.boxes[(number + 1) * stage]
        _add_stage(layout, first, last, shapes[f"layer{number * stage}.squeeze"])
    layout.width = max(layout.width, x - _STEP + _MARGIN)


def _add_stage(layout: NetworkLayout, first: Box, last: Box, shape: "Shape") -> None:
    """Add the panel of a stage, and under it what the outputs of its layers are like."""
    x, y = first.x - _PAD, first.y - _PAD
    layout.panels.append(Box("", "block", x, y, last.x + _LAYER + _PAD - x, _LAYER + 2 * _PAD))
    layout.texts.append(Text(f"{shape[1]}×{shape[2]}", x, y - 0.5 * _LINE, "ink"))
    layout.texts.append(Text(f"{shape[0]} filters", x, y - 1.5 * _LINE))


def _add_arcs(layout: NetworkLayout, network: MacroNetwork) -> None:
    """Add the skip connections; they leave a box at its right and arrive at its left, so that few cross there."""
    pairs = [(skip, number + 1) for number, layer in enumerate(network.layers) for skip in layer.skips]
    for source, target in pairs:
        leaving = sorted((to for start, to in pairs if start == source), reverse=True)
        arriving = sorted((start for start, to in pairs if to == target), reverse=True)
        one, other = layout.boxes[source], layout.boxes[target]
        x = one.x + _LAYER / 2 + _port(leaving.index(target), len(leaving))
        to_x = other.x + _port(arriving.index(source), len(arriving))
        layout.arcs.append(Arc(x, to_x, one.y + _LAYER, _ARC + (target - source) * _ARC_STEP))


def _port(number: int, ports: int) -> float:
    """Return where one of several connections meets half a layer's upper side."""
    return (number + 1) * _LAYER / 2 / (ports + 1)


def _figure(layout: NetworkLayout) -> "Figure":
    with page(layout.width, layout.height) as (figure, axes):
        for panel in layout.panels:
            draw_box(axes, panel, edge="grid", zorder=1)
        for box in layout.boxes:
            draw_box(axes, box, edge="muted", zorder=3)
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "linespacing": 1.25, "zorder": 4}
            axes.text(box.x + box.width / 2, box.y + box.height / 2, box.label, color=COLOURS["ink"], **style)
        for text in layout.texts:
            place: dict[str, Any] = {"va": "center_baseline", "fontsize": text.size}
            axes.text(text.x, text.y, text.text, color=COLOURS[text.colour], **place)
        for line in layout.lines:
            draw_curve(axes, _rounded(line.points))
            if line.arrow:
                draw_arrow(axes, *line.points[-1])
        for arc in layout.arcs:
            draw_curve(axes, arc_curve(arc))
            draw_arrow(axes, arc.to_x, arc.y, down=True)
        for x, y in layout.pluses:
            draw_circle(axes, x, y, radius=_PLUS, sign="plus")
    return figure


def arc_curve(arc: Arc) -> Curve:
    """Return an arc as a curve that leaves and arrives vertically."""
    above = arc.y + arc.height / 0.75
    points = [(arc.x, arc.y), (arc.x, above), (arc.to_x, above), (arc.to_x, arc.y)]
    return Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * 3])


def _rounded(points: Sequence[_Point]) -> Curve:
    """Return a line along points, its corners rounded."""
    vertices, codes = [points[0]], [Curve.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(corner, before), corner, _towards(corner, after)]
        codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    return Curve([*vertices, points[-1]], [*codes, Curve.LINETO])


def _towards(start: _Point, end: _Point) -> _Point:
    """Return the point where a corner at `start` begins, on the way to `end`."""
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])
    share = min(_CORNER / length, 0.5) if length else 0.0
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
