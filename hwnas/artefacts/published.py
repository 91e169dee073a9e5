"""A published network with weights from a file, as export takes it: what a run, its data and a winner are otherwise.

torchvision's weights come with its padding and with ImageNet's mean and standard deviation of the pixels; hwnas's own,
and random ones, with TensorFlow's padding and with the data set's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.artefacts import pretrained
from hwnas.artefacts.files import sha256
from hwnas.errors import InputError, TableError
from hwnas.network import published_network
from hwnas.support import say

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.latency import Prediction
    from hwnas.network import Architecture
    from hwnas.training import Network

RANDOM = "random"  # instead of a file: for a network that is only timed
RESOLUTION = 224  # pixels, in the papers
_IMAGES, _BATCH = 64, 64  # for the statistics of random weights' norms; for testing


@dataclass(frozen=True, slots=True)
class Settings:
    """What export asks of a run's settings; there is no cap."""

    device: str
    setting: str
    threads: int
    max_latency_ms: float = inf
    predicted: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """A published network in place of a run; `weights` are a file, or "random"."""

    name: str
    weights: str
    data: str
    resolution: int  # pixels
    seed: int  # of the data set's split
    settings: Settings

    @property
    def weights_hash(self) -> str | None:
        """The SHA-256 of the file; raises InputError where it cannot be read."""
        try:
            return None if self.weights == RANDOM else sha256(Path(self.weights))
        except OSError as error:
            raise pretrained.unreadable(Path(self.weights), error.strerror or str(error)) from None

    def same(self, card: Mapping[str, Any]) -> bool:
        """Say whether an artefact's card is of the same weights, data, device and setting."""
        found = [card[name] for name in ("weights_sha256", "device", "setting")]
        found += [card["data"][name] for name in ("name", "seed")]
        return found == [self.weights_hash, self.settings.device, self.settings.setting, self.data, self.seed]


def ask(
    name: str,
    *,
    weights: str | None,
    data: str | None,
    resolution: int | None,
    seed: int | None,
    device: str | None,
    setting: str | None,
) -> Published:
    """Return what was asked for; raises InputError where weights or data are missing, and for an unknown device."""
    from hwnas.device import load_device

    if weights is None:
        raise InputError(
            f"{name} needs --weights, torchvision's checkpoint of it or a file *{pretrained.OWN} of hwnas's own; got "
            f"none. To have it only timed, type --weights {RANDOM}"
        )
    if data is None:
        raise InputError(f"{name} needs --data, on whose images its files are checked; got none. As in --data cifar10")
    found = load_device(device or "host").setting(setting)
    settings = Settings(device or "host", found.name, found.threads)
    return Published(name, weights, data, RESOLUTION if resolution is None else resolution, seed or 0, settings)


def load(published: Published) -> "tuple[dict[str, Any], Network, Dataset]":
    """Return what a winner's record says, the network in eval mode, and the data with its weights' normalisation.

    Raises InputError where the file has other weights than the network's for the classes and channels of the data.
    """
    from hwnas import datasets

    dataset = datasets.load(published.data, seed=published.seed, resolution=published.resolution)
    architecture, network, dataset = _with_weights(published, dataset)
    return _record(published, architecture, network, dataset), network, dataset


def _with_weights(published: Published, dataset: "Dataset") -> "tuple[Architecture, Network, Dataset]":
    channels, classes = dataset.channels, len(dataset.classes)
    architecture = published_network(published.name, resolution=dataset.resolution, classes=classes, channels=channels)
    if published.weights == RANDOM:
        return architecture, _random(architecture, dataset), dataset
    path = Path(published.weights)
    weights = pretrained.read(path)
    try:
        if path.suffix == pretrained.OWN:
            return architecture, pretrained.own(architecture, weights), dataset
        architecture, network = pretrained.torchvisions(architecture, weights)
    except InputError as error:
        raise InputError(
            f"{path} must have the weights of {published.name} for the {classes} classes and {channels} channels of "
            f"{dataset.name}; {error}"
        ) from None
    return architecture, network, replace(dataset, mean=pretrained.IMAGENET_MEAN, std=pretrained.IMAGENET_STD)


def _random(architecture: "Architecture", dataset: "Dataset") -> "Network":
    """Return a network with random weights, its norms fitted to images, for values to be as large as after training."""
    import torch

    from hwnas.training import Network, normalise

    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(0)
        network = Network(architecture.graph)
        norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        count = len(dataset.whole_train.labels)
        rows = torch.arange(min(count, _IMAGES)) * count // min(count, _IMAGES)
        network.train()(normalise(dataset.whole_train.read(rows), dataset))
    return network.eval()


def _record(
    published: Published, architecture: "Architecture", network: "Network", dataset: "Dataset"
) -> dict[str, Any]:
    """Return what a winner's record says, as far as there is such a thing: random weights have no accuracy."""
    from importlib import metadata

    from hwnas.training import accuracy

    test_accuracy = None
    if published.weights != RANDOM:
        say(f"testing {published.name} on {len(dataset.test.labels)} images")
        test_accuracy = accuracy(network, dataset.test, dataset, batch_size=_BATCH)
    predicted = _predicted(architecture, published.settings)
    return {
        "trial": None,
        "architecture": architecture.to_json(),
        "training": {"weights": Path(published.weights).name},
        "data": {**dataset.to_json(), "seed": published.seed},
        "test_accuracy": test_accuracy,
        "search_accuracy": None,
        "predicted_ms": predicted and predicted.ms,
        "predicted_error": predicted and predicted.error,
        "versions": {name: metadata.version(name) for name in ("hwnas", "torch", "torchvision")},
    }


def _predicted(architecture: "Architecture", settings: Settings) -> "Prediction | None":
    """Return the latency that the device's table predicts, if there is one and it has every operator."""
    from hwnas.device import load_device
    from hwnas.latency import CostModel, find_table

    device = load_device(settings.device)
    table = find_table(device, device.setting(settings.setting))
    try:
        return CostModel(table, ()).predict(architecture) if table else None
    except TableError:
        return None
