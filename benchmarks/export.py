"""How fast are our exported files beside litert-torch's, litert-quantizer's and those of torch's own ONNX export?

The networks: 10 random ones of `pnas` and of `mbconv`, half at 32x32, half at 224x224, and five known ones; weights are
random, BatchNorm's statistics those of a batch of noise. Of each network are timed, in one thread: our .tflite beside
litert-torch's of the same module (`fp32`); our int8 file beside litert-torch's quantised by litert-quantizer (`int8`)
and beside two of ours without the rewrites for XNNPACK, one by our own writer (`int8_unrewritten`) and one by
litert-quantizer (`int8_quantizer`); our .onnx beside that of `torch.onnx.export` (`onnx`); our .tflite beside our .onnx
(`tflite_over_onnx`), and ours beside ours without one rewrite each (`fp32 split-depthwise`, ...). The files of a
network take turns; a file's time is the lower quartile, over the rounds, of the shortest of a few calls, in time of the
processor: all is computed in the calling thread, so that other programs add less. A ratio is the median of those in
several processes one after the other: where a runtime's memory lies makes a file up to a seventh slower as long as its
process lives. The peers are installed in an environment made in the folder. Files and figures of each network are kept
in --folder; called again, it goes on.

    python benchmarks/export.py [--quick] [--folder F] [--networks A,B] [--processes 5] [--rounds 12]
        [--images 100]

The last line is one JSON object: medians of ours / theirs (`ratio_fp32`, `ratio_fp32_7x7`: with a 7x7 depthwise
convolution, `ratio_int8`, `ratio_int8_unrewritten`, `ratio_int8_quantizer`, `ratio_onnx`, `tflite_over_onnx`;
`rewrites`: of the networks to which each applies), `ratio_worst` of any network and peer, `int8_peer_failed`: how many
the peer cannot convert, `max_relative_error_fp32`: of ours to PyTorch, by the largest output; and `networks`: for each
its `ms`, `ratios`, the `noise` (how far the ratios of two processes differ, at most), `errors` of each file, also from
what PyTorch computes in float64 (`errors_exact`, with float32 PyTorch's own: `torch`), and what the peers said
(`failed`). `error_beside_torch`: at most, the error of ours from float64 by that of float32 PyTorch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from hwnas.device.device import Setting
from hwnas.formats import onnx, tflite
from hwnas.formats._rewrites import places
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Block, Cell
from hwnas.network.graph import Graph
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.published import PUBLISHED, published_network
from hwnas.network.scale import Scale
from hwnas.spaces import mbconv, pnas, random_parameters
from hwnas.support.files import read_json, write_atomically, write_bytes, write_json
from hwnas.support.progress import bar

if TYPE_CHECKING:
    from hwnas.training.module import Network

RATIOS = {  # ours, theirs
    "fp32": ("ours.tflite", "peer.tflite"),
    "int8": ("ours.int8.tflite", "peer.int8.tflite"),
    "int8_unrewritten": ("ours.int8.tflite", "unrewritten.int8.tflite"),
    "int8_quantizer": ("ours.int8.tflite", "quantizer.int8.tflite"),
    "onnx": ("ours.onnx", "torch.onnx"),
    "tflite_over_onnx": ("ours.tflite", "ours.onnx"),
}
REWRITES = {  # by ratio: ours, what it is without, and the rewrite
    f"{precision} {name}": (f"ours{end}", f"{name}{end}", name)
    for precision, end in (("fp32", ".tflite"), ("int8", ".int8.tflite"))
    for name, rewrite in tflite.REWRITES.items()
    if precision in rewrite.precisions
}
RATIOS |= {ratio: (ours, theirs) for ratio, (ours, theirs, _) in REWRITES.items()}
AGAINST_PEERS = tuple(RATIOS)[:5]
FILES = tuple(dict.fromkeys(name for pair in RATIOS.values() for name in pair))
SCALES = {  # cells and filters; of mbconv the most blocks a stage and 16 x the width
    ("pnas", 32): ((1, 16), (2, 24), (3, 32), (2, 48), (1, 64)),
    ("pnas", 224): ((1, 24), (2, 32), (2, 44), (3, 54), (1, 64)),
    ("mbconv", 32): ((1, 16), (2, 16), (3, 24), (4, 12), (2, 32)),
    ("mbconv", 224): ((1, 16), (2, 12), (3, 16), (4, 16), (2, 24)),
}
COMPARED = 4  # images on which outputs are compared
BATCH = 16  # images that BatchNorm's statistics are of
TURN_S = 0.02  # that a file is called for in a round, three times at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two tiny networks and no installed peers: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/export"))
    parser.add_argument("--networks", default="", help="only these, as in pnas-32-0,mobilenet-v2")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=12, help="in each process")
    parser.add_argument("--images", type=int, default=100, help="that int8 files are calibrated on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder.absolute()
        wanted = tiny_networks() if options.quick else networks()
        names = options.networks.split(",") if options.networks else list(wanted)
        processes, rounds = (2, 3) if options.quick else (options.processes, options.rounds)
        count = BATCH if options.quick else options.images
        with bar("writing", len(names)) as writing:
            for name in names:
                writing.describe(name)
                write_ours(wanted[name], folder / name, max(count, BATCH), list(wanted).index(name))
                writing.advance()
        if not options.quick:
            run_peers(folder, names)
        found = {}
        with bar("timing", len(names)) as timing:
            for name in names:
                timing.describe(name)
                found[name] = figures(wanted[name].graph, folder / name, processes, rounds)
                timing.advance()
    print(json.dumps(summary(found)))


def networks() -> dict[str, Architecture]:
    """Return all networks by name; the random ones are always the same."""
    found: dict[str, Architecture] = {}
    for seed, ((name, side), scales) in enumerate(SCALES.items()):
        space = {"pnas": pnas, "mbconv": mbconv}[name]
        skeleton = "cifar" if side == 32 else "imagenet"
        for number, parameters in enumerate(random_parameters(space, len(scales), seed=seed)):
            scale = Scale(*scales[number], side, 10 if side == 32 else 1000, skeleton=skeleton)
            found[f"{name}-{side}-{number}"] = space.architecture(parameters, scale)
    return found | {name: published_network(name) for name in PUBLISHED}


def tiny_networks() -> dict[str, Architecture]:
    cell = Cell((Block(("separable_7x7", 0), ("avg_pool_3x3", 1)),))
    (chain,) = random_parameters(mbconv, 1, seed=0)
    return {
        "pnas": CellNetwork(cell, Scale(1, 4, 16, 10)),
        "mbconv": mbconv.architecture(chain, Scale(1, 8, 16, 10)),
    }


def write_ours(architecture: Architecture, folder: Path, count: int, seed: int) -> None:
    """Write all files that need no installed peer, and what the peers and the comparison need."""
    import torch
    from safetensors.torch import save_file

    from hwnas.training.module import deployed_weights

    done = folder / "exact.npy"
    if done.exists():
        return
    graph = architecture.graph
    images = np.random.default_rng(seed).standard_normal((count, *graph.layers[0].shape), np.float32)
    write_atomically(folder / "images.npy", lambda path: save(path, images))
    network = random_network(graph, torch.from_numpy(images[:BATCH]), seed)
    write_json(folder / "architecture.json", architecture.to_json())
    write_atomically(folder / "weights.safetensors", lambda path: save_file(network.state_dict(), path))
    weights = deployed_weights(network)
    ranges = tflite.calibrate(tflite.lower(graph), weights, images)

    def write(name: str, without: Collection[str] = ()) -> None:
        known = ranges if ".int8." in name else None
        lowered = tflite.lower(graph, without=without)
        write_bytes(folder / name, tflite.write(lowered, weights, ranges=known, without=without))

    write("ours.tflite")
    write("ours.int8.tflite")
    write("unrewritten.int8.tflite", tflite.REWRITES)
    write("whole.tflite", tflite.REWRITES)  # which litert-quantizer quantises
    for ours, theirs, rewrite in REWRITES.values():
        precision = "int8" if ".int8." in ours else "fp32"
        if rewrite in places(graph, Setting(runtime="tflite", precision=precision)):
            write(theirs, (rewrite,))
    write_bytes(folder / "ours.onnx", onnx.write(onnx.lower(graph), weights))
    write_atomically(folder / "torch.onnx", lambda path: export_by_torch(network, path))
    compared = torch.from_numpy(images[:COMPARED])
    with torch.no_grad():
        expected, exact = network(compared).numpy(), network.double()(compared.double()).numpy()
    write_atomically(folder / "expected.npy", lambda path: save(path, expected))
    write_atomically(done, lambda path: save(path, exact))


def save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def random_network(graph: Graph, images: Any, seed: int) -> "Network":
    """Return a network with random weights, and the statistics of these images in its BatchNorms."""
    import torch
    from torch import nn

    from hwnas.training.module import Network

    torch.manual_seed(seed)
    network = Network(graph)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = nn.Conv2d  # what hwnas's own changes is for training on a CPU
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def export_by_torch(network: "Network", path: Path) -> None:
    import torch

    batch = {0: torch.export.Dim("batch")}
    image = torch.zeros(2, *network.graph.layers[0].shape)
    torch.onnx.export(
        network, (image,), str(path), dynamo=True, dynamic_shapes=(batch,), external_data=False, verbose=False
    )


def run_peers(folder: Path, names: list[str]) -> None:
    """Run the peers in an environment of their own, on the networks that they have not tried yet."""
    script, root = Path(__file__).with_name("export_peers.py"), Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    python = install_peers(folder / "peers")
    with bar("peers", len(names)) as running, (folder / "peers.log").open("a") as log:
        while waiting := [folder / name for name in names if not (folder / name / "peer.json").exists()]:
            command = [str(python), str(script), *map(str, waiting)]
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
            assert process.stdout is not None
            for _ in process.stdout:
                running.at(sum((folder / name / "peer.json").exists() for name in names))
            if (status := process.wait()) > 0:
                raise SystemExit(f"the peers' process ended with the status {status}: see {log.name}")
            if status:  # a crash inside a peer
                crashed = next(one for one in waiting if not (one / "peer.json").exists())
                write_json(crashed / "peer.json", {"crash": f"signal {-status}"})


def install_peers(environment: Path) -> Path:
    python = environment / "bin" / "python"
    if not (environment / ".installed").exists():
        packages = ["litert-torch==0.10.0", "litert-quantizer", "typer", "rich", "pydantic", "safetensors"]
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        (environment / ".installed").touch()
    return python


def figures(graph: Graph, folder: Path, processes: int, rounds: int) -> dict[str, Any]:
    """Return a network's figures; its files are timed, in processes of their own, unless they are."""
    path, files = folder / "figures.json", [name for name in FILES if (folder / name).exists()]
    timed = dict(read_json(path, what="a network's figures")) if path.exists() else {}
    asked = {"files": files, "processes": processes, "rounds": rounds}
    if {name: timed.get(name) for name in asked} != asked:
        found = []
        for _ in range(processes):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found.append(pool.submit(time_files, folder, files, rounds).result())
        timed = {**asked, **found[0], "samples_ms": [one["samples_ms"] for one in found]}
        write_json(path, timed)
    quartiles = {  # [processes]
        name: np.quantile([one[name] for one in timed["samples_ms"]], 0.25, axis=1) for name in timed["samples_ms"][0]
    }
    peer = folder / "peer.json"
    said = dict(read_json(peer, what="what the peers said")) if peer.exists() else {}
    ratios, noise = {}, {}
    for name, (ours, theirs) in RATIOS.items():
        if {ours, theirs} <= quartiles.keys():
            each = quartiles[ours] / quartiles[theirs]
            ratios[name] = round(float(np.median(each)), 4)
            noise[name] = round(float(each.max() / each.min()) - 1, 3)
    return {
        "ms": {name: round(float(np.median(values)), 4) for name, values in quartiles.items()},
        "ratios": ratios,
        "noise": noise,
        "errors": timed["errors"],
        "errors_exact": timed["errors_exact"],
        "failed": {**said, **timed["failed"]},
        "has_7x7": any(layer.depthwise and layer.kernel == (7, 7) for layer in graph.layers),
    }


def time_files(folder: Path, files: list[str], rounds: int) -> dict[str, Any]:
    """Return each file's time in each round, in ms, and how far its outputs are from PyTorch's."""
    images = np.load(folder / "images.npy", mmap_mode="r")[:COMPARED]
    expected, exact = np.load(folder / "expected.npy"), np.load(folder / "exact.npy")
    models, errors, failed = {}, {}, {}
    errors_exact = {"torch": error(expected, exact)}
    for name in files:
        try:
            models[name] = (load_onnx if name.endswith("onnx") else load_tflite)(folder / name)
        except (ValueError, RuntimeError) as refused:
            failed[name] = str(refused)
            continue
        outputs = np.stack([models[name](image)[1] for image in images])
        errors[name], errors_exact[name] = error(outputs, expected), error(outputs, exact)
    samples: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds):
        for name in np.roll(list(models), number):
            samples[name].append(turn(models[name], images[0]))
    return {"samples_ms": samples, "errors": errors, "errors_exact": errors_exact, "failed": failed}


def error(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, by the largest of what is expected."""
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


Timed = Callable[[np.ndarray], tuple[float, np.ndarray]]  # an image [c, h, w] to seconds and logits


def turn(model: Timed, image: np.ndarray) -> float:
    """Return the least processor time of a few calls in a row, in ms, after one that is not timed."""
    model(image)
    times: list[float] = []
    while len(times) < 3 or sum(times) < TURN_S:
        times.append(model(image)[0])
    return 1000 * min(times)


def load_tflite(path: Path) -> Timed:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image: np.ndarray) -> tuple[float, np.ndarray]:
        value = np.ascontiguousarray(image.transpose(1, 2, 0)[None])
        if step := source["quantization"][0]:
            value = np.clip(np.rint(value / step) + source["quantization"][1], -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], value)
        started = time.thread_time()
        interpreter.invoke()
        seconds = time.thread_time() - started
        output = interpreter.get_tensor(target["index"])[0]
        if step := target["quantization"][0]:
            output = step * (output.astype(np.float32) - target["quantization"][1])
        return seconds, output

    return run


def load_onnx(path: Path) -> Timed:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(image: np.ndarray) -> tuple[float, np.ndarray]:
        images = {name: image[None]}
        started = time.thread_time()
        (output,) = session.run(None, images)
        return time.thread_time() - started, output[0]

    return run


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the medians over the networks; null where no network has the ratio."""

    def median(name: str, *, only_7x7: bool = False) -> float | None:
        values = [
            one["ratios"][name] for one in found.values() if name in one["ratios"] and (one["has_7x7"] or not only_7x7)
        ]
        return round(statistics.median(values), 4) if values else None

    asked = [one for one in found.values() if "peer.tflite" in one["ms"] or one["failed"]]
    against = [one["ratios"][name] for one in found.values() for name in AGAINST_PEERS if name in one["ratios"]]
    fp32 = [(one, name) for one in found.values() for name in ("ours.tflite", "ours.onnx")]
    beside_torch = [one["errors_exact"][name] / one["errors_exact"]["torch"] for one, name in fp32]
    return {
        "ratio_fp32": median("fp32"),
        "ratio_int8": median("int8"),
        "ratio_fp32_7x7": median("fp32", only_7x7=True),
        "ratio_int8_unrewritten": median("int8_unrewritten"),
        "ratio_int8_quantizer": median("int8_quantizer"),
        "int8_peer_failed": sum("peer.int8.tflite" not in one["ms"] for one in asked),
        "ratio_onnx": median("onnx"),
        "ratio_worst": max(against),
        "max_relative_error_fp32": max(one["errors"][name] for one, name in fp32),
        "error_beside_torch": round(max(beside_torch), 2),
        "tflite_over_onnx": median("tflite_over_onnx"),
        "rewrites": {name: median(name) for name in REWRITES},
        "networks": found,
    }


if __name__ == "__main__":
    main()
