"""The loop of a search: trials that were cut off are taken up again, then new ones asked for, until enough are trained.

Several processes may do so in one study (see workers.py). What is chosen next, and which of equal networks is trained,
is decided by one of them at a time; a device is asked by one at a time, and the others' training pauses meanwhile where
the device is the machine that trains: latencies are those of a search with one process.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hwnas.errors import InputError
from hwnas.searching.devices import costs_on, devices_of_run
from hwnas.searching.workers import supervise
from hwnas.support import plugins, say

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import CategoricalDistribution

    from hwnas.latency import CostModel, Due
    from hwnas.runs import Candidate, Leases, Run, TrialRecord
    from hwnas.searching.devices import SearchDevice
    from hwnas.searching.evaluation import Evaluation
    from hwnas.searching.races import Raced
    from hwnas.searching.strategies import Array, Parameters
    from hwnas.searching.truth import LevelTruth

_POLL_S = 0.2  # between two looks at what others have finished


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a device's table lacks for a search, in words, and what would be measured for that; neither: nothing."""

    lacking: str
    to_measure: "Due"


@dataclass(frozen=True, slots=True)
class Planned:
    """What a search would do: what it would measure first, and why; how many candidates it would train, and how long.

    A short training has so many epochs of so many images. `goes_on` says whether the run was begun; so many of the
    candidates are `trained` already. What is `lacking` is of the first device, of further ones it is in `further`.
    """

    goes_on: bool
    lacking: str
    to_measure: "Due"
    trials: int
    trained: int
    estimator: str
    epochs: float
    images: int
    further: "Mapping[str, Lacking]" = field(default_factory=dict)  # by DEVICE/SETTING


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search has come to: the front by rising latency, how many trials were trained, how many of them were
    stopped before their end, and how many were left out; how true the surrogate was, level by level; and how each
    space fared where several were raced.

    `accuracy_of` says what accuracies are of, as in "short training".
    """

    run: str
    accuracy_of: str
    front: "list[Candidate]"
    trained: int
    stopped: int
    left_out: int
    surrogate: "list[LevelTruth]"
    spaces: "list[Raced]"
    ended: str  # why, where it was before the wanted number of trials
    predicted: int = 0  # of the trained: their latencies are predictions
    plan: Planned | None = None  # of a search that was only planned: nothing else is of any meaning


class Search:
    """A search in a run's folder, by one process or as one of several."""

    def __init__(
        self,
        run: "Run",
        devices: "Sequence[SearchDevice]",
        leases: "Leases",
        *,
        since: int | None = None,
    ) -> None:
        from hwnas.searching.evaluation import Evaluator

        self.run_folder, self.settings, self.leases = run, run.settings, leases
        self.space: ModuleType = plugins.load("spaces", self.settings.space)
        self.trials = run.trials()
        self.dataset_of = cache(self.settings.dataset)  # by the resolution
        self.devices = devices
        self.evaluator = Evaluator(run, devices, self.trials, self.dataset_of)
        self.since = self._first_number() if since is None else since
        self._table_costs = costs_on(devices)
        # of how many measured networks, and corrected by these
        self._costs: tuple[int, CostModel] = 0, self._table_costs
        self._plans = 0  # of a progressive search, when it was last told how true the surrogate is

    def run(self, workers: int, on_trained: Callable[[int], None]) -> None:
        """Search, as `evaluate`, with so many processes; `on_trained` is told how many candidates are trained."""
        from hwnas.searching import estimators, strategies

        candidates = self.evaluator.candidates(self._table_costs)
        self._check_choices(candidates.distributions())
        strategies.prepare(self.run_folder, candidates, self.dataset_of, self.trials.study)
        estimators.prepare(self.run_folder, candidates, self.dataset_of)
        if workers == 1:
            self.evaluate(on_trained)
            return
        options = {"folder": str(self.run_folder.folder), "since": self.since}
        supervise(options, count=workers, on_look=lambda: on_trained(self.trials.refresh().trained))

    def _check_choices(self, now: "Mapping[str, CategoricalDistribution]") -> None:
        """Raise InputError where more trials are wanted of a space that had other choices in the first trial."""
        if self.trials.trained >= self.settings.trials:
            return
        first = next(iter(self.trials.study.get_trials(deepcopy=False)), None)
        for name, then in (first.distributions if first else {}).items():
            if name in now and then != now[name]:
                raise InputError(
                    f"{self.run_folder.folder} was begun by another version of hwnas, in which the space "
                    f"{self.settings.space} had other choices of {name}: its trials can be reported, trained and "
                    "exported, but no more be added. Give another --out to begin anew"
                )

    def evaluate(self, on_trained: Callable[[int], None] = lambda trained: None) -> None:
        """Take up trials that were cut off, then ask for new ones until enough are trained or none can be found."""
        while (trained := self.trials.refresh().trained) < self.settings.trials:
            on_trained(trained)
            with self.run_folder.deciding():
                evaluation = self._cut_off() or self._new()
                is_chosen = evaluation is not None and self._choose(evaluation)
                self._tell_truth()
            if evaluation is not None and is_chosen:
                evaluation.finish()
                self.leases.release(evaluation.trial.number)
            elif self.trials.running:
                time.sleep(_POLL_S)
            elif self._ended():
                return

    def _tell_truth(self) -> None:
        """Keep in the study how true the surrogate has been, and say so of levels that have ended since."""
        from hwnas.searching.truth import ended_levels, keep_truth, known_levels, plan_count

        if self._plans == (count := plan_count(self.trials)):
            return
        self._plans = count
        known, ended = known_levels(self.trials.study), ended_levels(self.trials.refresh())
        if len(ended) > known:
            keep_truth(self.trials.study, ended)
            for level in ended[known:]:
                say(str(level))

    def result(self) -> Searched:
        """Return what the search has come to."""
        from hwnas.runs import front_of
        from hwnas.searching import estimators
        from hwnas.searching.races import raced
        from hwnas.searching.truth import keep_truth, surrogate_truth

        truth = surrogate_truth(self.trials.refresh())
        keep_truth(self.trials.study, truth)
        candidates = [record.candidate for record in self.trials.in_state("trained")]
        return Searched(
            run=str(self.run_folder.folder),
            accuracy_of=estimators.accuracy_of(self.settings),
            front=front_of(candidates),
            trained=len(candidates),
            stopped=sum(candidate.stopped_after is not None for candidate in candidates),
            left_out=self.trials.left_out,
            surrogate=truth,
            spaces=raced(self.trials),
            predicted=sum(not candidate.measured for candidate in candidates),
            ended=self._ended() if len(candidates) < self.settings.trials else "",
        )

    def _first_number(self) -> int:
        """Return the number of the first trial that this search is to evaluate."""
        return min(self.trials.running, default=len(self.trials))

    def _ended(self) -> str:
        """Say why no more candidates are asked for, where it is so before enough are trained."""
        if said := self.trials.ended_since(self.since):
            return said if self.trials.trained else f"{said}{self._raise(self.trials.records)}"
        in_a_row = self.trials.too_many_untrained(self.since)
        return self._why_none(in_a_row) if in_a_row else ""

    def _why_none(self, in_a_row: "Sequence[TrialRecord]") -> str:
        """Say what kept so many proposals from being trained, and what helps."""
        reason = next((f", as one was {record.left_out}" for record in in_a_row if record.left_out), "")
        return (
            f"{len(in_a_row)} candidates in a row that {self.settings.strategy} proposed are not trained{reason}"
            f"{self._raise(in_a_row)}"
        )

    def _raise(self, untrained: "Sequence[TrialRecord]") -> str:
        """Say which caps are to be raised for what was not trained; nothing where that was for other reasons."""
        caps = self.trials.caps_to_raise(untrained)
        return f". Raise {self.settings.budget.options(caps)}, in another folder" if caps else ""

    def _cut_off(self) -> "Evaluation | None":
        """Take the lease of a trial that was begun and that nobody evaluates, the first one, and take it up."""
        for number in self.trials.running:
            if self.leases.take(number):
                if number in self.trials.refresh().running:
                    self._prepare(number)
                    return self._open(self.trials.take_up(number))
                self.leases.release(number)  # it was just being finished
        return None

    def _new(self) -> "Evaluation | None":
        """Ask for a new trial and take its lease, where one more is wanted."""
        if self.trials.refresh().trained + len(self.trials.running) >= self.settings.trials or self._ended():
            return None
        self._prepare(len(self.trials))
        trial = self.trials.study.ask()
        self.leases.take(trial.number)
        return self._open(trial)

    def _open(self, trial: "optuna.Trial") -> "Evaluation":
        from hwnas.runs import OpenTrial

        return self.evaluator.open(
            OpenTrial(trial, self.trials.together), self._costs[1], is_to_fill=self._is_to_fill(trial.number)
        )

    def _prepare(self, number: int) -> None:
        self._costs = self._corrected_costs(number)
        self.trials.study.sampler = self._sampler(number)

    @property
    def _to_fill(self) -> int:
        """How many trials, the last ones, are to fill the caps."""
        from hwnas.searching.strategies import derives

        return 0 if derives(self.settings.strategy) else int(self.settings.fill * self.settings.trials)

    def _is_to_fill(self, number: int) -> bool:
        """Say whether the trial of this number is one of the last, which are to fill the caps."""
        begun = self.trials.trained + sum(other < number for other in self.trials.running)
        return self._to_fill > 0 and begun >= self.settings.trials - self._to_fill

    def _choose(self, evaluation: "Evaluation") -> bool:
        """Let the strategy choose the trial's candidate; return whether it could."""
        from hwnas.searching.strategies import ExhaustedError, NotYetError

        trial = evaluation.trial
        alone = self.trials.refresh().running == [trial.number]  # then there is nothing that a strategy can wait for
        try:
            self._suggest(trial.optuna, evaluation.candidates.distributions())
        except NotYetError:
            if alone:
                raise
        except ExhaustedError as error:
            trial.end(str(error))
            trial.fail()
        else:
            return True
        self.leases.release(trial.number)
        return False

    def _suggest(self, trial: "optuna.Trial", distributions: "Mapping[str, CategoricalDistribution]") -> None:
        """Let the sampler choose, and keep all of its choice in the study at once; raises what the sampler raises.

        Of parameters with one choice each Optuna asks no sampler.
        """
        from hwnas.searching.strategies import ExhaustedError

        if trial.number and all(distribution.single() for distribution in distributions.values()):
            raise ExhaustedError("no candidate inside the caps is new: there is only one to choose")
        first, *others = distributions
        trial.suggest_categorical(first, list(distributions[first].choices))  # now the sampler thinks
        with self.trials.together():
            for name in others:
                trial.suggest_categorical(name, list(distributions[name].choices))

    def _corrected_costs(self, number: int) -> "tuple[int, CostModel]":
        """Return the costs for the trial of this number: corrected by what the trials before it measured."""
        measured, costs = self._costs
        if measured == self.trials.measured and not self.trials.measured_from(number):
            return measured, costs
        names = [device.measured_as for device in self.devices]
        earlier = {name: self.trials.measurements(before=number, device=name) for name in names}
        return sum(map(len, earlier.values())), costs_on(self.devices, earlier)

    def _sampler(self, number: int) -> Any:
        """Return a sampler whose random state comes from the run's seed and the trial's number alone."""
        import numpy as np

        from hwnas.searching.filling import FillingSampler
        from hwnas.searching.strategies import Context, make_sampler

        settings, candidates = self.settings, self.evaluator.candidates(self._costs[1])
        seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
        if self._is_to_fill(number):
            return FillingSampler(candidates, is_measured=not settings.predicted, seed=seed)
        context = Context(
            candidates, settings.trials - self._to_fill, settings.surrogate, self._scores if settings.proxies else None
        )
        return make_sampler(settings.strategy, context, seed=seed)

    def _scores(self, chosen: "Sequence[Parameters]") -> "Array":
        """Return what zero-cost proxies say of choices [n, proxies]: of all at one scale, the smallest proxy's."""
        from hwnas.searching import proxies

        scale = self.settings.proxy_scale(self.settings.scales[0])
        networks = [self.space.architecture(one, scale) for one in chosen]
        return proxies.scores(
            self.settings.proxies, networks, self.dataset_of(scale.resolution), seed=self.settings.seed
        )


def work(folder: str, *, since: int) -> None:
    """Do a worker's part of the search in a run's folder; `since` is the first trial of those that it began with."""
    from hwnas.runs import Run

    run = Run.open(folder)
    with run.leases() as leases:
        Search(run, devices_of_run(run.settings), leases, since=since).evaluate()
