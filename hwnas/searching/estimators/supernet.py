"""Weights that all candidates share: trained once for a run, before its first trial; a candidate costs a look.

At each step one candidate of those that fit the caps learns from a batch (single paths; Guo et al., 2020, section
3.2); they are drawn so that every choice has its turn (_paths.py). Where weights are elastic, the largest and the
smallest learn at each step beside two of them (BigNAS; Yu et al., 2020, section 3.1). What candidates share, says
`hwnas.training.bank`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from hwnas.errors import BudgetError
from hwnas.searching.estimators import Estimate, Job
from hwnas.searching.estimators._paths import fair_choices
from hwnas.spaces import random_parameters
from hwnas.support import bar, counted, say
from hwnas.training import TrainingSettings, search_settings

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Architecture, Scale
    from hwnas.runs import Run, SearchSettings
    from hwnas.searching.candidates import SpaceCandidates
    from hwnas.searching.strategies import Parameters
    from hwnas.training import Network
    from hwnas.training.bank import Bank

OF = "shared weights"
CAVEAT = "accuracies are of shared weights: they rank candidates, and are below what each comes to when it is trained"
FILE = "supernet.safetensors"  # in the run's folder
QUICK = True
_CHECKPOINT = "supernet.checkpoint.safetensors"
_MOST_PATHS = 2000  # that are drawn before the training
_SIZES = ("cells", "filters", "resolution")  # of a scale
_BESIDE = 2  # paths a step beside the largest and the smallest
_WEIGHED = 100  # paths whose mean Mult-Adds stand for those of all
_RATE = 0.5  # the learning rate; as far as 0.05 with a momentum of 0.9, with which cells are ranked worse
_KNOWN_RATE, _KNOWN_MOMENTUM = 0.02, 0.9  # that known weights are tuned with: at a rate of 0.1 they are unlearned


class DrawnPath(NamedTuple):
    """A candidate at its scale of short training, and the network that has the largest of its weights."""

    architecture: "Architecture"
    largest: "Architecture"
    scale: "Scale"


def prepare(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> None:
    """Train the run's bank, unless that is done; from where it was cut off, if it was.

    Raises BudgetError where chance finds nothing that fits the caps, and TrainingError.
    """
    from hwnas.training.shared import train_shared, write_bank

    if (run.folder / FILE).exists():
        return
    settings = run.settings
    dataset = dataset_of(max(settings.resolution))
    training = bank_settings(settings.epochs, settings.images, settings.supernet, seed=settings.seed)
    if settings.weights is not None:
        training = replace(training, learning_rate=_KNOWN_RATE, momentum=_KNOWN_MOMENTUM)
    images = training.epochs * (training.images_per_epoch or len(dataset.train.labels))
    paths = drawn_paths(settings, candidates, count=min(_MOST_PATHS, max(1, round(images / training.batch_size))))
    ends = _ends(candidates.space, [path.scale for path in paths])
    if ends:
        training = replace(training, epochs=training.epochs / _paths_a_step(ends, paths[:_WEIGHED]))
    else:
        _say_scales([path.scale for path in paths])
    turns = counted(len(paths), "candidate")
    say(f"shared weights: trained with {turns} in turn, as long as {settings.supernet:g} trainings of one take")
    with bar("training shared weights", 1) as steps:
        bank = train_shared(
            [path.architecture for path in paths],
            [path.largest for path in paths],
            dataset,
            training,
            ends=ends,
            identity={"space": settings.space, "scales": [str(scale) for scale in settings.scales]},
            known=known_network(settings),
            checkpoint=run.folder / _CHECKPOINT,
            on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
        )
    write_bank(bank, run.folder / FILE)
    (run.folder / _CHECKPOINT).unlink(missing_ok=True)


def _say_scales(scales: "Sequence[Scale]") -> None:
    """Say what is against shared weights where candidates are of several widths or depths, each of which has to learn.

    On 40 trained candidates of 15 scales they ranked by -0.2, their parameters by 0.75 (docs/log.md).
    """
    count = len({(scale.cells, scale.filters) for scale in scales})
    if count > 1:
        say(
            f"shared weights rank candidates of one scale; these are of {count}, of which few learn enough: take "
            "--estimator training-speed, or one scale, as by --cells 1 --filters 8"
        )


def _ends(space: ModuleType, scales: "Sequence[Scale]") -> "list[Architecture]":
    """Return the largest and the smallest network that a space has at some scales, where its weights are elastic.

    BigNAS trains the largest of all; scales at which nothing fits the caps are left out, as the largest network takes
    most of a step.
    """
    if not hasattr(space, "smallest"):
        return []
    (any_choice,) = random_parameters(space, 1, seed=0)
    most, least = (
        replace(scales[0], **{name: extreme(getattr(scale, name) for scale in scales) for name in _SIZES})
        for extreme in (max, min)
    )
    return [space.architecture(space.largest(any_choice), most), space.architecture(space.smallest(any_choice), least)]


def _paths_a_step(ends: "Sequence[Architecture]", paths: Sequence[DrawnPath]) -> float:
    """Return how many paths of the mean Mult-Adds take as long as the largest, the smallest and those beside them."""
    mean = sum(path.architecture.graph.mult_adds for path in paths) / len(paths)
    return _BESIDE + sum(end.graph.mult_adds for end in ends) / mean


def known_network(settings: "SearchSettings") -> "Network | None":
    """Return the network whose weights the shared ones begin with, the most important channels first, if one is asked.

    Raises InputError for a file that has none for the run's data.
    """
    from hwnas.training.importance import sort_channels
    from hwnas.training.pretrained import torchvisions_network

    if settings.weights is None:
        return None
    network = torchvisions_network(Path(settings.weights), channels=settings.channels)
    sort_channels(network)
    return network


def drawn_paths(settings: "SearchSettings", candidates: "SpaceCandidates", *, count: int) -> list[DrawnPath]:
    """Return up to `count` candidates at the scale of short training, fairly drawn.

    Raises BudgetError where none is found that fits the caps.
    """
    paths = [
        networks_of(settings, candidates.space, choices, deployed[0])
        for choices in fair_choices(candidates, count, seed=settings.seed)
        if (deployed := candidates.largest(choices))
    ]
    if not paths:
        raise BudgetError(
            "of the candidates drawn by chance none fits the caps: raise --max-latency-ms, or take --estimator training"
        )
    return paths


def networks_of(settings: "SearchSettings", space: ModuleType, choices: "Parameters", deployed: "Scale") -> DrawnPath:
    """Return a candidate's networks in the bank, given the scale at which it would be deployed."""
    widest = max(settings.proxy_scale(scale).filters for scale in settings.scales)
    scale = settings.proxy_scale(deployed)
    largest = getattr(space, "largest", dict)(choices)
    return DrawnPath(space.architecture(choices, scale), space.architecture(largest, scale.with_filters(widest)), scale)


def bank_settings(epochs: float, images: int | None, trainings: float, *, seed: int) -> TrainingSettings:
    """Return how a bank is trained: as one candidate is, for as long as so many of them, without momentum.

    What a weight's momentum has kept is of paths long ago.
    """
    alone = search_settings(epochs=epochs, images_per_epoch=images, seed=seed)
    return replace(alone, epochs=epochs * trainings, learning_rate=_RATE, momentum=0.0)


def estimate(architecture: "Architecture", dataset: "Dataset", job: Job) -> Estimate:
    """Look at an architecture with the weights of the bank in the job's `initial`; without one, of its own.

    Its epochs and images are those of the bank where it has none; nothing is watched, and nothing kept.
    """
    from hwnas.training.shared import look, train_shared

    begun = time.monotonic()
    if job.initial is None:
        settings = bank_settings(job.epochs, job.images, 1, seed=job.seed)
        bank = train_shared([architecture], [architecture], dataset, settings, identity={}, on_progress=job.on_progress)
    else:
        bank = _bank(job.initial, job.initial.stat().st_mtime_ns)
    scores = look(bank, architecture, dataset)
    return Estimate(scores.accuracy, time.monotonic() - begun, images_seen=0, balanced=scores.balanced)


@lru_cache(maxsize=1)
def _bank(path: Path, modified_ns: int) -> "Bank":
    from hwnas.training.shared import read_bank

    return read_bank(path)
