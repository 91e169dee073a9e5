"""What each part of a stronger training is worth: a small network on Fashion-MNIST, with it and without it.

The network is a chain like ResNet-8: a stem, and basic blocks of 16, 32 and 64 filters. Each training sees so many
images so many times, in one process of one thread, and is judged by the 6,000 validation images. The same seeds are
taken with each part and without it, so that differences are paired. With --unequal the images are 500 of five classes
that are easily taken for each other, 200, 140, 80, 50 and 30 of them, others with each seed; they are judged by 1,000
other training images of each class, and accuracies are balanced ones. Figures are kept in the folder as they come;
called again, it goes on.

    python benchmarks/recipe.py [--quick] [--folder runs/recipe] [--seeds 3] [--images 6000] [--epochs 3] [--unequal]
        [--batch-size 64] [--parts A,B]

A file PART-SEED.json has {"accuracy", "seconds", "conditions"}. The last line is one JSON object: {PART: {"accuracy":
the mean over seeds, "gain": the mean difference to none, "error": its standard error, "seconds": the median}, ...}, in
shares.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.support.files import read_json, write_json

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images

PARTS: dict[str, dict[str, Any]] = {
    "none": {},
    "ema": {"ema": 0.999},
    "ema-0.99": {"ema": 0.99},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "mixup+cutmix": {"mixup": 0.2, "cutmix": 1.0},
    "trivial-augment": {"trivial_augment": True},
    "reparameterise": {"reparameterise": True},
    "branches": {"reparameterise": True, "branches": 4},
    "class-weights": {"class_weights": True},
    "cutout": {"cutout": 8},
    "no-augment": {"augment": False},
    "no-smoothing": {"label_smoothing": 0.0},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.05},
    "plain": {  # what a tutorial does
        **{"optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.01, "batch_size": 32, "warm_up": 0.0},
        **{"augment": False, "label_smoothing": 0.0},
    },
    **{f"batch-{batch}": {"batch_size": batch} for batch in (8, 16, 32, 64, 128)},
    **{f"rate-{rate}": {"learning_rate": rate} for rate in (0.025, 0.05, 0.2)},
}
UNEQUAL = {0: 200, 2: 140, 3: 80, 4: 50, 6: 30}  # images by class: T-shirt, pullover, dress, coat, shirt
JUDGED_BY = 1000  # images of each of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, hardly trained: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6000, help="training images")
    parser.add_argument("--unequal", action="store_true", help="500 images in five classes of differing sizes")
    parser.add_argument("--epochs", type=float, default=3, help="times that each is seen")
    parser.add_argument("--batch-size", type=int, default=64, help="of the parts that do not name one")
    parser.add_argument("--parts", default=",".join(PARTS), help="of these, beside none")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.images, options.epochs = 1, 256, 1
    parts = list(dict.fromkeys(["none", *options.parts.split(",")]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(compared(folder, parts, options)))


def compared(folder: Path, parts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train what a folder lacks, and return what each part is worth."""
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    for seed in range(options.seeds):
        for part in parts:
            rows[part].append(row(folder / f"{part}-{seed}.json", part, seed, options))
            print(f"{part}, seed {seed}: {rows[part][-1]['accuracy']:.4f}", flush=True)
    return {part: worth(rows[part], rows["none"]) for part in parts}


def row(path: Path, part: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what is kept of a training, or train; end where it was kept of other conditions."""
    import torch

    images = "unequal" if options.unequal else options.images
    conditions = {"images": images, "epochs": options.epochs, "batch_size": options.batch_size, **PARTS[part]}
    conditions["torch"] = torch.__version__
    if not path.exists():
        write_json(path, {**trained(part, seed, options), "conditions": conditions})
    kept: dict[str, Any] = read_json(path, what="a training's figures")
    if kept["conditions"] != conditions:
        raise SystemExit(f"{path} is of {kept['conditions']}, and not of {conditions}: name another --folder")
    return kept


def trained(part: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train the network once."""
    import torch

    from hwnas.network import BasicBlock, Chain
    from hwnas.training import TrainingSettings, scores, train_network

    torch.set_num_threads(1)
    data, some, judges = unequal(seed) if options.unequal else equal(options.images)
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
    recipe = {"epochs": options.epochs, "batch_size": options.batch_size, **PARTS[part]}
    settings = TrainingSettings(seed=seed, device="cpu", precision="fp32", **recipe)
    result = train_network(network, some, data, settings)
    judged = scores(result.network, judges, data)
    return {"accuracy": judged.balanced if options.unequal else judged.accuracy, "seconds": result.seconds}


def equal(images: int) -> "tuple[Dataset, Images, Images]":
    """Return Fashion-MNIST, so many of its training images, of every class its share, and the validation images."""
    from hwnas.datasets import load
    from hwnas.training import Order
    from hwnas.training.mixed import Half

    data = load("fashion-mnist")
    return data, Half(data.train, Order(data.train.labels, seed=0).indices(0, images)), data.validation


def unequal(seed: int) -> "tuple[Dataset, Images, Images]":
    """Return five classes of Fashion-MNIST as a data set of their own, its training images and its judges."""
    import numpy as np
    import torch

    from hwnas.datasets import load

    whole = load("fashion-mnist").whole_train
    random, labels = np.random.default_rng(seed), np.asarray(whole.labels)
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for label, count in UNEQUAL.items():
        drawn = random.permutation(np.flatnonzero(labels == label))[: count + JUDGED_BY]
        parts["train"].append(drawn[:count])
        parts["test"].append(drawn[count:])
    with tempfile.TemporaryDirectory() as folder:
        arrays = {}
        for name, groups in parts.items():
            arrays[f"x_{name}"] = whole.read(torch.from_numpy(np.concatenate(groups)))[:, 0].numpy()
            arrays[f"y_{name}"] = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        np.savez(Path(folder) / "unequal.npz", **arrays)
        data = load(f"npz:{folder}/unequal.npz")
        return data, data.whole_train, data.test  # which is read here


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
