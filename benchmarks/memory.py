"""Is memory as it was worked out, and do caps on it hold? Files that are written, and winners that are exported.

First random networks of `pnas` and `mobile`, in fp32 and int8, calibrated: the size that was worked out of the graph
beside that of the file; the arena beside the memory between the activations that LiteRT's interpreter allocates, with
its reference kernels, and with its optimised ones, which have im2col buffers. Then searches on the pretended device
under a cap on the file and one on the activations, whose winners are trained for a moment and exported. Draws are timed
with and without such caps: whether a choice fits, and all scales of one, which a trial looks at.

    python benchmarks/memory.py [--quick] [--networks 100] [--searches 30]

The last line is one JSON object: of `networks` `files_equal` and `arenas_equal`, `most_off_bytes`; with optimised
kernels `optimised_by_arena`, the median and the largest; of `searches` `under` both caps, `refused`, `files_equal` to
what the search had stated; `used`, the mean share of the caps; milliseconds of a draw and of a trial's look.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import hwnas
from hwnas import formats, spaces
from hwnas.device import Setting
from hwnas.errors import ExportError
from hwnas.formats import tflite
from hwnas.latency import Budget, CellCosts, CostModel, MemoryModel
from hwnas.network import Architecture, Scale, ladder
from hwnas.searching.candidates import SpaceCandidates
from hwnas.spaces import random_parameters
from hwnas.support import plugins
from hwnas.testing import pretend_table

SPACES, PRECISIONS = ("pnas", "mobile"), ("fp32", "int8")
STATISTICS = {"mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25"}
METADATA = {"hwnas_trial": "0", "classes": "one,two,three", **STATISTICS, "input": "normalised"}
FILES = {"fp32": "model.tflite", "int8": "model.int8.tflite"}
STRATEGIES = ("random", "evolution", "progressive", "tpe")
SCALES: dict[str, Any] = {
    "pnas": {"cells": (1,), "filters": (4, 6, 8, 12)},
    "mobile": {"cells": (4,), "filters": (4, 6, 8, 12, 16)},
}
SIDE, CLASSES, TRIALS = 16, 3, 4
IMAGE: dict[str, Any] = {"resolution": (SIDE,), "channels": 3, "classes": CLASSES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few networks and searches: a minute")
    parser.add_argument("--networks", type=int, default=100, help="of each space and precision")
    parser.add_argument("--searches", type=int, default=30)
    parser.add_argument("--draws", type=int, default=40, help="that are timed")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the searches")
    options = parser.parse_args()
    networks, searches, draws = (4, 2, 4) if options.quick else (options.networks, options.searches, options.draws)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        figures = {"sizes": sized(networks)} if networks else {}
        if draws:
            figures["draw_and_evaluation_ms"] = drawn(draws)
        write_stripes(Path("stripes.npz"))
        if searches:
            for space in SPACES:
                setting = f"tflite-{options.precision}-1t"
                hwnas.profile("pretend", setting=setting, space=space, **IMAGE, **SCALES[space], networks=4)
            figures["searches"] = summary([searched(number, options) for number in range(searches)])
        os.chdir("/")
    print(json.dumps(figures))


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all searches."""
    under = [result for result in results if result["under"]]
    return {
        "searches": len(results),
        "under": len(under),
        "refused": sum(result["refused"] for result in results),
        "files_equal": sum(result["equal"] for result in under),
        "used": round(statistics.mean(share for result in under for share in result["used"]), 3),
    }


def sized(count: int) -> dict[str, Any]:
    """Return how networks' files and arenas differ from what was worked out."""
    off, arenas, optimised = [], [], []
    for space in SPACES:
        for number, architecture in enumerate(architectures(space, count)):
            for precision in PRECISIONS:
                known = MemoryModel(Setting(runtime="tflite", precision=precision), lambda _: METADATA).of(architecture)
                data = written(architecture, precision, seed=number)
                off.append(len(data) - known.file_bytes)
                arenas.append(allocated(data, OpResolverType.BUILTIN_REF) == known.arena_bytes)
                most = allocated(data, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
                optimised.append(most / known.arena_bytes)
    return {
        "networks": len(off),
        "files_equal": sum(not difference for difference in off),
        "most_off_bytes": max(map(abs, off)),
        "arenas_equal": sum(arenas),
        "optimised_by_arena": [round(statistics.median(optimised), 3), round(max(optimised), 3)],
    }


def architectures(space: str, count: int) -> list[Architecture]:
    """Return random networks of a space at random scales."""
    module, chance = plugins.load("spaces", space), random.Random(0)
    scales = [
        Scale(chance.choice((1, 2)), chance.choice((4, 6, 8, 12, 16, 24)), chance.choice((16, 28, 32)), CLASSES)
        for _ in range(count)
    ]
    return [
        module.architecture(parameters, scale)
        for parameters, scale in zip(random_parameters(module, count, seed=1), scales, strict=True)
    ]


def written(architecture: Architecture, precision: str, *, seed: int) -> bytes:
    """Return the file of a network with random weights, in int8 calibrated on random images."""
    graph = tflite.lower(architecture.graph)
    weights = formats.random_weights(graph, seed=seed)
    images = np.random.default_rng(seed).standard_normal((4, *graph.layers[0].shape), dtype=np.float32)
    ranges = tflite.calibrate(graph, weights, images) if precision == "int8" else None
    metadata = {**METADATA, "hwnas_trial": str(seed)}
    return tflite.write(graph, weights, ranges=ranges, precision=precision, metadata=metadata)


def allocated(data: bytes, kernels: OpResolverType) -> int:
    """Return how many bytes lie between the first and the last that the interpreter has for activations."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    tensors = dict(enumerate(schema.ModelT.InitFromObj(schema.Model.GetRootAs(data)).subgraphs[0].tensors))
    spans = []
    for number in (detail["index"] for detail in interpreter.get_tensor_details()):
        if number not in tensors or not tensors[number].buffer:  # constants lie in the file
            array = interpreter.tensor(number)()
            start = array.__array_interface__["data"][0]
            spans.append((start, start + array.nbytes))
    return max(end for _, end in spans) - min(start for start, _ in spans)


def write_stripes(path: Path) -> None:
    """Write images of three classes that are learnt in a moment: bright columns, bright rows, neither."""
    chance, images = np.random.default_rng(0), {}
    for part, count in (("train", 600), ("test", 150)):
        labels = np.arange(count) % CLASSES
        pixels = chance.integers(0, 2, (count, SIDE, SIDE, 3)) * 90
        pixels[labels == 1, :, ::3] += 120
        pixels[labels == 2, ::3, :] += 120
        images |= {f"x_{part}": pixels.astype(np.uint8), f"y_{part}": labels}
    np.savez(path, **images)


def searched(number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Search under caps that are drawn, export the winner; return whether its file is under both."""
    chance, space = random.Random(number), SPACES[number % 2]
    share = 1.0 if options.precision == "fp32" else 0.4
    caps = {
        "max_file_kib": share * 90 * 4 ** chance.random(),
        "max_activation_kib": share * 18 * 3 ** chance.random(),
    }
    run, strategy = f"runs/{number}", STRATEGIES[number // 2 % 4]
    found = hwnas.search(
        out=run,
        max_latency_ms=5.0,
        data="npz:stripes.npz",
        device="pretend",
        setting=f"tflite-{options.precision}-1t",
        space=space,
        estimator="size",
        strategy=strategy,
        surrogate="mlp",
        trials=TRIALS,
        seed=number,
        predicted=True,
        **SCALES[space],
        **caps,
    )
    result: dict[str, Any] = {"strategy": strategy, "space": space, **caps}
    result |= {"trained": found.trained, "left_out": found.left_out, "refused": False, "used": []}
    winner = max(found.front, key=lambda candidate: candidate.accuracy)
    epochs = 0.2 if options.precision == "fp32" else 4  # in int8 it must find classes
    hwnas.train(run, trial=winner.trial, epochs=epochs, batch_size=16, augment=False)
    name = FILES[options.precision]
    try:
        (exported,) = hwnas.export(run, trial=winner.trial, files=[name])
    except ExportError as error:
        print(error, file=sys.stderr)
        return result | {"under": False, "refused": True}
    file = exported.card.files[name]
    stated = (file.bytes / 1024, (file.arena_bytes or 0) / 1024)
    used = [kib / cap for kib, cap in zip(stated, caps.values(), strict=True)]
    known = (winner.file_bytes, winner.arena_bytes) == (file.bytes, file.arena_bytes)
    result |= {"under": max(used) <= 1, "used": used, "equal": known}
    print(json.dumps(result), file=sys.stderr)
    return result


def drawn(count: int) -> dict[str, Any]:
    """Return what a draw takes of the processor, in ms: of cells, and of networks that are walked."""
    found: dict[str, Any] = {}
    for space in SPACES:
        module = plugins.load("spaces", space)
        scales = ladder(**SCALES[space], resolutions=(SIDE,), classes=CLASSES, channels=3)
        with tempfile.TemporaryDirectory() as folder:
            table = pretend_table(Path(folder), space, **SCALES[space], resolutions=(SIDE,), channels=3)
        chosen = [{**parameters, "target": 1.0} for parameters in random_parameters(module, count, seed=0)]
        for kind, caps in (("without", {}), ("with", {"max_file_kib": 200.0, "max_activation_kib": 40.0})):
            grows = spaces.grows(module)
            costs = CellCosts(table, scales, operations=module.OPERATIONS) if grows else CostModel(table, scales)
            memory = MemoryModel(table.setting, lambda _: METADATA)
            candidates = SpaceCandidates(module, costs, Budget(5.0, **caps), (1.0,), memory)
            started = time.process_time()
            candidates.fits(chosen)
            fits = time.process_time() - started
            for one in chosen[: count // 4]:
                candidates.costs_with_memory(one)
            evaluated = time.process_time() - started - fits
            found[f"{space}, {kind}"] = [round(1e3 * fits / count, 1), round(4e3 * evaluated / count, 1)]
    return found


if __name__ == "__main__":
    main()
