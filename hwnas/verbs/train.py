"""`hwnas train`: trains a run's winners at deployed scale on the whole training set, and tests them once."""

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.support import bar, say
from hwnas.verbs._options import RunFolder

if TYPE_CHECKING:
    from hwnas.runs import Candidate, Run, WinnerFolder, WinnerRecord
    from hwnas.training import TrainingSettings

_VERSIONS = ("hwnas", "torch", "torchvision", "optuna")  # that a record states


@dataclass(frozen=True, slots=True)
class TrainedWinner:
    """A trained winner; `test_accuracy` is a share, measured once after training."""

    trial: int
    test_accuracy: float
    mult_adds: int
    parameters: int
    seconds: float
    folder: str


def train(
    run: RunFolder,
    *,
    winners: Annotated[
        int, typer.Option(help="networks of the front to train, spread over it; the best is among them")
    ] = 2,
    trial: Annotated[int | None, typer.Option(help="train this trial instead of winners of the front")] = None,
    epochs: Annotated[float, typer.Option(help="epochs over the whole training set")] = 60,
    batch_size: Annotated[int, typer.Option(help="images a step")] = 128,
    learning_rate: Annotated[float, typer.Option(help="peak learning rate, decayed by a cosine")] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="weight decay, not on BatchNorm and biases")] = 5e-4,
    label_smoothing: Annotated[float, typer.Option(help="label smoothing")] = 0.1,
    augment: Annotated[bool, typer.Option(help="random crops, and flips where they suit the data")] = True,
    cutout: Annotated[int, typer.Option(help="side of a square that is cut out, in pixels; 0: none")] = 0,
    path_drop_rate: Annotated[float, typer.Option(help="scheduled path dropping: the rate at the end")] = 0.0,
    dropout_rate: Annotated[float, typer.Option(help="dropout before the classifier")] = 0.0,
    auxiliary_weight: Annotated[
        float, typer.Option(help="weight of the loss of an auxiliary head at two thirds of the cells; 0: none")
    ] = 0.0,
    accelerator: Annotated[str, typer.Option(help="where to train: auto, cpu, cuda or mps")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16")] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="use torch.compile")] = False,
) -> list[TrainedWinner]:
    """Train winners of a run's front; training that was stopped goes on from its last checkpoint.

    A winner that was trained to the end with other settings is trained anew. Raises InputError where there is nothing
    to train, and TrainingError.
    """
    from hwnas.errors import InputError
    from hwnas.runs import Run
    from hwnas.training import final_settings

    settings = final_settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        augment=augment,
        cutout=cutout,
        path_drop_rate=path_drop_rate,
        dropout_rate=dropout_rate,
        auxiliary_weight=auxiliary_weight,
        device=accelerator,
        precision=precision,
        compile=compile,
    )
    opened = Run.open(run)
    if winners < 1:
        raise InputError(f"--winners must be at least 1; got {winners}")
    with opened.locked():
        chosen = opened.choose(winners, trial=trial)
        return [_train_one(opened, candidate, settings) for candidate in chosen]


def _train_one(run: "Run", candidate: "Candidate", settings: "TrainingSettings") -> TrainedWinner:
    from hwnas.runs import WinnerFolder

    folder = WinnerFolder(run.winner_folder(candidate.trial))
    if folder.record.exists():
        record = folder.read()
        if record.training == settings:
            say(f"trial {candidate.trial} is trained already; its weights are in {folder.path}")
            return _result(record, folder)
        _begin_anew(folder, record, settings)
    record = _train_to_the_end(run, candidate, settings, folder)
    return _result(record, folder)


def _begin_anew(folder: "WinnerFolder", record: "WinnerRecord", settings: "TrainingSettings") -> None:
    """Say that a winner is trained anew; an older hwnas left the checkpoint of a training that was finished."""
    from hwnas.training import checkpoint

    before, now = record.training.to_json(), settings.to_json()
    changes = ", ".join(
        f"{name} {_in_words(before[name])} (now {_in_words(now[name])})" for name in now if before[name] != now[name]
    )
    say(f"trial {record.trial} was trained with {changes}: it is trained anew, and replaced when that is done")
    if folder.checkpoint.exists() and checkpoint.settings_in(folder.checkpoint) == before:
        folder.checkpoint.unlink()


def _in_words(setting: object) -> str:
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def _train_to_the_end(
    run: "Run", candidate: "Candidate", settings: "TrainingSettings", folder: "WinnerFolder"
) -> "WinnerRecord":
    """Train a candidate, test it once, and write its weights and its record."""
    from hwnas.runs import DataRecord, WinnerRecord
    from hwnas.training import accuracy, save_weights, train_network

    dataset = run.settings.dataset(candidate.architecture.graph.layers[0].shape[1])
    say(f"training trial {candidate.trial}: {candidate.architecture.name}")
    with bar(f"training trial {candidate.trial}", 1) as training_bar:
        trained = train_network(
            candidate.architecture,
            dataset.whole_train,
            dataset,
            settings,
            checkpoint=folder.checkpoint,
            on_progress=lambda progress: training_bar.at(progress.step, total=progress.steps),
        )
    record = WinnerRecord.of(
        candidate,
        trained,
        settings,
        DataRecord.of(dataset, seed=run.settings.seed),
        test_accuracy=accuracy(trained.network, dataset.test, dataset),
        versions={name: metadata.version(name) for name in _VERSIONS},
    )
    folder.record.unlink(missing_ok=True)  # one of other settings: its weights are replaced before it is
    save_weights(trained.network, folder.weights)
    record.write(folder.record)
    folder.checkpoint.unlink(missing_ok=True)
    return record


def _result(record: "WinnerRecord", folder: "WinnerFolder") -> TrainedWinner:
    return TrainedWinner(
        trial=record.trial,
        test_accuracy=record.test_accuracy,
        mult_adds=record.mult_adds,
        parameters=record.parameters,
        seconds=record.seconds,
        folder=str(folder.path),
    )
