"""Every data set that can be made here by the contract of all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas import datasets
from hwnas.datasets import Dataset
from hwnas.support import plugins
from hwnas.testing import DatasetContract

MADE = ("npz", "folder", "folder-in-colour")


def pixels(count: int, *, channels: int) -> np.ndarray:
    """Return images of 10 x 10 pixels, no two alike."""
    return np.random.default_rng(0).integers(0, 256, (count, 10, 10, channels), dtype=np.uint8)


def made(name: str, folder: Path) -> str:
    """Write 60 images of three classes in the form that a data set reads; return what it is called."""
    images = pixels(60, channels=1 if name == "folder" else 3)
    if name == "npz":
        labels = np.arange(60) % 3
        parts = {"x_train": images[:40], "y_train": labels[:40], "x_test": images[40:], "y_test": labels[40:]}
        np.savez(folder / "images.npz", **parts)
        return f"npz:{folder / 'images.npz'}"
    for number, image in enumerate(images):
        path = folder / "tree" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(path)
    return f"folder:{folder / 'tree'}"


class TestEveryDataset(DatasetContract):
    @pytest.fixture(params=MADE)
    def dataset(self, request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
        return datasets.load(made(request.param, tmp_path))


def test_each_that_is_not_tested_here_has_tests_of_its_own() -> None:
    text = Path(__file__).with_name("test_datasets.py").read_text()
    for name in set(plugins.names("datasets")) - set(MADE):
        assert f'"{name}"' in text
