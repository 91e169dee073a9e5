"""The training of a bank: at each step one path of it, by chance (Guo et al., 2020, section 3.2)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwnas.training.bank import Bank
from hwnas.training.batches import Order, normalise
from hwnas.training.module import Classifier
from hwnas.training.scoring import Scores

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images
    from hwnas.network import Architecture

_CALIBRATION = 4  # batches of training images that BatchNorm's statistics are taken anew from
_BATCH = 128
_LOOKED_AT = 2000  # validation images, the same ones for all


class Shared(Classifier):
    """A bank that computes at each call one of many architectures, uniformly drawn."""

    def __init__(self, bank: Bank, paths: "Sequence[Architecture]") -> None:
        super().__init__()
        self.bank, self._paths = bank, paths

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of one architecture for images [n, channels, height, width]."""
        at = int(torch.randint(len(self._paths), ()))
        logits: Tensor = self.bank(self._paths[at].graph, images)
        return logits


@torch.no_grad()
def look(bank: Bank, architecture: "Architecture", dataset: "Dataset") -> Scores:
    """Return how often an architecture is right with the bank's weights, on some of the validation images."""
    graph, was_training = architecture.graph, bank.training
    statistics = bank.calibrated(graph, _batches(dataset.train, dataset, _CALIBRATION * _BATCH))
    bank.eval()
    some = _some(dataset.validation, _LOOKED_AT)
    chosen = [bank(graph, images, statistics).argmax(1) for images in _batches(dataset.validation, dataset, _LOOKED_AT)]
    bank.train(was_training)
    return Scores.of(torch.cat(chosen), dataset.validation.labels[some])


def _some(images: "Images", most: int) -> Tensor:
    """Return which images are looked at, int64 [n]: of every class its share."""
    return Order(images.labels, seed=0).indices(0, min(most, len(images.labels)))


def _batches(images: "Images", dataset: "Dataset", most: int) -> "Iterator[Tensor]":
    for batch in _some(images, most).split(_BATCH):
        yield normalise(images.read(batch), dataset).contiguous(memory_format=torch.channels_last)
