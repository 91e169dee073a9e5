"""What is known before a training's end is worth, on cells that were really trained: the table of train_cells.py.

- looks: the rank correlation of the accuracy and of the training loss after an eighth, a quarter and half of the epochs
  with the accuracy at the end; beside it zero-cost proxies, which need no training.
- extrapolation: from the last look to the end, given 5, 20 or 80 finished trainings: the error (root mean square), that
  of saying the finished ones' mean, and the share of ends inside the stated 90 % interval.
- pruners: with as many epochs as 10, 20 and 40 whole trainings take, by how much the best finished cell falls short of
  the best of all (points, median over random orders), and how many were begun. `none` trains all to the end.
- surrogates with proxies: the rank correlation on level 2 of a surrogate fitted to level 1, with and without scores.

    python benchmarks/early_evidence.py [--quick] [--table benchmarks/data/fashion_mnist_cells.csv]

The last line is one JSON object with these four: {"looks", "extrapolation", "pruners", "with_proxies"}.
"""

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from surrogates import Level, parameters_of

from hwnas import datasets
from hwnas.network.scale import Scale
from hwnas.runs.front import spearman
from hwnas.searching import proxies, pruners, surrogates
from hwnas.spaces import pnas
from hwnas.support import plugins
from hwnas.training.curves import Curve, Look, extrapolate

EPOCHS, SHOWN = 2.0, (0.25, 0.5, 1.0)
FINISHED, BUDGETS = (5, 20, 80), (10, 20, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few orders, no proxies: under a minute")
    parser.add_argument("--table", type=Path, default=Path("benchmarks/data/fashion_mnist_cells.csv"))
    parser.add_argument("--orders", type=int, default=200)
    options = parser.parse_args()
    rows = [row for row in csv.DictReader(options.table.read_text().splitlines()) if row["seed"] == "0"]
    orders = 5 if options.quick else options.orders
    curves = [curve_of(row, number) for number, row in enumerate(rows)]
    result: dict[str, Any] = {
        "looks": looks(rows),
        "extrapolation": {str(count): extrapolation(curves, count, orders=orders) for count in FINISHED},
        "pruners": {name: pruned(name, curves, orders=orders) for name in plugins.names("pruners")},
    }
    if not options.quick:
        scores = scores_of(rows)
        for blocks in ("1", "2", "3"):
            of_level = np.array([row["blocks"] == blocks for row in rows])
            accuracy = [float(row["accuracy"]) for row in rows if row["blocks"] == blocks]
            for name, column in zip(plugins.names("proxies"), scores[of_level].T, strict=True):
                result["looks"][blocks][name] = correlation(column.tolist(), accuracy)
        result["with_proxies"] = {name: with_proxies(name, rows, scores) for name in ("lstm", "gp")}
    print(json.dumps(result))


def curve_of(row: dict[str, str], number: int) -> Curve:
    """Return the learning curve of a row."""
    shown = tuple(Look(epoch, loss=float(row[f"loss_{epoch:g}"]), seconds=0.0) for epoch in SHOWN)
    return Curve(number, target=1.0, latency_ms=1.0, looks=shown, accuracy=float(row["accuracy"]))


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation, 0 where there is none."""
    return round(spearman(one, other) or 0.0, 3)


def looks(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Return how far what is seen at each look ranks cells as their ends do, by level."""
    found: dict[str, Any] = {}
    for blocks in ("1", "2", "3"):
        level = [row for row in rows if row["blocks"] == blocks]
        end = [float(row["accuracy"]) for row in level]
        found[blocks] = {
            f"{what} after {epoch:g}": correlation([sign * float(row[f"{what}_{epoch:g}"]) for row in level], end)
            for epoch in SHOWN
            for what, sign in (("accuracy", 1), ("loss", -1))
        }
    return found


def extrapolation(curves: Sequence[Curve], count: int, *, orders: int) -> dict[str, Any]:
    """Return the errors of extrapolating every look of curves that are not among `count` finished ones."""
    found: dict[str, Any] = {}
    for place, epoch in enumerate(SHOWN):
        errors, plain, inside = [], [], []
        for order in (np.random.default_rng(seed).permutation(len(curves)) for seed in range(orders)):
            finished = [curves[at] for at in order[:count]]
            mean = statistics.mean(one.accuracy for one in finished if one.accuracy)
            for curve in (curves[at] for at in order[count : count + 20]):
                assert curve.accuracy is not None
                said = extrapolate(Curve(curve.number, 1.0, 1.0, curve.looks[: place + 1]), finished)
                errors.append(said.mean - curve.accuracy)
                plain.append(mean - curve.accuracy)
                inside.append(0.05 < said.chance_above(curve.accuracy) < 0.95)
        found[f"after {epoch:g}"] = {
            "error": round(float(np.sqrt(np.mean(np.square(errors)))), 4),
            "error_of_the_mean": round(float(np.sqrt(np.mean(np.square(plain)))), 4),
            "inside_90": round(float(np.mean(inside)), 3),
        }
    return found


def pruned(name: str, curves: Sequence[Curve], *, orders: int) -> dict[str, Any]:
    """Return what a pruner comes to at each budget."""
    best = max(curve.accuracy or 0.0 for curve in curves)
    found = {}
    for budget in BUDGETS:
        runs = [simulated(name, curves, budget * EPOCHS, seed=seed) for seed in range(orders)]
        regrets = [100 * (best - accuracy) for accuracy, _ in runs]
        quartiles = [round(float(value), 3) for value in np.quantile(regrets, (0.25, 0.5, 0.75))]
        found[str(budget)] = {"regret": quartiles, "begun": statistics.median(begun for _, begun in runs)}
    return found


def simulated(name: str, curves: Sequence[Curve], epochs: float, *, seed: int) -> tuple[float, int]:
    """Return the best finished accuracy, and how many were begun, once so many epochs are spent."""
    pruner = pruners.get(name)
    seen: list[Curve] = []
    best = 0.0
    for number, at in enumerate(np.random.default_rng(seed).permutation(len(curves)).tolist()):
        curve = curves[at]
        watched = pruner.epochs(EPOCHS, number=number)
        shown: tuple[Look, ...] = ()
        spent = EPOCHS
        for look in (look for look in curve.looks if look.epoch in watched):
            shown += (look,)
            if pruner.stops(Curve(number, 1.0, 1.0, shown), seen):
                spent = look.epoch
                break
        epochs -= spent
        if epochs < 0:
            return best, number
        finished = curve.accuracy if spent == EPOCHS else None
        seen.append(Curve(number, 1.0, 1.0, shown, finished))
        best = max(best, finished or 0.0)
    return best, len(curves)


def scores_of(rows: Sequence[dict[str, str]]) -> Any:
    """Return what all zero-cost proxies say of the cells, as they were trained: [n, proxies]."""
    dataset = datasets.load("fashion-mnist", seed=0)
    scale = Scale(1, 8, dataset.resolution, len(dataset.classes), dataset.channels)
    networks = [pnas.architecture(parameters_of(row), scale) for row in rows]
    return proxies.scores(plugins.names("proxies"), networks, dataset, seed=0)


def with_proxies(name: str, rows: Sequence[dict[str, str]], scores: Any, *, few: int = 20, rounds: int = 10) -> Any:
    """Return the median rank correlation on level 2 of a surrogate fitted to a few, or to all, cells of level 1."""
    scores = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    first, second = Level(rows, 1), Level(rows, 2)
    of_first = scores[[row["blocks"] == "1" for row in rows]]
    of_second = scores[[row["blocks"] == "2" for row in rows]]
    found = {}
    for count in (few, len(first.codes)):
        values: dict[str, list[float]] = {"without": [], "with": []}
        for seed in range(rounds):
            known = np.random.default_rng(seed).permutation(len(first.codes))[:count]
            for label, ours, theirs in (("without", None, None), ("with", of_first[known], of_second)):
                evaluated = surrogates.Evaluated(first.codes[known], np.ones(count), first.accuracy[known], ours)
                fitted = surrogates.fit(name, [evaluated], operations=len(pnas.OPERATIONS), seed=seed)
                predicted = fitted.predict(second.codes, np.ones(len(second.codes)), theirs)[0]
                values[label].append(correlation(predicted.tolist(), second.accuracy.tolist()))
        found[str(count)] = {label: round(statistics.median(each), 3) for label, each in values.items()}
    return found


if __name__ == "__main__":
    main()
