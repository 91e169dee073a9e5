"""Pictures of bars, of answers and of curves: where time goes, what mattered, what is confused, what came over time."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hwnas.pages.pictures import COLOURS, SERIES, STYLE, legend, plot

if TYPE_CHECKING:
    from hwnas.runs import WinnerScores

_MOST_BARS = 12  # the others are one
_LONGEST_NAME = 18  # of a class, in characters
_DARKEST = 0.5  # share of a colour, on which ink can be read in the light and in the dark


def bars_figure(bars: Sequence[tuple[str, float]], *, x_label: str, unit: str = "") -> Figure:
    """Return bars (name, value) with their shares, the largest above; the smallest are one.

    With a `unit` the values are written, too.
    """
    bars = sorted(bars, key=lambda bar: -bar[1])
    total = sum(value for _, value in bars) or 1.0
    most = _MOST_BARS if len(bars) > _MOST_BARS + 1 else len(bars)
    rows = [(name, value, "front") for name, value in bars[:most]]
    if rest := bars[most:]:
        rows.append((f"{len(rest)} others", sum(value for _, value in rest), "point"))
    with matplotlib.rc_context(STYLE):
        figure, axes = plot(x_label, "", size=(5.8, 0.7 + 0.25 * len(rows)))
        names, values, colours = zip(*rows, strict=True)
        ink = COLOURS["ink"]
        axes.barh(range(len(rows)), values, color=[COLOURS[colour] for colour in colours], height=0.7, zorder=3)
        axes.set_yticks(range(len(rows)), names, color=ink)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set(xlim=(0, 1.25 * (max(values) or 1.0)), ylim=(len(rows) - 0.5, -0.5))
        style: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8.5}
        for row, value in enumerate(values):
            share = f"{100 * value / total:.0f} %"
            text = f"{value:.3f} {unit}, {share}" if unit else share
            axes.annotate(text, (value, row), color=ink, **style)
    return figure


def confusion_figure(scores: "WinnerScores") -> Figure:
    """Return how many test images of each class, a row, are said to be of which, a column; the right ones in blue."""
    count, totals = len(scores.classes), [score.images for score in scores.by_class]
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in scores.classes]
    side = 0.7 + 0.42 * count
    with matplotlib.rc_context(STYLE):
        figure, axes = plot("said to be", "is", size=(side + 0.9, side + 0.6))
        axes.grid(visible=False)
        for answer in scores.answers:
            place, is_right = (answer.said, answer.right), answer.said == answer.right
            alpha = _DARKEST * (answer.images / totals[answer.right]) ** 0.5  # a few wrong ones are to be seen, too
            corner, colour = (place[0] - 0.5, place[1] - 0.5), COLOURS["front" if is_right else "winner"]
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=alpha, edgecolor="none"))
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": COLOURS["ink"]}
            axes.annotate(str(answer.images), place, **style)
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
        axes.tick_params(length=0, labelcolor=COLOURS["ink"])
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
    return figure


def curves_figure(curves: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str) -> Figure:
    """Return lines through points (x, y), by their names."""
    with matplotlib.rc_context(STYLE):
        figure, axes = plot(x_label, y_label, size=(5.8, 3.0))
        for index, (name, points) in enumerate(curves.items()):
            if points:
                style = ("-", "--", ":")[index // len(SERIES) % 3]
                marker = "o" if len(points) == 1 else None
                axes.plot(
                    *zip(*points, strict=True),
                    style,
                    color=COLOURS[SERIES[index % len(SERIES)]],
                    marker=marker,
                    label=name,
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(curves) > 1:
            legend(axes, columns=4)
    return figure
