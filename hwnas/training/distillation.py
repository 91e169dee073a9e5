"""Distillation: a network learns, beside the labels, what a teacher says of the same images (Hinton et al., 2015).

The teacher is a trained network, which sees each batch as the student does, augmented and mixed, or its logits in a
file, which are of the images as they are.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hwnas.errors import InputError
from hwnas.support.arrays import read_array

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.training.module import Network
    from hwnas.training.settings import TrainingSettings


class Teacher(Protocol):
    """What says logits of images; equal teachers have equal hashes."""

    sha256: str

    def check(self, dataset: "Dataset", settings: "TrainingSettings") -> None:
        """Raise InputError where it cannot teach this data set, or not with these settings."""

    def to(self, device: torch.device) -> "Teacher":
        """Return it on a device."""

    def logits(self, images: Tensor, indices: Tensor, dataset: "Dataset") -> Tensor:
        """Return logits [n, classes] of images of a data set, normalised, at `indices` of its training set."""


def distillation_loss(logits: Tensor, said: Tensor, *, temperature: float) -> Tensor:
    """Return how far logits are from those that a teacher said, both [n, classes] (Hinton et al., 2015, section 2).

    It is the Kullback-Leibler divergence of both divided by the temperature, times its square, by which gradients keep
    their size.
    """
    student, teacher = ((values / temperature).log_softmax(1) for values in (logits, said))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class TeacherNetwork:
    """A trained network, and the classes and statistics of the data that it was trained on."""

    def __init__(
        self,
        network: "Network",
        *,
        classes: tuple[str, ...],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        sha256: str,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.sha256 = sha256
        self._classes, self._mean, self._std = classes, mean, std

    def check(self, dataset: "Dataset", settings: "TrainingSettings") -> None:
        """Raise InputError where it knows other classes or channels."""
        if self._classes != dataset.classes or len(self._mean) != dataset.channels:
            raise InputError(
                f"a teacher must know its student's classes and channels; it knows {len(self._classes)} classes in "
                f"{len(self._mean)} channels, {dataset.name} has {len(dataset.classes)} in {dataset.channels}, which "
                "must be the same ones"
            )

    def to(self, device: torch.device) -> Self:
        """Return it on a device."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def logits(self, images: Tensor, indices: Tensor, dataset: "Dataset") -> Tensor:
        """Return its logits of images, brought to its own resolution and statistics."""
        side = self.network.graph.layers[0].shape[1]
        if images.shape[2] != side:
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        if (dataset.mean, dataset.std) != (self._mean, self._std):
            mean, std, its_mean, its_std = (
                torch.tensor(values, device=images.device).reshape(-1, 1, 1)
                for values in (dataset.mean, dataset.std, self._mean, self._std)
            )
            images = (images * std + mean - its_mean) / its_std
        logits: Tensor = self.network(images)
        return logits.float()


class KnownLogits:
    """Logits of each image of a whole training set: float32 [n, classes]."""

    def __init__(self, logits: Tensor, *, sha256: str) -> None:
        self._logits, self.sha256 = logits, sha256

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the array `logits` of an .npz file; raises InputError where it is not there, or is something else."""
        try:
            values = read_array(path, "logits")
        except ValueError as error:
            raise InputError(f"{path} must have an array `logits`; {error}") from None
        if values.ndim != 2 or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise InputError(
                f"{path}: logits must be finite numbers [images, classes]; got {list(values.shape)} of {values.dtype}"
            )
        values = values.astype(np.float32)
        return cls(torch.from_numpy(values), sha256=hashlib.sha256(values.tobytes()).hexdigest())

    def check(self, dataset: "Dataset", settings: "TrainingSettings") -> None:
        """Raise InputError where they are of other images or classes, and where images are mixed."""
        wanted = [len(dataset.whole_train.labels), len(dataset.classes)]
        if list(self._logits.shape) != wanted:
            raise InputError(
                f"a teacher's logits must be of the whole training set and its classes, {wanted} for {dataset.name}; "
                f"got {list(self._logits.shape)}"
            )
        if settings.mixup or settings.cutmix:
            raise InputError(
                "mixup and cutmix need a teacher that sees the mixed images; logits in a file are of whole ones. "
                "Leave mixing out, or name a winner's folder"
            )

    def to(self, device: torch.device) -> Self:
        """Return them on a device."""
        self._logits = self._logits.to(device)
        return self

    def logits(self, images: Tensor, indices: Tensor, dataset: "Dataset") -> Tensor:
        """Return the logits at `indices`; the validation part comes last, and so may be left out."""
        return self._logits[indices.to(self._logits.device)]
