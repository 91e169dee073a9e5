"""What strategies that propose whole candidates share: what does not fit the caps, or is known, is not proposed.

Rejecting costs no evaluation, so it is done before proposing: of up to 1,000 drawn candidates the first one is taken
that is predicted to fit and that no trial of the study had.
"""

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hwnas.searching.strategies import Candidates, Context, ExhaustedError, Parameters

TARGET = "target"  # the parameter that is the latency target, where there is one: see `Context`
_DRAWS = 1000  # candidates an ask
_MOST_AT_ONCE = 64  # candidates that are looked at together: many are cheaper together, few are thrown away


class Proposer(BaseSampler):
    """Proposes whole candidates: the first that fits and is new of those that a strategy draws."""

    def __init__(self, context: Context, *, seed: int) -> None:
        self._candidates = context.candidates
        self._choices = {name: known.choices for name, known in context.candidates.distributions().items()}
        self._random = np.random.default_rng(seed)

    @abstractmethod
    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield candidates, given the evaluated trials in the order of their numbers; any number, equal ones too."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all that there is to choose: candidates are proposed as a whole."""
        return dict(self._candidates.distributions())

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters of the next candidate; raises ExhaustedError when there is none left.

        Half of the draws are left to chance alone, for a strategy that comes to draw the same ones again and again.
        """
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        chosen = [t for t in others if search_space.keys() <= t.params.keys()]  # others were cut off before they chose
        complete = [t for t in chosen if t.state == TrialState.COMPLETE]
        known = identities(study, self._candidates, chosen)
        drawn = islice(chain(islice(self.draw(complete), _DRAWS // 2), self._by_chance()), _DRAWS)
        return dict(self._first_new(self._distinct(drawn, chosen), known) or self._left_over(known))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse: a parameter that is not of the candidates cannot be chosen."""
        raise ValueError(f"this strategy proposes whole candidates; {param_name!r} is not of them")

    def one_of(self, choices: Sequence[Any]) -> Any:
        """Return one of the choices, each alike."""
        return choices[int(self._random.integers(len(choices)))]

    def _by_chance(self) -> Iterator[Parameters]:
        while True:
            yield {name: self.one_of(choices) for name, choices in self._choices.items()}

    def _distinct(self, drawn: Iterator[Parameters], trials: Iterable[FrozenTrial]) -> Iterator[Parameters]:
        """Leave out what was drawn before, or chosen word for word by a trial: that costs less than to look at it."""
        seen = {tuple(trial.params[name] for name in self._choices) for trial in trials}
        for one in drawn:
            choices = tuple(one[name] for name in self._choices)
            if choices not in seen:
                seen.add(choices)
                yield one

    def _first_new(self, drawn: Iterator[Parameters], known: set[Hashable]) -> Parameters | None:
        at_once = 1
        while some := list(islice(drawn, at_once)):
            for one, fits in zip(some, self._candidates.fits(some), strict=True):
                if fits and self._candidates.identity(one) not in known:
                    return one
            at_once = min(2 * at_once, _MOST_AT_ONCE)
        return None

    def _left_over(self, known: set[Hashable]) -> Parameters:
        """Return one of the few new candidates that drawing did not come upon, where they can be listed."""
        left = [one for one in self._candidates.every() or () if self._candidates.identity(one) not in known]
        if not left:
            raise ExhaustedError(f"no candidate inside the caps is new: {_DRAWS} were drawn, {len(known)} are known")
        chosen: Parameters = self.one_of(left)
        return chosen


_known: WeakKeyDictionary[Study, dict[int, Hashable]] = WeakKeyDictionary()  # by the trial's number


def identities(study: Study, candidates: Candidates, trials: Iterable[FrozenTrial]) -> set[Hashable]:
    """Return what tells the trials' candidates apart.

    A trial's choice never changes, so it is looked at once for all samplers of the study: a thousand take a second.
    """
    found = _known.setdefault(study, {})
    for trial in trials:
        if trial.number not in found:
            found[trial.number] = candidates.identity(trial.params)
    return {found[trial.number] for trial in trials}
