"""How well surrogates, and what is seen early, rank cells that were really trained: the table of train_cells.py.

Rank correlations (Spearman, Kendall) of each surrogate, medians over random training sets: within level 1 and 2, on
cells that it was not fitted to, and across, fitted to the levels below and asked about level 2 or 3 - once to all cells
of each, once to the few that a short search has. Beside them stands the ceiling, how far one seed's accuracy agrees
with the mean of the others', and the paper's figures (PNAS, section 5.2, as best recalled).

The control experiment: of all cells of level 2, and of level 3, the 20 that a surrogate fitted to the levels below
ranks highest, against 20 by chance: their mean accuracy, with a 95 % bootstrap interval of the difference.

Exploration: the 20 of level 2 that rank highest by the mean plus so many deviations, by what 20 of level 1 say, and the
20 of level 3 that then rank highest by what these 40 say: mean and best accuracy, means over the rounds.

    python benchmarks/surrogates.py [--quick] [--table benchmarks/data/fashion_mnist_cells.csv]

The last line is one JSON object: {"SURROGATE": {"within_1", "within_2", "across_2", "across_2_few", "across_3",
"across_3_few": {"spearman", "kendall"}, "control_2", "control_3": {"chosen", "chance", "interval", ...}, "exploration":
{"DEVIATIONS": {"mean_2", "best_2", "mean_3", "best_3"}, ...}, "seconds"}, ..., "ceiling", "paper", "cells"}.
"""

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.runs.front import kendall, spearman
from hwnas.searching import surrogates
from hwnas.searching.surrogates import Evaluated
from hwnas.spaces import pnas
from hwnas.support import plugins

FEW, SELECTED, ROUNDS = 20, 20, 10
DEVIATIONS = (0, 0.5, 1, 2)
PAPER = {  # at b = 1: within the level, and at b = 2
    "mlp": {"within_1": 0.975, "across_2": 0.164},
    "lstm": {"within_1": 0.972, "across_2": 0.164},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, of one surrogate: under a minute")
    parser.add_argument("--table", type=Path, default=Path("benchmarks/data/fashion_mnist_cells.csv"))
    parser.add_argument("--surrogates", default=",".join(plugins.names("surrogates")))
    options = parser.parse_args()
    rows = list(csv.DictReader(options.table.read_text().splitlines()))
    levels = {blocks: Level(rows, blocks) for blocks in (1, 2, 3)}
    names = ["mlp"] if options.quick else options.surrogates.split(",")
    result: dict[str, Any] = {}
    for name in names:
        result[name] = figures(name, levels, rounds=1 if options.quick else ROUNDS)
        print(f"{name}: {json.dumps(result[name])}", flush=True)
    counts = {str(blocks): len(level.accuracy) for blocks, level in levels.items()}
    print(json.dumps({**result, "ceiling": ceiling(rows), "paper": PAPER, "cells": counts}))


class Level:
    """The cells of one number of blocks, each trained with the first seed."""

    def __init__(self, rows: Iterable[dict[str, str]], blocks: int) -> None:
        chosen = [row for row in rows if int(row["blocks"]) == blocks and row["seed"] == "0"]
        self.codes = np.concatenate([pnas.code(parameters_of(row)) for row in chosen])
        self.accuracy = np.array([float(row["accuracy"]) for row in chosen])

    def some(self, rows: Any) -> Evaluated:
        """Return some of them as evaluated candidates, all at one latency target."""
        return Evaluated(self.codes[rows], np.ones(len(self.codes[rows])), self.accuracy[rows])

    def drawn(self, most: int | None, *, seed: int) -> Evaluated:
        """Return at most so many of them, by chance, or all."""
        return self.some(np.random.default_rng(seed).permutation(len(self.codes))[:most])


def parameters_of(row: dict[str, str]) -> dict[str, Any]:
    """Return the space's parameters of a row."""
    return {name: int(value) if value.isdigit() else value for name, value in row.items() if name.startswith("block")}


def figures(name: str, levels: Mapping[int, "Level"], *, rounds: int) -> dict[str, Any]:
    """Return all figures of a surrogate."""
    started = time.monotonic()

    def within(level: Level, seed: int) -> tuple[Any, Any]:
        order = np.random.default_rng(seed).permutation(len(level.codes))
        known, asked = np.split(order, [len(order) // 2])
        return predictions(name, [level.some(known)], level.codes[asked], seed=seed), level.accuracy[asked]

    def across(blocks: int, most: int | None, seed: int) -> tuple[Any, Any]:
        below = [levels[each].drawn(most, seed=seed) for each in range(1, blocks)]
        return predictions(name, below, levels[blocks].codes, seed=seed), levels[blocks].accuracy

    found: dict[str, Any] = {}
    for blocks in (1, 2):
        found[f"within_{blocks}"] = correlations(partial(within, levels[blocks]), rounds)
    for blocks in (2, 3):
        found[f"across_{blocks}"] = correlations(partial(across, blocks, None), rounds)
        found[f"across_{blocks}_few"] = correlations(partial(across, blocks, FEW), rounds)
        found[f"control_{blocks}"] = control(*across(blocks, None, 0))
    found["exploration"] = {str(deviations): explored(name, levels, deviations, rounds) for deviations in DEVIATIONS}
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def predictions(name: str, known: Sequence[Evaluated], codes: Any, *, seed: int) -> Any:
    """Return what a surrogate predicts of cells."""
    fitted = surrogates.fit(name, known, operations=len(pnas.OPERATIONS), seed=seed)
    return fitted.predict(codes, np.ones(len(codes)))[0]


def explored(name: str, levels: Mapping[int, "Level"], deviations: float, rounds: int) -> dict[str, float]:
    """Return how accurate the cells of the next two levels are that a short search chooses."""
    found: dict[str, list[float]] = {}
    for seed in range(rounds):
        known = [levels[1].drawn(SELECTED, seed=seed)]
        for blocks in (2, 3):
            fitted = surrogates.fit(name, known, operations=len(pnas.OPERATIONS), seed=seed)
            mean, spread = fitted.predict(levels[blocks].codes, np.ones(len(levels[blocks].codes)))
            known.append(levels[blocks].some(np.argsort(-(mean + deviations * spread), kind="stable")[:SELECTED]))
            found.setdefault(f"mean_{blocks}", []).append(float(known[-1].accuracy.mean()))
            found.setdefault(f"best_{blocks}", []).append(float(known[-1].accuracy.max()))
    return {label: round(statistics.mean(values), 4) for label, values in found.items()}


def correlations(predict: Callable[[int], tuple[Any, Any]], rounds: int) -> dict[str, float]:
    """Return the median rank correlations of predictions and accuracies over rounds of other seeds."""
    pairs = [predict(seed) for seed in range(rounds)]
    return {
        "spearman": _median(spearman(one, other) for one, other in pairs),
        "kendall": _median(kendall(one, other) for one, other in pairs),
    }


def _median(values: Iterable[float | None]) -> float:
    return round(statistics.median(value or 0.0 for value in values), 3)


def control(predicted: Any, accuracy: Any, *, draws: int = 10_000) -> dict[str, Any]:
    """Return the mean accuracy of the cells that are ranked highest, and of as many by chance."""
    chosen = accuracy[np.argsort(-predicted, kind="stable")[:SELECTED]]
    random = np.random.default_rng(0)
    by_chance = accuracy[random.integers(len(accuracy), size=(draws, SELECTED))].mean(axis=1)
    again = chosen[random.integers(SELECTED, size=(draws, SELECTED))].mean(axis=1)
    low, high = np.quantile(again - by_chance, [0.025, 0.975])
    return {
        "chosen": round(float(chosen.mean()), 4),
        "chance": round(float(accuracy.mean()), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "best_chosen": float(chosen.max()),
        "best": float(accuracy.max()),
    }


def ceiling(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Return how far a seed's accuracy agrees with the mean of the others', over the cells that were repeated."""
    cells: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        cell = tuple(row[name] for name in row if name == "blocks" or name.startswith("block"))
        cells.setdefault(cell, {})[row["seed"]] = float(row["accuracy"])
    found = {}
    for level in ("1", "2"):
        repeated = [seeds for cell, seeds in cells.items() if cell[0] == level and len(seeds) > 2]
        if repeated:
            one = [seeds["0"] for seeds in repeated]
            other = [statistics.mean(value for seed, value in seeds.items() if seed != "0") for seeds in repeated]
            spread = statistics.mean(statistics.stdev(seeds.values()) for seeds in repeated)
            found[level] = {
                "cells": len(repeated),
                "spearman": round(spearman(one, other) or 0.0, 3),
                "kendall": round(kendall(one, other) or 0.0, 3),
                "deviation_of_seeds": round(spread, 4),
            }
    return found


if __name__ == "__main__":
    main()
