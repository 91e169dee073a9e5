"""Does the progressive search find better cells than random choice, at the same cost?

Ten cells of `progressive` and ten of `random`: same cap, latency targets, seeds and training on Fashion-MNIST, on this
machine. Prints each one's median validation accuracy, with a 95 % bootstrap interval of the difference of the medians.
The last line is one JSON object. A run that was stopped goes on in --out.

    python benchmarks/demo_control.py [--quick] [--out runs/demo_control]
"""

import argparse
import json
import random
import statistics
from pathlib import Path

import hwnas
from hwnas.runs.run import Run

STRATEGIES = ("progressive", "random")
SPACE = {"cells": (1,), "filters": (4, 6, 8, 12, 16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute: three cells each, hardly trained")
    parser.add_argument("--out", default="runs/demo_control")
    parser.add_argument("--max-latency-ms", type=float, default=1.0)
    parser.add_argument("--cells", type=int, default=10, help="cells of each strategy")
    options = parser.parse_args()
    if options.quick:
        sizes = {"trials": 3, "images": 300, "epochs": 1}
        space = {"cells": (1,), "filters": (8,)}
    else:
        sizes = {"trials": options.cells, "images": 3000, "epochs": 2}
        space = SPACE
    hwnas.profile("host", setting="tflite-fp32-1t", networks=16 if options.quick else 32, **space)
    accuracies = {}
    for strategy in STRATEGIES:
        out = f"{options.out}{'_quick' if options.quick else ''}/{strategy}"
        hwnas.search(
            out=out,
            max_latency_ms=options.max_latency_ms,
            setting="tflite-fp32-1t",
            strategy=strategy,
            seed=0,
            **space,
            **sizes,
        )
        accuracies[strategy] = [candidate.accuracy for candidate in Run.open(Path(out)).candidates()]
    result = compare(accuracies["progressive"], accuracies["random"])
    for name in STRATEGIES:
        print(f"{name}: median {result[name]:.4f} of {len(accuracies[name])} cells, best {max(accuracies[name]):.4f}")
    low, high = result["interval"]
    print(f"progressive - random: {result['difference']:+.4f}, 95 % bootstrap interval {low:+.4f} to {high:+.4f}")
    print(json.dumps({**result, "accuracies": accuracies}))


def compare(ours: list[float], theirs: list[float], *, draws: int = 10_000, seed: int = 0) -> dict[str, object]:
    """Return both medians, their difference and its 95 % bootstrap interval."""
    chooser = random.Random(seed)

    def median_of_draw(values: list[float]) -> float:
        return statistics.median(chooser.choices(values, k=len(values)))

    differences = sorted(median_of_draw(ours) - median_of_draw(theirs) for _ in range(draws))
    medians = {"progressive": statistics.median(ours), "random": statistics.median(theirs)}
    return {
        **medians,
        "difference": medians["progressive"] - medians["random"],
        "interval": (differences[int(0.025 * draws)], differences[int(0.975 * draws)]),
        "cells": len(ours),
    }


if __name__ == "__main__":
    main()
