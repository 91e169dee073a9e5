"""`hwnas train` on a made-up run: what is done again, what is begun anew, and what is left in a winner's folder."""

from pathlib import Path

import pytest
from winners import searched_run

import hwnas
from hwnas.errors import InputError, TrainingError
from hwnas.runs.run import Run
from hwnas.runs.winner import WinnerFolder
from hwnas.training.curves import Progress
from hwnas.training.loop import train_network
from hwnas.training.settings import TrainingSettings


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run of one trial."""
    return searched_run(tmp_path, [0.5])


def settings(epochs: float) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, batch_size=16, device="cpu")


def train(run: Run, epochs: float) -> hwnas.TrainedWinner:
    (winner,) = hwnas.train(str(run.folder), epochs=epochs, batch_size=16, accelerator="cpu")
    return winner


def leave_checkpoint(run: Run, epochs: float, *, stop: bool = False) -> Path:
    """Leave the checkpoint of a training, of one that is cut off if it is to `stop`."""
    dataset, (candidate,) = run.settings.dataset(8), run.candidates()
    path = WinnerFolder(run.winner_folder(0)).checkpoint

    def on_progress(progress: Progress) -> None:
        if stop and progress.epoch >= 1:
            raise KeyboardInterrupt

    try:
        train_network(
            candidate.architecture,
            dataset.whole_train,
            dataset,
            settings(epochs),
            checkpoint=path,
            on_progress=on_progress,
        )
    except KeyboardInterrupt:
        assert stop
    assert path.exists()
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_finished_training_leaves_weights_and_a_record_alone(run: Run) -> None:
    winner = train(run, 1)
    assert {path.name for path in Path(winner.folder).iterdir()} == {"weights.safetensors", "winner.json"}
    record = WinnerFolder(Path(winner.folder)).read()
    assert (record.trial, record.training, record.images_seen) == (0, settings(1), 64)
    assert [epoch.step for epoch in record.history] == [4]
    assert (record.search_accuracy_of, winner.accuracy_of) == ("short training", "long training")


def test_the_same_training_is_not_done_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    winner = train(run, 1)
    weights = Path(winner.folder, "weights.safetensors").stat().st_mtime_ns
    assert train(run, 1) == winner
    assert Path(winner.folder, "weights.safetensors").stat().st_mtime_ns == weights
    assert "trial 0 is trained already" in said(capsys)


def test_a_training_that_was_killed_at_its_very_end_leaves_no_checkpoint(run: Run) -> None:
    winner = train(run, 1)
    checkpoint = leave_checkpoint(run, 1)
    assert train(run, 1) == winner
    assert not checkpoint.exists()


@pytest.mark.parametrize("of_an_older_hwnas", [False, True])
def test_a_training_with_other_settings_begins_anew_and_says_so(
    run: Run, capsys: pytest.CaptureFixture[str], of_an_older_hwnas: bool
) -> None:
    train(run, 1)
    if of_an_older_hwnas:  # which left the checkpoint of a finished training
        leave_checkpoint(run, 1)
    winner = train(run, 2)
    assert "trial 0 was trained with epochs 1 (now 2): it is trained anew" in said(capsys)
    record = WinnerFolder(Path(winner.folder)).read()
    assert (record.training, record.images_seen) == (settings(2), 128)
    assert {path.name for path in Path(winner.folder).iterdir()} == {"weights.safetensors", "winner.json"}


def test_a_training_that_was_cut_off_is_not_thrown_away_for_other_settings(run: Run) -> None:
    path = leave_checkpoint(run, 3, stop=True)
    with pytest.raises(
        TrainingError, match=r"begun with settings.epochs = 3, and now it is 2.0; go back to 3, or delete"
    ):
        train(run, 2)
    assert path.exists()
    assert train(run, 3).test_accuracy >= 0
    assert not path.exists()


@pytest.mark.parametrize("content", ["{}", '{"version": 99}', "{"])
def test_a_record_that_cannot_be_read_is_named_with_what_to_type(run: Run, content: str) -> None:
    record = WinnerFolder(run.winner_folder(0)).record
    record.parent.mkdir(parents=True)
    record.write_text(content)
    with pytest.raises(InputError, match=r"winner\.json.* type: hwnas train .*runs/a --trial 0"):
        train(run, 1)
