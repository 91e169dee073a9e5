"""How long it takes to enumerate, tell apart and cost whole levels of the space `pnas`.

All two-block cells, and the extension of 256 four-block cells to five blocks: canonical, distinct, with Mult-Adds,
parameters and summed latency each, on one core. Latencies are pretended (the time does not depend on them). The last
line is one JSON object; without --quick it also counts the distinct three-block cells, which is not in the seconds.

    python benchmarks/enumerate.py [--quick]
"""

import argparse
import json
import os
import resource
import time
import zlib
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from hwnas.device import Setting
from hwnas.latency.cell_costs import CellCosts
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement
from hwnas.latency.table import LatencyTable
from hwnas.network.cell import canonical_keys
from hwnas.network.graph import executed
from hwnas.network.scale import Scale
from hwnas.spaces import pnas

SCALE = Scale(2, 24, 32, 10)
PARENTS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out the count of three-block cells")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    model = CellCosts(pretended_table(), [SCALE], operations=pnas.OPERATIONS)
    parents = four_block_cells()

    started = time.perf_counter()
    two = pnas.grow(pnas.first_level())
    model.of(two)
    after_two = time.perf_counter() - started
    five = pnas.grow(parents)
    after_five = time.perf_counter() - started
    costs = model.of(five)
    seconds = time.perf_counter() - started

    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    raw = PARENTS * pnas.CHOICES[4]
    print(f"level 2: {len(two):,} distinct cells with their costs in {after_two:.2f} s")
    print(f"level 5: {raw:,} raw extensions, {len(five):,} distinct in {after_five - after_two:.2f} s,")
    print(f"         their costs in {seconds - after_five:.2f} s; peak memory {peak_mib:.0f} MiB")
    result = {"raw": raw, "candidates": len(five), "seconds": round(seconds, 3), "peak_mib": round(peak_mib)}
    assert costs.ms.shape == (len(five), 1)
    if not options.quick:
        result["distinct"] = [len(pnas.first_level()), len(two), distinct_three_block_cells(two)]
        print(f"distinct cells of one, two and three blocks: {result['distinct']}")
    print(json.dumps(result))


def four_block_cells() -> np.ndarray:
    """Return 256 random four-block cells, as a beam might be."""
    random = np.random.default_rng(0)
    cells = pnas.first_level()
    for _ in range(3):
        cells = pnas.grow(cells[random.choice(len(cells), min(64, len(cells)), replace=False)])
    return cells[random.choice(len(cells), PARENTS, replace=False)]


def distinct_three_block_cells(two: np.ndarray) -> int:
    """Return how many there are: every one is a two-block cell and a block that nothing reads."""
    keys = [canonical_keys(pnas.grow(two[at : at + 512]), operations=8) for at in range(0, len(two), 512)]
    return len(np.unique(np.concatenate(keys)))


def pretended_table() -> LatencyTable:
    table = LatencyTable(Path("pretended"), "host", Setting(runtime="tflite"), Conditions())
    model = CellCosts(table, [SCALE], operations=pnas.OPERATIONS)
    for architecture in pnas.cover(SCALE):
        for name, _, _ in executed(model.lower(architecture)):
            table.entries[name] = Measurement(((0.001 + zlib.crc32(name.encode()) % 1000 / 1e4,),))
    return table


if __name__ == "__main__":
    main()
