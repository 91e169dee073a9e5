"""What does a search cost, and what does it find? Trainings of each candidate beside shared weights, on Fashion-MNIST.

The searches of METHODS, each under every cap and with every seed, on this machine (profiled first, or with the folder's
table); the most accurate network of each one's front is trained in the same way, tested once, and exported, which times
it anew. Each search's figures are kept in --folder; called again, it goes on.

    python benchmarks/search_cost.py [--quick] [--folder F] [--methods M,...] [--caps 0.6,1.2] [--seeds 3]

`searched` are the seconds that a search took on the wall, `processor` those of the processor, over all the times it was
taken up, with shared weights' training, measurements and looks; `images` those that it learned from or looked at. The
last line is one JSON object: for every method and cap {"test_accuracy": mean, "interval": of the mean, 95 %, by
Student's t, "searched", "processor", "images": medians, "used": the winners' measured share of the cap, "kept": how
many files were exported under the cap, "searches"}.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hwnas
from hwnas.runs.run import Run
from hwnas.runs.settings import SearchSettings
from hwnas.searching.strategies import derives
from hwnas.support.files import read_json, write_json
from hwnas.training.shared import CALIBRATION, LOOKED_AT

METHODS = {  # a strategy, an estimator
    "progressive x training": ("progressive", "training"),
    "evolution x supernet": ("evolution", "supernet"),
    "progressive x supernet": ("progressive", "supernet"),
    "enas x supernet": ("enas", "supernet"),
    "progressive x training-speed": ("progressive", "training-speed"),
    "evolution x training-speed": ("evolution", "training-speed"),
    "darts x training-speed": ("darts", "training-speed"),
    "fbnet x training-speed": ("fbnet", "training-speed"),
    "proxyless x training-speed": ("proxyless", "training-speed"),
}
T_95 = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}  # of Student's t, by how many there are


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="two methods, two trials each, hardly trained: three minutes"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/search_cost"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--caps", default="0.3,0.6", help="in ms")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--space", default="pnas")
    parser.add_argument("--trials", type=int, default=40, help="of a search that trains each candidate")
    parser.add_argument("--looks", type=int, default=40, help="trials of a search that does not")
    parser.add_argument("--supernet", type=float, default=2.0, help="short trainings that shared weights take")
    parser.add_argument("--epochs", type=float, default=0.5, help="of the winners' training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        if options.quick:
            options.methods, options.caps, options.seeds = "progressive x training,evolution x supernet", "1.0", 1
            options.trials = options.looks = 2
            options.supernet, options.epochs = 1.0, 0.05
        scales = {"cells": (1,), "filters": (4, 8)} if options.quick else {}
        hwnas.profile("host", setting="tflite-fp32-1t", space=options.space, **scales)
        rows = [
            searched(method, float(cap), seed, options, scales)
            for seed in range(options.seeds)
            for cap in options.caps.split(",")
            for method in options.methods.split(",")
        ]
        print(json.dumps(summary(rows)))


def searched(method: str, cap: float, seed: int, options: argparse.Namespace, scales: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a search and of its winner; what is done already is not done again."""
    out = Path(f"{method.replace(' ', '_')}-{cap:g}-{seed}")
    found = out / "found.json"
    if found.exists():
        row: dict[str, Any] = read_json(found, what="figures")
        return row
    strategy, estimator = METHODS[method]
    trials = options.trials if estimator == "training" else options.looks
    arguments = [f"--{name}={','.join(map(str, values))}" for name, values in scales.items()]
    arguments += [f"--max-latency-ms={cap}", f"--space={options.space}", f"--seed={seed}", f"--trials={trials}"]
    arguments += [f"--strategy={strategy}", f"--estimator={estimator}"]
    arguments += [f"--supernet={options.supernet}"] if estimator == "supernet" or derives(strategy) else []
    arguments += ["--images=256", "--epochs=1"] if options.quick else []
    took = timed(out / "took.json", ["search", *arguments, f"--out={out}"])
    hwnas.train(run=str(out), winners="best:1", epochs=options.epochs)
    run = Run.open(out)
    winner = run.choose("best:1")[0]
    exported = subprocess.run([*HWNAS, "export", str(out), f"--trial={winner.trial}"], check=False)
    row = {
        "method": method,
        "cap": cap,
        "seed": seed,
        **took,
        "images": images_of(run),
        "trial": winner.trial,
        "seen": winner.accuracy,
        "used": winner.latency_ms / cap,
        "kept": exported.returncode == 0,
        "test_accuracy": read_json(run.winner_folder(winner.trial) / "winner.json", what="a winner")["test_accuracy"],
    }
    write_json(found, row)
    return row


HWNAS = (sys.executable, "-m", "hwnas.cli")


def timed(kept: Path, arguments: list[str]) -> dict[str, float]:
    """Let a command run to its end, and return its seconds with those of the times that it was cut off."""
    before = read_json(kept, what="seconds") if kept.exists() else {"searched": 0.0, "processor": 0.0}
    begun, processor = time.monotonic(), children()
    try:
        subprocess.run([*HWNAS, *arguments], check=True)
    finally:
        took = {
            "searched": before["searched"] + time.monotonic() - begun,
            "processor": before["processor"] + children() - processor,
        }
        if kept.parent.exists():
            write_json(kept, took)
    return took


def children() -> float:
    """Return the seconds of the processor that ended children have had."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def images_of(run: Run) -> int:
    """Return how many images a search has learned from or looked at."""
    settings: SearchSettings = run.settings
    trained = sum(record.training.images_seen for record in run.trials().in_state("trained") if record.training)
    if settings.estimator == "supernet":
        trained += run.trials().trained * (CALIBRATION + LOOKED_AT)
    if settings.estimator == "supernet" or derives(settings.strategy):  # as many as so long a training of one takes
        trained += round(settings.supernet * settings.epochs * (settings.images or 0))
    return trained


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of each method under each cap."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(f"{row['method']} at {row['cap']:g} ms", []).append(row)
    return {name: of_group(group) for name, group in grouped.items()}


def of_group(group: list[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [row["test_accuracy"] for row in group]
    half = T_95[len(group)] * statistics.stdev(accuracies) / math.sqrt(len(group)) if len(group) > 1 else math.nan
    return {
        "test_accuracy": round(statistics.mean(accuracies), 4),
        "interval": round(half, 4),
        **{name: round(statistics.median(row[name] for row in group), 1) for name in ("searched", "processor")},
        "images": round(statistics.median(row["images"] for row in group)),
        "used": [round(row["used"], 3) for row in group],
        "kept": sum(row["kept"] for row in group),
        "searches": len(group),
    }


if __name__ == "__main__":
    main()
