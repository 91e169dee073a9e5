"""What strategies that propose whole candidates share: what does not fit the caps, or is known, is not proposed.

Rejecting costs no evaluation, so it is done before proposing: of up to 1,000 drawn candidates the first one is taken
that is predicted to fit and that no trial of the study had. Where there is none, as under a tight cap, they are changed
until they fit: see hwnas/searching/descent.py.
"""

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from hwnas.searching.descent import new_descended
from hwnas.searching.strategies import Context, ExhaustedError, Parameters
from hwnas.searching.strategies._seen import Seen

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
        seen = Seen.of(study, self._candidates)
        drawn = islice(chain(islice(self.draw(seen.complete), _DRAWS // 2), self._by_chance()), _DRAWS)
        return dict(self._first_new(self._distinct(drawn, seen), seen) or self._left_over(seen))

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

    def _distinct(self, drawn: Iterator[Parameters], seen: Seen) -> Iterator[Parameters]:
        """Leave out what was drawn before, or chosen word for word by a trial: that costs less than to look at it."""
        words: set[tuple[Hashable, ...]] = set()
        for choice in map(self._candidates.without_ignored, drawn):
            word = seen.word(choice)
            if word not in words and word not in seen.choices:
                words.add(word)
                yield choice

    def _first_new(self, drawn: Iterator[Parameters], seen: Seen) -> Parameters | None:
        at_once = 1
        while some := list(islice(drawn, at_once)):
            for choice, fits in zip(some, self._candidates.fits(some), strict=True):
                if fits and self._candidates.identity(choice) not in seen.identities:
                    return choice
            at_once = min(2 * at_once, _MOST_AT_ONCE)
        return None

    def _left_over(self, seen: Seen) -> Parameters:
        """Return one of the few new candidates that drawing did not come upon: of all, where they can be listed."""
        every = self._candidates.every()
        if every is None:
            chosen = new_descended(self._candidates, seen.identities, self._random)
        else:
            left = [choice for choice in every if self._candidates.identity(choice) not in seen.identities]
            chosen = self.one_of(left) if left else None
        if chosen is None:
            raise ExhaustedError.after(_DRAWS, known=len(seen.identities))
        return chosen
