"""How well a latency table of this machine predicts whole networks that nothing was fitted to.

For each setting and space `hwnas profile` fills a table with operators and with networks that the correction is fitted
to, which is timed as the cost; then `--validate` adds held-out networks. Beside the prediction stand the plain sum of
the operators, a line fitted to Mult-Adds alone, and the noise floor: each network's first half of rounds beside its
second. A network's latency is the median over its rounds, each divided by how slow the device was in it
(hwnas/slowness.py). Everything measured is kept in --folder; called again, it goes on.

    python benchmarks/latency.py [--quick] [--folder F] [--cases tflite-fp32-2t/pnas,...] [--networks 200]

The last line is one JSON object: {"SETTING/SPACE": {"within_5", "within_10", "rmse_ms", "spearman", "kendall",
"sum_within_10", "mult_adds_within_10", "noise_within_5", "noise_within_10", "networks", "cost_s", ...}, ...}; cost_s is
null where the table was not filled in one go.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hwnas.verbs.profile import profile

SETTINGS = ("tflite-fp32-1t", "tflite-int8-1t", "onnx-fp32-1t")
CASES = [f"{setting}/{space}" for setting in SETTINGS for space in ("pnas", "mbconv")]
SCALES: dict[str, dict[str, Any]] = {
    "pnas": {"cells": (1, 2, 3), "filters": (8, 16, 24, 32, 40, 48), "resolution": (32, 64)},
    "mbconv": {"cells": (1, 2, 3), "filters": (8, 16, 24, 32), "resolution": (32, 64)},
}
QUICK: dict[str, Any] = {"cells": (1,), "filters": (8,), "resolution": (16,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one case, small and few: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/latency"))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--fitted", type=int, default=64, help="networks that the correction is fitted to")
    parser.add_argument("--networks", type=int, default=200, help="held-out networks")
    options = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in CASES[:1] if options.quick else options.cases.split(","):
            folder = Path(temporary) / "quick" if options.quick else options.folder / name
            counts = (12, 24) if options.quick else (options.fitted, options.networks)
            result[name] = run(name, folder.absolute(), QUICK if options.quick else None, counts)
            print(f"{name}: {json.dumps(result[name])}", file=sys.stderr)
    print(json.dumps(result))


def run(name: str, folder: Path, scales: dict[str, Any] | None, counts: tuple[int, int]) -> dict[str, Any]:
    """Profile and validate one case in its folder; return its figures."""
    setting, space = name.split("/")
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    fitted, held_out = counts
    base, _, threads = setting.rpartition("-")
    options = {
        "setting": f"{base}-1t",
        "threads": int(threads[:-1]),
        "space": space,
        "channels": 3,
        "networks": fitted,
        **(scales or SCALES[space]),
    }
    (filled,) = profile("host", **options)
    cost = Path("cost_s.json")
    if fresh:
        cost.write_text(json.dumps(round(filled.seconds, 1)))
    (one,) = profile("host", validate=held_out, **options)
    cost_s = json.loads(cost.read_text()) if cost.exists() else None
    os.chdir("/")
    assert one.validation is not None
    figures = {field: round(value, 4) for field, value in dataclasses.asdict(one.validation).items()}
    own = {"stated_error": one.error, "drift": one.steadiness.drift or 0.0, "median_spread": one.median_spread}
    rounded = {field: round(value, 4) for field, value in own.items()}
    return {**figures, **rounded, "cost_s": cost_s, "fitted": fitted, "entries": one.entries}


if __name__ == "__main__":
    main()
