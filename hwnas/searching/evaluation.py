"""The evaluation of one trial: its network is brought to the largest scale that fits, measured, and trained shortly.

For each trial the largest scale is taken whose network fits the target: predicted ones are written, put on the device
and timed whole, until it is known. That network is trained for a short while at a fixed fraction of its filters. What
was measured is kept in the trials, and corrects the predictions for later ones. Where accuracies are had for less than
a measurement, what is behind a candidate that was measured is not measured.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from hwnas.errors import TrainingError
from hwnas.latency import CAPS, how
from hwnas.searching import estimators
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.memory import memory_of_run
from hwnas.searching.short_training import ShortTraining
from hwnas.searching.timing import device_lock
from hwnas.support import locked, plugins, say

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Device
    from hwnas.latency import Budget, CostModel, Costs, Measurement
    from hwnas.network import Architecture
    from hwnas.runs import OpenTrial, Run, TrialRecord, Trials

_MOST_MEASURED = 4  # networks a trial
_OVER_TARGET = "predicted over its target at the smallest scale"
_OVER_CAPS = "over {} at every scale that is predicted to fit its target"
_LEAST_USED = 0.93  # share of the caps, of what is to fill them
_MOST_LEFT = 3  # in a row that use less, then one is trained
_USES_LESS = "measured to use {:.0%} of the caps, which it was to fill"
_MEASURED_OVER = "{} over its target at every scale that was tried"


class Evaluator:
    """What all evaluations of a search have in common; `dataset_of` gives its data at a resolution."""

    def __init__(
        self,
        run: "Run",
        device: "Device",
        table_costs: "CostModel",
        trials: "Trials",
        dataset_of: "Callable[[int], Dataset]",
    ) -> None:
        self.run, self.device, self.table_costs = run, device, table_costs
        self.trials, self.dataset_of = trials, dataset_of
        self.memory = memory_of_run(run.settings, table_costs.table.setting, dataset_of)
        int8 = table_costs.table.setting if run.settings.quantised else None
        self.training = ShortTraining(run, trials, self.wait_while_timed, int8=int8)

    def open(self, trial: "OpenTrial", costs: "CostModel", *, is_to_fill: bool) -> "Evaluation":
        """Return the evaluation of a trial; `costs` are corrected by what the trials before it measured.

        One that is to fill the caps, and is measured not to, is left out.
        """
        return Evaluation(self, trial, costs, is_to_fill)

    def candidates(self, costs: "CostModel") -> SpaceCandidates:
        """Return what can be chosen."""
        settings = self.run.settings
        space = plugins.load("spaces", settings.space)
        return SpaceCandidates(space, costs, settings.budget, tuple(settings.targets), self.memory)

    def wait_while_timed(self) -> None:
        """Wait while another worker times something on this machine: training beside it would make it slower."""
        if self.device.transport == "local":
            with locked(device_lock(self.device), shared=True):
                pass


class Evaluation:
    """One trial on its way to its end; what it has come to is written as it goes."""

    def __init__(self, evaluator: Evaluator, trial: "OpenTrial", costs: "CostModel", is_to_fill: bool) -> None:
        self._evaluator, self._costs, self._is_to_fill = evaluator, costs, is_to_fill
        self._run, self._trials = evaluator.run, evaluator.trials
        self._settings = evaluator.run.settings
        self._space = plugins.load("spaces", self._settings.space)
        self.trial = trial
        self.candidates = evaluator.candidates(costs)
        self._accuracies: dict[int, float] = {}  # by the place of the scale

    def finish(self) -> None:
        """Bring the trial, whose candidate is chosen, to its end."""
        record = self.trial.record
        values = None if record.left_out else self._values()  # it may have been cut off before it was told
        record = self.trial.record
        if values is None or record.deployed is None:
            self.trial.tell_left_out()
            return
        self.trial.tell(*values)
        after = f"stopped after {record.stopped.epoch:g} epochs, would come to about " if record.stopped else ""
        estimated = f" ({how(record.estimated_by)})" if record.estimated_by else ""
        latency = f"{'' if record.measured_ms else 'about '}{values[1]:.3f} ms{estimated}"
        fp32_accuracy = record.training.fp32_accuracy if record.training else None
        accuracy = f"{values[0]:.4f}" + ("" if fp32_accuracy is None else f" in int8 ({fp32_accuracy:.4f} in fp32)")
        say(f"trial {record.number}: {after}{accuracy} at {latency}, {record.deployed.architecture.name}")

    def _values(self) -> tuple[float, float] | None:
        """Return accuracy and latency in ms of the trial's network; where it is not trained, note why."""
        try:
            deployed = self._deployed()
            if deployed is None or self._uses_less(*deployed) or not self._claim(deployed[0]):
                return None
            at, latency_ms = deployed
            return self._accuracy(at), latency_ms
        except TrainingError as error:
            self.trial.leave_out(str(error))
            say(f"trial {self.trial.number} is left out: {error}")
            return None

    def _uses_less(self, at: int, latency_ms: float) -> bool:
        """Say whether the trial is left out as it is measured not to fill the caps, which it was proposed for."""
        record = self.trial.record
        if not self._is_to_fill or record.measured_ms is None or record.scale is not None:
            return False
        share = self.candidates.share_measured(record.choices, at, latency_ms)
        before = self._trials.refresh().records[max(record.number - _MOST_LEFT, 0) : record.number]
        if share >= _LEAST_USED or (len(before) == _MOST_LEFT and all(other.left_out for other in before)):
            return False
        self.trial.leave_out(_USES_LESS.format(share))
        return True

    def _accuracy(self, at: int) -> float:
        """Return the accuracy of the trial's proxy at a scale, which is taken once; raises TrainingError."""
        if at not in self._accuracies:
            scale = self._settings.proxy_scale(self._settings.scales[at])
            proxy = self._space.architecture(self.trial.record.choices, scale)
            dataset = self._evaluator.dataset_of(proxy.graph.layers[0].shape[1])
            self._accuracies[at] = self._evaluator.training.accuracy(self.trial, proxy, dataset)
        return self._accuracies[at]

    @cached_property
    def _networks(self) -> "list[Architecture]":
        """The trial's network at every scale."""
        choices = self.trial.record.choices
        return [self._space.architecture(choices, scale) for scale in self._settings.scales]

    def _deployed(self) -> tuple[int, float] | None:
        """Return the place of the largest scale that fits the trial's target and its latency in ms; note its network.

        Nothing is measured of what is predicted over the target at every scale, the prediction's error included.
        """
        record = self.trial.record
        if record.scale is not None:  # it was found out before the trial was cut off
            return self._claimed(record)
        costs = self.candidates.costs_with_memory(record.choices)  # arrays [1, scales]
        target_ms = record.target * self._settings.max_latency_ms
        at = int(costs.largest(self._settings.budget, target_ms=target_ms)[0])
        if at < 0:
            at = int(costs.upper_ms[0].argmin())
            excess = float(costs.upper_ms[0, at]) / target_ms - 1.0
            self._note(costs, at, excess=excess, left_out=_why_predicted(costs, self._settings.budget, target_ms))
            return None
        if not self._settings.predicted:
            at = int(costs.expected().largest(self._settings.budget, target_ms=target_ms)[0])  # is measured first
            if not self._is_behind(costs, at):
                return self._measured(costs, target_ms)
        latency_ms = float(costs.ms[0, at])
        self._note(costs, at, excess=self._over_cap(latency_ms))
        return at, latency_ms

    def _is_behind(self, costs: "Costs", at: int) -> bool:
        """Say whether a trial that was measured is as accurate and no slower than the trial's network will be.

        Then that is on no front, and a measurement tells nothing that its prediction does not. Only what takes less
        than a measurement is found out before it; raises TrainingError.
        """
        if not estimators.is_quick(self._settings.estimator) or self.trial.record.measurements:
            return False
        least_ms = float(costs.ms[0, at]) / (1.0 + self._costs.correction.error)
        trained = self._trials.refresh().in_state("trained")
        measured = [record.values for record in trained if record.values and record.measured_ms is not None]
        faster = [accuracy for accuracy, latency_ms in measured if latency_ms <= least_ms]
        return bool(faster) and max(faster) >= self._accuracy(at)

    def _claimed(self, record: "TrialRecord") -> tuple[int, float]:
        """Return what `_deployed` did when the trial was evaluated before it was cut off."""
        assert record.scale is not None  # it has claimed a network
        assert record.deployed is not None
        measurement = self._trials.refresh().measurement(record.deployed.architecture)
        if measurement is None or record.measured_ms is None:
            return record.scale, record.deployed.predicted_ms
        return record.scale, measurement.at(self._costs.table.canary_ms)

    def _measured(self, costs: "Costs", target_ms: float) -> tuple[int, float] | None:
        """Return what `_deployed` does, by measuring some of the networks."""
        from hwnas.latency import largest_measured

        canary_ms = self._costs.table.canary_ms
        self._trials.refresh()
        measured = {
            place: measurement
            for place, network in enumerate(self._networks)
            if (measurement := self._trials.measurement(network)) is not None
        }
        at = largest_measured(
            costs,
            self._settings.budget,
            measured,
            lambda place: self._measure(self._networks[place]),
            target_ms=target_ms,
            canary_ms=canary_ms,
            most=_MOST_MEASURED - len(self.trial.record.measurements),
        )
        if at >= 0:
            latency_ms = measured[at].at(canary_ms)
            self._note(
                costs,
                at,
                excess=self._over_cap(latency_ms),
                measured_ms=latency_ms,
                estimated_by=measured[at].estimated_by,
            )
            return at, latency_ms
        at = min(measured, key=lambda place: measured[place].upper(canary_ms))
        excess = measured[at].upper(canary_ms) / target_ms - 1.0
        tool = measured[at].estimated_by
        self._note(
            costs,
            at,
            excess=excess,
            measured_ms=measured[at].at(canary_ms),
            estimated_by=tool,
            left_out=_MEASURED_OVER.format(how(tool)),
        )
        return None

    def _over_cap(self, latency_ms: float) -> float:
        return latency_ms / self._settings.max_latency_ms - 1.0

    def _measure(self, network: "Architecture") -> "Measurement":
        """Time a network whole on the device now, once nobody else does that, and keep it in the trial."""
        from hwnas.latency import TimedNetwork, time_network

        with locked(device_lock(self._evaluator.device)):
            if known := self._trials.refresh().measurement(network):  # by another worker, meanwhile
                return known
            table = self._evaluator.table_costs.table
            measurement = time_network(
                network.graph, self._evaluator.device, table.setting, table=table, seed=self._settings.seed
            )
            self.trial.measured(TimedNetwork(network, measurement))
        return measurement

    def _note(
        self,
        costs: "Costs",
        at: int,
        *,
        excess: float,
        measured_ms: float | None = None,
        estimated_by: str = "",
        left_out: str = "",
    ) -> None:
        """Keep in the trial its network at a scale, and how far it is from each cap: `excess` from the latency's."""
        from hwnas.runs import Deployed

        memory = self._evaluator.memory.of(self._networks[at])
        network = Deployed(
            architecture=self._networks[at],
            mult_adds=int(costs.mult_adds[0, at]),
            parameters=int(costs.parameters[0, at]),
            predicted_ms=float(costs.ms[0, at]),
            predicted_error=self._costs.correction.error,
            file_bytes=memory.file_bytes,
            arena_bytes=memory.arena_bytes,
        )
        excesses = self._settings.budget.excesses(
            mult_adds=network.mult_adds, parameters=network.parameters, **memory.in_kib
        )
        self.trial.deploy(
            network,
            excesses={**excesses, "latency": excess},
            measured_ms=measured_ms,
            estimated_by=estimated_by,
            left_out=left_out,
        )

    def _claim(self, at: int) -> bool:
        """Note the scale at which the trial's network is trained, unless another trial has that network: say which."""
        with self._run.deciding():
            record = self.trial.record
            assert record.deployed is not None  # it was noted
            other = self._trials.refresh().claim(record.deployed.architecture)
            if other not in (None, self.trial.number):
                self.trial.leave_out(f"the same network as trial {other}")
                return False
            self.trial.claim(at)
        return True


def _why_predicted(costs: "Costs", budget: "Budget", target_ms: float) -> str:
    """Say why no scale of a network fits: the latency target alone, or the caps at the scales that fit that."""
    inside = costs.upper_ms[0] <= target_ms
    if not inside.any():
        return _OVER_TARGET
    excesses = budget.excesses(
        mult_adds=costs.mult_adds[0, inside],
        parameters=costs.parameters[0, inside],
        file_kib=None if costs.file_kib is None else costs.file_kib[0, inside],
        activation_kib=None if costs.activation_kib is None else costs.activation_kib[0, inside],
    )
    over = [name for name, shares in excesses.items() if shares.min() > 0]
    return _OVER_CAPS.format(" and ".join(CAPS[name] for name in over or excesses))
