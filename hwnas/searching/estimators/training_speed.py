"""How fast a candidate learns, in a tenth of its short training (training speed; Ru et al., 2021, section 3.1).

It is the mean training loss of the last third of so few steps. With half the batch there are twice the steps, which
rank better in about the same time. What learns fast and has few channels is over-rated (docs/log.md).
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hwnas.searching.estimators import Estimate, Job
from hwnas.training import search_settings, train_network

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Architecture

OF = "training speed"
ON = "training images"
CAVEAT = (
    "accuracies are of training speed: the probability of the right class after a tenth of a short training, as a "
    "geometric mean; they rank candidates, and are below what each comes to when it is trained"
)
QUICK = True
_SHARE = 0.1  # of the images of a short training
_BATCH = 16
_PARTS = 3  # of which the last one counts


def estimate(architecture: "Architecture", dataset: "Dataset", job: Job) -> Estimate:
    """Train a candidate for a tenth of the job's images, and return e to the minus mean loss of the last third.

    Nothing is watched, kept or inherited. Raises InputError where architecture and data do not fit, and TrainingError.
    """
    images = job.epochs * (job.images or len(dataset.train.labels))
    settings = replace(
        search_settings(images_per_epoch=max(1, round(_SHARE * images / _PARTS)), seed=job.seed),
        epochs=_PARTS,
        batch_size=_BATCH,
        label_smoothing=0.0,
    )
    trained = train_network(
        architecture,
        dataset.train,
        dataset,
        settings,
        checkpoint=job.checkpoint,
        on_progress=job.on_progress,
    )
    return Estimate(math.exp(-trained.history[-1].loss), trained.seconds, trained.images_seen)
