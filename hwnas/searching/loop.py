"""The trials of a search: for each a network is chosen, brought to the largest scale that fits, and trained shortly.

For each trial the largest scale is taken whose network fits the target: predicted ones are written, put on the device
and timed whole, until it is known. That network is trained for a short while at a fixed fraction of its filters. What
was measured is kept in the trials, and corrects the predictions for later ones.

Several processes may do so in one study (see hwnas/workers.py). What is chosen next, and which of equal networks is
trained, is decided by one of them at a time; a device is asked by one at a time, and the others' training pauses
meanwhile where the device is the machine that trains: latencies are those of a search with one process.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import takewhile
from os import getuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas import spaces
from hwnas.errors import TrainingError
from hwnas.support import plugins, say

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hwnas.device import Device, Setting
    from hwnas.latency import CostModel, Costs, Measurement
    from hwnas.network import Architecture
    from hwnas.runs import Candidate, Leases, Run
    from hwnas.searching.candidates import SpaceCandidates
    from hwnas.searching.strategies import Array, Parameters
    from hwnas.searching.truth import LevelTruth

_MOST_MEASURED = 4  # networks a trial
_MAX_PROPOSALS = 100  # in a row without one that is trained: then the search ends
_POLL_S = 0.2  # between two looks at what others have finished


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search has come to: the front by rising latency, how many trials were trained, how many of them were
    stopped before their end, and how many were left out; how true the surrogate was, level by level.
    """

    run: str
    front: "list[Candidate]"
    trained: int
    stopped: int
    left_out: int
    surrogate: "list[LevelTruth]"
    ended: str  # why, where it was before the wanted number of trials


class Search:
    """A search in a run's folder, by one process or as one of several."""

    def __init__(
        self,
        run: "Run",
        device: "Device",
        setting: "Setting",
        costs: "CostModel",
        leases: "Leases",
        *,
        since: int | None = None,
    ) -> None:
        from hwnas.searching.short_training import ShortTraining

        self.run_folder = run
        self.settings = run.settings
        self.device, self.setting, self.table_costs = device, setting, costs
        self.costs = costs  # for the trial at hand
        self.dataset_of = cache(self.settings.dataset)  # by the resolution
        self.space = plugins.load("spaces", self.settings.space)
        self.study = run.study()
        self.short_training = ShortTraining(run, self.study, self._wait_while_timed)
        self.leases = leases
        self.device_lock = Path(tempfile.gettempdir()) / f"hwnas-{getuid()}-{device.name}.lock"  # all runs' of a user
        self.since = self._first_number() if since is None else since

    def run(self, workers: int, on_trained: Callable[[int], None]) -> None:
        """Search, as `evaluate`, with so many processes; `on_trained` is told how many candidates are trained."""
        if workers == 1:
            self.evaluate(on_trained)
            return
        from hwnas.searching.workers import supervise

        options = {"folder": str(self.run_folder.folder), "since": self.since}
        supervise(options, count=workers, on_look=lambda: on_trained(len(self._in_state("COMPLETE"))))

    def evaluate(self, on_trained: Callable[[int], None] = lambda trained: None) -> None:
        """Take up trials that were cut off, then ask for new ones until enough are trained or none can be found."""
        while (trained := len(self._in_state("COMPLETE"))) < self.settings.trials:
            on_trained(trained)
            with self.run_folder.deciding():
                trial = self._cut_off() or self._new()
                chosen = trial is not None and self._choose(trial)
                self._tell_truth()
            if trial is not None and chosen:
                self._evaluate(trial)
                self.leases.release(trial.number)
            elif self._in_state("RUNNING"):
                time.sleep(_POLL_S)
            elif self._ended():
                return

    def _tell_truth(self) -> None:
        """Keep in the study how true the surrogate has been, and say so of levels that have ended since."""
        from hwnas.searching.truth import TRUTH, ended_levels

        if not spaces.grows(self.space):  # all is one level
            return
        known = len(self.study.user_attrs.get(TRUTH, []))
        ended = ended_levels(self.study)
        if len(ended) > known:
            self.study.set_user_attr(TRUTH, [asdict(level) for level in ended])
            for level in ended[known:]:
                say(str(level))

    def result(self) -> Searched:
        """Return what the search has come to."""
        from hwnas.runs import front_of
        from hwnas.searching.truth import TRUTH, surrogate_truth

        truth = surrogate_truth(self.study)
        if truth:
            self.study.set_user_attr(TRUTH, [asdict(level) for level in truth])
        candidates = self.run_folder.candidates()
        return Searched(
            run=str(self.run_folder.folder),
            front=front_of(candidates),
            trained=len(candidates),
            stopped=sum(candidate.stopped_after is not None for candidate in candidates),
            left_out=len(self._in_state("PRUNED")),
            surrogate=truth,
            ended=self._ended() if len(candidates) < self.settings.trials else "",
        )

    def _in_state(self, state: str) -> "list[FrozenTrial]":
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.name == state]

    def _first_number(self) -> int:
        """Return the number of the first trial that this search is to evaluate."""
        running = self._in_state("RUNNING")
        return running[0].number if running else len(self.study.get_trials(deepcopy=False))

    def _ended(self) -> str:
        """Say why no more candidates are asked for, where it is so before enough are trained."""
        trials = self.study.get_trials(deepcopy=False)[self.since :]
        if said := [str(trial.user_attrs["ended"]) for trial in trials if "ended" in trial.user_attrs]:
            return said[0]
        finished = (trial for trial in reversed(trials) if trial.state.is_finished())
        in_a_row = len(list(takewhile(lambda trial: trial.state.name != "COMPLETE", finished)))
        if in_a_row < _MAX_PROPOSALS:
            return ""
        return (
            f"{self.settings.strategy} proposed {in_a_row} candidates in a row that are over the caps "
            f"or known; raise --max-latency-ms, or take --strategy progressive"
        )

    def _cut_off(self) -> "optuna.Trial | None":
        """Take the lease of a trial that was begun and that nobody evaluates, the first one, and return it."""
        from optuna.trial import Trial

        for begun in self._in_state("RUNNING"):
            if self.leases.take(begun.number):
                if begun.number in [trial.number for trial in self._in_state("RUNNING")]:
                    self._prepare(begun.number)
                    return Trial(self.study, begun._trial_id)
                self.leases.release(begun.number)  # it was just being finished
        return None

    def _new(self) -> "optuna.Trial | None":
        """Ask for a new trial and take its lease, where one more is wanted."""
        if len(self._in_state("COMPLETE") + self._in_state("RUNNING")) >= self.settings.trials or self._ended():
            return None
        self._prepare(len(self.study.get_trials(deepcopy=False)))
        trial = self.study.ask()
        self.leases.take(trial.number)
        return trial

    def _prepare(self, number: int) -> None:
        self.costs = self._corrected_costs(number)
        self.study.sampler = self._sampler(number)

    def _choose(self, trial: "optuna.Trial") -> bool:
        """Let the strategy choose the trial's candidate; return whether it could."""
        from optuna.trial import TrialState

        from hwnas.searching.strategies import ExhaustedError, NotYetError

        alone = len(self._in_state("RUNNING")) == 1  # then there is nothing that a strategy can wait for
        try:
            for name, choice in self._candidates().distributions().items():
                trial.suggest_categorical(name, list(choice.choices))
        except NotYetError:
            if alone:
                raise
        except ExhaustedError as error:
            trial.set_user_attr("ended", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            return True
        self.leases.release(trial.number)
        return False

    def _corrected_costs(self, number: int) -> "CostModel":
        """Return the costs for the trial of this number: corrected by what the trials before it measured."""
        from hwnas.runs import timed_networks

        earlier = (trial for trial in self.study.get_trials(deepcopy=False) if trial.number < number)
        return self.table_costs.corrected_by(timed_networks(earlier))

    def _sampler(self, number: int) -> Any:
        """Return a sampler whose random state comes from the run's seed and the trial's number alone."""
        import numpy as np

        from hwnas.searching.strategies import Context, make_sampler

        settings = self.settings
        context = Context(
            self._candidates(), settings.trials, settings.surrogate, self._scores if settings.proxies else None
        )
        seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
        return make_sampler(settings.strategy, context, seed=seed)

    def _scores(self, chosen: "Sequence[Parameters]") -> "Array":
        """Return what zero-cost proxies say of choices [n, proxies]: of all at one scale, the smallest proxy's."""
        from hwnas.searching import proxies

        scale = self.settings.proxy_scale(self.settings.scales[0])
        networks = [self.space.architecture(one, scale) for one in chosen]
        return proxies.scores(
            self.settings.proxies, networks, self.dataset_of(scale.resolution), seed=self.settings.seed
        )

    def _candidates(self) -> "SpaceCandidates":
        """Return what can be chosen, with the costs for the trial at hand."""
        from hwnas.searching.candidates import SpaceCandidates

        return SpaceCandidates(self.space, self.costs, self.settings.budget, tuple(self.settings.targets))

    def _evaluate(self, trial: "optuna.Trial") -> None:
        """Bring one trial, whose candidate is chosen, to its end."""
        from optuna.trial import TrialState

        from hwnas.network import Architecture

        values = None if "left_out" in trial.user_attrs else self._values(trial)  # it may be cut off before it is told
        if values is None:
            self.study.tell(trial, state=TrialState.FAIL if "scale" in trial.user_attrs else TrialState.PRUNED)
            return
        self.study.tell(trial, values)
        name = Architecture.from_json(trial.user_attrs["architecture"]).name
        stopped = trial.user_attrs.get("stopped")
        after = f"stopped after {stopped['epoch']:g} epochs, would come to about " if stopped else ""
        say(f"trial {trial.number}: {after}{values[0]:.4f} at {values[1]:.3f} ms, {name}")

    def _values(self, trial: "optuna.Trial") -> tuple[float, float] | None:
        """Return accuracy and latency in ms of the trial's network; where it is not trained, note why."""
        networks, costs = self._networks(trial)
        deployed = self._deployed(trial, networks, costs)
        if deployed is None or not self._claim(trial, deployed[0]):
            return None
        at, latency_ms = deployed
        trial.set_user_attr("measured_ms", None if self.settings.predicted else latency_ms)
        self._constrain(trial, excess=latency_ms / self.settings.max_latency_ms - 1.0)
        try:
            proxy = self.space.architecture(trial.params, self.settings.proxy_scale(self.settings.scales[at]))
            dataset = self.dataset_of(proxy.graph.layers[0].shape[1])
            return self.short_training.accuracy(trial, proxy, dataset), latency_ms
        except TrainingError as error:
            trial.set_user_attr("left_out", str(error))
            say(f"trial {trial.number} is left out: {error}")
            return None

    def _networks(self, trial: "optuna.Trial") -> "tuple[list[Architecture], Costs]":
        """Return the trial's network at every scale, with what it is predicted to cost: arrays [1, scales]."""
        networks = [self.space.architecture(trial.params, scale) for scale in self.settings.scales]
        return networks, self._candidates().costs_of(trial.params)

    def _deployed(
        self, trial: "optuna.Trial", networks: "list[Architecture]", costs: "Costs"
    ) -> tuple[int, float] | None:
        """Return the place of the largest scale that fits the trial's target and its latency in ms; note its network.

        Nothing is measured of what is predicted over the target at every scale, the prediction's error included.
        """
        if "scale" in trial.user_attrs:  # it was found out before the trial was cut off
            return self._claimed(trial, networks)
        target_ms = trial.params["target"] * self.settings.max_latency_ms
        at = int(costs.largest(self.settings.budget, target_ms=target_ms)[0])
        if at < 0:
            at = int(costs.upper_ms[0].argmin())
            self._note(trial, networks[at], costs, at)
            excess = float(costs.upper_ms[0, at]) / target_ms - 1.0
            self._leave_out(trial, "predicted over its target at the smallest scale", excess=excess)
            return None
        if not self.settings.predicted:
            return self._measured(trial, networks, costs, target_ms)
        self._note(trial, networks[at], costs, at)
        return at, float(costs.ms[0, at])

    def _claimed(self, trial: "optuna.Trial", networks: "list[Architecture]") -> tuple[int, float]:
        """Return what `_deployed` did when the trial was evaluated before it was cut off."""
        at: int = trial.user_attrs["scale"]
        if self.settings.predicted:
            return at, trial.user_attrs["predicted_ms"]
        return at, self._measurements(networks)[at].at(self.costs.table.canary_ms)

    def _measured(
        self, trial: "optuna.Trial", networks: "list[Architecture]", costs: "Costs", target_ms: float
    ) -> tuple[int, float] | None:
        """Return what `_deployed` does, by measuring some of the networks."""
        from hwnas.latency import largest_measured

        canary_ms = self.costs.table.canary_ms
        measured = self._measurements(networks)
        at = largest_measured(
            costs,
            self.settings.budget,
            measured,
            lambda place: self._measure(trial, networks[place]),
            target_ms=target_ms,
            canary_ms=canary_ms,
            most=_MOST_MEASURED - len(trial.user_attrs.get("timed", ())),
        )
        fits = at >= 0
        if not fits:
            at = min(measured, key=lambda place: measured[place].upper(canary_ms))
        self._note(trial, networks[at], costs, at)
        if fits:
            return at, measured[at].at(canary_ms)
        trial.set_user_attr("measured_ms", measured[at].at(canary_ms))
        excess = measured[at].upper(canary_ms) / target_ms - 1.0
        self._leave_out(trial, "measured over its target at every scale that was tried", excess=excess)
        return None

    def _leave_out(self, trial: "optuna.Trial", why: str, *, excess: float) -> None:
        """Note that a trial is left out, `excess` over its latency target."""
        self._constrain(trial, excess=excess)
        trial.set_user_attr("left_out", why)

    def _measurements(self, networks: "list[Architecture]") -> "dict[int, Measurement]":
        """Return what any trial measured of these networks, by their places."""
        from hwnas.runs import timed_networks

        timed = timed_networks(self.study.get_trials(deepcopy=False))
        known = {network.architecture: network.measurement for network in timed}
        return {place: known[network] for place, network in enumerate(networks) if network in known}

    def _measure(self, trial: "optuna.Trial", network: "Architecture") -> "Measurement":
        """Time a network whole on the device now, once nobody else does that, and keep it in the trial."""
        from hwnas.latency import TimedNetwork, time_network
        from hwnas.support import locked

        with locked(self.device_lock):
            if measured := self._measurements([network]):  # by another worker, meanwhile
                return measured[0]
            measurement = time_network(
                network.graph, self.device, self.setting, table=self.table_costs.table, seed=self.settings.seed
            )
            timed = TimedNetwork(network, measurement).to_json()
            trial.set_user_attr("timed", [*trial.user_attrs.get("timed", ()), timed])
        return measurement

    def _wait_while_timed(self) -> None:
        """Wait while another worker times something on this machine: training beside it would make it slower."""
        from hwnas.support import locked

        if self.device.transport == "local":
            with locked(self.device_lock, shared=True):
                pass

    def _note(self, trial: "optuna.Trial", network: "Architecture", costs: "Costs", at: int) -> None:
        """Keep in the trial what its network is and was predicted to cost."""
        values: dict[str, Any] = {
            "architecture": network.to_json(),
            "mult_adds": int(costs.mult_adds[0, at]),
            "parameters": int(costs.parameters[0, at]),
            "predicted_ms": float(costs.ms[0, at]),
            "predicted_error": self.costs.correction.error,
        }
        for name, value in values.items():
            trial.set_user_attr(name, value)

    def _constrain(self, trial: "optuna.Trial", *, excess: float) -> None:
        """Tell the study how far the trial's network is from each cap, `excess` of the latency's, as a share."""
        costs = trial.user_attrs
        excesses = self.settings.budget.excesses(
            latency_ms=0.0, mult_adds=costs["mult_adds"], parameters=costs["parameters"]
        )
        for name, value in {**excesses, "latency": excess}.items():
            if name not in trial.constraints:
                trial.set_constraint(name, value)

    def _claim(self, trial: "optuna.Trial", at: int) -> bool:
        """Note the scale at which the trial's network is trained, unless another trial has that network: say which."""
        same = trial.user_attrs["architecture"]
        with self.run_folder.deciding():
            for other in self.study.get_trials(deepcopy=False):
                claimed = "scale" in other.user_attrs and "left_out" not in other.user_attrs
                if claimed and other.number != trial.number and other.user_attrs["architecture"] == same:
                    trial.set_user_attr("left_out", f"the same network as trial {other.number}")
                    return False
            trial.set_user_attr("scale", at)
        return True


def work(folder: str, *, since: int) -> None:
    """Do a worker's part of the search in a run's folder; `since` is the first trial of those that it began with."""
    from hwnas.device import load_device
    from hwnas.runs import Run
    from hwnas.searching.checks import costs_of_run

    run = Run.open(folder)
    device = load_device(run.settings.device)
    costs = costs_of_run(run.settings, device, device.setting(run.settings.setting, threads=run.settings.threads))
    setting = costs.table.setting
    with run.leases() as leases:
        Search(run, device, setting, costs, leases, since=since).evaluate()
