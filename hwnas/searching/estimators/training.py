"""Trains a candidate for a short while."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.searching.estimators import Estimate, Job
from hwnas.training import (
    Progress,
    TrainingSettings,
    Watch,
    save_weights,
    scores,
    search_settings,
    train_network,
)

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Architecture

OF = "short training"
CAVEAT = ""


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
) -> Estimate:
    """Train an architecture on the data set's training part and measure it on the validation part.

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
    found = None if trained.stopped else scores(trained.network, dataset.validation, dataset)
    return Estimate(
        found.accuracy if found else math.nan,
        seconds=trained.seconds,
        images_seen=trained.images_seen,
        looks=trained.looks,
        stopped=trained.stopped,
        balanced=found.balanced if found else None,
    )
