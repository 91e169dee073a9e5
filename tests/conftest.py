"""A tiny data set and a pretended latency table, in a folder of their own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from hwnas.support import show_on_console
from hwnas.testing import pretend_table as pretend_table

settings.register_profile("hwnas", deadline=None)  # beside other tests, all take longer
settings.load_profile("hwnas")
SETTING = "tflite-fp32-1t"
FILTERS = (4, 6)
LONGEST = (  # files by how long they take
    *("test_search", "test_end_to_end", "test_spaces", "test_exporting", "test_fuzz", "test_workers", "test_advice"),
    *("test_qemu", "test_reading", "test_full_disk", "test_options", "test_surrogates", "test_loop"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: several processes share the files, and wait for what began last."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def write_images(path: Path, *, train: int = 60, test: int = 70, channels: int = 1) -> None:
    """Write 8x8 images of three classes that differ in brightness, grey ones or of several channels."""
    random = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 3
        noise = random.integers(0, 60, (count, 8, 8) if channels == 1 else (count, 8, 8, channels))
        brightness = 60 * labels.reshape(-1, *[1] * (noise.ndim - 1))
        return (noise + brightness).astype(np.uint8), labels

    (x_train, y_train), (x_test, y_test) = draw(train), draw(test)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


@pytest.fixture(scope="session", autouse=True)
def _said_is_printed() -> None:
    """Print what hwnas says although pytest listens to the loggers."""
    show_on_console()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Networks of tests are so small that a second thread makes them slower: the random ones of a space by 1.6."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_devices_are_trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Agree to what tests' devices name, and keep out of the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_TRUST", "1")
        yield


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder with tiny images, images.npz, and a pretended table of the host."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images.npz")
    pretend_table(tmp_path)
    return tmp_path
