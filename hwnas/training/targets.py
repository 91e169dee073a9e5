"""What a network is to say of a batch, as soft labels, where a class alone does not tell: mixed images, class weights.

Soft labels are float32 [n, classes], and smoothed; their sum is how much an image's loss counts. mixup: two images are
averaged, pixel by pixel (Zhang et al., 2018, section 2). CutMix: a rectangle of one is pasted into the other (Yun et
al., 2019, section 3.1). Both with one share and one rectangle for the batch, as in the authors' code.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.training.batches import random_seed

if TYPE_CHECKING:
    from hwnas.training.settings import TrainingSettings


class Targets:
    """What is wanted of the batches of a training on images of these labels, int64 [n]."""

    def __init__(self, labels: Tensor, classes: int, settings: "TrainingSettings") -> None:
        self._settings = settings
        self._weights = class_weights(labels, classes) if settings.class_weights else torch.ones(classes)

    def of(self, images: Tensor, labels: Tensor, *, step: int) -> tuple[Tensor, Tensor]:
        """Return the images of a step, mixed or not, and what is wanted of them: soft labels where they are needed.

        Images [n, channels, height, width], which may be written over; labels int64 [n]. Chance is the step's.
        """
        settings = self._settings
        mixes = settings.mixup > 0 or settings.cutmix > 0
        if not mixes and not settings.class_weights:
            return images, labels
        wanted = soft_labels(labels, self._weights.to(labels.device), smoothing=settings.label_smoothing)
        if not mixes:
            return images, wanted
        seed = random_seed(settings.seed, 8, step)
        return mixed(images, wanted, mixup=settings.mixup, cutmix=settings.cutmix, seed=seed)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return a weight for each class, float32 [classes], so that all together count alike in the loss.

    It is the inverse of how many of the labels, int64 [n], are of that class; the mean over the labels is 1.
    """
    counts = labels.bincount(minlength=classes)
    return len(labels) / ((counts > 0).sum() * counts.clamp(min=1))


def soft_labels(labels: Tensor, weights: Tensor, *, smoothing: float) -> Tensor:
    """Return soft labels of labels, int64 [n], each weighed by its class's weight; float32 [classes]."""
    classes = len(weights)
    soft = F.one_hot(labels, classes).float().mul_(1 - smoothing).add_(smoothing / classes)
    return soft * weights[labels][:, None]


def mixed(images: Tensor, wanted: Tensor, *, mixup: float, cutmix: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return images [n, channels, height, width] mixed with others of the batch, and their soft labels.

    `mixup` and `cutmix` are the alpha of the share's distribution, Beta(alpha, alpha), 0 for none; where both are
    given it is one of them by chance. `images` may be written over.
    """
    random = np.random.RandomState(seed % 2**32)
    others = torch.from_numpy(random.permutation(len(images))).to(images.device)
    pastes = cutmix > 0 and not (mixup > 0 and random.rand() < 0.5)
    alpha = cutmix if pastes else mixup
    share = float(random.beta(alpha, alpha))  # of the image itself
    if pastes:
        height, width = images.shape[2:]
        rows, columns = (_interval(size, round(size * (1 - share) ** 0.5), random) for size in (height, width))
        images[:, :, rows, columns] = images[others][:, :, rows, columns]
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    else:
        images = torch.lerp(images[others], images, share)
    return images, torch.lerp(wanted[others], wanted, share)


def _interval(size: int, length: int, random: np.random.RandomState) -> slice:
    """Return an interval whose centre is anywhere; what hangs over is cut."""
    first = int(random.randint(size)) - length // 2
    return slice(max(first, 0), min(first + length, size))
