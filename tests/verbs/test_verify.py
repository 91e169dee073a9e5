"""An artefact is checked from its files alone; how a device compares with this machine is in test_qemu.py."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from winners import MODELS, trained_run

import hwnas
from hwnas import formats
from hwnas.artefacts import files as artefact
from hwnas.artefacts.card import Card
from hwnas.artefacts.comparison import compare_logits
from hwnas.artefacts.files import Check, read_check
from hwnas.cli.show_devices import show_verified
from hwnas.errors import ExportError, InputError
from hwnas.support import commands
from hwnas.support.files import write_json
from hwnas.verbs.verify import Verified

FINE = Verified("model", "host", "tflite-fp32-1t", 0.0, None, None, True, 64, 1e-6, 1.0, 0.9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an artefact's folder that tests only read, without the run that it came from."""
    folder = tmp_path_factory.mktemp("made")
    (exported,) = hwnas.export(str(trained_run(folder)), out=str(folder / "export"), files=MODELS)
    moved = tmp_path_factory.mktemp("elsewhere") / "artefact"
    shutil.copytree(exported.folder, moved)
    shutil.rmtree(folder)
    return moved


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """Return an artefact's folder that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "artefact"))


def card_of(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


def test_each_file_is_compared_with_what_pytorch_computed(made: Path) -> None:
    verified = hwnas.verify(str(made), device="host")
    assert sorted(one.file for one in verified) == sorted(MODELS)
    card = Card.read(made / "card.json", again=commands.export())
    check = read_check(made, card)
    assert check.pixels.dtype == np.uint8
    assert check.pixels.shape == (64, 1, 8, 8)
    for one in verified:
        assert one.fine
        assert one.check_images == card.check.images == 64
        assert one.check_error is not None
        assert one.check_agreement is not None
        assert one.check_error < {"fp32": 1e-5, "fp16": 5e-3}.get(one.precision, 0.2)
        assert one.check_agreement >= (1.0 if one.precision == "fp32" else 0.9)
        images = (check.pixels / 255 - card.data.mean[0]) / card.data.std[0]
        model = formats.get(card.files[one.file].runtime).load(made / one.file)
        found = model(images.astype(np.float32)).argmax(1)
        assert one.check_accuracy == pytest.approx((found == check.labels).mean(), abs=0.02)
    assert len(set(check.logits.argmax(1))) > 1


def test_no_torch_is_imported(made: Path) -> None:
    code = (
        "import sys, hwnas; from hwnas.cli.show_devices import show_verified; "
        f"found = hwnas.verify({str(made)!r}, device='host'); show_verified(found); "
        f"assert len(found) == {len(MODELS)} and all(one.check_error is not None for one in found); "
        "print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False False"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*MODELS, "check.npz"])
def test_a_file_that_was_changed_is_named(copied: Path, name: str) -> None:
    flip(copied / name, -5)
    with pytest.raises(ExportError, match=rf"SHA-256 .*; {name} was changed .*write it again: hwnas export RUN"):
        hwnas.verify(str(copied), device="host")


def test_each_changed_file_is_named(copied: Path) -> None:
    for name in ("model.onnx", "model.tflite"):
        (copied / name).write_bytes(b"")
    with pytest.raises(ExportError, match=r"model\.tflite, model\.onnx was changed"):
        hwnas.verify(str(copied), device="host")


def without_check(folder: Path, card: dict[str, Any]) -> None:
    del card["check"]
    (folder / "check.npz").unlink()


def without_hash(folder: Path, card: dict[str, Any]) -> None:
    del card["files"]["model.onnx"]["sha256"]


def without_a_model(folder: Path, card: dict[str, Any]) -> None:
    (folder / "model.onnx").unlink()


def without_the_file(folder: Path, card: dict[str, Any]) -> None:
    (folder / "check.npz").unlink()


def without_logits(folder: Path, card: dict[str, Any]) -> None:
    np.savez(folder / "check.npz", pixels=np.zeros(3))
    card["check"]["sha256"] = artefact.sha256(folder / "check.npz")


def no_archive(folder: Path, card: dict[str, Any]) -> None:
    (folder / "check.npz").write_bytes(b"PK\x03\x04")
    card["check"]["sha256"] = artefact.sha256(folder / "check.npz")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_check, "an older hwnas exported it without"),
        (without_hash, "an older hwnas exported it without"),
        (without_a_model, "model.onnx is not there"),
        (without_the_file, "check.npz is not there"),
        (without_logits, "must hold pixels, logits and labels; got: .*logits"),
        (no_archive, "must hold pixels, logits and labels"),
    ],
)
def test_a_folder_that_lacks_something_says_what_to_type(
    copied: Path, spoil: Callable[[Path, dict[str, Any]], None], words: str
) -> None:
    card = card_of(copied)
    spoil(copied, card)
    write_json(copied / "card.json", card)
    with pytest.raises(InputError, match=rf"{words}.*Write it again: hwnas export RUN"):
        hwnas.verify(str(copied), device="host")


def test_files_that_compute_something_else_than_pytorch_did_are_not_fine(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = card_of(copied)
    check = read_check(copied, Card.read(copied / "card.json", again=commands.export()))
    card["check"] = Check(check.pixels, -check.logits, check.labels).write(copied / "check.npz").to_json()
    write_json(copied / "card.json", card)
    verified = hwnas.verify(str(copied), device="host")
    assert not any(one.fine for one in verified)
    assert [one.relative_error or one.steps or 0 for one in verified] == [0] * len(MODELS)
    show_verified(verified)
    assert capsys.readouterr().out.count("NOT as PyTorch") == len(MODELS)


@pytest.mark.parametrize(
    ("changes", "fine"),
    [
        ({"check_error": 9e-5}, True),
        ({"check_error": 2e-4}, False),
        ({"check_error": float("nan")}, False),
        ({"check_error": None, "check_agreement": None}, True),
        ({"relative_error": 2e-4}, False),
        ({"setting": "tflite-fp16-1t", "check_error": 2e-3}, True),
        ({"setting": "tflite-fp16-1t", "relative_error": 2e-4}, False),
        ({"setting": "tflite-dynamic-1t", "relative_error": 0.04}, True),
        ({"setting": "onnx-int8-1t", "relative_error": 0.06}, False),
        ({"setting": "tflite-int8-1t", "relative_error": None, "steps": 0, "check_agreement": 0.95}, True),
        ({"setting": "tflite-int8-1t", "relative_error": None, "steps": 0, "check_agreement": 0.45}, False),
        ({"setting": "tflite-int8-1t", "relative_error": None, "steps": 0, "check_agreement": float("nan")}, False),
    ],
)
def test_what_is_fine(changes: dict[str, Any], fine: bool) -> None:
    assert dataclasses.replace(FINE, **changes).fine is fine


def test_logits_are_compared_relative_to_the_largest_and_by_class() -> None:
    wanted = np.array([[0.0, 4.0], [1.0, 0.5], [2.0, 1.0]], np.float32)
    found = np.array([[0.0, 4.0], [0.5, 1.0], [2.0, 1.0]], np.float32)
    checked = compare_logits(found, wanted, np.array([1, 1, 1]))
    assert (checked.images, checked.max_relative_error) == (3, 0.125)
    assert checked.agreement == pytest.approx(2 / 3)
    assert checked.accuracy == pytest.approx(2 / 3)


def test_the_table_says_how_each_file_compares_with_pytorch(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_verified(hwnas.verify(str(made), device="host"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "beside PyTorch" in printed
    assert "the same class" in printed
    assert "NOT" not in printed
    show_verified([dataclasses.replace(FINE, check_error=None, check_agreement=None)])
    assert "not compared" in capsys.readouterr().out


def broken(card: dict[str, Any]) -> str:
    return "{"


def newer(card: dict[str, Any]) -> str:
    return json.dumps(card | {"version": 99})


def without_accuracy(card: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in card.items() if name != "accuracy"})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken, "must be JSON; .*"),
        (newer, "card.json: an artefact's card must be of version 1 or older; got 99, which a newer hwnas wrote"),
        (without_accuracy, "card.json is not an artefact's card: accuracy: Field required"),
    ],
)
def test_a_card_that_is_newer_or_broken_is_named_with_what_to_type(
    copied: Path, spoil: Callable[[dict[str, Any]], str], words: str
) -> None:
    (copied / "card.json").write_text(spoil(card_of(copied)))
    with pytest.raises(InputError, match=rf"{words}.* type: hwnas export RUN"):
        hwnas.verify(str(copied), device="host")
