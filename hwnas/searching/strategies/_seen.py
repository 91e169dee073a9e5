"""The trials of a study as its samplers see them: what each chose is looked at once, as it never changes.

A sampler is made anew for every trial and reads its state from the study alone; what it has read is kept by study, so
that the ten-thousandth trial is chosen as fast as the hundredth.
"""

from bisect import insort
from collections.abc import Hashable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from hwnas.searching.strategies import Candidates, Parameters

_by_study: "WeakKeyDictionary[Study, Seen]" = WeakKeyDictionary()


class Seen:
    """A study's trials that have chosen, by their numbers; `complete` ones in their order, and those that still run."""

    def __init__(self, names: frozenset[str]) -> None:
        self.chosen: dict[int, FrozenTrial] = {}
        self.complete: list[FrozenTrial] = []
        self.running: dict[int, FrozenTrial] = {}
        self.choices: set[tuple[Hashable, ...]] = set()  # of all, word for word, by the parameters' sorted names
        self.identities: set[Hashable] = set()  # of all: what tells candidates apart
        self._names = tuple(sorted(names))
        self._count = 0
        self._open: list[int] = []  # trials that have not finished, or have not been looked at

    @classmethod
    def of(cls, study: Study, candidates: "Candidates") -> "Seen":
        """Return what is known of a study, brought up to date."""
        names = frozenset(candidates.distributions())
        seen = _by_study.setdefault(study, cls(names))
        if frozenset(seen._names) != names:  # it is asked for other parameters
            seen = _by_study[study] = cls(names)
        seen._refresh(study, candidates)
        return seen

    def word(self, parameters: "Parameters") -> tuple[Hashable, ...]:
        """Return a choice as it is in `choices`."""
        return tuple(parameters[name] for name in self._names)

    def _refresh(self, study: Study, candidates: "Candidates") -> None:
        trials = study.get_trials(deepcopy=False)
        numbers = [*self._open, *range(self._count, len(trials))]
        self._count, self._open = len(trials), []
        for number in numbers:
            self._look(trials[number], candidates)

    def _look(self, trial: FrozenTrial, candidates: "Candidates") -> None:
        number = trial.number
        has_chosen = all(name in trial.params for name in self._names)  # others were cut off before they chose
        if has_chosen and number not in self.chosen:
            self.choices.add(self.word(trial.params))
            self.identities.add(candidates.identity(trial.params))
        if has_chosen:
            self.chosen[number] = trial
        if not trial.state.is_finished():
            self._open.append(number)
        if has_chosen and trial.state == TrialState.RUNNING:
            self.running[number] = trial
        else:
            self.running.pop(number, None)
        if has_chosen and trial.state == TrialState.COMPLETE:
            insort(self.complete, trial, key=lambda other: other.number)
