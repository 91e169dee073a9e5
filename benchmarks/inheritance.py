"""Does short training say more of a cell when it begins with its parent's weights? Real training on Fashion-MNIST.

Each of some two-block cells of the table of train_cells.py is trained for half an epoch, from scratch and from the
weights of the cell without its second block (trained for the table's two epochs, as a search would have). Either is
ranked against the accuracy that the table has after two epochs from scratch. Rows are kept as they come; called again,
it goes on.

    python benchmarks/inheritance.py [--quick] [--cells 24] [--out runs/inheritance.csv]

The last line is one JSON object: {"cells", "spearman": {"scratch", "inherited"}, "kendall": {...}, "accuracy": {...},
"shared"}; accuracies are means, `shared` is the mean share of the weights that are inherited.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from surrogates import parameters_of
from train_cells import CHOSEN, CONDITIONS, dataset, extend, read, settings_of

from hwnas.runs.front import kendall, spearman
from hwnas.spaces import pnas

SHORT = 0.5  # epochs
COLUMNS = [*CHOSEN, "accuracy", "scratch", "inherited", "shared"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one cell, hardly trained: under a minute")
    parser.add_argument("--table", type=Path, default=Path("benchmarks/data/fashion_mnist_cells.csv"))
    parser.add_argument("--out", type=Path, default=Path("runs/inheritance.csv"))
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes of one thread each")
    parser.add_argument("--device", default="cpu", help="where to train: cpu or cuda")
    options = parser.parse_args()
    conditions = {**CONDITIONS, "device": options.device}
    cells = [row for row in read(options.table) if row["blocks"] == "2" and row["seed"] == "0"]
    drawn = [cells[at] for at in np.random.default_rng(0).permutation(len(cells))]
    if not options.quick:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        rows = table(options.out, drawn[: options.cells], conditions, jobs=options.jobs)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = table(Path(folder) / "cells.csv", drawn[:1], {**conditions, "images_per_epoch": 128}, jobs=1)
    print(json.dumps(summary(rows)))


def table(path: Path, cells: list[dict[str, str]], conditions: dict[str, Any], *, jobs: int) -> list[dict[str, str]]:
    """Train what a file lacks, and return its rows."""
    done = {tuple(row[name] for name in CHOSEN) for row in read(path)}
    left = [row for row in cells if tuple(row[name] for name in CHOSEN) not in done]
    extend(path, COLUMNS, train, [(row, conditions) for row in left], jobs=jobs)
    return read(path)


def train(row: dict[str, str], conditions: dict[str, Any]) -> dict[str, Any]:
    """Train one cell for a short while both ways, and its parent for as long as the table's cells."""
    import torch

    from hwnas.network.scale import Scale
    from hwnas.searching.estimators.training import evaluate
    from hwnas.training.weights import in_common

    torch.set_num_threads(conditions["threads"])
    data = dataset(conditions["data"], conditions["data_seed"])
    scale = Scale(conditions["cells"], conditions["filters"], data.resolution, len(data.classes), data.channels)
    cell = parameters_of(row)
    parent = pnas.parameters(pnas.code({**cell, "blocks": 1}))
    network = pnas.architecture(cell, scale)
    short = settings_of(conditions, epochs=SHORT)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "parent.safetensors"
        long = settings_of(conditions, epochs=conditions["epochs"])
        evaluate(pnas.architecture(parent, scale), data, long, keep=weights)
        inherited = evaluate(network, data, short, initial=weights).accuracy
        shared = in_common(network, weights) / in_common(network, kept(network, folder))
    scratch = evaluate(network, data, short).accuracy
    figures = {"accuracy": float(row["accuracy"]), "scratch": scratch, "inherited": inherited, "shared": shared}
    return {**{name: row[name] for name in CHOSEN}, **{name: round(value, 5) for name, value in figures.items()}}


def kept(network: Any, folder: str) -> Path:
    """Return a file with weights of a network's own names and shapes."""
    from hwnas.training.module import Network
    from hwnas.training.weights import save_weights

    path = Path(folder) / "own.safetensors"
    save_weights(Network(network.graph), path)
    return path


def summary(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return how far either ranks the cells as the table does."""
    columns = {name: [float(row[name]) for row in rows] for name in ("accuracy", "scratch", "inherited", "shared")}
    ways = ("scratch", "inherited")
    return {
        "cells": len(rows),
        "spearman": {way: round(spearman(columns[way], columns["accuracy"]) or 0.0, 3) for way in ways},
        "kendall": {way: round(kendall(columns[way], columns["accuracy"]) or 0.0, 3) for way in ways},
        "accuracy": {way: round(statistics.mean(columns[way]), 4) for way in ways},
        "shared": round(statistics.mean(columns["shared"]), 3),
    }


if __name__ == "__main__":
    main()
