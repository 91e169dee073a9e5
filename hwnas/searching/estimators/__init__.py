"""Estimators, one file each: from an architecture to its accuracy.

An estimator is a module with
    OF                           what its figures are of, in a word or two that stand beside them
    ON = "validation images"     where that is so; other images that it takes its figures on
    CAVEAT                       what must be said with its figures; empty where they are accuracies
    estimate(architecture, dataset, job) -> Estimate

What can say how good a candidate is in int8, too, says
    QUANTISES = True             and gives that accuracy where the job has a setting of int8

What takes less than a measurement on the device says
    QUICK = True                 so that it is asked first, and what is behind a measured candidate is not measured

What has to be done once for a run, before its first trial, is
    prepare(run, candidates, dataset_of) -> None
    FILE                         what it writes into the run's folder: each estimate's `initial`
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from hwnas.support import plugins
from hwnas.training import Look, Progress, Watch

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Setting
    from hwnas.network import Architecture
    from hwnas.runs import Run, SearchSettings
    from hwnas.searching.candidates import SpaceCandidates


@dataclass(frozen=True, slots=True)
class Estimate:
    """A candidate's accuracy on the validation part, a share, and what it took; `balanced`: the mean of the classes'.

    Where it was `stopped` the accuracy is not a number. Where it is that in int8, `fp32_accuracy` is the network's own.
    """

    accuracy: float
    seconds: float
    images_seen: int
    looks: tuple[Look, ...] = ()
    stopped: bool = False
    balanced: float | None = None
    fp32_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """How long an estimator may take, and with which files; `images` are those of an epoch, without it all.

    What is long goes on from the file `checkpoint`, if it exists, and can be watched: it is looked at before its end,
    and stopped where that promises nothing. What has weights writes them to the file `keep`, and begins with those of
    another network, from the file `initial`, as far as they fit. Accuracies are those in `int8`, a setting, if there is
    one.
    """

    epochs: float
    images: int | None
    seed: int
    checkpoint: Path | None = None
    on_progress: Callable[[Progress], None] | None = None
    watch: Watch | None = None
    initial: Path | None = None
    keep: Path | None = None
    int8: "Setting | None" = None


class Estimator(Protocol):
    """What a module of this folder is."""

    OF: str
    CAVEAT: str

    def estimate(self, architecture: "Architecture", dataset: "Dataset", job: Job) -> Estimate:
        """Say how accurate an architecture is; raises TrainingError where that cannot be said of it."""
        ...


def get(name: str) -> Estimator:
    """Return the estimator of that name; raises UnknownNameError, which lists the known ones."""
    return cast(Estimator, plugins.load("estimators", name))


def seen_on(name: str) -> str:
    """Return on which images an estimator takes its figures, in words."""
    return getattr(get(name), "ON", "validation images")


def accuracy_of(settings: "SearchSettings") -> str:
    """Return what a run's accuracies are of, in a few words that stand beside them."""
    return get(settings.estimator).OF + (" in int8" if settings.quantised else "")


def quantises(name: str) -> bool:
    """Say whether an estimator can give accuracies in int8."""
    return getattr(get(name), "QUANTISES", False)


def is_quick(name: str) -> bool:
    """Say whether an estimator takes less than a measurement on the device."""
    return getattr(get(name), "QUICK", False)


def prepared_file(name: str) -> str:
    """Return the name of the file that an estimator prepares for a run; nothing where it prepares none."""
    return getattr(get(name), "FILE", "")


def lacks_prepared(run: "Run") -> bool:
    """Say whether the run's estimator prepares a file that is not there."""
    name = prepared_file(run.settings.estimator)
    return bool(name) and not (run.folder / name).exists()


def prepare(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> None:
    """Do what the run's estimator has to do once, before the first trial."""
    if prepared_file(run.settings.estimator):
        plugins.load("estimators", run.settings.estimator).prepare(run, candidates, dataset_of)
