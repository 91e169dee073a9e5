"""The picture of a comparison: hypervolume and best accuracy under each cap against the evaluations."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hwnas.pages import COLOURS, SERIES, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hwnas.benching.results import Curves

_QUANTITIES = {"hypervolume": "hypervolume (0 to 1)", "best_seen": "best seen accuracy (%)"}
_LINES = ("-", "--", ":")  # after each other where there are more strategies than colours


def comparison_figure(runs: "Iterable[tuple[float, str, Curves]]") -> Figure:
    """Return medians and quartiles over the runs of each cap and strategy; each run has an evaluation at least."""
    groups: dict[float, dict[str, list[Curves]]] = {}
    for cap, strategy, curves in runs:
        groups.setdefault(cap, {}).setdefault(strategy, []).append(curves)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 0.6 + 2.9 * len(groups)), layout="constrained")
        grid = figure.subplots(len(groups), len(_QUANTITIES), squeeze=False, sharex=True)
        for row, (cap, strategies) in zip(grid, groups.items(), strict=True):
            for axes, (name, label) in zip(row, _QUANTITIES.items(), strict=True):
                _dress(axes, title=f"cap {cap:g}", label=label)
                for number, (strategy, group) in enumerate(strategies.items()):
                    _draw(axes, _padded([getattr(curves, name) for curves in group]), strategy, number)
        figure.supxlabel("evaluations", color=COLOURS["ink"], fontsize=9)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False, fontsize=8.5)
    return figure


def _padded(curves: "list[NDArray[np.float64]]") -> "NDArray[np.float64]":
    """Return curves as an array [runs, evaluations]: a run that ended stays as it was."""
    longest = max(map(len, curves))
    return np.array([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves])


def _draw(axes: "Axes", curves: "NDArray[np.float64]", label: str, number: int) -> None:
    low, middle, high = np.quantile(curves, (0.25, 0.5, 0.75), axis=0)
    evaluations = np.arange(1, len(middle) + 1)
    colour = COLOURS[SERIES[number % len(SERIES)]]
    axes.fill_between(evaluations, low, high, color=colour, alpha=0.12, linewidth=0)
    line = _LINES[number // len(SERIES) % len(_LINES)]
    axes.plot(evaluations, middle, line, color=colour, linewidth=1.3, label=label)


def _dress(axes: "Axes", *, title: str, label: str) -> None:
    style: dict[str, Any] = {"color": COLOURS["muted"], "labelcolor": COLOURS["muted"], "labelsize": 8.5}
    axes.grid(color=COLOURS["grid"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(**style)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLOURS["muted"])
    axes.set_title(title, color=COLOURS["ink"], fontsize=9, loc="left")
    axes.set_ylabel(label, color=COLOURS["ink"])
