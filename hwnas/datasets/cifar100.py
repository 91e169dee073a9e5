"""CIFAR-100: 50,000 + 10,000 colour images of 32x32, a hundred classes."""

from torchvision.datasets import CIFAR100

from hwnas.datasets import Dataset, _cifar


def load(argument: str, *, seed: int, resolution: int | None, validation: float) -> Dataset:
    """Load CIFAR-100 from `argument`, or from torchvision's cache or its download; see `_cifar.load`."""
    return _cifar.load(CIFAR100, argument, name="cifar100", seed=seed, resolution=resolution, validation=validation)
