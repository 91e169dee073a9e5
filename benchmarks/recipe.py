"""What each part of a stronger training is worth: a small network on Fashion-MNIST, with it and without it.

The network is a chain like ResNet-8: a stem, and basic blocks of 16, 32 and 64 filters. Each training sees the same
6,000 images three times, in one process of one thread, and is judged by the 6,000 validation images. The same seeds are
taken with each part and without it, so that differences are paired. Figures are kept in the folder as they come; called
again, it goes on.

    python benchmarks/recipe.py [--quick] [--folder runs/recipe] [--seeds 3] [--images 6000] [--epochs 3] [--parts A,B]

A file PART-SEED.json has {"accuracy", "seconds", "conditions"}. The last line is one JSON object: {PART: {"accuracy":
the mean over seeds, "gain": the mean difference to none, "error": its standard error, "seconds": the median}, ...}, in
shares.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from hwnas.support.files import read_json, write_json

PARTS: dict[str, dict[str, Any]] = {
    "none": {},
    "ema": {"ema": 0.999},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "mixup+cutmix": {"mixup": 0.2, "cutmix": 1.0},
    "trivial-augment": {"trivial_augment": True},
    "reparameterise": {"reparameterise": True},
}
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, hardly trained: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6000, help="training images")
    parser.add_argument("--epochs", type=float, default=3, help="times that each is seen")
    parser.add_argument("--parts", default=",".join(PARTS), help="of these, beside none")
    options = parser.parse_args()
    parts = list(dict.fromkeys(["none", *options.parts.split(",")]))
    if not options.quick:
        options.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(compared(options.folder, parts, options.seeds, options.images, options.epochs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compared(Path(folder), parts, 1, 256, 1)))


def compared(folder: Path, parts: list[str], seeds: int, images: int, epochs: float) -> dict[str, Any]:
    """Train what a folder lacks, and return what each part is worth."""
    rows = {part: [] for part in parts}
    for seed in range(seeds):
        for part in parts:
            rows[part].append(row(folder / f"{part}-{seed}.json", part, seed, images, epochs))
            print(f"{part}, seed {seed}: {rows[part][-1]['accuracy']:.4f}", flush=True)
    return {part: worth(rows[part], rows["none"]) for part in parts}


def row(path: Path, part: str, seed: int, images: int, epochs: float) -> dict[str, Any]:
    """Return what is kept of a training, or train; end where it was kept of other conditions."""
    import torch

    conditions = {"images": images, "epochs": epochs, "batch_size": BATCH, "torch": torch.__version__, **PARTS[part]}
    if not path.exists():
        write_json(path, {**trained(part, seed, images, epochs), "conditions": conditions})
    kept: dict[str, Any] = read_json(path, what="a training's figures")
    if kept["conditions"] != conditions:
        raise SystemExit(f"{path} is of {kept['conditions']}, and not of {conditions}: name another --folder")
    return kept


def trained(part: str, seed: int, images: int, epochs: float) -> dict[str, Any]:
    """Train the network once."""
    import torch

    from hwnas.datasets import load
    from hwnas.network import BasicBlock, Chain
    from hwnas.training import Order, TrainingSettings, accuracy, train_network
    from hwnas.training.mixed import Half

    torch.set_num_threads(1)
    data = load("fashion-mnist")
    some = Half(data.train, Order(data.train.labels, seed=0).indices(0, images))  # of every class its share
    network = Chain(
        stem=16,
        blocks=(BasicBlock(16, 3, 1), BasicBlock(32, 3, 2), BasicBlock(64, 3, 2)),
        head=0,
        resolution=data.resolution,
        classes=len(data.classes),
        activation="relu",
        stem_stride=1,
        input_channels=data.channels,
    )
    settings = TrainingSettings(
        epochs=epochs, batch_size=BATCH, seed=seed, device="cpu", precision="fp32", **PARTS[part]
    )
    result = train_network(network, some, data, settings)
    return {"accuracy": accuracy(result.network, data.validation, data), "seconds": result.seconds}


def worth(rows: list[dict[str, Any]], without: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean accuracy, and by how much that is more than without, seed by seed."""
    gains = [one["accuracy"] - other["accuracy"] for one, other in zip(rows, without, strict=True)]
    return {
        "accuracy": statistics.mean(one["accuracy"] for one in rows),
        "gain": statistics.mean(gains),
        "error": statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0,
        "seconds": statistics.median(one["seconds"] for one in rows),
    }


if __name__ == "__main__":
    main()
