"""Where an artefact's network comes from, a published one: weights from a file, or random ones, and data to check on.

torchvision's weights come with its padding and with ImageNet's mean and standard deviation of the pixels; hwnas's own,
and random ones, with TensorFlow's padding and with the data set's.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.artefacts.files import sha256
from hwnas.artefacts.source import Purpose, TrainedNetwork
from hwnas.errors import InputError, TableError
from hwnas.network import TORCHVISIONS, published_network
from hwnas.support import say
from hwnas.training import pretrained

if TYPE_CHECKING:
    from hwnas.artefacts.card import Accuracies, Card
    from hwnas.datasets import Background, Dataset
    from hwnas.latency import Prediction
    from hwnas.network import Architecture
    from hwnas.training import Network

RANDOM = "random"  # instead of a file: for a network that is only timed
_IMAGES, _BATCH = 64, 64  # for the statistics of random weights' norms; for testing


@dataclass(frozen=True, slots=True)
class Published:
    """A published network in place of a run's winner; `weights` are a file, or "random"."""

    purpose: Purpose
    weights: str
    data: str
    resolution: int  # pixels
    seed: int  # of the data set's split
    background: "Background" = "white"
    skip_broken: bool = False

    @property
    def weights_sha256(self) -> str | None:
        """The SHA-256 of the file; raises InputError where it cannot be read."""
        try:
            return None if self.weights == RANDOM else sha256(Path(self.weights))
        except OSError as error:
            raise pretrained.unreadable(Path(self.weights), error.strerror or str(error)) from None

    def is_of(self, card: "Card") -> bool:
        """Say whether an artefact's card is of the same weights, data, device and setting."""
        stated = (card.weights_sha256, card.device, card.setting, card.data.name, card.data.seed)
        return stated == (self.weights_sha256, self.purpose.device, self.purpose.setting, self.data, self.seed)


def ask(
    name: str,
    *,
    weights: str | None,
    data: str | None,
    resolution: int | None,
    seed: int | None,
    device: str | None,
    setting: str | None,
    transparent: "Background | None" = None,
    skip_broken: bool | None = None,
) -> Published:
    """Return what was asked for; raises InputError where weights or data are missing, and for an unknown device."""
    from hwnas.device import named_device

    if weights is None:
        raise InputError(
            f"{name} needs --weights, torchvision's checkpoint of it or a file *{pretrained.OWN} of hwnas's own; got "
            f"none. To have it only timed, type --weights {RANDOM}"
        )
    if data is None:
        raise InputError(f"{name} needs --data, on whose images its files are checked; got none. As in --data cifar10")
    machine = named_device(device or "host")
    timed_in = machine.setting(setting)
    purpose = Purpose(name, machine.name, timed_in.name, timed_in.threads)
    side = published_network(name).graph.layers[0].shape[-1] if resolution is None else resolution
    return Published(purpose, weights, data, side, seed or 0, transparent or "white", bool(skip_broken))


def load_published(published: Published, weights_sha256: str | None) -> TrainedNetwork:
    """Return the network with its weights, and the data with the normalisation that is theirs.

    Raises InputError where the file has other weights than the network's for the classes and channels of the data.
    """
    from importlib import metadata

    from hwnas import datasets
    from hwnas.artefacts.card import GivenWeights
    from hwnas.runs import DataRecord

    dataset = datasets.load(
        published.data,
        seed=published.seed,
        resolution=published.resolution,
        background=published.background,
        skip_broken=published.skip_broken,
    )
    dataset.check()
    architecture, network, dataset = _with_weights(published, dataset)
    predicted = _predicted(architecture, published.purpose)
    return TrainedNetwork(
        network,
        dataset,
        trial=None,
        architecture=architecture,
        training=GivenWeights(weights=Path(published.weights).name),
        data=DataRecord.of(dataset, seed=published.seed),
        accuracy=_test(published, network, dataset),
        predicted_ms=predicted.ms if predicted else None,
        predicted_error=predicted.error if predicted else None,
        versions={name: metadata.version(name) for name in ("hwnas", "torch", "torchvision")},
        weights_sha256=weights_sha256,
    )


def _with_weights(published: Published, dataset: "Dataset") -> "tuple[Architecture, Network, Dataset]":
    channels, classes = dataset.channels, len(dataset.classes)
    architecture = published_network(
        published.purpose.name, resolution=dataset.resolution, classes=classes, channels=channels
    )
    if published.weights == RANDOM:
        return architecture, _random(architecture, dataset), dataset
    path = Path(published.weights)
    weights = pretrained.read(path)
    try:
        if path.suffix == pretrained.OWN:
            return architecture, pretrained.load_own(architecture, weights), dataset
        if published.purpose.name not in TORCHVISIONS:
            raise pretrained.not_torchvisions()
        architecture, network = pretrained.load_torchvisions(architecture, weights)
    except InputError as error:
        raise InputError(
            f"{path} must have the weights of {published.purpose.name} for the {classes} classes and {channels} "
            f"channels of {dataset.name}; {error}"
        ) from None
    return architecture, network, replace(dataset, mean=pretrained.IMAGENET_MEAN, std=pretrained.IMAGENET_STD)


def _random(architecture: "Architecture", dataset: "Dataset") -> "Network":
    """Return a network with random weights, its norms fitted to images, for values to be as large as after training."""
    import torch

    from hwnas.training import Network, normalise, seeded

    with seeded(0), torch.no_grad():
        network = Network(architecture.graph)
        norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        count = len(dataset.whole_train.labels)
        rows = torch.arange(min(count, _IMAGES)) * count // min(count, _IMAGES)
        network.train()(normalise(dataset.whole_train.read(rows), dataset))
    return network.eval()


def _test(published: Published, network: "Network", dataset: "Dataset") -> "Accuracies":
    """Return the network's accuracy on the test set; random weights have none."""
    from hwnas.artefacts.card import GIVEN_WEIGHTS, Accuracies
    from hwnas.training import scores

    if published.weights == RANDOM:
        return Accuracies(test=None, search=None)
    say(f"testing {published.purpose.name} on {len(dataset.test.labels)} images")
    test = scores(network, dataset.test, dataset, batch_size=_BATCH)
    return Accuracies(test=test.accuracy, search=None, balanced=test.balanced, test_of=GIVEN_WEIGHTS)


def _predicted(architecture: "Architecture", purpose: Purpose) -> "Prediction | None":
    """Return the latency that the device's table predicts, if there is one and it has every operator."""
    from hwnas.device import load_device
    from hwnas.latency import CostModel, find_table

    device = load_device(purpose.device)
    table = find_table(device, device.setting(purpose.setting))
    try:
        return CostModel(table, ()).predict(architecture) if table else None
    except TableError:
        return None
