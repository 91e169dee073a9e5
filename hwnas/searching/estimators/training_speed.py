"""How fast a candidate learns, in a tenth of its short training (training speed; Ru et al., 2021, section 3.1).

It is the mean training loss of the last third of so few steps. With half the batch there are twice the steps, which
rank better in about the same time. By that alone a small network that learns fast is ahead of larger ones that come to
more (docs/log.md); so the loss counts as if it fell by a power of the parameters, as that of long trainings does
(Kaplan et al., 2020, section 3.2: by 0.076).
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
    "geometric mean, raised for large networks and lowered for small ones; they rank candidates, and are below what "
    "each comes to when it is trained"
)
QUICK = True
_SHARE = 0.1  # of the images of a short training
_BATCH = 16
_PARTS = 3  # of which the last one counts
_EXPONENT = 0.07  # of the parameters
_PARAMETERS = 1e5  # at so many of the short training's network the loss counts as it is


def estimate(architecture: "Architecture", dataset: "Dataset", job: Job) -> Estimate:
    """Train a candidate for a tenth of the job's images, and return e to the minus loss, as it counts.

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
    loss = trained.history[-1].loss * (_PARAMETERS / architecture.graph.parameters) ** _EXPONENT
    return Estimate(math.exp(-loss), trained.seconds, trained.images_seen)
