"""What search, train, export and run say and refuse of their data: changed, broken, unequal, mirrored."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FILTERS
from PIL import Image

import hwnas
from hwnas.cli.show_runs import show_searched
from hwnas.datasets import Dataset
from hwnas.errors import DataError, InputError
from hwnas.runs.run import Run
from hwnas.support import Options
from hwnas.training import Scores, TrainingSettings
from hwnas.verbs import run as run_verb

TRAINING: dict[str, Any] = {"winners": 1, "epochs": 2, "batch_size": 16, "accelerator": "cpu", "precision": "fp32"}
CLASSES = ("bird", "cat", "dog")


def photos(root: Path, *, count: int = 16, seed: int = 0) -> Path:
    """Write grey images of 8x8 pixels, in three classes that differ in brightness."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 60, (8, 8), dtype=np.uint8) + np.uint8(60 * label)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def search(**options: Any) -> Any:
    defaults: dict[str, Any] = {
        "out": "runs/a",
        "max_latency_ms": 2.0,
        "data": "folder:photos",
        "cells": (1,),
        "filters": FILTERS,
        "space": "pnas",
        "estimator": "size",
        "strategy": "random",
        "predicted": True,
        "trials": 2,
    }
    return hwnas.search(**{**defaults, **options})


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def corrupt(path: Path) -> None:
    """Damage a PNG in its middle: its head and its end are whole."""
    content = bytearray(path.read_bytes())
    middle = content.index(b"IDAT") + 10
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)


def test_a_search_is_not_taken_up_again_with_other_images(workplace: Path) -> None:
    photos(workplace / "photos")
    search()
    journal = (workplace / "runs" / "a" / "journal.log").read_bytes()
    photos(workplace / "photos", seed=1)
    with pytest.raises(InputError, match=r"as it was when the search was begun: the images have other names or conten"):
        search(trials=4)
    assert (workplace / "runs" / "a" / "journal.log").read_bytes() == journal
    photos(workplace / "photos")
    assert search(trials=4).trained == 4


def test_a_search_is_not_taken_up_again_with_other_arrays(workplace: Path) -> None:
    search(data="npz:images.npz")
    arrays = dict(np.load("images.npz"))
    np.savez("images.npz", **{**arrays, "x_train": arrays["x_train"][::-1]})
    with pytest.raises(InputError, match=r"npz:images.npz must be as it was when the search was begun"):
        search(data="npz:images.npz", trials=4)
    np.savez("images.npz", **arrays)
    search(data="npz:images.npz", trials=3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "bird").rename(root / "zebra"), "the classes 'bird' are gone, 'zebra' are new"),
        (lambda root: (root / "cat" / "3.png").unlink(), "other numbers of images: 'cat' had 14, has 13"),
        (lambda root: photos(root, seed=5), "the images have other names or contents"),
    ],
)
def test_data_that_changed_since_the_search_are_not_trained_on_nor_exported(
    workplace: Path, change: Any, words: str
) -> None:
    photos(workplace / "photos")
    search()
    hwnas.train("runs/a", **TRAINING)
    shutil.copytree("photos", "kept")
    change(workplace / "photos")
    with pytest.raises(InputError, match=words):
        hwnas.export("runs/a", files=["model.tflite"])
    with pytest.raises(InputError, match=words):
        hwnas.train("runs/a", **{**TRAINING, "epochs": 3})
    assert not list(workplace.glob("export/a/0*"))
    shutil.rmtree("photos")
    Path("kept").rename("photos")
    (made,) = hwnas.export("runs/a", files=["model.tflite"])
    record = json.loads(next(Path("runs/a/winners").glob("*/winner.json")).read_text())
    settings = Run.open("runs/a").settings
    assert settings.fingerprint is not None
    assert settings.fingerprint == made.card.data.fingerprint
    assert record["data"]["fingerprint"] == settings.fingerprint.to_json()


def test_a_winner_without_a_fingerprint_is_held_to_its_classes_names(workplace: Path) -> None:
    photos(workplace / "photos")
    search()
    hwnas.train("runs/a", **TRAINING)
    for path in (Path("runs/a/settings.json"), next(Path("runs/a/winners").glob("*/winner.json"))):
        content = json.loads(path.read_text())
        del (content if path.name == "settings.json" else content["data"])["fingerprint"]
        path.write_text(json.dumps(content))
    (workplace / "photos" / "bird").rename(workplace / "photos" / "zebra")
    with pytest.raises(InputError, match=r"trial . was trained: the classes 'bird' are gone, 'zebra' are new"):
        hwnas.export("runs/a", files=["model.tflite"])


def test_a_test_set_that_changed_is_said_in_training_and_refused_in_export(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "test"):
        photos(workplace / "photos" / part)
    search()
    photos(workplace / "photos" / "test", seed=3)
    hwnas.train("runs/a", **TRAINING)
    assert "not as it was when the search was begun: the images of the test set have other names or" in said(capsys)
    photos(workplace / "photos" / "test", seed=4)
    with pytest.raises(InputError, match=r"trial . was trained: the images of the test set have other names"):
        hwnas.export("runs/a", files=["model.tflite"])


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_broken_images_are_found_before_the_first_trial_and_left_out_where_that_is_asked_for(
    workplace: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "val", "test"):
        photos(workplace / "photos" / name)
    for place in ("cat/3", "dog/5"):
        corrupt(workplace / "photos" / part / f"{place}.png")
    with pytest.raises(
        DataError, match=rf"2 are broken, .*--skip-broken(.|\n)*{part}/cat/3.png(.|\n)*{part}/dog/5.png"
    ):
        search()
    assert not (workplace / "runs").exists()
    assert search(skip_broken=True).trained == 2
    assert "broken images that are left out: 2" in said(capsys)
    (winner,) = hwnas.train("runs/a", **TRAINING)
    assert winner.test_accuracy > 0


def test_an_image_that_breaks_after_the_search_is_found_before_training_and_may_be_skipped(workplace: Path) -> None:
    for name in ("train", "test"):
        photos(workplace / "photos" / name)
    search()
    corrupt(workplace / "photos" / "test" / "cat" / "3.png")
    with pytest.raises(DataError, match=r"test/cat/3.png must be an image"):
        hwnas.train("runs/a", **TRAINING)
    assert not list(workplace.glob("runs/a/winners/*"))
    (winner,) = hwnas.train("runs/a", skip_broken=True, **TRAINING)
    assert winner.test_accuracy > 0


class Broken(Dataset):
    """A data set with a broken image."""

    def check(self) -> None:
        raise DataError("a.png must be an image")


@pytest.mark.parametrize(("transport", "profiled"), [("local", 0), ("ssh", 1)])
def test_a_run_looks_at_all_images_beside_profiling_but_before_it_where_this_machine_is_timed(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, transport: str, profiled: int
) -> None:
    photos(workplace / "photos")
    address = 'address = "board"\n' if transport == "ssh" else ""
    device = f'name = "board"\ntransport = "{transport}"\n{address}[[settings]]\nruntime = "tflite"\n'
    (workplace / "devices").mkdir()
    (workplace / "devices" / "board.toml").write_text(device)
    Path("a.toml").write_text(
        'out = "runs/a"\n[device]\ndevice = "board"\n[search]\nmax_latency_ms = 2.0\ndata = "folder:photos"\n'
    )
    steps: list[Options] = []
    monkeypatch.setattr(run_verb, "apply", lambda verb, options: steps.append(options) or [])
    monkeypatch.setattr(Dataset, "check", Broken.check)
    with pytest.raises(DataError, match=r"a.png must be an image"):
        hwnas.run("a.toml")
    assert len(steps) == profiled


def test_classes_of_unequal_size_get_a_word_and_balanced_accuracy(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(workplace / "photos", count=40)
    for name in CLASSES[1:]:
        for number in range(5, 40):
            (workplace / "photos" / name / f"{number}.png").unlink()
    search()
    assert "'bird' with 34 training images and 'cat' with 4: always to say 'bird' scores 0.81 in accuracy" in said(
        capsys
    )
    (winner,) = hwnas.train("runs/a", **TRAINING)
    assert winner.balanced_accuracy is not None
    (made,) = hwnas.export("runs/a", files=["model.tflite"])
    assert made.card.accuracy.balanced == winner.balanced_accuracy
    assert f"the mean of the classes' | {winner.balanced_accuracy:.2%}".replace("%", " %") in (
        Path(made.folder, "README.md").read_text()
    )
    page = Path(hwnas.report("runs/a").page).read_text()
    assert "balanced accuracy" in page


def test_a_search_states_balanced_accuracy_beside_accuracy(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(workplace / "photos")
    searched = search(estimator="training", epochs=1, images=32)
    assert all(0 < (candidate.balanced_accuracy or 0) <= 1 for candidate in searched.front)
    show_searched(searched)
    assert "balanced" in capsys.readouterr().out
    assert Run.open("runs/a").candidates()[0].balanced_accuracy is not None


def test_balanced_accuracy_is_the_mean_of_the_classes() -> None:
    import torch

    labels = torch.tensor([0] * 98 + [1] * 2)
    assert Scores.of(torch.zeros(100, dtype=torch.int64), labels) == Scores(0.98, 0.5)


def arrows(root: Path, *, count: int = 40) -> Path:
    """Write arrows to the left and to the right, and crosses, at any place and in any brightness."""
    random = np.random.default_rng(0)
    left = np.zeros((8, 8), bool)
    for step in range(4):
        left[3 - step : 5 + step, step] = True
    left[3:5] = True
    cross = np.zeros((8, 8), bool)
    cross[3:5] = cross[:, 3:5] = True
    for name, mark in (("left", left), ("right", left[:, ::-1]), ("cross", cross)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 40, (16, 16)) + random.integers(60, 100)
            top, start = random.integers(0, 8, 2)
            pixels[top : top + 8, start : start + 8][mark] += 100 if random.integers(2) else -60
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("flips", "expected", "word"),
    [
        ("auto", False, "left out flips (--flips on makes them)"),
        ("on", True, "leave out flips (--flips off)"),
        ("off", False, ""),
    ],
)
def test_signs_whose_mirror_image_is_another_sign_are_not_flipped(
    workplace: Path, flips: Any, expected: bool, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwnas.verbs.train import _dataset

    arrows(workplace / "photos")
    search(resolution=8)
    capsys.readouterr()
    settings = TrainingSettings(flips=flips)
    data = _dataset(Run.open("runs/a"), 16, settings)
    assert settings.flips_of(data) == expected
    text = said(capsys)
    assert word in text
    assert ("of the mirrored images of 'left' look like 'right'" in text) == bool(word)


def test_photos_whose_mirror_image_is_as_good_are_flipped_unless_that_is_refused(workplace: Path) -> None:
    from hwnas.verbs.train import _dataset

    photos(workplace / "photos")
    search()
    run = Run.open("runs/a")
    for flips, expected in (("auto", True), ("on", True), ("off", False)):
        settings = TrainingSettings(flips=flips)  # type: ignore[arg-type]
        assert settings.flips_of(_dataset(run, 8, settings)) == expected
