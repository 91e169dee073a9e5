"""Search strategies, one file each: `sampler(context, *, seed)` returns an Optuna sampler.

A sampler reads its state from the study and nothing else; `search` makes it anew for every trial, with a seed of the
run's seed and the trial's number, so that a search that was stopped goes on as if it had not been. What it may know
beside the study, and beside what it proposes, are `Candidates`: which of them fit the caps costs no evaluation.

A strategy that has to learn before the first trial, from images and by shared weights, also has
    derive(run, candidates, dataset_of) -> Sequence[Parameters]     the best first, some more than there are trials
    MIXED = True                                   where it learns on all of a space in one, which needs its `mixed`
    SHARES = True                                  where it trains the weights that the estimator supernet looks with
    share(run, candidates, dataset_of, derived) -> None      then: trains these again, where their file is lost

derive is called once for a run, and goes on from the file _derived.CHECKPOINT in the run's folder where it was cut
off. What it derives is kept in the study, and its sampler is that of _derived.py.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hwnas.support import plugins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna.distributions import CategoricalDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study

    from hwnas.datasets import Dataset
    from hwnas.runs import Run
    from hwnas.searching.candidates import SpaceCandidates

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

Parameters = Mapping[str, Any]  # what a trial chose, by name


class Candidates(Protocol):
    """What a strategy chooses from, and what is known of a choice before it is evaluated."""

    def distributions(self) -> "dict[str, CategoricalDistribution]":
        """Return what every trial chooses from: constant names and choices."""
        ...

    def fits(self, chosen: Sequence[Parameters]) -> "Flags":
        """Say of each [n] whether it is predicted to fit the caps."""
        ...

    def excess(self, chosen: Parameters) -> float:
        """Return by what share a choice is predicted to be over the caps, all of them summed; 0 where it fits."""
        ...

    def identity(self, chosen: Parameters) -> Hashable:
        """Return what is equal for choices that are the same candidate."""
        ...

    def without_ignored(self, chosen: Parameters) -> Parameters:
        """Return the same candidate with the first choice of all that is ignored: what a strategy learns from."""
        ...

    def known_costs(self, chosen: Sequence[Parameters]) -> "Array":
        """Return what is known before an evaluation [n, costs]: first of the latency, or of what the cap is on."""
        ...

    def every(self) -> Sequence[Parameters] | None:
        """Return all candidates inside the caps, where they can be listed."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a strategy may know beside the study: what there is to choose from, and how much is to be done.

    `scores` are those of zero-cost proxies [n, proxies], where they are wanted: they take a moment for each candidate.
    """

    candidates: Candidates
    trials: int
    surrogate: str = "lstm"
    scores: "Callable[[Sequence[Parameters]], Array] | None" = None


class ExhaustedError(Exception):
    """A strategy has no candidate left; `search` ends and says so."""

    @classmethod
    def after(cls, draws: int, *, known: int) -> "ExhaustedError":
        """Return the error of a strategy that has drawn so many, where so many candidates are known."""
        if not known:
            return cls(f"none of {draws} candidates that were drawn fits the caps, nor what was looked for beside them")
        return cls(f"no candidate inside the caps is new: {draws} were drawn, {known} are known")


class NotYetError(Exception):
    """What a strategy proposes next depends on trials that still run; `search` waits for them and asks again."""


def derives(name: str) -> bool:
    """Say whether a strategy has to learn before the first trial."""
    return hasattr(plugins.load("strategies", name), "derive")


def prepare(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]", study: "Study") -> None:
    """Let the run's strategy learn what it has to before the first trial, unless that is done."""
    from hwnas.searching.estimators import lacks_prepared
    from hwnas.searching.strategies._derived import CHECKPOINT, derived_in, is_derived, keep_derived

    name = run.settings.strategy
    if not derives(name):
        return
    strategy, choices = plugins.load("strategies", name), candidates.distributions()
    if not is_derived(study):
        keep_derived(study, strategy.derive(run, candidates, dataset_of), choices)
    elif getattr(strategy, "SHARES", False) and lacks_prepared(run):
        strategy.share(run, candidates, dataset_of, derived_in(study, choices))
    (run.folder / CHECKPOINT).unlink(missing_ok=True)  # not before: what was derived would be lost


def make_sampler(name: str, context: Context, *, seed: int) -> "BaseSampler":
    """Return the sampler of the strategy of that name; raises UnknownNameError, which lists the known ones.

    One of Optuna's own draws again where a candidate does not fit, or is known: see _rejecting.py.
    """
    sampler: BaseSampler = plugins.load("strategies", name).sampler(context, seed=seed)
    if not type(sampler).__module__.startswith("optuna."):
        return sampler
    from hwnas.searching.strategies._rejecting import RejectingSampler

    return RejectingSampler(sampler, context.candidates, seed=seed)
