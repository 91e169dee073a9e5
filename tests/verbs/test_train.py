"""`hwnas train` on a made-up run: what is done again, what is begun anew, and what is left in a winner's folder."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from winners import searched_run

import hwnas
from hwnas.artefacts import hash_weights, load_network
from hwnas.errors import InputError, TrainingError
from hwnas.runs.run import Run
from hwnas.runs.scores import WinnerScores
from hwnas.runs.winner import WinnerFolder, WinnerRecord
from hwnas.training.curves import Progress
from hwnas.training.loop import train_network
from hwnas.training.scoring import logits
from hwnas.training.settings import TrainingSettings, batch_size_for
from hwnas.training.weights import file_shapes
from hwnas.verbs.train import TrainOptions

FILES = {"scores.json", "weights.safetensors", "winner.json"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run of one trial."""
    return searched_run(tmp_path, [0.5])


def settings(epochs: float) -> TrainingSettings:
    return TrainingSettings(epochs=epochs, batch_size=16, device="cpu")


def train(run: Run, epochs: float) -> hwnas.TrainedWinner:
    (winner,) = hwnas.train(str(run.folder), epochs=epochs, batch_size=16, accelerator="cpu")
    return winner


def trained_with(run: Run, **options: object) -> WinnerRecord:
    (winner,) = hwnas.train(str(run.folder), epochs=2.0, batch_size=16, accelerator="cpu", **options)  # type: ignore[arg-type]
    return WinnerFolder(Path(winner.folder)).read()


@pytest.mark.parametrize(
    ("images", "batch"), [(2, 16), (64, 16), (500, 16), (1000, 32), (2000, 64), (2900, 128), (60_000, 128), (None, 128)]
)
def test_a_step_takes_fewer_images_of_a_small_set(images: int | None, batch: int) -> None:
    assert batch_size_for(images) == batch
    assert TrainOptions(run="runs/a").settings(images).batch_size == batch
    assert TrainOptions(run="runs/a", batch_size=50).settings(images).batch_size == 50


@pytest.mark.parametrize("known", [True, False])
def test_the_batch_is_chosen_by_the_runs_data_and_recorded(run: Run, known: bool) -> None:
    path, print_now = run.folder / "settings.json", run.settings.dataset(8).fingerprint
    assert print_now is not None
    kept = print_now.model_dump(mode="json") if known else None  # an older hwnas kept none
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": kept}))
    (winner,) = hwnas.train(str(run.folder), epochs=1.0, accelerator="cpu")
    record = WinnerFolder(Path(winner.folder)).read()
    assert record.training.batch_size == (16 if known else 128)
    assert record.history[-1].step == (4 if known else 1)


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
    assert {path.name for path in Path(winner.folder).iterdir()} == FILES
    record = WinnerFolder(Path(winner.folder)).read()
    assert (record.trial, record.training, record.images_seen) == (0, settings(1), 64)
    assert [epoch.step for epoch in record.history] == [4]
    assert (record.search_accuracy_of, winner.accuracy_of) == ("training speed", "long training")


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
    assert {path.name for path in Path(winner.folder).iterdir()} == FILES


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


def test_options_that_make_training_stronger_are_in_the_record_and_leave_the_same_network(run: Run) -> None:
    plain = trained_with(run)
    weights = file_shapes(WinnerFolder(run.winner_folder(0)).weights)
    options = {
        "optimizer": "adamw",
        "learning_rate": 0.002,
        "ema": 0.9,
        "mixup": 0.2,
        "cutmix": 1.0,
        "trivial_augment": True,
        "reparameterise": True,
        "branches": 2,
        "class_weights": True,
    }
    record = trained_with(run, **options)
    assert record.training == dataclasses.replace(plain.training, **options)
    assert record.parameters == plain.parameters
    assert file_shapes(WinnerFolder(run.winner_folder(0)).weights) == weights
    assert record.test_balanced_accuracy is not None


def test_patience_leaves_the_validation_part_out_of_the_training(run: Run) -> None:
    dataset = run.settings.dataset(8)
    (winner,) = hwnas.train(str(run.folder), epochs=2.0, batch_size=2, accelerator="cpu", patience=5)
    record = WinnerFolder(Path(winner.folder)).read()
    assert record.training.patience == 5
    assert len(dataset.train.labels) < len(dataset.whole_train.labels)
    assert record.images_seen == 2 * len(dataset.train.labels)
    accuracies = [epoch.accuracy for epoch in record.history]
    assert len(accuracies) == 2
    assert all(accuracy is not None and 0 <= accuracy <= 1 for accuracy in accuracies)
    assert [epoch.accuracy for epoch in trained_with(run).history] == [None, None]  # it learns from these images


def test_the_scores_are_those_of_the_test_images(run: Run) -> None:
    winner = train(run, 1)
    folder, dataset = WinnerFolder(Path(winner.folder)), run.settings.dataset(8)
    scores = WinnerScores.read(folder.scores, again=folder.again)
    network = load_network(folder.read().architecture, folder)
    said = logits(network, dataset.test, dataset).argmax(1)
    for place, score in enumerate(scores.by_class):
        of_class = dataset.test.labels == place
        assert (score.images, score.right) == (int(of_class.sum()), int((said[of_class] == place).sum()))
    assert scores.differs_from(folder.read()) == ""
    assert all(said[one.image] == one.said != one.right == dataset.test.labels[one.image] for one in scores.worst)


def test_a_winner_of_an_older_hwnas_gets_its_scores_without_being_trained_again(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = WinnerFolder(Path(train(run, 1).folder))
    before, weights = folder.scores.read_text(), folder.weights.stat().st_mtime_ns
    folder.scores.unlink()
    train(run, 1)
    assert folder.scores.read_text() == before
    assert folder.weights.stat().st_mtime_ns == weights

    folder.scores.unlink()
    record = json.loads(folder.record.read_text())
    folder.record.write_text(json.dumps({**record, "test_accuracy": (record["test_accuracy"] + 0.5) % 1}))
    train(run, 1)
    assert "scores.json is not written, as the test images are not those of" in said(capsys)
    assert not folder.scores.exists()


def test_a_record_of_before_is_of_a_training_without_what_came_since(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_with(run)
    written = WinnerFolder(run.winner_folder(0)).record.read_text()
    assert not any(name in written for name in ("ema", "mixup", "patience", "optimizer", "teacher", "branches"))
    trained_with(run)
    assert "trial 0 is trained already" in said(capsys)
    trained_with(run, ema=0.9)
    assert "trial 0 was trained with ema 0 (now 0.9): it is trained anew" in said(capsys)


def test_a_winner_learns_from_another_runs_winner_and_from_logits_in_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    other = searched_run(tmp_path / "teacher", [0.5])
    train(other, 1)
    folder = other.winner_folder(0)
    by_network = trained_with(run, teacher=folder, distillation_weight=0.9, temperature=2.0)
    assert by_network.training.teacher_sha256 == hash_weights(WinnerFolder(folder))
    assert str(folder) not in WinnerFolder(run.winner_folder(0)).record.read_text()
    dataset = run.settings.dataset(8)
    shape = (len(dataset.whole_train.labels), len(dataset.classes))
    np.savez(tmp_path / "logits.npz", logits=np.zeros(shape, np.float32))
    by_file = trained_with(run, teacher=tmp_path / "logits.npz")
    assert by_file.training.teacher_sha256 not in (None, by_network.training.teacher_sha256)


@pytest.mark.parametrize("name", ["nothing", "nothing.npz"])
def test_a_teacher_that_is_none_is_said(run: Run, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name}"):
        trained_with(run, teacher=tmp_path / name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ema": 1.0}, r"--ema must be below 1; got 1"),
        ({"mixup": -0.1}, r"--mixup must be 0 or more; got -0.1"),
        ({"cutmix": 1000.0}, r"--cutmix must be at most 100; got 1000"),
        ({"patience": -1}, r"--patience must be 0 or more; got -1"),
        ({"optimizer": "adam"}, r"--optimizer must be 'sgd' or 'adamw'; got 'adam'"),
        ({"optimizer": "adamw"}, r"learning_rate must be above 0, and at most 0.05 with adamw; got 0.1"),
        ({"reparameterise": True, "branches": 0}, r"--branches must be 1 or more; got 0"),
        ({"reparameterise": True, "branches": 10**9}, r"--branches must be at most 16; got 1000000000"),
        ({"branches": 4}, r"--branches is of --reparameterise, which is not given: add it, or leave --branches out"),
        ({"temperature": 0.0}, r"--temperature must be above 0; got 0"),
        ({"distillation_weight": 1.5}, r"--distillation-weight must be at most 1; got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(run: Run, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        trained_with(run, **options)
