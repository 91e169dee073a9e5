"""What a network is to say of a batch, as soft labels, where a class alone does not tell: mixed images.

Soft labels are float32 [n, classes], and smoothed. mixup: two images are averaged, pixel by pixel (Zhang et al., 2018,
section 2). CutMix: a rectangle of one is pasted into the other (Yun et al., 2019, section 3.1). Both with one share and
one rectangle for the batch, as in the authors' code.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def soft_labels(labels: Tensor, classes: int, *, smoothing: float) -> Tensor:
    """Return soft labels of labels, int64 [n]."""
    return F.one_hot(labels, classes).float().mul_(1 - smoothing).add_(smoothing / classes)


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
