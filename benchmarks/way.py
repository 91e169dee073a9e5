"""Through how many of the package's parts a cell goes on its way to a file, and how often these call one another.

In one process a search of one trial (predicted, trained shortly), `hwnas.train` and `hwnas.export` of it are traced:
every call of a Python function of the package, and from which of its files: that of the nearest frame up the stack.
What modules do as they are imported is no call. A unit is a folder or a file at the package's top, an edge leads from
one to another. Public functions do, so that other versions of the package are counted alike: PYTHONPATH=/path/to/it.

    python benchmarks/way.py [--edges] [--json]

With --json what is printed is one JSON object: {"files", "units", "edges"}, lists all three.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # so that the same is trained, and what hangs on it is called, each time

import numpy as np

import hwnas

PACKAGE = Path(hwnas.__file__).resolve().parent
SETTING, SIDE, CLASSES = "tflite-fp32-1t", 8, 3
SCALES = {"cells": (1,), "filters": (4,)}
IMPORT = "<module>"  # the name of a frame that runs a module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", action="store_true", help="list the edges, with the number of calls")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_images(Path("images.npz"))
        profile()
        files, edges = traced_way()
    units = sorted({unit(file) for file in files})
    listed = [(*edge, count) for edge, count in sorted(edges.items())]
    if options.json:
        print(json.dumps({"files": sorted(files), "units": units, "edges": listed}))
        return
    if options.edges:
        print("\n".join(f"{caller} -> {callee}: {count:,}" for caller, callee, count in listed))
    print(", ".join(units))
    print(f"{PACKAGE}: {len(files)} files, {len(units)} units, {len(edges)} edges")


def write_images(path: Path) -> None:
    """Write grey images of classes that differ in brightness: a file whose int8 finds no classes is refused."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 120), ("test", 60)):
        labels = np.arange(count) % CLASSES
        pixels = random.integers(0, 60, (count, SIDE, SIDE)) + 60 * labels[:, None, None]
        arrays |= {f"x_{part}": pixels.astype(np.uint8), f"y_{part}": labels}
    np.savez(path, **arrays)


def profile() -> None:
    """Fill a latency table, in another process: what that loads and keeps is none of the way's."""
    options = {**SCALES, "setting": SETTING, "resolution": (SIDE,), "channels": 1, "classes": CLASSES, "networks": 4}
    command = [sys.executable, "-c", f"import hwnas; hwnas.profile('host', **{options})"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})


def traced_way() -> tuple[set[str], Counter[tuple[str, str]]]:
    """Go the way; return the files with a function that was called, and the calls between units."""
    files: set[str] = set()
    edges: Counter[tuple[str, str]] = Counter()

    def on_event(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or frame.f_code.co_name == IMPORT or not (callee := file_of(frame.f_code.co_filename)):
            return
        above = frame.f_back
        while above and not file_of(above.f_code.co_filename):
            above = above.f_back
        if above and above.f_code.co_name == IMPORT:
            return
        files.add(callee)
        if above and (caller := unit(file_of(above.f_code.co_filename))) != unit(callee):
            edges[caller, unit(callee)] += 1

    threading.setprofile(on_event)
    sys.setprofile(on_event)
    try:
        go()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return files, edges


def go() -> None:
    """Search one network, train it, export it."""
    short = {"estimator": "training", "trials": 1, "images": 120, "epochs": 2}
    hwnas.search(out="runs/way", max_latency_ms=1e3, data="npz:images.npz", predicted=True, **short, **SCALES)
    hwnas.train("runs/way", winners=1, epochs=8, batch_size=16, augment=False, accelerator="cpu", precision="fp32")
    hwnas.export("runs/way")


@cache
def file_of(code_file: str) -> str:
    """Return a file of Python of the package, relative to it; empty for any other, as for templates."""
    path = Path(code_file)
    return path.relative_to(PACKAGE).as_posix() if path.suffix == ".py" and path.is_relative_to(PACKAGE) else ""


def unit(file: str) -> str:
    """Return the first part of a file's path."""
    return file.partition("/")[0]


if __name__ == "__main__":
    main()
