"""Trains a candidate for a short while; where it is to be int8, its accuracy is that of its int8 file."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.searching.estimators import Estimate, Job
from hwnas.training import (
    Progress,
    TrainingSettings,
    Watch,
    quantised_scores,
    save_weights,
    scores,
    search_settings,
    train_network,
)

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Setting
    from hwnas.network import Architecture

OF = "short training"
CAVEAT = ""
QUANTISES = True


def estimate(architecture: "Architecture", dataset: "Dataset", job: Job) -> Estimate:
    """Train a search's candidate for a short while; returns and raises what `evaluate` does."""
    settings = search_settings(epochs=job.epochs, images_per_epoch=job.images, seed=job.seed)
    return evaluate(
        architecture,
        dataset,
        settings,
        checkpoint=job.checkpoint,
        on_progress=job.on_progress,
        watch=job.watch,
        initial=job.initial,
        keep=job.keep,
        int8=job.int8,
    )


def evaluate(
    architecture: "Architecture",
    dataset: "Dataset",
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    watch: Watch | None = None,
    initial: Path | None = None,
    keep: Path | None = None,
    int8: "Setting | None" = None,
) -> Estimate:
    """Train an architecture on the data set's training part and measure it on the validation part.

    With a setting of `int8` what counts is its accuracy in that, calibrated on images of the training part.
    Raises InputError where the architecture and the data do not fit, and TrainingError.
    """
    trained = train_network(
        architecture,
        dataset.train,
        dataset,
        settings,
        checkpoint=checkpoint,
        on_progress=on_progress,
        watch=watch,
        initial=initial,
    )
    if keep is not None:
        save_weights(trained.network, keep)
    took = Estimate(math.nan, trained.seconds, trained.images_seen, trained.looks, trained.stopped)
    if trained.stopped:
        return took
    found = scores(trained.network, dataset.validation, dataset)
    if int8 is None:
        return replace(took, accuracy=found.accuracy, balanced=found.balanced)
    quantised = quantised_scores(trained.network, dataset.validation, dataset, int8, calibrated_on=dataset.train)
    return replace(took, accuracy=quantised.accuracy, balanced=quantised.balanced, fp32_accuracy=found.accuracy)
