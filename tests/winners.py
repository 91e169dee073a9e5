"""A run with trained winners, made up in a moment: what export and verify are tested on."""

from collections.abc import Sequence
from pathlib import Path

import optuna
import torch
from conftest import write_images
from networks import network
from optuna.distributions import CategoricalDistribution
from safetensors.torch import save_file

from hwnas import datasets
from hwnas.artefacts.files import FILES
from hwnas.network.scale import Scale
from hwnas.runs.run import Run
from hwnas.runs.settings import SearchSettings
from hwnas.runs.winner import DataRecord, WinnerFolder, WinnerRecord
from hwnas.spaces import pnas, random_parameters
from hwnas.support.files import write_json
from hwnas.training.batches import normalise
from hwnas.training.curves import Epoch
from hwnas.training.module import Network
from hwnas.training.settings import TrainingSettings

MODELS = tuple(FILES)
CLASSES = ("dark, dim", "grey & 'plain'", "bright \N{SUN BEHIND CLOUD}")


def fitted(module: Network, data: datasets.Dataset) -> dict[str, torch.Tensor]:
    """Return a random network's weights, its BatchNorms and classifier (ridge regression) fitted to the test images."""
    images = normalise(data.test.read(torch.arange(len(data.test.labels))), data)
    with torch.no_grad():
        for _ in range(30):
            module.train()(images)
    seen: list[torch.Tensor] = []
    hook = module.layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1).double()))
    with torch.no_grad():
        module.eval()(images)
    hook.remove()
    (features,) = seen
    centred = features - features.mean(0)
    targets = torch.nn.functional.one_hot(data.test.labels).double() - 1 / len(data.classes)
    spread = centred.T @ centred
    fit = torch.linalg.solve(spread + 0.1 * spread.trace() / len(spread) * torch.eye(len(spread)), centred.T @ targets)
    weights = module.state_dict()
    weight, bias = list(weights)[-2:]
    weights[weight] = 5 * fit.T.float().contiguous()
    weights[bias] = -5 * (features.mean(0) @ fit).float()
    return weights


def settings_of(folder: Path, *, channels: int = 1) -> SearchSettings:
    return SearchSettings(
        device="host",
        setting="tflite-fp32-1t",
        threads=1,
        max_latency_ms=5.0,
        data=f"npz:{folder / 'images.npz'}",
        resolution=(8,),
        channels=channels,
        classes=3,
        validation=0.1,
        space="pnas",
        cells=(1,),
        filters=(4,),
        strategy="random",
        surrogate="mlp",
        trials=1,
        targets=(1.0,),
        proxy_filters=1.0,
        images=None,
        epochs=1.0,
        seed=0,
        predicted=True,
        storage=None,
    )


def searched_run(folder: Path, accuracies: Sequence[float]) -> Run:
    """Return a run of as many trials of different networks, none of them measured, and all as fast."""
    write_images(folder / "images.npz", train=60, test=30)
    run = Run.start(folder / "runs" / "a", settings_of(folder))
    with run.locked():  # which keeps its settings
        pass
    chosen = random_parameters(pnas, len(accuracies), seed=0)
    for parameters, accuracy in zip(chosen, accuracies, strict=True):
        architecture = pnas.architecture(parameters, Scale(1, 4, 8, 3, 1))
        attributes = {
            "architecture": architecture.to_json(),
            "mult_adds": architecture.graph.mult_adds,
            "parameters": architecture.graph.parameters,
            "predicted_ms": 1.0,
            "predicted_error": 0.1,
            "measured_ms": None,
            "accuracy": accuracy,
            "seconds": 1.0,
            "images_seen": 60,
            "seed": 0,
        }
        run.trials().study.add_trial(
            optuna.trial.create_trial(
                values=[accuracy, 1.0],
                params={"target": 1.0},
                distributions={"target": CategoricalDistribution((0.5, 1.0))},
                user_attrs=attributes,
            )
        )
    return run


def trained_run(folder: Path, *trials: int, channels: int = 1, data: str | None = None) -> Path:
    """Write a run whose winners, trial 3 alone without `trials`, have random weights; its files are not timed.

    They are of images that are made up, or of a data set's.
    """
    write_images(folder / "images.npz", train=300, test=90, channels=channels)
    settings, run = settings_of(folder, channels=channels), folder / "runs" / "a"
    settings = settings.model_copy(update={"data": data}) if data else settings
    write_json(run / "settings.json", settings.model_dump(mode="json"))
    architecture = pnas.architecture(random_parameters(pnas, 1, seed=0)[0], Scale(1, 4, 8, 3, channels))
    images = settings.dataset(8)
    weights = fitted(network(architecture.graph), images)
    for trial in trials or (3,):
        winner = WinnerFolder(run / "winners" / f"{trial:04d}")
        WinnerRecord(
            version=1,
            trial=trial,
            architecture=architecture,
            training=TrainingSettings(),
            data=DataRecord.of(images, seed=0).model_copy(update={} if data else {"classes": CLASSES}),
            test_accuracy=0.5,
            search_accuracy=0.5,
            search_accuracy_of="short training",
            search_latency_ms=1.1,
            measured=True,
            predicted_ms=1.0,
            predicted_error=0.1,
            mult_adds=architecture.graph.mult_adds,
            parameters=architecture.graph.parameters,
            seconds=12.5,
            images_seen=18000,
            history=(Epoch(60, 200, 0.7, 0.0, 12.5),),
            versions={},
        ).write(winner.record)
        save_file(weights, winner.weights)
    return run
