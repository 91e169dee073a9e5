"""How well shared weights rank cells that were really trained alone: the table of train_cells.py.

A bank of `pnas` cells of one to three blocks, at the table's scale (N = 1, F = 8, 28x28), is trained on the same images
for as long as --trainings of a cell alone, each step one cell, drawn as the estimator draws or (--drawing chance) each
choice by chance; then every cell of the table, or --cells of them, is looked at. Rank
correlations with the accuracies of training alone, at one, two and three blocks, beside those of Mult-Adds and of
zero-cost proxies; the mean accuracy of the 20 that are ranked highest, and of all. What is done is kept in --folder;
called again, it goes on.

    python benchmarks/supernet.py [--quick] [--trainings 20] [--drawing fair] [--cells 586] [--seed 0]
        [--learning-rate R] [--batch N] [--folder F] [--table F]

The last line is one JSON object: {"1": {"cells", "spearman", "kendall", "mult_adds_spearman", "synflow_spearman" and
those of the other proxies, "top_20", "mean"}, "2", "3", "training_s", "training_cpu_s", "look_s", "look_cpu_s",
"trainings", "drawing", "seed", "learning_rate", "batch"}.
The processor's seconds are those that other programs leave alone.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hwnas import datasets
from hwnas.network import Architecture, Scale
from hwnas.runs.front import kendall, spearman
from hwnas.searching import proxies
from hwnas.searching.estimators.supernet import bank_settings
from hwnas.spaces import fair_parameters, pnas, random_parameters
from hwnas.support import bar, plugins
from hwnas.support.files import write_json
from hwnas.training.shared import look, read_bank, train_shared, write_bank

SCALE = Scale(1, 8, 28, 10, 1)
EPOCHS, IMAGES = 2.0, 6000  # of a cell that is trained alone
PATHS, TOP, BLOCKS = 4000, 20, (1, 2, 3)
PROXIES = tuple(plugins.names("proxies"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of a training, and few looks: a minute")
    parser.add_argument("--trainings", type=float, default=20.0)
    parser.add_argument("--drawing", choices=DRAWINGS, default="fair")
    parser.add_argument("--cells", type=int, help="how many of the table's cells are looked at, evenly spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path("runs/supernet"))
    parser.add_argument("--table", type=Path, default=Path("benchmarks/data/fashion_mnist_cells.csv"))
    options = parser.parse_args()
    trainings = 0.1 if options.quick else options.trainings
    named = f"{trainings:g}-{options.learning_rate:g}-{options.batch}-{options.drawing}-{options.seed}"
    folder: Path = options.folder / named
    folder.mkdir(parents=True, exist_ok=True)
    cells = list(trained_alone(options.table))
    every = 40 if options.quick else len(cells) // options.cells if options.cells else 1
    dataset = datasets.load("fashion-mnist", seed=0)
    settings = replace(
        bank_settings(EPOCHS, IMAGES, trainings, seed=options.seed),
        images_per_epoch=None,
        epochs=EPOCHS * trainings * IMAGES / len(dataset.train.labels),  # ever new images
        learning_rate=options.learning_rate,
        batch_size=options.batch,
    )
    paths = list(islice(DRAWINGS[options.drawing](settings.seed), PATHS))
    training_s, training_cpu_s = train(folder, dataset, settings, paths, [cell["architecture"] for cell in cells])
    cells = cells[::every]
    accuracies, look_s, look_cpu_s = looks(folder, dataset, cells)
    for cell, scores in zip(cells, proxy_scores(folder, dataset, cells), strict=True):
        cell |= scores
    result: dict[str, Any] = {str(blocks): figures(cells, accuracies, blocks) for blocks in (1, 2, 3)}
    result |= {"training_s": training_s, "training_cpu_s": training_cpu_s, "look_s": look_s, "look_cpu_s": look_cpu_s}
    result |= {"trainings": trainings, "drawing": options.drawing, "seed": options.seed}
    print(json.dumps(result | {"learning_rate": options.learning_rate, "batch": options.batch}))


def trained_alone(table: Path) -> Iterator[dict[str, Any]]:
    """Yield the cells of the table's first seed: their architecture, accuracy and Mult-Adds."""
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["seed"] != "0":
                continue
            chosen = {name: choice(value) for name, value in row.items() if name.startswith("block")}
            first = {name: known.choices[0] for name, known in pnas.distributions().items()}
            yield {
                "blocks": int(row["blocks"]),
                "architecture": pnas.architecture({**first, **chosen}, SCALE),
                "accuracy": float(row["accuracy"]),
                "mult_adds": int(row["mult_adds"]),
            }


def choice(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def fair(seed: int) -> Iterator[Architecture]:
    """Draw cells as the estimator does, without caps."""
    choices = {name: known.choices for name, known in pnas.distributions().items()}
    for chosen in fair_parameters({**choices, "blocks": BLOCKS}, seed=seed):
        yield pnas.architecture(chosen, SCALE)


def by_chance(seed: int) -> Iterator[Architecture]:
    """Draw every choice of each cell by itself."""
    random = np.random.default_rng(seed)
    for chosen in random_parameters(pnas, PATHS, seed=seed):
        yield pnas.architecture({**chosen, "blocks": int(random.choice(BLOCKS))}, SCALE)


DRAWINGS = {"fair": fair, "chance": by_chance}


def train(
    folder: Path, dataset: datasets.Dataset, settings: Any, paths: list[Architecture], known: list[Architecture]
) -> tuple[float, float]:
    """Train the bank; return the seconds and the processor's that it took, over all the times it was taken up."""
    took = folder / "training.json"
    before = np.array(json.loads(took.read_text()) if took.exists() else (0.0, 0.0))
    if (folder / "bank.safetensors").exists():
        return float(before[0]), float(before[1])
    begun = now()
    with bar("training", 1) as steps:

        def on_progress(progress: Any) -> None:
            steps.at(progress.step, total=progress.steps)
            write_json(took, (before + now() - begun).tolist())

        bank = train_shared(
            paths,
            known,
            dataset,
            settings,
            identity={"benchmark": 1},
            checkpoint=folder / "checkpoint.safetensors",
            on_progress=on_progress,
        )
    write_bank(bank, folder / "bank.safetensors")
    seconds, of_processor = json.loads(took.read_text())
    return seconds, of_processor


def now() -> np.ndarray:
    """Return the seconds by the wall's clock and the processor's."""
    return np.array([time.monotonic(), time.process_time()])


def looks(folder: Path, dataset: datasets.Dataset, cells: list[dict[str, Any]]) -> tuple[list[float], float, float]:
    """Return the bank's accuracy of each cell, and the seconds and the processor's that a look takes."""
    kept = folder / f"looks-{len(cells)}.json"
    known: list[list[float]] = json.loads(kept.read_text()) if kept.exists() else []
    bank = read_bank(folder / "bank.safetensors")
    with bar("looking", len(cells)) as done:
        for cell in cells[len(known) :]:
            begun = now()
            found = look(bank, cell["architecture"], dataset).accuracy
            known.append([found, *(now() - begun).tolist()])
            write_json(kept, known)
            done.at(len(known))
    found, seconds, of_processor = zip(*known, strict=True)
    return list(found), float(np.median(seconds)), float(np.median(of_processor))


def proxy_scores(folder: Path, dataset: datasets.Dataset, cells: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the zero-cost proxies' scores of each cell."""
    kept = folder / f"proxies-{len(cells)}.json"
    if not kept.exists():
        scores = proxies.scores(PROXIES, [cell["architecture"] for cell in cells], dataset, seed=0)
        write_json(kept, [dict(zip(PROXIES, row, strict=True)) for row in scores.tolist()])
    found: list[dict[str, float]] = json.loads(kept.read_text())
    return found


def figures(cells: list[dict[str, Any]], accuracies: list[float], blocks: int) -> dict[str, Any]:
    """Return how the bank ranks the cells of so many blocks."""
    chosen = [(seen, cell) for seen, cell in zip(accuracies, cells, strict=True) if cell["blocks"] == blocks]
    seen = np.array([seen for seen, _ in chosen])
    alone = np.array([cell["accuracy"] for _, cell in chosen])
    others = {name: np.array([cell[name] for _, cell in chosen]) for name in ("mult_adds", *PROXIES)}
    return {
        "cells": len(chosen),
        "spearman": round(spearman(seen, alone), 3),
        "kendall": round(kendall(seen, alone), 3),
        **{f"{name}_spearman": round(spearman(scores, alone), 3) for name, scores in others.items()},
        "top_20": round(float(alone[np.argsort(-seen)[:TOP]].mean()), 4),
        "mean": round(float(alone.mean()), 4),
        "shared": round(float(seen.mean()), 4),
    }


if __name__ == "__main__":
    main()
