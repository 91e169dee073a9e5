"""Where a network's time goes, by its latency table: what the layers of each sort take together."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.latency.costs import CostModel
    from hwnas.network import Architecture, Layer
    from hwnas.support.commands import Command

_OPERATORS = 12  # that are listed by themselves; the others are one line
_BRANCH = re.compile(r"(cell\d+)\.block(\d+)\.(left|right)\b")
_REDUCTION = re.compile(r"\.path\d|\.(prev_prev|out\d+)concat")  # in a layer's name and kind
_NAMES = {"relu": "ReLU", "mean": "global average pooling", "linear": "classifier", "add": "add", "concat": "concat"}


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
    def largest_share(self) -> float:
        """The longest bar's share."""
        return max(cost.share for cost in self.costs)


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
    layers = [layer for layer in model.lower(architecture).layers if layer.kind != "input"]
    strided = _strided_cells(architecture)
    groups: dict[str, list[float]] = defaultdict(list)
    for layer, (_, ms) in zip(layers, model.layer_ms(architecture), strict=True):
        groups[_sort_of(layer, architecture, strided)].append(ms)
    total = sum(map(sum, groups.values()))
    costs = [OperatorCost(name, len(ms), sum(ms), sum(ms) / total) for name, ms in groups.items()]
    costs.sort(key=lambda cost: -cost.ms)
    if len(rest := costs[_OPERATORS:]) > 1:
        sums = sum(c.count for c in rest), sum(c.ms for c in rest), sum(c.share for c in rest)
        costs[_OPERATORS:] = [OperatorCost(f"{len(rest)} other sorts", *sums)]
    return Operators(tuple(costs), total, model.predict(architecture).ms)


def _strided_cells(architecture: "Architecture") -> set[str]:
    """Return the names of the cells of stride 2: their first block, which reads the cell's inputs, is strided."""
    return {
        match[1]
        for layer in architecture.graph.layers
        if (match := _BRANCH.match(layer.name)) and match[2] == "1" and layer.stride != (1, 1)
    }


def _sort_of(layer: "Layer", architecture: "Architecture", strided: set[str]) -> str:
    """Return what an executed layer counts as: its operation's name inside a branch, or what it is for."""
    if layer.kind == "relu":
        return _NAMES["relu"]  # one that the runtime does not fuse
    if match := _BRANCH.match(layer.name):
        name, block, side = match.groups()
        cells = architecture.cells
        cell = cells.get("reduction", cells["normal"]) if name in strided else cells["normal"]
        operation: str = getattr(cell.blocks[int(block) - 1], side)[0]
        return re.sub(r"(\d+)x(\d+)", r"\1×\2", operation).replace("_", " ")
    if layer.name == "stem":
        return "stem"
    if layer.kind == "shift" or _REDUCTION.search(layer.name + layer.kind):
        return "factorised reduction"
    if layer.kind == "conv":
        size = "×".join(map(str, layer.kernel))
        return "squeeze 1×1" if architecture.cells else f"{'depthwise' if layer.depthwise else 'convolution'} {size}"
    return _NAMES.get(layer.kind, layer.kind)
