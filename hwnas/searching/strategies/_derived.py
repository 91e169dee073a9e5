"""What strategies share that learn before the first trial: they propose what they have derived, the best first.

What was derived is kept in the study, so that every process proposes the same. When all of it is over a cap or known,
as many more as are wanted are drawn by chance.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer

CHECKPOINT = "derive.checkpoint.safetensors"  # of what learns, in the run's folder
_KEY = "hwnas:derived"


def is_derived(study: Study) -> bool:
    """Say whether a study has what its strategy derived."""
    return _KEY in study.user_attrs


def keep_derived(study: Study, derived: Sequence[Parameters], choices: dict[str, CategoricalDistribution]) -> None:
    """Keep candidates in a study, the best first; they are written by the places of their choices."""
    study.set_user_attr(_KEY, [[choices[name].choices.index(one[name]) for name in sorted(choices)] for one in derived])


def derived_in(study: Study, choices: dict[str, CategoricalDistribution]) -> list[Parameters]:
    """Return what `keep_derived` kept in a study."""
    names = sorted(choices)
    return [
        {name: choices[name].choices[place] for name, place in zip(names, places, strict=True)}
        for places in study.user_attrs.get(_KEY, [])
    ]


def sampler(context: Context, *, seed: int) -> "DerivedSampler":
    """Return the sampler."""
    return DerivedSampler(context, seed=seed)


class DerivedSampler(Proposer):
    """Proposes what is kept in the study, in that order; where there is nothing, what chance draws."""

    def __init__(self, context: Context, *, seed: int) -> None:
        super().__init__(context, seed=seed)
        self._derived: list[list[int]] = []

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of the next candidate; raises ExhaustedError when there is none left."""
        self._derived = study.user_attrs.get(_KEY, [])
        return super().sample_relative(study, trial, search_space)

    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield what was derived."""
        names = sorted(self._choices)
        for places in self._derived:
            yield {name: self._choices[name][place] for name, place in zip(names, places, strict=True)}
