"""What a network computes of many images, and how often it is right."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwnas.training.batches import normalise

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images
    from hwnas.training.module import Network


@torch.no_grad()
def logits(
    network: "Network", images: "Images", dataset: "Dataset", *, batch_size: int = 256, indices: Tensor | None = None
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


def accuracy(
    network: "Network", images: "Images", dataset: "Dataset", *, batch_size: int = 256, indices: Tensor | None = None
) -> float:
    """Return the share of images, of all or of those at `indices`, whose class is the network's first choice."""
    chosen = logits(network, images, dataset, batch_size=batch_size, indices=indices).argmax(1)
    labels = images.labels if indices is None else images.labels[indices]
    return float((chosen == labels).double().mean())
