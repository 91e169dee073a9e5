"""Do caps hold, and are they used? Searches at different caps, each one's winner exported and measured again.

Profiles this machine (or goes on with the folder's table), then searches at caps spread evenly, by their logarithm,
between what a small and a large network of the space take. The estimator is `size`, which trains nothing. The winner,
the best of the front, goes the whole way of a real one: it is trained (for a few steps) and exported; `export` times
the files anew, and refuses what is over the cap. Each search's figures are kept in --folder; called again, it goes on.

    python benchmarks/caps.py [--quick] [--folder F] [--space mobile] [--searches 30] [--setting tflite-fp32-1t]

The last line is one JSON object: `under` of `searches` winners were exported and measured under the cap, `refused` were
refused; `used_mean`, `used_min`: the measured latency by the cap, of all winners, refused ones included;
`searched_used_mean`: the same as the search measured it; `search_seconds`, `measurements_a_trial`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import hwnas
from hwnas.errors import HwnasError
from hwnas.latency.costs import CostModel
from hwnas.latency.table import LatencyTable
from hwnas.network.scale import ladder
from hwnas.runs.run import Run
from hwnas.spaces import mobile, pnas, random_parameters
from hwnas.support.files import read_json, write_json

SIDE, CHANNELS, CLASSES = 32, 3, 10
SPACES = {"pnas": pnas, "mobile": mobile}
LADDERS = {  # filters in steps of about a tenth, so that a cap can be used
    "pnas": {
        "cells": (1, 2, 3, 4, 5, 6),
        "filters": (*range(8, 17), *range(18, 33, 2), *range(36, 49, 4)),
    },
    "mobile": {"cells": mobile.CELLS, "filters": mobile.FILTERS},
}
QUICK = {"cells": (1,), "filters": (4, 8)}
DATA = Path("noise.npz")
FILES = {"tflite-fp32": "model.tflite", "onnx-fp32": "model.onnx"}  # int8 finds no classes in noise
_OF_SMALL, _OF_LARGE = 2.0, 0.5  # caps are between so many times the medians of networks at the ends of the ladder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three searches over a few scales: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/caps"))
    parser.add_argument("--searches", type=int, default=30)
    parser.add_argument("--space", choices=list(SPACES), default="pnas")
    parser.add_argument("--trials", type=int, default=12, help="of each search")
    parser.add_argument("--setting", default="tflite-fp32-1t", help="of fp32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        scales = QUICK if options.quick else LADDERS[options.space]
        trials, searches = (2, 3) if options.quick else (options.trials, options.searches)
        write_noise(DATA)
        networks = 4 if options.quick else 64
        (profiled,) = hwnas.profile(
            "host", setting=options.setting, space=options.space, networks=networks, **image(), **scales
        )
        results = []
        for number, cap_ms in enumerate(caps_ms(options.setting, options.space, scales, searches)):
            results.append(one_search(number, float(cap_ms), options, scales, trials))
            print(json.dumps(results[-1]), file=sys.stderr)
        os.chdir("/")
    stated = {
        "setting": options.setting,
        "space": options.space,
        "trials": trials,
        **scales,
        "prediction_error": round(profiled.error, 4),
    }
    print(json.dumps({**summary(results), **stated}))


def image() -> dict[str, Any]:
    """Return what `profile` must know of the images."""
    return {"resolution": (SIDE,), "channels": CHANNELS, "classes": CLASSES}


def write_noise(path: Path) -> None:
    """Write images of random noise, from which nothing can be learnt, unless they are there."""
    if path.exists():
        return
    random = np.random.default_rng(0)
    images = {f"x_{part}": random.integers(0, 256, (200, SIDE, SIDE, CHANNELS), np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(200) % CLASSES for part in ("train", "test")}
    np.savez(path, **images, **labels)


def caps_ms(setting: str, space: str, scales: dict[str, tuple[int, ...]], count: int) -> "np.ndarray":
    """Return the caps, spread evenly by their logarithm; kept, so that a benchmark that goes on has the same."""
    path = Path("caps.json")
    if not path.exists():
        table = LatencyTable.read(Path("latency_tables") / "host" / f"{setting}.json")
        rungs = ladder(scales["cells"], scales["filters"], (SIDE,), classes=CLASSES, channels=CHANNELS)
        costs = CostModel(table, (rungs[0], rungs[-1])).walked(
            [SPACES[space].architecture(parameters, rung) for rung in (rungs[0], rungs[-1])]
            for parameters in random_parameters(SPACES[space], 20, seed=0)
        )
        small, large = np.median(costs.ms, axis=0)
        ends = sorted((_OF_SMALL * small, max(_OF_LARGE * large, 1.5 * _OF_SMALL * small)))
        write_json(path, {"caps_ms": np.geomspace(*ends, count).tolist()})
    return np.array(read_json(path, what="the benchmark's caps")["caps_ms"])


def one_search(
    number: int, cap_ms: float, options: argparse.Namespace, scales: dict[str, tuple[int, ...]], trials: int
) -> dict[str, Any]:
    """Search under one cap, train and export its winner; return its figures, at once where they are there."""
    path = Path("results") / f"{number:02d}.json"
    if path.exists():
        return dict(read_json(path, what="a search's figures"))
    run, started = f"runs/{number:02d}", time.monotonic()
    hwnas.search(
        out=run,
        max_latency_ms=cap_ms,
        setting=options.setting,
        space=options.space,
        data=f"npz:{DATA}",
        estimator="size",
        strategy="random",  # which needs no time for itself
        trials=trials,
        seed=number,
        **scales,
    )
    seconds = time.monotonic() - started
    opened = Run.open(run)
    (winner,) = opened.choose(1)
    measured = exported_ms(run, winner.trial, options.setting)
    timed = [len(record.measurements) for record in opened.trials().records]
    result = {
        "cap_ms": cap_ms,
        "target": winner.target,
        "network": winner.architecture.name,
        "searched_ms": winner.latency_ms,
        "predicted_ms": winner.predicted_ms,
        "exported_ms": measured,
        "refused": measured > cap_ms,
        "seconds": seconds,
        "measurements_a_trial": sum(timed) / len(timed),
    }
    write_json(path, result)
    return result


def exported_ms(run: str, trial: int, setting: str) -> float:
    """Train a winner for a few steps and export it; return what its file takes, also of one that is refused."""
    hwnas.train(run, trial=trial, epochs=0.2, batch_size=16)
    name = FILES[setting.rpartition("-")[0]]
    try:
        (exported,) = hwnas.export(run, trial=trial, files=[name])
    except HwnasError as error:
        print(error, file=sys.stderr)
        (exported,) = hwnas.export(run, trial=trial, files=[name], allow_over_cap=True)
    return float(exported.card.files[name].measured_ms)


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all searches."""
    used = [result["exported_ms"] / result["cap_ms"] for result in results]
    searched = [result["searched_ms"] / result["cap_ms"] for result in results]
    figures = {
        "used_mean": statistics.mean(used),
        "used_min": min(used),
        "searched_used_mean": statistics.mean(searched),
        "search_seconds": statistics.mean(result["seconds"] for result in results),
        "measurements_a_trial": statistics.mean(result["measurements_a_trial"] for result in results),
    }
    refused = sum(result["refused"] for result in results)
    return {"searches": len(results), "under": len(results) - refused, "refused": refused} | {
        name: round(value, 4) for name, value in figures.items()
    }


if __name__ == "__main__":
    main()
