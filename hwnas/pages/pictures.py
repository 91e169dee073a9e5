"""Pictures of a run: its front, what its winners came to, predictions against measurements; what all share, SVG, PNG.

No figure is registered with pyplot. Colours come from one palette; inline SVG refers to them by CSS variables, so that
a page can change them for the dark.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO, StringIO
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hwnas.pages.contest import ContestRow
    from hwnas.pages.winners import Outcome
    from hwnas.runs import Candidate

PALETTE = {  # name: in the light, in the dark; the light ones differ from each other, for `svg` finds them by value
    "paper": ("#ffffff", "#14171b"),
    "ink": ("#1b1f24", "#e6e8eb"),
    "muted": ("#5b6570", "#a3adb8"),
    "grid": ("#dfe3e8", "#333a42"),
    "point": ("#8793a0", "#8b97a4"),
    "front": ("#0b62b8", "#6db3ff"),
    "winner": ("#c2410c", "#ff9a5c"),
    "cap": ("#b3261e", "#ff8a80"),
    "block": ("#f3f5f7", "#1e2329"),
    "separable": ("#cfe3fb", "#21456d"),
    "conv": ("#d3efd8", "#20502e"),
    "pool": ("#fde3c3", "#614217"),
    "dilated": ("#e6d9f7", "#4a3573"),
    "identity": ("#e4e7eb", "#3a424b"),
    "state": ("#fefefe", "#15181c"),
    "series3": ("#1a7f37", "#5fd080"),
    "series4": ("#7b3fc4", "#c79bff"),
    "series5": ("#8a6d00", "#e3c34a"),
}
SERIES = ("front", "winner", "series3", "series4", "series5")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hwnas",
    "text.parse_math": False,
    "font.size": 9.0,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
}

COLOURS = {name: light for name, (light, _) in PALETTE.items()}


def png(figure: Figure, *, dpi: int = 200) -> bytes:
    """Return a figure as PNG."""
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="png", dpi=dpi, facecolor=COLOURS["paper"], metadata={"Software": None})
    return content.getvalue()


def svg(figure: Figure) -> str:
    """Return a figure as an SVG file, the same for the same figure."""
    content = StringIO()
    with matplotlib.rc_context(STYLE):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(content, metadata=nothing)  # `savefig` would draw it twice
    return content.getvalue()


def inline_svg(figure: Figure, *, prefix: str, title: str) -> str:
    """Return a figure as an `<svg>` for an HTML page; `title` is read out in its place.

    Ids begin with `prefix`, colours are CSS variables, and --natural is the width in CSS pixels.
    """
    text = svg(figure)
    text = text[text.index("<svg") :].rstrip()
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", text)
    text = text.replace('<style type="text/css">*{', f'<style type="text/css">.{prefix} *{{')
    for name, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{name})")
    width, height = figure.get_size_inches() * 96
    head = f'<svg class="{prefix}" role="img" aria-label="{escape(title)}" style="--natural: {width:.0f}px" '
    size = f'width="{width:.0f}" height="{height:.0f}"'
    return head + re.sub(r'width="[^"]*pt" height="[^"]*pt"|height="[^"]*pt" width="[^"]*pt"', size, text[5:], count=1)


def css_variables(*, dark: bool) -> str:
    """Return the palette as CSS declarations."""
    return " ".join(f"--{name}: {colours[dark]};" for name, colours in PALETTE.items())


@contextmanager
def page(width: float, height: float) -> "Iterator[tuple[Figure, Axes]]":
    """Give an empty figure of so many inches, and axes all over it that are in inches too, to draw on in our style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.patch.set_alpha(0)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        yield figure, axes


@dataclass(frozen=True, slots=True)
class Box:
    """A box of a picture: its lower left corner and its size in inches, and a colour of the palette."""

    label: str
    colour: str
    x: float
    y: float
    width: float
    height: float
    faint: bool = False

    def moved(self, across: float, up: float) -> "Box":
        """Return the box elsewhere."""
        return replace(self, x=self.x + across, y=self.y + up)


def draw_box(axes: "Axes", box: Box, *, edge: str, zorder: int) -> None:
    """Draw a box, without its label; `edge` is a colour of the palette."""
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.06", "linewidth": 0.8, "zorder": zorder}
    colours: dict[str, Any] = {"facecolor": COLOURS[box.colour], "edgecolor": COLOURS[edge]}
    dashes = "--" if box.faint else "-"
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, linestyle=dashes, **colours, **style))


def draw_circle(axes: "Axes", x: float, y: float, *, radius: float, sign: Literal["plus", "bars"]) -> None:
    """Draw a circle around a plus or two upright bars."""
    ink, arm, apart = COLOURS["ink"], 0.5 * radius, 0.3 * radius
    strokes = [((x, y - arm), (x, y + arm)), ((x - arm, y), (x + arm, y))]
    if sign == "bars":
        strokes = [((side, y - arm), (side, y + arm)) for side in (x - apart, x + apart)]
    axes.add_patch(Circle((x, y), radius, facecolor=COLOURS["paper"], edgecolor=ink, linewidth=0.9, zorder=3))
    for start, end in strokes:
        axes.plot(*zip(start, end, strict=True), color=ink, linewidth=1, zorder=4)


def draw_curve(axes: "Axes", curve: Curve, *, colour: str = "muted", dashed: bool = False) -> None:
    """Draw a line under the boxes."""
    style: dict[str, Any] = {"linewidth": 0.9, "zorder": 2, "linestyle": (0, (2.5, 2)) if dashed else "-"}
    line = PathPatch(curve, facecolor="none", edgecolor=COLOURS[colour], **style)
    line.set_snap(False)
    axes.add_patch(line)


def draw_arrow(axes: "Axes", x: float, y: float, *, colour: str = "muted", down: bool = False) -> None:
    """Draw the head of an arrow whose tip is at a point, to the right or down."""
    head = [(x, y), (x - 0.07, y + 0.035), (x - 0.07, y - 0.035)]
    if down:
        head = [(x, y), (x - 0.035, y + 0.07), (x + 0.035, y + 0.07)]
    axes.add_patch(Polygon(head, facecolor=COLOURS[colour], edgecolor="none", zorder=2))


def front_figure(
    candidates: "Sequence[Candidate]",
    front: "Sequence[Candidate]",
    *,
    winners: Collection[int],
    cap_ms: float,
    accuracy_of: str,
) -> Figure:
    """Return trained candidates by latency and proxy accuracy, their front, the winners (by trial) and the cap.

    `accuracy_of` says what the accuracies are of, as in "short training".
    """
    chosen = [candidate for candidate in candidates if candidate.trial in winners]
    with matplotlib.rc_context(STYLE):
        figure, axes = plot(f"latency, {_how_known(candidates)} (ms)", f"accuracy of the proxy ({accuracy_of}, %)")
        x, y = zip(*map(_point, front), strict=True)
        axes.step(x, y, where="post", color=COLOURS["front"], linewidth=1.2, zorder=3)
        whole = [c for c in candidates if c.stopped_after is None]
        stopped = [_point(c) for c in candidates if c.stopped_after is not None]
        _scatter(axes, stopped, "point", "stopped early, extrapolated", filled=False, marker="x")
        for measured, note in ((True, ""), (False, ", predicted")):
            others = [_point(c) for c in whole if c.measured == measured and c not in front]
            _scatter(axes, others, "point", f"trained candidate{note}", filled=measured)
            best = [_point(c) for c in front if c.measured == measured]
            _scatter(axes, best, "front", f"Pareto front{note}", filled=measured)
        _scatter(axes, [_point(c) for c in chosen], "winner", "winner", marker="*")
        label = f"cap, {cap_ms:g} ms"
        axes.axvline(cap_ms, color=COLOURS["cap"], linestyle="--", linewidth=1.2, label=label, gid="cap")
        axes.set_xlim(0, 1.06 * max(cap_ms, *(c.latency_ms for c in candidates)))
        _name_winners(axes, chosen)
        legend(axes, columns=4 if all(c.measured for c in candidates) and not stopped else 3)
    return figure


def _point(candidate: "Candidate") -> tuple[float, float]:
    return candidate.latency_ms, 100 * candidate.accuracy


def _how_known(candidates: "Sequence[Candidate]") -> str:
    return " or ".join(sorted({candidate.how for candidate in candidates}))


def _scatter(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    colour: str,
    label: str,
    *,
    filled: bool = True,
    marker: str = "o",
) -> None:
    """Draw points that stand out from each other; hollow ones are predictions. Without a point there is no label."""
    rim, inside = ("paper", colour) if filled else (colour, "paper")
    size, width = (13 if marker == "*" else 5.5), (0.6 if filled else 1.2)
    style: dict[str, Any] = {"marker": marker, "markersize": size, "markeredgewidth": width, "linestyle": "none"}
    if points:
        x, y = zip(*points, strict=True)
        colours: dict[str, Any] = {"markerfacecolor": COLOURS[inside], "markeredgecolor": COLOURS[rim]}
        axes.plot(x, y, label=label, zorder=4, **colours, **style)


def _name_winners(axes: "Axes", winners: "Sequence[Candidate]") -> None:
    """Write each winner's trial above and left of it, where no candidate is; below and right where there is no room."""
    width, height = (high - low for low, high in (axes.get_xlim(), axes.get_ylim()))
    named: list[tuple[float, float]] = []
    for winner in sorted(winners, key=lambda one: one.latency_ms):
        x, y = _point(winner)
        taken = any(abs(x - a) < 0.16 * width and abs(y - b) < 0.06 * height for a, b in named)
        below = taken or x - axes.get_xlim()[0] < 0.12 * width
        named.append((x, y))
        place: dict[str, Any] = {"xytext": (7, -5), "ha": "left", "va": "top"}
        if not below:
            place = {"xytext": (-7, 4), "ha": "right", "va": "bottom"}
        style: dict[str, Any] = {"color": COLOURS["winner"], "fontsize": 8.5, "zorder": 5}
        axes.annotate(f"trial {winner.trial}", (x, y), textcoords="offset points", **place, **style)


def tested_figure(tested: Sequence[tuple[str, float, float, bool]], *, cap_ms: float, how: str) -> Figure:
    """Return networks (name, milliseconds, share of the test set, whether it is a winner) and the cap.

    `how` says where the milliseconds come from.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = plot(f"latency of the exported file, {how} (ms)", "accuracy, test set (%)")
        ours, others = ("winner", "winner, long training", "*"), ("front", "published network, given weights", "D")
        for own, (colour, label, marker) in ((True, ours), (False, others)):
            points = [(ms, 100 * share) for _, ms, share, is_own in tested if is_own == own]
            _scatter(axes, points, colour, label, marker=marker)
        label = f"cap, {cap_ms:g} ms"
        axes.axvline(cap_ms, color=COLOURS["cap"], linestyle="--", linewidth=1.2, label=label)
        highest = 1.06 * max(cap_ms, *(ms for _, ms, _, _ in tested))
        axes.set_xlim(0, highest)
        for name, ms, share, is_own in tested:
            style: dict[str, Any] = {"color": COLOURS["winner" if is_own else "front"], "fontsize": 8.5, "zorder": 5}
            style |= {"xytext": (-8, -3), "ha": "right"} if ms > highest / 2 else {"xytext": (8, -3)}
            axes.annotate(name, (ms, 100 * share), textcoords="offset points", **style)
        legend(axes, columns=3)
    return figure


def contest_figure(contestants: "Sequence[ContestRow]", *, cap_ms: float) -> Figure:
    """Return the test accuracies, with their intervals, of networks under a cap over their latencies."""
    with matplotlib.rc_context(STYLE):
        figure, axes = plot("latency, measured (ms)", "accuracy, test set (%)")
        looks = (("hand-made", "point", "o"), ("search", "winner", "*"))
        for kind, colour, marker in looks:
            points = [contestant for contestant in contestants if contestant.kind == kind]
            _scatter(axes, [(point.ms, 100 * point.accuracy) for point in points], colour, kind, marker=marker)
            for point in points:
                if point.interval is not None:
                    middle, half = 100 * point.accuracy, 100 * point.interval
                    axes.errorbar(point.ms, middle, yerr=half, color=COLOURS[colour], capsize=3, linewidth=1, zorder=2)
        for contestant in contestants:
            place = (contestant.ms, 100 * contestant.accuracy)
            style: dict[str, Any] = {"fontsize": 7.5, "xytext": (-6, -2), "ha": "right", "color": COLOURS["ink"]}
            axes.annotate(contestant.network, place, textcoords="offset points", **style)
        axes.axvline(cap_ms, color=COLOURS["cap"], linestyle="--", linewidth=1.2, label=f"cap, {cap_ms:g} ms")
        legend(axes, columns=3)
    return figure


def outcome_figure(outcomes: "Sequence[Outcome]", *, accuracy_of: str) -> Figure:
    """Return an arrow for each winner, from its accuracy in the search to the one after long training.

    The latter has its interval, where that is known; `accuracy_of` says what the former is of.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = plot("accuracy (%)", "", size=(5.8, 1.2 + 0.32 * len(outcomes)))
        for row, outcome in enumerate(outcomes):
            arrow: dict[str, Any] = {"arrowstyle": "-|>", "color": COLOURS["muted"], "shrinkA": 4, "shrinkB": 4}
            axes.annotate("", (100 * outcome.test, row), (100 * outcome.search, row), arrowprops=arrow, zorder=3)
        seen = [(100 * outcome.search, float(row)) for row, outcome in enumerate(outcomes)]
        tested = [(100 * outcome.test, float(row)) for row, outcome in enumerate(outcomes)]
        _scatter(axes, seen, "point", f"search ({accuracy_of})", filled=False)
        _scatter(axes, tested, "winner", "long training, test set")
        _intervals(axes, outcomes)
        axes.set_yticks(range(len(outcomes)), [f"trial {outcome.trial}" for outcome in outcomes])
        axes.set_ylim(len(outcomes) - 0.5, -0.5)
        axes.margins(x=0.06)
        legend(axes, columns=3)
    return figure


def _intervals(axes: "Axes", outcomes: "Sequence[Outcome]") -> None:
    """Draw the intervals that are known, each with its ends."""
    known = [(row, *outcome.interval) for row, outcome in enumerate(outcomes) if outcome.interval]
    style: dict[str, Any] = {"color": COLOURS["winner"], "linewidth": 1.2, "marker": "|", "markersize": 9, "zorder": 5}
    for at, (row, low, high) in enumerate(known):
        axes.plot([100 * low, 100 * high], [row, row], label="" if at else "95 % interval", **style)


def agreement_figure(
    inside: Sequence[tuple[float, float]], over: Sequence[tuple[float, float]], *, how: str = "measured"
) -> Figure:
    """Return measured over predicted milliseconds: pairs (predicted, measured) of networks inside and over the caps.

    `how` says where the measured ones come from.
    """
    highest = 1.08 * max(chain.from_iterable((*inside, *over)))
    line = [0.0, highest]
    with matplotlib.rc_context(STYLE):
        figure, axes = plot("predicted latency (ms)", f"latency, {how} (ms)", size=(4.4, 4.5))
        low, high = ([share * x for x in line] for share in (0.9, 1.1))
        axes.fill_between(line, low, high, color=COLOURS["grid"], linewidth=0, zorder=1, label="within 10 %")
        axes.plot(line, line, color=COLOURS["muted"], linewidth=1, zorder=2, label="equal")
        _scatter(axes, inside, "front", "inside the caps")
        _scatter(axes, over, "cap", "over a cap", marker="X")
        axes.set(xlim=(0, highest), ylim=(0, highest), aspect="equal")
        legend(axes, columns=2)
    return figure


def plot(x_label: str, y_label: str, *, size: tuple[float, float] = (5.8, 3.9)) -> "tuple[Figure, Axes]":
    """Return an empty figure of so many inches, and its axes with a grid; to be called in our style."""
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.grid(color=COLOURS["grid"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    axes.tick_params(color=COLOURS["muted"], labelcolor=COLOURS["muted"], labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLOURS["muted"])
    axes.set_xlabel(x_label, color=COLOURS["ink"])
    axes.set_ylabel(y_label, color=COLOURS["ink"])
    return figure, axes


def legend(axes: "Axes", *, columns: int) -> None:
    """Put the legend above the axes, where nothing is drawn."""
    style: dict[str, Any] = {"fontsize": 8.5, "columnspacing": 1.2, "handletextpad": 0.4, "frameon": False}
    above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    if axes.get_legend_handles_labels()[0]:
        axes.legend(ncols=columns, labelcolor=COLOURS["ink"], **above, **style)
