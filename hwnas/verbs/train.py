"""`hwnas train`: trains a run's winners at deployed scale on the whole training set, and tests them once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.support import bar, say
from hwnas.verbs._options import RunFolder

if TYPE_CHECKING:
    from hwnas.runs import Candidate, Run


@dataclass(frozen=True, slots=True)
class Winner:
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
) -> list[Winner]:
    """Train winners of a run's front; training that was stopped goes on from its last checkpoint.

    Raises InputError where there is nothing to train, and TrainingError.
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


def _train_one(run: "Run", candidate: "Candidate", settings: Any) -> Winner:
    from importlib import metadata

    from hwnas.support import read_json, write_json
    from hwnas.training import accuracy, save_weights, train

    folder = run.winner_folder(candidate.trial)
    record_path = folder / "winner.json"
    if record_path.exists():
        record = read_json(record_path, what="a winner's record")
        if record["training"] == settings.to_json():
            say(f"trial {candidate.trial} is trained already; its weights are in {folder}")
            return _winner(record, str(folder))
    dataset = run.settings.dataset(candidate.architecture.graph.layers[0].shape[1])
    say(f"training trial {candidate.trial}: {candidate.architecture.name}")
    with bar(f"training trial {candidate.trial}", 1) as training_bar:
        trained = train(
            candidate.architecture,
            dataset.whole_train,
            dataset,
            settings,
            checkpoint=folder / "checkpoint.safetensors",
            on_progress=lambda progress: training_bar.at(progress.step, total=progress.steps),
        )
    test_accuracy = accuracy(trained.network, dataset.test, dataset)
    save_weights(trained.network, folder / "weights.safetensors")
    record = {
        "version": 1,
        "trial": candidate.trial,
        "architecture": candidate.architecture.to_json(),
        "training": settings.to_json(),
        "data": {**dataset.to_json(), "seed": run.settings.seed},
        "test_accuracy": test_accuracy,
        "search_accuracy": candidate.accuracy,
        "search_latency_ms": candidate.latency_ms,
        "measured": candidate.measured,
        "predicted_ms": candidate.predicted_ms,
        "predicted_error": candidate.predicted_error,
        "mult_adds": candidate.mult_adds,
        "parameters": candidate.parameters,
        "seconds": trained.seconds,
        "images_seen": trained.images_seen,
        "history": trained.history,
        "versions": {name: metadata.version(name) for name in ("hwnas", "torch", "torchvision", "optuna")},
    }
    write_json(record_path, record)
    return _winner(record, str(folder))


def _winner(record: dict[str, Any], folder: str) -> Winner:
    return Winner(
        trial=record["trial"],
        test_accuracy=record["test_accuracy"],
        mult_adds=record["mult_adds"],
        parameters=record["parameters"],
        seconds=record["seconds"],
        folder=folder,
    )
