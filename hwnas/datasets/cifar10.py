"""CIFAR-10: 50,000 + 10,000 colour images of 32x32, ten classes."""

from torchvision.datasets import CIFAR10

from hwnas.datasets import Dataset, _cifar


def load(argument: str, *, seed: int, resolution: int | None, validation: float) -> Dataset:
    """Load CIFAR-10 from `argument`, or from torchvision's cache or its download; see `_cifar.load`."""
    return _cifar.load(CIFAR10, argument, name="cifar10", seed=seed, resolution=resolution, validation=validation)
