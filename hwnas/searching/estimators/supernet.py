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

from hwnas.errors import BudgetError, InputError, SharedWeightsError, TrainingError
from hwnas.searching.estimators import Estimate, Job
from hwnas.searching.estimators._paths import fair_choices
from hwnas.spaces import random_parameters
from hwnas.support import bar, counted, plugins, say
from hwnas.training import TrainingSettings, search_settings

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Architecture, Scale
    from hwnas.runs import Run, SearchSettings
    from hwnas.searching.candidates import SpaceCandidates
    from hwnas.searching.strategies import Parameters
    from hwnas.training import Network
    from hwnas.training.bank import Bank
    from hwnas.training.shared import BankOrigin

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
_USUAL_FILTERS = 8  # of those that were asked for, the nearest to these are the advice where one scale is
_KNOWN_RATE, _KNOWN_MOMENTUM = 0.02, 0.9  # that known weights are tuned with: at a rate of 0.1 they are unlearned


class DrawnPath(NamedTuple):
    """A candidate at its scale of short training, and the network that has the largest of its weights."""

    architecture: "Architecture"
    largest: "Architecture"
    scale: "Scale"


def prepare(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> None:
    """Train the run's bank, from where it was cut off; where that is done, look whether it can be used.

    Raises BudgetError where nothing is found that fits the caps, TrainingError, and SharedWeightsError for a bank that
    cannot be read or is another run's.
    """
    if (run.folder / FILE).exists():
        known = check_bank(run)
        if known is not None:
            _say_changed(run.settings, known)
        return
    _train(run, candidates, dataset_of(max(run.settings.resolution)))


def check_bank(run: "Run") -> int | None:
    """Return the checksum of the known weights that the run's bank began with, if any; it is not read.

    Raises SharedWeightsError where it cannot be, and where it is another run's.
    """
    from hwnas.training.shared import check_origin

    written = check_origin(run.folder / FILE, origin_of(run.settings))
    return written.known if written else None


def origin_of(settings: "SearchSettings", *, known: "Network | None" = None) -> "BankOrigin":
    """Return what a run's bank is trained for, and the `known` weights that it begins with."""
    from hwnas.training.checkpoint import checksum
    from hwnas.training.shared import BankOrigin

    learns = getattr(plugins.load("strategies", settings.strategy), "SHARES", False)
    return BankOrigin(
        space=settings.space,
        scales=tuple(map(str, settings.scales)),
        proxy_filters=settings.proxy_filters,
        seed=settings.seed,
        learned_by=settings.strategy if learns else "turns",
        known=None if known is None else checksum(known.state_dict()),
    )


def _train(run: "Run", candidates: "SpaceCandidates", dataset: "Dataset") -> None:
    from hwnas.training.loop import steps_of
    from hwnas.training.shared import train_shared, write_bank

    settings, checkpoint = run.settings, run.folder / _CHECKPOINT
    training = bank_settings(settings.epochs, settings.images, settings.supernet, seed=settings.seed)
    known = known_network(settings)
    origin = origin_of(settings, known=known)
    if known is not None:
        training = replace(training, learning_rate=_KNOWN_RATE, momentum=_KNOWN_MOMENTUM)
        _check_unchanged(settings, origin, checkpoint)
    images = training.epochs * (training.images_per_epoch or len(dataset.train.labels))
    say(f"shared weights: they are trained before the first trial, {as_long_as(settings.supernet)}")
    paths = drawn_paths(settings, candidates, count=min(_MOST_PATHS, max(1, round(images / training.batch_size))))
    ends = _ends(candidates.space, [path.scale for path in paths])
    if ends:
        training = replace(training, epochs=training.epochs / _paths_a_step(ends, paths[:_WEIGHED]))
    else:
        say_scales(settings)
    turns = f"{len(paths)} candidates take turns" if len(paths) > 1 else "one candidate learns"
    say(f"shared weights: {turns} in {counted(steps_of(training, len(dataset.train.labels)), 'step')}")
    with bar("training shared weights", 1) as steps:
        bank = train_shared(
            [path.architecture for path in paths],
            [path.largest for path in paths],
            dataset,
            training,
            ends=ends,
            identity={"space": settings.space, "scales": [str(scale) for scale in settings.scales]},
            known=known,
            checkpoint=checkpoint,
            on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
        )
    write_bank(bank, run.folder / FILE, origin=origin)
    checkpoint.unlink(missing_ok=True)


def as_long_as(trainings: float) -> str:
    """Say how long shared weights are trained."""
    return f"as long as {counted(trainings, 'training')} of one candidate"


def say_scales(settings: "SearchSettings") -> None:
    """Say what is against shared weights where candidates are of several widths or depths, each of which has to learn.

    On 40 trained candidates of 15 scales they ranked by -0.2, their parameters by 0.75 (docs/log.md).
    """
    count = len({(scale.cells, scale.filters) for scale in map(settings.proxy_scale, settings.scales)})
    if count == 1:
        return
    options = []
    if len(set(settings.cells)) > 1:
        options.append(f"--cells {min(settings.cells)}")
    if len(set(settings.filters)) > 1:
        options.append(f"--filters {min(settings.filters, key=lambda filters: abs(filters - _USUAL_FILTERS))}")
    say(
        f"shared weights rank candidates of one scale; these are of {count}, of which few learn enough: take "
        f"--estimator training-speed, or one scale, as by {' '.join(options)}"
    )


def _check_unchanged(settings: "SearchSettings", origin: "BankOrigin", checkpoint: Path) -> None:
    """Raise TrainingError where a bank that was cut off began with other weights than the file has now."""
    from hwnas.training.shared import begun_with

    if checkpoint.exists() and begun_with(checkpoint) not in (None, origin.known):
        raise TrainingError(
            f"the file of --weights must stay the same until the shared weights are trained; {settings.weights} has "
            f"changed since they were begun. Put the old file back, or delete {checkpoint} to train them anew"
        )


def _say_changed(settings: "SearchSettings", known: int) -> None:
    """Say where the file of known weights is no more what a trained bank began with; nothing needs it any more."""
    if settings.weights is None or not Path(settings.weights).exists():
        return
    try:
        changed = origin_of(settings, known=known_network(settings)).known != known
    except InputError:
        changed = True
    if changed:
        say(f"{settings.weights} has changed since the shared weights were trained: they stay those of the old file")


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
    with bar("drawing candidates that share weights", count) as drawn:
        chosen = fair_choices(candidates, count, seed=settings.seed, on_drawn=drawn.at)
    paths = []
    with bar("building their networks", len(chosen)) as built:
        for choices in chosen:
            if deployed := candidates.largest(choices):
                paths.append(networks_of(settings, candidates.space, choices, deployed[0]))
            built.advance()
    if not paths:
        raise BudgetError(f"no candidate was found that fits the caps: raise {settings.budget.options()}")
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

    Its epochs and images are those of the bank where it has none; nothing is watched, and nothing kept. Raises
    SharedWeightsError for a bank that cannot be read, or is another run's.
    """
    from hwnas.training.shared import look, train_shared

    begun = time.monotonic()
    if job.initial is None:
        settings = bank_settings(job.epochs, job.images, 1, seed=job.seed)
        bank = train_shared([architecture], [architecture], dataset, settings, identity={}, on_progress=job.on_progress)
    else:
        bank = _bank(job.initial, _modified_ns(job.initial))
    scores = look(bank, architecture, dataset)
    return Estimate(scores.accuracy, time.monotonic() - begun, images_seen=0, balanced=scores.balanced)


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise SharedWeightsError(
            f"the run's shared weights must stay where they are; got {path}: {error.strerror}. Type the search again "
            "to train them anew"
        ) from None


@lru_cache(maxsize=1)
def _bank(path: Path, modified_ns: int) -> "Bank":
    from hwnas.training.shared import read_bank

    return read_bank(path)
