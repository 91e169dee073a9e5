"""A search whose shared weights begin with a checkpoint's, from the command to the winner."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import FILTERS, pretend_table, write_images

import hwnas
from hwnas.errors import InputError, TrainingError
from hwnas.runs.run import Run
from hwnas.runs.winner import WinnerFolder
from hwnas.searching.estimators import supernet
from hwnas.training import loop, shared
from hwnas.training.pretrained import IMAGENET_MEAN, IMAGENET_STD

TINY: dict[str, Any] = {
    "max_latency_ms": 50.0,
    "data": "npz:images.npz",
    "space": "mbconv",
    "cells": (1,),
    "filters": FILTERS,
    "predicted": True,
    "strategy": "random",
    "trials": 2,
    "estimator": "supernet",
    "supernet": 2.0,
    "images": 32,
    "epochs": 1.0,
    "weights": "known.pth",
}


@pytest.fixture
def colours(workplace: Path) -> Path:
    """Return the workplace with images in colour, a table of the space for them, and a checkpoint."""
    write_images(workplace / "images.npz", channels=3)
    pretend_table(workplace, "mbconv", channels=3)
    write_checkpoint(seed=0)
    return workplace


def write_checkpoint(*, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), "known.pth")


def searched(**options: Any) -> Run:
    hwnas.search(**{"out": "run", **TINY, **options})
    return Run.open(str(options.get("out", "run")))


def bank(run: Run) -> dict[str, torch.Tensor]:
    return dict(shared.read_bank(run.folder / supernet.FILE).named_parameters())


def test_the_shared_weights_begin_with_those_of_the_checkpoint_and_the_winner_reads_images_as_it(colours: Path) -> None:
    run = searched()
    assert json.loads((run.folder / "settings.json").read_text())["weights"] == "known.pth"
    known = supernet.known_network(run.settings)
    assert known is not None
    stem = known.layers[1][0].weight  # type: ignore[index]  # a convolution and its norm
    learned = bank(run)["chain/stem:weight:"]
    others = bank(searched(out="other", weights=None))["chain/stem:weight:"]
    assert (learned - stem[:8]).abs().mean() < (others - stem[:8]).abs().mean() / 2
    (winner,) = hwnas.train("run", winners=1, epochs=1, accelerator="cpu")
    data = WinnerFolder(Path(winner.folder)).read().data
    assert (data.mean, data.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_a_bank_that_was_cut_off_goes_on_with_the_same_checkpoint_only(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training = loop.run_training

    def cut_off(training: Any, *, on_progress: Any, **options: Any) -> None:
        def stop(progress: Any) -> None:
            if progress.step == 1:
                raise KeyboardInterrupt

        run_training(training, on_progress=stop, save_every_s=0.0, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shared, "run_training", cut_off)
        with pytest.raises(KeyboardInterrupt):
            searched()
    write_checkpoint(seed=1)
    with pytest.raises(TrainingError, match=r"file of --weights must stay the same.*known.pth has changed"):
        searched()
    Path("known.pth").unlink()
    with pytest.raises(InputError, match=r"known.pth must be a network's weights.*No such file"):
        searched()
    write_checkpoint(seed=0)
    assert searched().trials().trained == 2


def test_once_the_bank_is_trained_its_checkpoint_may_go_and_another_one_is_said(
    colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "known.pth has changed since the shared weights were trained: they stay those of the old file"
    searched(trials=1)
    begun = bank(searched(trials=2))
    assert said not in " ".join(capsys.readouterr().err.split())
    write_checkpoint(seed=1)
    searched(trials=3)
    assert said in " ".join(capsys.readouterr().err.split())
    Path("known.pth").write_bytes(b"something else")
    searched(trials=4)
    assert said in " ".join(capsys.readouterr().err.split())
    Path("known.pth").unlink()
    run = searched(trials=5)
    assert run.trials().trained == 5
    assert said not in " ".join(capsys.readouterr().err.split())
    assert all(torch.equal(weights, begun[name]) for name, weights in bank(run).items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": "training"}, "got training and mbconv. Take these, or leave --weights out"),
        ({"space": "pnas"}, "is for --estimator supernet and --space mbconv.*got supernet and pnas"),
        ({"strategy": "enas"}, "enas trains its own. Take --strategy evolution, or leave --weights out"),
        ({"data": "npz:grey.npz"}, "known.pth must be of a network that reads images of 1 channels"),
        ({"weights": "images.npz"}, "images.npz must be a network's weights"),
    ],
)
def test_what_it_cannot_begin_with_is_refused_before_anything_is_written(
    colours: Path, options: dict[str, Any], said: str
) -> None:
    write_images(colours / "grey.npz")
    with pytest.raises(InputError, match=said):
        searched(**options)
    assert not Path("run").exists()
