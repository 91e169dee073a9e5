"""How long a strategy takes to propose, with 1,000 and 10,000 trials in the study.

The candidates are 15,625 of six choices with random accuracies and costs, under a cap that leaves nine in ten; the
study is in memory, with trials of distinct ones. Of each strategy's asks the first stands apart: whatever it learns
from all trials at once is in it, as after a search was taken up again. Each has --most seconds; where the first ask
takes longer it is left out, and so is what comes after it.

    python benchmarks/asks.py [--quick] [--strategies progressive,evolution,...] [--most 60]

The last line is one JSON object: {"STRATEGY": {"1000": {"first_ms", "median_ms", "mean_ms", "largest_ms", "asks"},
...}}.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from hwnas.benching.results import Results, ResultsCandidates
from hwnas.searching.strategies import Context, make_sampler
from hwnas.searching.strategies._rejecting import RejectingSampler
from hwnas.support import plugins

CHOICES, OPTIONS, ASKS = 6, 5, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 trials, ten asks: under a minute")
    parser.add_argument("--strategies", default=",".join(plugins.names("strategies")))
    parser.add_argument("--most", type=float, default=60.0, help="seconds for a strategy's asks")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    candidates = random_candidates()
    sizes, asks = ((100,), 10) if options.quick else ((1_000, 10_000), ASKS)
    result: dict[str, Any] = {}
    for name in options.strategies.split(","):
        result[name] = {}
        for trials in sizes:
            found = ask(name, candidates, trials, asks=asks, most_s=options.most)
            print(f"{name}, {trials} trials: {found}", file=sys.stderr)
            if found is None:
                break
            result[name][str(trials)] = found
    print(json.dumps(result))


def random_candidates() -> ResultsCandidates:
    """Return all combinations of the choices, with random figures."""
    random = np.random.default_rng(0)
    names = [f"choice{number}" for number in range(CHOICES)]
    rows = list(itertools.product(range(OPTIONS), repeat=CHOICES))
    figures = zip(random.uniform(50, 95, len(rows)), random.uniform(1, 10, len(rows)), strict=True)
    lines = [",".join([*names, "accuracy", "ms"])]
    lines += [",".join(map(str, (*row, accuracy, ms))) for row, (accuracy, ms) in zip(rows, figures, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_text("\n".join(lines) + "\n")
        results = Results.read(path, choices=names, accuracy=["accuracy"], latency="ms")
    return ResultsCandidates.under(results, cap=float(np.quantile(results.latency, 0.9)))


def ask(name: str, candidates: ResultsCandidates, trials: int, *, asks: int, most_s: float) -> dict[str, Any] | None:
    """Return how long a strategy's asks take; None where the first takes longer than `most_s`."""
    results, distributions = candidates.results, candidates.distributions()
    study = optuna.create_study(directions=["maximize", "minimize"])
    rows = np.random.default_rng(1).permutation(candidates.inside)[:trials].tolist()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=results.parameters[row],
                distributions=distributions,
                values=[float(results.seen[row]), float(results.latency[row])],
            )
            for row in rows
        ]
    )
    seconds: list[float] = []
    while len(seconds) <= asks:
        sampler = make_sampler(name, Context(candidates, trials + asks + 1), seed=len(seconds))
        if type(sampler).__module__.startswith("optuna."):
            sampler = RejectingSampler(sampler, candidates, seed=len(seconds))
        study.sampler = sampler
        started = time.perf_counter()
        trial = study.ask(distributions)
        seconds.append(time.perf_counter() - started)
        row = int(results.rows([trial.params])[0])
        study.tell(trial, [float(results.seen[row]), float(results.latency[row])])
        if len(seconds) == 1 and seconds[0] > most_s:
            return None
        if sum(seconds) > most_s and len(seconds) > 2:
            break
    first, *others = (round(1e3 * value, 2) for value in seconds)
    return {
        "first_ms": first,
        "median_ms": round(statistics.median(others), 2),
        "mean_ms": round(statistics.mean(others), 2),
        "largest_ms": max(others),
        "asks": len(others),
    }


if __name__ == "__main__":
    main()
