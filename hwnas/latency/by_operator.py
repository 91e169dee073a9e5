"""Where a network's time goes, by its latency table: what the layers of each sort take together."""

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.network import executed

if TYPE_CHECKING:
    from hwnas.latency.costs import CostModel
    from hwnas.network import Architecture, Graph, Layer
    from hwnas.support.commands import Command

_OPERATORS = 12  # that are listed by themselves; the others are one line
_PATHS = {"path1", "path2"}  # of a factorised reduction
_NAMES = {
    "relu": "ReLU",
    "mean": "global average pooling",
    "max_pool": "max pooling",
    "linear": "classifier",
    "slice": "channel split",
    "shuffle": "channel shuffle",
}


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """The executed layers of one sort: how many, their milliseconds in the latency table, and their share."""

    name: str
    count: int
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Operators:
    """Where a network's time goes: by sort, the slowest first; the sum, and what the table predicts of the whole."""

    costs: tuple[OperatorCost, ...]
    sum_ms: float
    predicted_ms: float

    @property
    def bars(self) -> list[tuple[str, float]]:
        """Each sort's name and its milliseconds."""
        return [(cost.name, cost.ms) for cost in self.costs]


def cost_model(device: str, setting: str, *, command: "Command") -> "tuple[CostModel | None, str]":
    """Return the costs by the latency table of a device's setting, or why there are none; `command` makes one."""
    from hwnas.device import folders
    from hwnas.errors import TableError
    from hwnas.latency.costs import CostModel
    from hwnas.latency.table import LatencyTable

    name = Path(device).stem  # it may be given as the path of a .toml
    for folder in folders("latency_tables"):
        path = folder / name / f"{setting}.json"
        if path.is_file():
            try:
                return CostModel(LatencyTable.read(path), ()), ""
            except TableError as error:
                return None, str(error)
    return None, f"there is no latency_tables/{name}/{setting}.json here. Type: {command}"


def latency_by_operator(model: "CostModel", architecture: "Architecture") -> Operators:
    """Return where a network's time goes by its latency table.

    Raises TableError where an entry is missing.
    """
    graph = model.lower(architecture)
    groups: dict[str, list[float]] = defaultdict(list)
    for name, layer, _ in executed(graph):
        groups[_sort_of(layer, graph, in_cells=bool(architecture.cells))].append(model.table.ms(name))
    total = sum(map(sum, groups.values()))
    costs = [OperatorCost(name, len(ms), sum(ms), sum(ms) / total) for name, ms in groups.items()]
    costs.sort(key=lambda cost: -cost.ms)
    if len(rest := costs[_OPERATORS:]) > 1:
        sums = sum(c.count for c in rest), sum(c.ms for c in rest), sum(c.share for c in rest)
        costs[_OPERATORS:] = [OperatorCost(f"{len(rest)} other sorts", *sums)]
    return Operators(tuple(costs), total, model.predict(architecture).ms)


def _sort_of(layer: "Layer", graph: "Graph", *, in_cells: bool) -> str:
    """Return what an executed layer counts as: its operation's name inside a branch, or what it is for."""
    if layer.kind == "relu":
        return _NAMES["relu"]  # one that the runtime does not fuse
    if operation := _operation(layer):
        return re.sub(r"(\d+)x(\d+)", r"\1×\2", operation).replace("_", " ")
    if layer.origin == ("stem",):
        return "stem"
    if layer.kind == "shift" or _reduces(layer) or _joins_reduced(layer, graph):
        return "factorised reduction"
    if layer.kind == "conv":
        size = "×".join(map(str, layer.kernel))
        return "squeeze 1×1" if in_cells else f"{'depthwise' if layer.depthwise else 'convolution'} {size}"
    return _NAMES.get(layer.kind, layer.kind)


def _operation(layer: "Layer") -> str:
    """Return the operation of the branch that a layer is in; nothing where it is in none."""
    return next((str(step) for side, step in pairwise(layer.origin) if side in ("left", "right")), "")


def _reduces(layer: "Layer") -> bool:
    return not _PATHS.isdisjoint(layer.origin)


def _joins_reduced(layer: "Layer", graph: "Graph") -> bool:
    return layer.kind == "concat" and all(_reduces(graph.layers[source]) for source in layer.inputs)
