"""What a network computes of many images, and how often it is right."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from hwnas.training.batches import normalise

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images


@torch.no_grad()
def logits(
    network: nn.Module, images: "Images", dataset: "Dataset", *, batch_size: int = 256, indices: Tensor | None = None
) -> Tensor:
    """Return the network's logits, float32 [n, classes] on the CPU; computed on the network's device.

    They are of all images, or of those at `indices`, int64 [n].
    """
    indices = torch.arange(len(images.labels)) if indices is None else indices
    was_training = network.training
    device = next(network.parameters()).device
    network.eval()
    outputs = [
        network(normalise(images.read(batch).to(device), dataset)).float().cpu()
        for batch in torch.split(indices, batch_size)
    ]
    network.train(was_training)
    return torch.cat(outputs)


@dataclass(frozen=True, slots=True)
class Scores:
    """How often a network is right: of all images, and in the mean of the classes; shares."""

    accuracy: float
    balanced: float

    @classmethod
    def of(cls, chosen: Tensor, labels: Tensor) -> Self:
        """Return the scores of chosen classes, int64 [n], by the right ones; classes without an image do not count."""
        right = (chosen == labels).double()
        by_class = [right[labels == label].mean() for label in sorted(set(labels.tolist()))]
        return cls(float(right.mean()), float(torch.stack(by_class).mean()))


def scores(network: nn.Module, images: "Images", dataset: "Dataset", *, batch_size: int = 256) -> Scores:
    """Return how often a network is right on images."""
    return Scores.of(logits(network, images, dataset, batch_size=batch_size).argmax(1), images.labels)


def accuracy(
    network: nn.Module, images: "Images", dataset: "Dataset", *, batch_size: int = 256, indices: Tensor | None = None
) -> float:
    """Return the share of images, of all or of those at `indices`, whose class is the network's first choice."""
    chosen = logits(network, images, dataset, batch_size=batch_size, indices=indices).argmax(1)
    labels = images.labels if indices is None else images.labels[indices]
    return float((chosen == labels).double().mean())
