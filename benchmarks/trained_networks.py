"""Trains random networks of `pnas` and `mbconv` on Fashion-MNIST: what exported files are compared with PyTorch on.

Each is trained as `hwnas train` trains winners, for fewer epochs; its weights are a safetensors file, and beside it
JSON says which network it is and how accurate on the validation images. Called again, it goes on.

    python benchmarks/trained_networks.py [--quick] [--folder runs/trained_networks] [--networks 32] [--epochs 8]
        [--filters 8,12,16,24] [--device cpu]

The last line is one JSON object: {"networks", "accuracy": {"lowest", "median", "highest"}, "seconds"}.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from train_cells import dataset

from hwnas.spaces import random_parameters
from hwnas.support import plugins
from hwnas.support.files import write_json
from hwnas.support.progress import bar

SPACES = ("pnas", "mbconv")
FILTERS = (8, 12, 16, 24)
BATCH_SIZE = 128


class Wanted(NamedTuple):
    """A network and how it is trained."""

    space: str
    parameters: dict[str, Any]
    cells: int
    filters: int
    epochs: float
    images: int | None
    device: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two networks, hardly trained: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/trained_networks"))
    parser.add_argument("--keep", type=Path, help="keep what --quick trains in this folder")
    parser.add_argument("--networks", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--filters", default=",".join(map(str, FILTERS)), help="the widths, which take turns")
    parser.add_argument("--device", default="cpu", help="where to train: cpu or cuda")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes of one thread each")
    options = parser.parse_args()
    count, epochs, images = (2, 1.0, 256) if options.quick else (options.networks, options.epochs, None)
    filters = [int(width) for width in options.filters.split(",")]
    os.environ["OMP_NUM_THREADS"] = "1"
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool,
    ):
        folder = (options.keep or Path(temporary)) if options.quick else options.folder
        folder.mkdir(parents=True, exist_ok=True)
        tasks = [
            pool.submit(trained, folder / f"{number:02d}", one)
            for number, one in enumerate(wanted(count, filters, epochs=epochs, images=images, device=options.device))
        ]
        with bar("training networks", len(tasks)) as progress:
            for _ in as_completed(tasks):
                progress.advance()
        found = [task.result() for task in tasks]
    accuracies = [one["accuracy"] for one in found]
    shown = {"lowest": min(accuracies), "median": statistics.median(accuracies), "highest": max(accuracies)}
    seconds = round(sum(one["seconds"] for one in found))
    print(json.dumps({"networks": len(found), "accuracy": shown, "seconds": seconds}))


def wanted(count: int, filters: Sequence[int], *, epochs: float, images: int | None, device: str) -> list[Wanted]:
    """Return the networks, of the spaces in turn, at several widths and depths."""
    drawn = {name: random_parameters(plugins.load("spaces", name), count, seed=0) for name in SPACES}
    return [
        Wanted(
            space := SPACES[number % len(SPACES)],
            drawn[space][number],
            1 + number // 2 % 2,
            filters[number // 4 % len(filters)],
            epochs,
            images,
            device,
        )
        for number in range(count)
    ]


def trained(path: Path, one: Wanted) -> dict[str, Any]:
    """Train a network, unless its file is there, and return what is known of it."""
    import torch

    from hwnas.network.scale import Scale
    from hwnas.searching.estimators.training import evaluate
    from hwnas.training.settings import TrainingSettings

    torch.set_num_threads(1)
    described = path.with_suffix(".json")
    if described.exists():
        return dict(json.loads(described.read_text()))
    data = dataset("fashion-mnist", 0)
    scale = Scale(one.cells, one.filters, data.resolution, len(data.classes), data.channels)
    network = plugins.load("spaces", one.space).architecture(one.parameters, scale)
    settings = TrainingSettings(
        epochs=one.epochs, images_per_epoch=one.images, batch_size=BATCH_SIZE, device=one.device
    )
    result = evaluate(network, data, settings, keep=path.with_suffix(".safetensors"))
    figures = {"accuracy": round(result.accuracy, 5), "seconds": round(result.seconds, 1)}
    found = {**one._asdict(), **figures, "torch": torch.__version__}
    write_json(described, found)
    return found


if __name__ == "__main__":
    main()
