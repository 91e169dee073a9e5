"""What is learnt from a teacher: from its classes' likeness, from any resolution, and up to the same weights."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hwnas.errors import InputError, TrainingError
from hwnas.network.architecture import Architecture
from hwnas.network.kinds.cells import CellNetwork
from hwnas.training import loop
from hwnas.training.distillation import KnownLogits, Teacher, TeacherNetwork, distillation_loss
from hwnas.training.loop import Trained
from hwnas.training.module import Network
from training.test_loop import ARCHITECTURE, CELL, DATA, EVERYTHING, PLAIN, StopError, dataset, same_weights, stop_at


def test_the_loss_is_of_softened_classes_and_its_gradient_keeps_its_size() -> None:
    logits, said = torch.randn(6, 4), torch.randn(6, 4)
    soft = (said / 3).softmax(1)
    expected = 9 * (F.cross_entropy(logits / 3, soft) + (soft * soft.log()).sum(1).mean())
    assert distillation_loss(logits, said, temperature=3).item() == pytest.approx(expected.item(), rel=1e-4)
    assert distillation_loss(said, said, temperature=3).item() == pytest.approx(0, abs=1e-5)


def network_teacher(architecture: Architecture = ARCHITECTURE, *, seed: int = 0, **changes: Any) -> TeacherNetwork:
    torch.manual_seed(seed)
    known = {"classes": DATA.classes, "mean": DATA.mean, "std": DATA.std, "sha256": f"{seed}"}
    return TeacherNetwork(Network(architecture.graph), **(known | changes))


def known_logits(count: int = 114, classes: int = 2) -> KnownLogits:
    return KnownLogits(torch.randn(count, classes, generator=torch.Generator().manual_seed(0)), sha256="logits")


def taught(teacher: Teacher, settings: Any = PLAIN, **options: Any) -> Trained:
    return loop.train_network(ARCHITECTURE, DATA.train, DATA, settings, teacher=teacher, **options)


def test_all_weight_on_the_teacher_brings_its_classes() -> None:
    labels = DATA.whole_train.labels
    upside_down = KnownLogits(8 * F.one_hot(1 - labels, 2).float(), sha256="upside down")
    network = taught(upside_down, dataclasses.replace(PLAIN, distillation_weight=1.0)).network
    chosen = network(loop.augmented(DATA.test.read(torch.arange(50)), DATA, crop=False, cutout=0, seed=0)).argmax(1)
    assert (chosen != DATA.test.labels).float().mean() > 0.9


@pytest.mark.parametrize("teacher", [network_teacher(), known_logits()])
def test_a_training_by_a_teacher_is_taken_up_exactly(teacher: Teacher, tmp_path: Path) -> None:
    whole = taught(teacher, EVERYTHING)
    with pytest.raises(StopError):
        taught(teacher, EVERYTHING, checkpoint=tmp_path / "c", on_progress=stop_at(6), save_every_s=0)
    with pytest.raises(TrainingError, match=r"settings.teacher_sha256 = .*, and now it is 5"):
        taught(network_teacher(seed=5), EVERYTHING, checkpoint=tmp_path / "c")
    assert same_weights(taught(teacher, EVERYTHING, checkpoint=tmp_path / "c"), whole)
    assert not same_weights(whole, loop.train_network(ARCHITECTURE, DATA.train, DATA, EVERYTHING))


def test_a_teacher_sees_images_at_its_own_resolution_and_statistics() -> None:
    larger = network_teacher(CellNetwork(CELL, dataclasses.replace(ARCHITECTURE.scale, resolution=12)))
    assert larger.logits(torch.randn(3, 1, 8, 8), torch.arange(3), DATA).shape == (3, 2)
    plain, shifted = network_teacher(), network_teacher(mean=(0.1,), std=(0.5,))
    pixels = torch.rand(3, 1, 8, 8)
    expected = plain.network((pixels - 0.1) / 0.5)
    said = shifted.logits((pixels - DATA.mean[0]) / DATA.std[0], torch.arange(3), DATA)
    assert torch.allclose(said, expected, atol=1e-5)


def test_a_teacher_goes_with_mixed_images_and_an_auxiliary_head() -> None:
    settings = dataclasses.replace(PLAIN, epochs=0.5, mixup=0.2, class_weights=True, ema=0.9, reparameterise=True)
    assert taught(network_teacher(), settings).history


@pytest.mark.parametrize(
    ("teacher", "change", "words"),
    [
        (network_teacher(classes=("a", "b")), {}, "must know its student's classes and channels"),
        (known_logits(64), {}, r"must be of the whole training set and its classes, \[114, 2\] for toy; got \[64, 2\]"),
        (known_logits(), {"mixup": 0.2}, "need a teacher that sees the mixed images"),
    ],
)
def test_what_cannot_teach_is_refused(teacher: Teacher, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        taught(teacher, dataclasses.replace(PLAIN, **change))


def test_logits_are_read_of_a_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 2))
    np.savez(tmp_path / "t.npz", logits=values)
    read = KnownLogits.read(tmp_path / "t.npz")
    said = read.logits(torch.zeros(2, 1, 8, 8), torch.tensor([4, 1]), dataset())
    assert said.numpy() == pytest.approx(values[[4, 1]], rel=1e-6)
    assert read.sha256 == KnownLogits.read(tmp_path / "t.npz").sha256


@pytest.mark.parametrize(
    "arrays", [{"other": np.ones((5, 2))}, {"logits": np.ones(5)}, {"logits": np.full((5, 2), np.nan)}]
)
def test_other_files_are_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(InputError, match=r"t\.npz.*logits"):
        KnownLogits.read(tmp_path / "t.npz")
    with pytest.raises(InputError, match=r"none\.npz.*logits"):
        KnownLogits.read(tmp_path / "none.npz")
