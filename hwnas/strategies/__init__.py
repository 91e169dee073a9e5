"""Search strategies, one file each: `sampler(context, *, seed)` returns an Optuna sampler.

A sampler reads its state from the study and nothing else; `search` makes it anew for every trial, with a seed of the
run's seed and the trial's number, so that a search that was stopped goes on as if it had not been.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, cast

from hwnas import plugins
from hwnas.budget import Budget
from hwnas.costs import CostModel

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution
    from optuna.samplers import BaseSampler


@dataclass(frozen=True, slots=True)
class Context:
    """What a strategy may know beside the study: the space, what candidates cost, and how much is to be done."""

    space: ModuleType
    costs: CostModel
    budget: Budget
    targets: tuple[float, ...]  # shares of the latency cap
    trials: int
    surrogate: str = "mlp"


class ExhaustedError(Exception):
    """A strategy has no candidate left; `search` ends and says so."""


def make_sampler(name: str, context: Context, *, seed: int) -> "BaseSampler":
    """Return the sampler of the strategy of that name; raises UnknownNameError, which lists the known ones."""
    return cast("BaseSampler", plugins.load("strategies", name).sampler(context, seed=seed))


def distributions(space: ModuleType, targets: tuple[float, ...]) -> "dict[str, CategoricalDistribution]":
    """Return what every trial chooses from: the space's parameters and the latency target, a share of the cap."""
    from optuna.distributions import CategoricalDistribution

    return {**space.distributions(), "target": CategoricalDistribution(targets)}
