"""Trains cells of `pnas` on Fashion-MNIST: a table of real results by which surrogates and strategies are judged.

All 136 cells of one block, 300 distinct cells of two and 150 of three, drawn at random (those of three among the
extensions of those of two); 40 of the first two levels, spread evenly, with three seeds: how far two seeds agree is the
ceiling for every prediction. Each is trained as `hwnas search` trains its proxies, in fp32, each process in one thread.
Rows are kept as they come; called again, it goes on.

    python benchmarks/train_cells.py [--quick] [--out F.csv] [--jobs N] [--device cpu]

A row has the parameters of the space (of an unused block the first choices), the training's seed, the accuracy on the
6,000 validation images, and after 0.25, 0.5 and 1 epoch the accuracy on 2,000 of them and the mean training loss since
the look before. The conditions are in a JSON file beside it. The last line is one JSON object:
{"cells", "wanted", "levels": {"1": {"cells", "median", "best"}, ...}, "seconds"}.
"""

import argparse
import csv
import dataclasses
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.spaces import pnas
from hwnas.support.files import write_json
from hwnas.support.progress import bar

SECOND_LEVEL, THIRD_LEVEL, REPEATED, SEEDS = 300, 150, 40, 3
LOOKS = (0.25, 0.5, 1.0)  # epochs
CONDITIONS: dict[str, Any] = {
    "data": "fashion-mnist",
    "data_seed": 0,
    "cells": 1,
    "filters": 8,
    "resolution": 28,
    "epochs": 2,
    "images_per_epoch": 6000,
    "precision": "fp32",
    "threads": 1,
}
BLOCKS = ("blocks", "block1_", "block2_", "block3_")
CHOSEN = [name for name in pnas.distributions() if name.startswith(BLOCKS)]
SHOWN = [f"{what}_{epoch:g}" for epoch in LOOKS for what in ("accuracy", "loss")]
COLUMNS = [*CHOSEN, "seed", "accuracy", *SHOWN, "mult_adds", "parameters", "seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two cells, hardly trained: under a minute")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/data/fashion_mnist_cells.csv"))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes of one thread each")
    parser.add_argument("--device", default="cpu", help="where to train: cpu or cuda")
    options = parser.parse_args()
    conditions = {**CONDITIONS, "device": options.device}
    if not options.quick:
        print(json.dumps(table(options.out, wanted(), conditions, jobs=options.jobs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        conditions |= {"images_per_epoch": 256}
        print(json.dumps(table(Path(folder) / "cells.csv", wanted()[135:137], conditions, jobs=options.jobs)))


def wanted() -> list[tuple[dict[str, Any], int]]:
    """Return the cells, as the space's parameters, and their seeds, in the order in which they are trained."""
    first = pnas.first_level()
    grown = pnas.grow(first)
    second = grown[np.random.default_rng(0).permutation(len(grown))[:SECOND_LEVEL]]
    grown = pnas.grow(second)
    third = grown[np.random.default_rng(1).permutation(len(grown))[:THIRD_LEVEL]]
    cells = [pnas.parameters(code[None]) for level in (first, second) for code in level]
    repeated = np.linspace(0, len(cells) - 1, REPEATED).round().astype(int).tolist()
    more = [(cells[at], seed) for seed in range(1, SEEDS) for at in repeated]
    return [(cell, 0) for cell in cells] + more + [(pnas.parameters(code[None]), 0) for code in third]


def table(path: Path, cells: list[tuple[dict[str, Any], int]], conditions: dict[str, Any], *, jobs: int) -> Any:
    """Train what a table lacks, and return what is in it."""
    check_conditions(path, conditions)
    done = {identity(row) for row in read(path)}
    left = [(cell, seed) for cell, seed in cells if identity({**cell, "seed": seed}) not in done]
    extend(path, COLUMNS, train, [(cell, seed, conditions) for cell, seed in left], jobs=jobs)
    return summary(read(path), len(cells))


def extend(path: Path, columns: list[str], work: Callable[..., Any], tasks: list[Any], *, jobs: int) -> None:
    """Append the rows that `work` returns of each task, as they come, from processes of one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with (
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool,
        path.open("a", newline="") as file,
        bar("training cells", len(tasks)) as progress,
    ):
        lines = csv.DictWriter(file, columns, lineterminator="\n")
        if not path.stat().st_size:
            lines.writeheader()
        trainings = [pool.submit(work, *task) for task in tasks]
        try:
            for training in as_completed(trainings):
                lines.writerow(training.result())
                file.flush()
                progress.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_conditions(path: Path, conditions: dict[str, Any]) -> None:
    """Keep under which conditions a table is made; end where it was begun under others."""
    import torch

    ours = {**conditions, "torch": torch.__version__, "machine": platform.machine()}
    beside = path.with_suffix(".json")
    if beside.exists() and (theirs := json.loads(beside.read_text())) != ours:
        raise SystemExit(f"{path} was begun under other conditions: {theirs}; now they are {ours}")
    write_json(beside, ours)


def read(path: Path) -> list[dict[str, str]]:
    """Return a table's rows; the last line is cut off where it is not a whole one."""
    if not path.exists():
        return []
    text = path.read_text()
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text)
    return list(csv.DictReader(text.splitlines()))


def identity(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what makes a row another one than the others: the cell and the seed."""
    return tuple(str(row[name]) for name in (*CHOSEN, "seed"))


def train(cell: dict[str, Any], seed: int, conditions: dict[str, Any]) -> dict[str, Any]:
    """Train one cell and return its row."""
    import torch

    from hwnas.network.scale import Scale
    from hwnas.searching.estimators.training import evaluate
    from hwnas.training.curves import Watch

    torch.set_num_threads(conditions["threads"])
    data = dataset(conditions["data"], conditions["data_seed"])
    scale = Scale(conditions["cells"], conditions["filters"], data.resolution, len(data.classes), data.channels)
    network = pnas.architecture(cell, scale)
    settings = settings_of(conditions, epochs=conditions["epochs"], seed=seed)
    result = evaluate(network, data, settings, watch=Watch(LOOKS, lambda look: False, images=2000))
    shown = [round(value, 5) for look in result.looks for value in (look.accuracy, look.loss)]
    return {
        **{name: cell[name] for name in CHOSEN},
        "seed": seed,
        "accuracy": round(result.accuracy, 5),
        **dict(zip(SHOWN, shown, strict=True)),
        "mult_adds": network.graph.mult_adds,
        "parameters": network.graph.parameters,
        "seconds": round(result.seconds, 1),
    }


def settings_of(conditions: dict[str, Any], *, epochs: float, seed: int = 0) -> Any:
    """Return how a search trains its proxies, where and how precisely the conditions say."""
    from hwnas.training import search_settings

    settings = search_settings(epochs=epochs, images_per_epoch=conditions["images_per_epoch"], seed=seed)
    return dataclasses.replace(settings, device=conditions["device"], precision=conditions["precision"])


@cache
def dataset(name: str, seed: int) -> Any:
    """Return the data, which a process reads once."""
    from hwnas import datasets

    return datasets.load(name, seed=seed)


def summary(rows: list[dict[str, str]], count: int) -> dict[str, Any]:
    """Return how many cells are in a table, of how many, and how accurate they are."""
    levels = {}
    for level in ("1", "2", "3"):
        accuracies = [float(row["accuracy"]) for row in rows if row["blocks"] == level and row["seed"] == "0"]
        if accuracies:
            median = round(statistics.median(accuracies), 4)
            levels[level] = {"cells": len(accuracies), "median": median, "best": max(accuracies)}
    seconds = round(sum(float(row["seconds"]) for row in rows))
    return {"cells": len(rows), "wanted": count, "levels": levels, "seconds": seconds}


if __name__ == "__main__":
    main()
