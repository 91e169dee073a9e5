"""`hwnas train --from-supernet`: a winner begins with its slice of the weights that the candidates shared."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FILTERS, pretend_table
from safetensors.torch import load_file

import hwnas
from hwnas.errors import InputError, TrainingError
from hwnas.runs.run import Run
from hwnas.runs.winner import WinnerFolder
from hwnas.searching.estimators import supernet
from hwnas.spaces import mbconv
from hwnas.training import shared
from hwnas.training.module import Network

SHORT: dict[str, Any] = {"winners": 1, "epochs": 0.1, "augment": False, "accelerator": "cpu"}


def searched(space: str, **options: Any) -> Run:
    """Return a run of one trial."""
    hwnas.search(
        out="run",
        max_latency_ms=50.0,
        data="npz:images.npz",
        space=space,
        cells=(1,),
        filters=FILTERS,
        predicted=True,
        strategy="random",
        **{
            "trials": 1,
            "estimator": "supernet",
            "supernet": 1.0,
            "images": 32,
            "epochs": 1.0,
            "proxy_filters": 1.0,
            **options,
        },
    )
    return Run.open("run")


def weights(folder: str) -> dict[str, torch.Tensor]:
    """Return a winner's convolutions and linear layers."""
    tensors = load_file(WinnerFolder(Path(folder)).weights)
    return {name: tensor for name, tensor in tensors.items() if tensor.dim() > 1}


def test_a_winner_begins_with_its_slice(workplace: Path) -> None:
    pretend_table(workplace, "mbconv")
    run = searched("mbconv")
    (record,) = run.trials().records
    assert record.scale is not None
    architecture = mbconv.architecture(record.choices, run.settings.scales[record.scale])
    network, bank = Network(architecture.graph), shared.read_bank(run.folder / supernet.FILE)
    bank.hold(architecture.graph)
    bank.fill(network)
    (winner,) = hwnas.train("run", from_supernet=True, learning_rate=1e-9, **SHORT)
    state, ours = network.state_dict(), weights(winner.folder)
    assert all(torch.allclose(ours[name], state[name], atol=1e-6) for name in ours)
    folder = WinnerFolder(Path(winner.folder))
    assert folder.read().training.from_supernet
    assert hwnas.train("run", from_supernet=True, learning_rate=1e-9, **SHORT)[0].seconds == winner.seconds
    (again,) = hwnas.train("run", learning_rate=1e-9, **SHORT)  # another beginning is another training
    theirs = weights(again.folder)
    assert not any(torch.allclose(theirs[name], state[name], atol=1e-3) for name in ours)
    assert not folder.read().training.from_supernet
    assert "from_supernet" not in folder.record.read_text()  # as an older hwnas wrote it


def test_a_training_that_was_cut_off_goes_on_from_the_same_beginning_only(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched("pnas")
    options = {**SHORT, "epochs": 2.0, "batch_size": 128}  # of which a step is an epoch, after which it is kept

    def stop(bar: Any, step: int, total: int | None = None) -> None:
        if step == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hwnas.support.progress.Bar.at", stop)
        with pytest.raises(KeyboardInterrupt):
            hwnas.train("run", from_supernet=True, **options)
    with pytest.raises(TrainingError, match=r"must be the same.*settings.from_supernet"):
        hwnas.train("run", **options)
    (winner,) = hwnas.train("run", from_supernet=True, **options)
    assert WinnerFolder(Path(winner.folder)).read().training.from_supernet


def test_a_run_that_shared_no_weights_and_one_of_fewer_channels_are_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched("pnas", estimator="size", supernet=20.0)
    capsys.readouterr()
    with pytest.raises(InputError, match=r"the run's estimator is size. Leave it out, or search with"):
        hwnas.train("run", from_supernet=True, **SHORT)
    assert "training trial" not in capsys.readouterr().err  # nothing was begun
    (workplace / "run").rename(workplace / "other")
    searched("pnas", proxy_filters=0.5)
    with pytest.raises(
        InputError, match=r"trained with --proxy-filters 0.5. Leave it out, or search with --proxy-filters 1"
    ):
        hwnas.train("run", from_supernet=True, **SHORT)


def test_finalists_are_refused_before_the_first_round(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched("pnas", proxy_filters=0.5, trials=3)
    with pytest.raises(InputError, match=r"trained with --proxy-filters 0.5"):
        hwnas.train("run", from_supernet=True, finalists=3, **SHORT)
    assert "round 1" not in capsys.readouterr().err
