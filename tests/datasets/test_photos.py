"""Folders of photos as people have them: names of splits, what lies between the images, what is broken, what is odd."""

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from hwnas import datasets
from hwnas.datasets import Dataset, Images, _heads, _shared
from hwnas.datasets._tree import SPLITS
from hwnas.errors import DataError

RED, GREEN, GREY = (200, 30, 30), (30, 200, 30), (90, 90, 90)


def pixels(images: Images) -> torch.Tensor:
    return images.read(torch.arange(len(images.labels)))


def noise(place: str, *, size: int = 40, colour: tuple[int, ...] = RED) -> Image.Image:
    """Return an image of noise around a colour, another one at each place."""
    random = np.random.default_rng(list(place.encode()))
    return Image.fromarray((np.array(colour) + random.integers(-20, 20, (size, size, 1))).astype(np.uint8))


def tree(root: Path, *, count: int = 8, classes: tuple[str, ...] = ("cat", "dog"), size: int = 40) -> Path:
    for name, colour in zip(classes, (RED, GREEN, GREY), strict=False):
        for number in range(count):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(str(path), size=size, colour=colour).save(path)
    return root


def loaded(root: Path, **options: Any) -> Dataset:
    return datasets.load(f"folder:{root}", **options)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def sizes(dataset: Dataset) -> list[int]:
    return [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)]


# --- splits


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val", "VALID"])
@pytest.mark.parametrize("train", ["train", "Train", "training"])
def test_splits_have_the_names_that_people_give_them_in_letters_of_any_case(
    tmp_path: Path, train: str, validation: str
) -> None:
    tree(tmp_path / train, count=10)
    tree(tmp_path / validation, count=7)
    dataset = loaded(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert sizes(dataset) == [18, 2, 14]


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("training", "validation", "testing")])
def test_three_splits_are_found_by_any_of_their_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name, count in zip(names, (10, 5, 4), strict=True):
        tree(tmp_path / name, count=count)
    assert sizes(loaded(tmp_path)) == [20, 10, 8]


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "validation"):
        tree(tmp_path / name)
    with pytest.raises(DataError, match=r"a split must be one folder; .* has val and validation; put them together"):
        loaded(tmp_path)


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_one_split_alone_is_not_taken_for_a_class(tmp_path: Path, name: str) -> None:
    tree(tmp_path / name.title())
    with pytest.raises(DataError, match=f"has {name.title()} only; add what lacks"):
        loaded(tmp_path)


def test_what_lies_beside_splits_and_classes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "test", "extra"):
        tree(tmp_path / name)
    for loose in ("a.png", "train/b.jpg", "test/c.bmp"):
        noise(loose).save(tmp_path / loose)
    dataset = loaded(tmp_path)
    assert sum(sizes(dataset)) == 32
    text = said(capsys)
    assert f"{tmp_path}: images beside the classes' folders, which are not used: 3" in text
    assert f"{tmp_path}: folders beside the splits, which are not used: extra/ (images: 16)" in text


def test_a_class_with_a_splits_name_gets_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path, classes=("plane", "train"))
    assert loaded(tmp_path).classes == ("plane", "train")
    assert "train are taken for classes, though splits have such names" in said(capsys)


# --- what is left out


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "thumbs"])
def test_hidden_folders_and_those_of_thumbnails_are_left_out_and_said(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path, count=20, size=64)
    for of_class in ("cat", "dog"):
        for number in range(20):
            path = tmp_path / of_class / name / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            noise(str(path), size=16).save(path)
    dataset = loaded(tmp_path)
    assert (sum(sizes(dataset)), dataset.resolution) == (40, 64)
    assert f"hidden folders and those of thumbnails, which are left out: 40, in {name}" in said(capsys)


def test_a_folder_of_a_system_beside_the_classes_is_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path)
    shutil.copytree(tmp_path / "cat", tmp_path / "__MACOSX")
    assert loaded(tmp_path).classes == ("cat", "dog")
    assert "hidden folders and those of thumbnails, which are left out: 8, in __MACOSX" in said(capsys)


def test_exact_copies_in_other_parts_and_classes_are_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val", "test"):
        tree(tmp_path / part)
    for number in range(3):
        shutil.copy(tmp_path / "train" / "cat" / f"{number}.png", tmp_path / "test" / "cat" / f"copy{number}.png")
    shutil.copy(tmp_path / "val" / "dog" / "1.png", tmp_path / "test" / "dog" / "1.png")
    shutil.copy(tmp_path / "train" / "dog" / "5.png", tmp_path / "train" / "cat" / "5.png")
    loaded(tmp_path)
    text = said(capsys)
    assert "images of the test part that are exact copies of training ones: 3, as" in text
    assert "images of the test part that are exact copies of validation ones: 1, as" in text
    assert "images that are in more than one class, as exact copies: 1" in text


def test_images_that_differ_in_one_byte_are_no_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        tree(tmp_path / part)
    content = bytearray(300_054)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 400, 3), dtype=np.uint8)).save(tmp_path / "a.bmp")
    content[:] = (tmp_path / "a.bmp").read_bytes()
    (tmp_path / "a.bmp").rename(tmp_path / "train" / "cat" / "a.bmp")
    content[100_000] ^= 1  # between the pieces that are hashed
    (tmp_path / "test" / "cat" / "b.bmp").write_bytes(content)
    loaded(tmp_path)
    assert "exact copies" not in said(capsys)


def test_files_of_other_kinds_are_counted_by_kind_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path)
    for name in ("a.heic", "b.HEIC", "c.txt", "d.mp4", "nameless", ".hidden.png", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(b"something")
    assert sum(sizes(loaded(tmp_path))) == 16
    assert "left out, as Pillow reads no images from them here: 2 .heic, 1 .mp4, 1 .txt, 1 nameless" in said(capsys)


@pytest.mark.parametrize(("end", "kind"), [("jfif", "JPEG"), ("JPE", "JPEG"), ("gif", "GIF"), ("avif", "AVIF")])
def test_all_that_pillow_reads_is_read(tmp_path: Path, end: str, kind: str) -> None:
    tree(tmp_path, size=64)
    noise("more", size=64).save(tmp_path / "cat" / f"more.{end}", format=kind)
    dataset = loaded(tmp_path)
    assert sum(sizes(dataset)) == 17
    dataset.check()


def test_links_that_lead_in_circles_and_pipes_are_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat", target_is_directory=True)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert sum(sizes(loaded(tmp_path))) == 16
    assert "entries that are no files, which are left out: 2" in said(capsys)


# --- transparency


def drawing(mark: tuple[int, int, int, int], number: int) -> Image.Image:
    """Return a black drawing on nothing, as drawing programs save it."""
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse(mark, fill=(0, 0, 0, 255))
    image.putpixel((number, 0), (0, 0, 0, 255))
    return image


@pytest.mark.parametrize(("background", "around"), [("white", 255), ("black", 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_the_background(
    tmp_path: Path, mode: str, background: Any, around: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, mark in (("left", (2, 8, 14, 20)), ("right", (18, 8, 30, 20))):
        (tmp_path / name).mkdir()
        for number in range(8):
            image = drawing(mark, number)
            if mode == "RGBA" and background == "black":  # or all would be equal
                image.putpixel((9, 9), (255, 255, 255, 255))
            if mode != "RGBA":
                image.putpixel((9, 9), (255, 255, 255, 255))
            image.convert(mode).save(tmp_path / name / f"{number}.png")
    dataset = loaded(tmp_path, background=background)
    assert (dataset.channels, dataset.background) == (1, background)
    read = pixels(dataset.whole_train)
    assert (read[:, 0, 31] == around).all()
    assert (read[dataset.whole_train.labels == 0][:, 0, 14, 5] == 0).all()
    assert f"in places, which are read as {background} there (--transparent): 16" in said(capsys)


def test_a_transparent_colour_of_a_png_without_an_alpha_channel_is_transparent(tmp_path: Path) -> None:
    tree(tmp_path)
    Image.new("RGB", (40, 40), (0, 0, 9)).save(tmp_path / "cat" / "0.png", transparency=(0, 0, 9))
    Image.new("L", (40, 40), 7).save(tmp_path / "cat" / "1.png", transparency=7)
    dataset = loaded(tmp_path)
    everything = torch.cat([pixels(part) for part in (dataset.train, dataset.validation, dataset.test)])
    assert int((everything == 255).all(dim=(1, 2, 3)).sum()) == 2


# --- 16 bits


def deep_tree(root: Path, low: int, high: int) -> Path:
    """Write images of 16 bits whose values go from `low` to `high`."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(8):
            values = np.linspace(low, high, 64 * 64).reshape(64, 64).round().astype(np.uint16)
            values = values if name == "a" else values[:, ::-1]
            Image.fromarray(np.roll(values, number, axis=1)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1000, (0, 1023)),
        (3, 4095, (0, 4095)),
        (0, 16383, (0, 16383)),
        (0, 65535, (0, 65535)),
        (29000, 31000, (29000, 31000)),  # a thermal camera's
        (0, 255, (0, 255)),
    ],
)
def test_sixteen_bits_are_scaled_by_the_sets_range_said_and_stored(
    tmp_path: Path, low: int, high: int, expected: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = loaded(deep_tree(tmp_path, low, high))
    assert (dataset.channels, dataset.black, dataset.white) == (1, *expected)
    assert len(pixels(dataset.train).unique()) > 200
    text = said(capsys)
    assert (f"values from {low} to {high}: {expected[0]} is read as black" in text) == (expected != (0, 65535))


def test_images_of_eight_bits_between_them_keep_the_usual_depth(tmp_path: Path) -> None:
    deep_tree(tmp_path, 29000, 31000)
    noise("grey", size=64, colour=GREY).convert("L").save(tmp_path / "a" / "eight.png")
    assert [getattr(loaded(tmp_path), name) for name in ("black", "white")] == [0, 65535]


# --- broken images


def corrupt(path: Path) -> None:
    """Damage a PNG in its middle: its head and its end are whole."""
    content = bytearray(path.read_bytes())
    middle = content.index(b"IDAT") + 40
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_an_image_that_is_cut_off_is_found_at_once_in_whatever_part_it_is(tmp_path: Path, part: str) -> None:
    for name in ("train", "val", "test"):
        tree(tmp_path / name)
    for number, end in ((0, "png"), (1, "jpg")):
        path = tmp_path / part / "cat" / f"cut{number}.{end}"
        noise("cut").save(path)
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"2 are broken, .*\n  {tmp_path}/{part}/cat/cut0.png: .*\n  .*cut1.jpg: "):
        loaded(tmp_path)


@pytest.mark.parametrize("keeps", [True, False])
def test_one_list_names_all_that_are_broken_in_their_middle(
    tmp_path: Path, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keeps:
        monkeypatch.setattr(_shared, "MEMORY_LIMIT", 1)
    for name in ("train", "val", "test"):
        tree(tmp_path / name)
    for place in ("val/cat/3", "test/dog/2", "test/cat/1"):
        corrupt(tmp_path / f"{place}.png")
    dataset = loaded(tmp_path)
    with pytest.raises(DataError) as caught:
        dataset.check()
    assert [line.split(": ")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        f"{tmp_path}/{place}.png" for place in ("val/cat/3", "test/cat/1", "test/dog/2")
    ]
    corrupt(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(DataError, match=r"4 are broken(.|\n)*train/cat/0.png(.|\n)*val/cat/3.png(.|\n)*test/cat/1.png"):
        loaded(tmp_path).check()


def test_images_are_looked_at_as_a_whole_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    dataset = loaded(tmp_path)
    dataset.check()
    decoded: list[Path] = []
    original = _heads.read_square
    monkeypatch.setattr(_heads, "read_square", lambda path, *look: decoded.append(path) or original(path, *look))
    loaded(tmp_path).check()
    assert decoded == []
    for number in range(8):
        noise("another").save(tmp_path / "dog" / f"{number}.png")
    dataset = loaded(tmp_path)
    in_training = len(decoded)
    dataset.check()
    assert 0 < len(decoded) - in_training < 8  # those that are not of the training part, whose statistics are taken


def test_what_is_skipped_leaves_all_other_images_in_their_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path, count=20)
    before = loaded(tmp_path, resolution=40)
    known = [
        {image.numpy().tobytes() for image in pixels(part)} for part in (before.train, before.validation, before.test)
    ]
    corrupt(tmp_path / "cat" / "3.png")
    (tmp_path / "dog" / "4.png").write_bytes(b"<html>not found</html>")
    dataset = loaded(tmp_path, resolution=40, skip_broken=True)
    dataset.check()
    now = [
        {image.numpy().tobytes() for image in pixels(part)}
        for part in (dataset.train, dataset.validation, dataset.test)
    ]
    assert all(new <= old for new, old in zip(now, known, strict=True))
    assert sum(map(len, now)) == 38
    text = said(capsys)
    assert "broken images that are left out: 2" in text
    assert "dog/4.png: it is of no kind that Pillow knows here" in text
    assert "cat/3.png: " in text


def test_what_is_known_of_many_files_is_kept_and_dropped_where_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_heads, "_KEPT_FROM", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree(tmp_path / "photos")
    dataset = loaded(tmp_path / "photos")
    dataset.check()
    monkeypatch.setattr(_heads, "_known", {})
    opened: list[str] = []
    original = _heads._looked_at
    monkeypatch.setattr(_heads, "_looked_at", lambda path: opened.append(path) or original(path))
    monkeypatch.chdir(tmp_path)
    again = loaded(Path("photos"))
    assert opened == []
    assert again.fingerprint == dataset.fingerprint
    noise("another").save(tmp_path / "photos" / "cat" / "1.png")
    assert loaded(Path("photos")).fingerprint != dataset.fingerprint
    assert opened == [str(Path("photos", "cat", "1.png"))]
    (path,) = (tmp_path / "cache" / "hwnas" / "photos").iterdir()
    path.write_text("{")
    monkeypatch.setattr(_heads, "_known", {})
    assert loaded(tmp_path / "photos").classes == ("cat", "dog")


# --- names of classes


def test_one_name_in_two_unicode_forms_is_refused_in_one_set_and_one_class_in_two(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    tree(tmp_path / "one", classes=(*forms, "tea"))
    with pytest.raises(DataError, match="has 'café' in two Unicode forms; put them together under one name"):
        loaded(tmp_path / "one")
    tree(tmp_path / "two" / "train", classes=(forms[0], "tea"))
    tree(tmp_path / "two" / "val", classes=(forms[1], "tea"))
    assert loaded(tmp_path / "two").classes == (forms[0], "tea")


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"a\x1b[31mb", b" "])
def test_a_name_that_no_text_can_hold_is_refused(tmp_path: Path, name: bytes) -> None:
    tree(tmp_path)
    (tmp_path / "cat").rename(tmp_path / os.fsdecode(name))
    with pytest.raises(DataError, match=r"a class's name must be UTF-8, without control characters; .*; rename it"):
        loaded(tmp_path)


def test_names_of_classes_in_an_archive_are_held_to_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {f"x_{part}": random.integers(0, 256, (12, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(12) % 2 for part in ("train", "test")}
    path = tmp_path / "a.npz"
    np.savez(path, **arrays, classes=np.array([b"caf\xe9", b"tea"]))
    with pytest.raises(DataError, match="must be UTF-8"):
        datasets.load(f"npz:{path}")
    np.savez(path, **arrays, classes=np.array([unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]))
    with pytest.raises(DataError, match="must be distinct names; some are equal"):
        datasets.load(f"npz:{path}")
    np.savez(path, **arrays, classes=np.array([unicodedata.normalize("NFD", "é"), "a"]))
    assert datasets.load(f"npz:{path}").classes == ("é", "a")
