"""How well shared weights rank cells that were really trained alone: the table of train_cells.py.

A bank of `pnas` cells of one to three blocks, at the table's scale (N = 1, F = 8, 28x28), is trained on the same images
for as long as --trainings of a cell alone, each step one cell drawn by chance; then every cell of the table is looked
at. Rank correlations with the accuracies of training alone, at one, two and three blocks, beside those of Mult-Adds;
the mean accuracy of the 20 that are ranked highest, and of all. What is done is kept in --folder; called again, it goes
on.

    python benchmarks/supernet.py [--quick] [--trainings 20] [--learning-rate R] [--batch N] [--folder F] [--table F]

The last line is one JSON object: {"1": {"cells", "spearman", "kendall", "mult_adds_spearman", "top_20", "mean"}, "2",
"3", "seconds_of_training", "seconds_a_look", "trainings", "learning_rate", "batch"}.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas import datasets
from hwnas.network import Architecture, Scale
from hwnas.runs.front import kendall, spearman
from hwnas.searching.estimators.supernet import bank_settings
from hwnas.spaces import pnas, random_parameters
from hwnas.support import bar
from hwnas.support.files import write_json
from hwnas.training.shared import look, read_bank, train_shared, write_bank

SCALE = Scale(1, 8, 28, 10, 1)
EPOCHS, IMAGES = 2.0, 6000  # of a cell that is trained alone
PATHS, TOP = 4000, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of a training, and few looks: a minute")
    parser.add_argument("--trainings", type=float, default=20.0)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path("runs/supernet"))
    parser.add_argument("--table", type=Path, default=Path("benchmarks/data/fashion_mnist_cells.csv"))
    options = parser.parse_args()
    trainings = 0.1 if options.quick else options.trainings
    folder: Path = options.folder / f"{trainings:g}-{options.learning_rate:g}-{options.batch}"
    folder.mkdir(parents=True, exist_ok=True)
    cells = list(trained_alone(options.table))
    if options.quick:
        cells = cells[::40]
    dataset = datasets.load("fashion-mnist", seed=0)
    settings = replace(
        bank_settings(EPOCHS, IMAGES, trainings, seed=0),
        images_per_epoch=None,
        epochs=EPOCHS * trainings * IMAGES / len(dataset.train.labels),  # ever new images
        learning_rate=options.learning_rate,
        batch_size=options.batch,
    )
    seconds = train(folder, dataset, settings, [cell["architecture"] for cell in cells])
    accuracies, seconds_a_look = looks(folder, dataset, cells)
    result: dict[str, Any] = {str(blocks): figures(cells, accuracies, blocks) for blocks in (1, 2, 3)}
    result |= {"seconds_of_training": seconds, "seconds_a_look": seconds_a_look, "trainings": trainings}
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


def train(folder: Path, dataset: datasets.Dataset, settings: Any, known: list[Architecture]) -> float:
    """Train the bank, and return the seconds that it took, over all the times it was taken up."""
    took = folder / "training.json"
    if (folder / "bank.safetensors").exists():
        return float(json.loads(took.read_text())["seconds"])
    random = np.random.default_rng(0)
    drawn = random_parameters(pnas, PATHS, seed=0)
    paths = [pnas.architecture({**chosen, "blocks": int(random.integers(1, 4))}, SCALE) for chosen in drawn]
    before = json.loads(took.read_text())["seconds"] if took.exists() else 0.0
    begun = time.monotonic()
    with bar("training", 1) as steps:

        def on_progress(progress: Any) -> None:
            steps.at(progress.step, total=progress.steps)
            write_json(took, {"seconds": before + time.monotonic() - begun})

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
    return float(json.loads(took.read_text())["seconds"])


def looks(folder: Path, dataset: datasets.Dataset, cells: list[dict[str, Any]]) -> tuple[list[float], float]:
    """Return the bank's accuracy of each cell, and the seconds that a look takes."""
    kept = folder / f"looks-{len(cells)}.json"
    known: list[list[float]] = json.loads(kept.read_text()) if kept.exists() else []
    bank = read_bank(folder / "bank.safetensors")
    with bar("looking", len(cells)) as done:
        for cell in cells[len(known) :]:
            begun = time.monotonic()
            found = look(bank, cell["architecture"], dataset).accuracy
            known.append([found, time.monotonic() - begun])
            write_json(kept, known)
            done.at(len(known))
    return [found for found, _ in known], float(np.median([seconds for _, seconds in known]))


def figures(cells: list[dict[str, Any]], accuracies: list[float], blocks: int) -> dict[str, Any]:
    """Return how the bank ranks the cells of so many blocks."""
    chosen = [(seen, cell) for seen, cell in zip(accuracies, cells, strict=True) if cell["blocks"] == blocks]
    seen = np.array([seen for seen, _ in chosen])
    alone, mult_adds = (np.array([cell[name] for _, cell in chosen]) for name in ("accuracy", "mult_adds"))
    return {
        "cells": len(chosen),
        "spearman": round(spearman(seen, alone), 3),
        "kendall": round(kendall(seen, alone), 3),
        "mult_adds_spearman": round(spearman(mult_adds, alone), 3),
        "top_20": round(float(alone[np.argsort(-seen)[:TOP]].mean()), 4),
        "mean": round(float(alone.mean()), 4),
        "shared": round(float(seen.mean()), 4),
    }


if __name__ == "__main__":
    main()
