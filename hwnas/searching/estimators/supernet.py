"""Weights that all candidates share: trained once for a run, before its first trial; a candidate costs a look.

At each step one candidate, drawn by chance among those that fit the caps, learns from a batch (uniform single paths;
Guo et al., 2020, section 3.2). What they share, says `hwnas.training.bank`.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import BudgetError
from hwnas.searching.estimators import Estimate
from hwnas.support import bar, say
from hwnas.training import Progress, TrainingSettings, Watch, search_settings

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Architecture, Scale
    from hwnas.runs import Run, SearchSettings
    from hwnas.searching.candidates import SpaceCandidates
    from hwnas.training import Network
    from hwnas.training.bank import Bank

CAVEAT = "accuracies are of shared weights: they rank candidates, and are below what each comes to when it is trained"
FILE = "supernet.safetensors"  # in the run's folder
_CHECKPOINT = "supernet.checkpoint.safetensors"
_MOST_PATHS = 2000  # that are drawn before the training
_KNOWN_RATE = 0.02  # the learning rate that known weights are tuned with: at 0.1, the usual one, they are unlearned
_DRAWS = 20  # for each path: where the caps leave few, fewer are found


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
        training = replace(training, learning_rate=_KNOWN_RATE)
    images = training.epochs * (training.images_per_epoch or len(dataset.train.labels))
    paths = drawn_paths(settings, candidates, count=min(_MOST_PATHS, max(1, round(images / training.batch_size))))
    say(f"shared weights: {len(paths)} candidates take turns, as long as {settings.supernet:g} trainings of one take")
    with bar("training shared weights", 1) as steps:
        bank = train_shared(
            [path for path, _ in paths],
            [largest for _, largest in paths],
            dataset,
            training,
            identity={"space": settings.space, "scales": [str(scale) for scale in settings.scales]},
            known=known_network(settings),
            checkpoint=run.folder / _CHECKPOINT,
            on_progress=lambda progress: steps.at(progress.step, total=progress.steps),
        )
    write_bank(bank, run.folder / FILE)
    (run.folder / _CHECKPOINT).unlink(missing_ok=True)


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


def drawn_paths(
    settings: "SearchSettings", candidates: "SpaceCandidates", *, count: int
) -> "list[tuple[Architecture, Architecture]]":
    """Return up to `count` candidates at the scale of short training, by chance, each with the largest of its weights.

    Raises BudgetError where none is found that fits the caps.
    """
    import numpy as np

    from hwnas.spaces import random_parameters

    space, random = candidates.space, np.random.default_rng(settings.seed)
    widest = max(settings.proxy_scale(scale).filters for scale in settings.scales)
    largest_choice = getattr(space, "largest", dict)
    paths: list[tuple[Architecture, Architecture]] = []
    for choices in random_parameters(space, _DRAWS * count, seed=settings.seed):
        target = float(random.choice(settings.targets))
        costs = candidates.costs_of(choices)
        at = int(costs.largest(settings.budget, target_ms=target * settings.max_latency_ms)[0])
        if at >= 0:
            scale: Scale = settings.proxy_scale(settings.scales[at])
            largest = space.architecture(largest_choice(choices), scale.with_filters(widest))
            paths.append((space.architecture(choices, scale), largest))
        if len(paths) == count:
            break
    if not paths:
        raise BudgetError(
            f"of {_DRAWS * count} candidates drawn by chance none fits the caps: raise --max-latency-ms, or take "
            "--estimator training"
        )
    return paths


def bank_settings(epochs: float, images: int | None, trainings: float, *, seed: int) -> TrainingSettings:
    """Return how a bank is trained: as one candidate is, for as long as so many of them."""
    return replace(search_settings(epochs=epochs, images_per_epoch=images, seed=seed), epochs=epochs * trainings)


def estimate(
    architecture: "Architecture",
    dataset: "Dataset",
    *,
    epochs: float,
    images: int | None,
    seed: int,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    watch: Watch | None = None,
    initial: Path | None = None,
    keep: Path | None = None,
) -> Estimate:
    """Look at an architecture with the weights of the bank in the file `initial`; without one, of its own.

    `epochs` and `images` are those of the bank where it has none; nothing is watched, and nothing kept.
    """
    from hwnas.training.shared import look, train_shared

    begun = time.monotonic()
    if initial is None:
        settings = bank_settings(epochs, images, 1, seed=seed)
        bank = train_shared([architecture], [architecture], dataset, settings, identity={}, on_progress=on_progress)
    else:
        bank = _bank(initial, initial.stat().st_mtime_ns)
    scores = look(bank, architecture, dataset)
    return Estimate(scores.accuracy, time.monotonic() - begun, images_seen=0, balanced=scores.balanced)


@lru_cache(maxsize=1)
def _bank(path: Path, modified_ns: int) -> "Bank":
    from hwnas.training.shared import read_bank

    return read_bank(path)
