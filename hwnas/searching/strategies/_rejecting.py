"""Optuna's samplers among candidates of which many are over a cap: what does not fit is drawn again, not told.

Their models grow slower with every trial of the study, so that thousands of rejected ones would stall them. Where
nothing that is drawn fits, it is changed until it does: see hwnas/searching/descent.py.
"""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hwnas.searching.descent import new_descended
from hwnas.searching.strategies import Candidates, ExhaustedError
from hwnas.searching.strategies._seen import Seen

_MOST = 1000  # draws an ask
_OWN_DRAWS = 5  # of the sampler; then they are uniform: one that has settled proposes what is known for ever


class RejectingSampler(BaseSampler):
    """Draws from another sampler until a candidate fits and is not known; `rejected` counts the others."""

    def __init__(self, sampler: BaseSampler, candidates: Candidates, *, seed: int) -> None:
        other = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])  # than that of the sampler
        self._sampler, self._uniform = sampler, RandomSampler(seed=other)
        self._candidates = candidates
        self._random = np.random.default_rng((seed, 2))
        self.rejected = 0

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Let the other sampler prepare."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Let the other sampler see what the trial has come to."""
        self._sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all distributions: candidates are judged as a whole."""
        return dict(self._candidates.distributions())

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a candidate; raises ExhaustedError after so many draws without one."""
        known = Seen.of(study, self._candidates).identities
        for number in range(_MOST):
            sampler = self._sampler if number < _OWN_DRAWS else self._uniform
            chosen = _draw(sampler, study, trial, search_space)
            if self._candidates.fits([chosen])[0] and self._candidates.identity(chosen) not in known:
                return chosen
            self.rejected += 1
        left = new_descended(self._candidates, known, self._random)
        if left is None:
            raise ExhaustedError.after(_MOST, known=len(known))
        return dict(left)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse: a parameter by itself cannot be judged."""
        raise ValueError(f"whole candidates are drawn; {param_name!r} is not of them")


def _draw(
    sampler: BaseSampler, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
) -> dict[str, Any]:
    """Return what a sampler chooses, as a trial would put it together."""
    space = sampler.infer_relative_search_space(study, trial)
    chosen = sampler.sample_relative(study, trial, space)
    return {
        name: chosen[name] if name in chosen else sampler.sample_independent(study, trial, name, distribution)
        for name, distribution in search_space.items()
    }
