"""The evaluation of one trial: its network is brought to the largest scale that fits, measured, and trained shortly.

For each trial the largest scale is taken whose network fits the target: predicted ones are written, put on the device
and timed whole, until it is known. That network is trained for a short while at a fixed fraction of its filters. What
was measured is kept in the trials, and corrects the predictions for later ones. Where accuracies are had for less than
a measurement, what is behind a candidate that was measured is not measured.

On several devices all that is about the largest share of a cap, in place of the latency in ms: `cost` is one of both.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from hwnas.errors import TrainingError
from hwnas.latency import CAPS, MeasuredLatency, how
from hwnas.searching import estimators
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.devices import SearchDevice, worst
from hwnas.searching.memory import memory_of_run
from hwnas.searching.short_training import ShortTraining
from hwnas.searching.timing import device_lock
from hwnas.support import locked, plugins, say

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.latency import Budget, CostModel, Costs, Measurement, Prediction
    from hwnas.network import Architecture
    from hwnas.runs import DeviceLatency, OpenTrial, Run, TrialRecord, Trials

_MOST_MEASURED = 4  # networks a trial
_OVER_TARGET = "predicted over its target at the smallest scale"
_OVER_CAPS = "over {} at every scale that is predicted to fit its target"
_LEAST_USED = 0.93  # share of the caps, of what is to fill them
_NEAR = 0.8  # share that it is predicted to use, for others to be worth a try: less has a space of small networks
_MOST_LEFT = 3  # trials in a row, after which one that uses less is trained
_USES_LESS = "{} to leave a part of the caps unused, which it was to fill"
_MEASURED_OVER = "{} over its target at every scale that was tried"


class Evaluator:
    """What all evaluations of a search have in common; `dataset_of` gives its data at a resolution."""

    def __init__(
        self,
        run: "Run",
        devices: "Sequence[SearchDevice]",
        trials: "Trials",
        dataset_of: "Callable[[int], Dataset]",
    ) -> None:
        self.run, self.devices = run, devices
        self.trials, self.dataset_of = trials, dataset_of
        setting = devices[0].costs.table.setting
        self.memory = memory_of_run(run.settings, setting, dataset_of)
        self.training = ShortTraining(
            run, trials, self.wait_while_timed, int8=setting if run.settings.quantised else None
        )

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
        for device in self.devices:
            if device.machine.transport == "local":
                with locked(device_lock(device.machine), shared=True):
                    pass


class Evaluation:
    """One trial on its way to its end; what it has come to is written as it goes."""

    def __init__(self, evaluator: Evaluator, trial: "OpenTrial", costs: "CostModel", is_to_fill: bool) -> None:
        self._evaluator, self._costs, self._is_to_fill = evaluator, costs, is_to_fill
        self._run, self._trials = evaluator.run, evaluator.trials
        self._settings, self._devices = evaluator.run.settings, evaluator.devices
        self._budget = self._settings.budget
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
        fp32_accuracy = record.training.fp32_accuracy if record.training else None
        accuracy = f"{values[0]:.4f}" + ("" if fp32_accuracy is None else f" in int8 ({fp32_accuracy:.4f} in fp32)")
        network = record.deployed.architecture.name
        say(f"trial {record.number}: {after}{accuracy} at {_cost_in_words(record, values[1])}, {network}")

    def _values(self) -> tuple[float, float] | None:
        """Return accuracy and cost of the trial's network; where it is not trained, note why."""
        try:
            deployed = self._deployed()
            if deployed is None or self._uses_less(*deployed) or not self._claim(deployed[0]):
                return None
            at, cost = deployed
            return self._accuracy(at), cost
        except TrainingError as error:
            self.trial.leave_out(str(error))
            say(f"trial {self.trial.number} is left out: {error}")
            return None

    def _uses_less(self, at: int, cost: float) -> bool:
        """Say whether the trial is left out as it was proposed to fill the caps, and is measured not to.

        Where a space has nothing that is large enough nothing is predicted to come near, and nothing left out.
        """
        record = self.trial.record
        if not self._is_to_fill or record.measured_ms is None or record.scale is not None:
            return False
        slower = self.candidates.slowness(record.choices, at, cost)
        if self.candidates.share_at(record.choices, at, slower=slower) >= _LEAST_USED:
            return False
        if self.candidates.share_used(record.choices, is_measured=True) < _NEAR:
            return False
        before = self._trials.refresh().records[max(record.number - _MOST_LEFT, 0) : record.number]
        if len(before) == _MOST_LEFT and all(other.left_out for other in before):
            return False
        self.trial.leave_out(_USES_LESS.format(self._how_measured(at)))
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
        """Return the place of the largest scale that fits the trial's target and its cost; note its network.

        Nothing is measured of what is predicted over the target at every scale, the prediction's error included.
        """
        record = self.trial.record
        if record.scale is not None:  # it was found out before the trial was cut off
            return record.scale, self._cost(record)
        costs = self.candidates.costs_with_memory(record.choices)  # arrays [1, scales]
        target = record.target * self._budget.max_latency_ms
        at = int(costs.largest(self._budget, target_ms=target)[0])
        if at < 0:
            at = int(costs.upper_ms[0].argmin())
            self._note(costs, at, left_out=_why_predicted(costs, self._budget, target))
            return None
        if not self._settings.predicted:
            at = int(costs.expected().largest(self._budget, target_ms=target)[0])  # is measured first
            if not self._is_behind(costs, at):
                return self._measured(costs, target)
        self._note(costs, at)
        return at, self._cost(self.trial.record)

    def _is_behind(self, costs: "Costs", at: int) -> bool:
        """Say whether a trial that was measured is as accurate and no slower than the trial's network will be.

        Then that is on no front, and a measurement tells nothing that its prediction does not. Only what takes less
        than a measurement is found out before it; raises TrainingError.
        """
        if not estimators.is_quick(self._settings.estimator) or self.trial.record.has_measured:
            return False
        least = float(costs.ms[0, at]) / (1.0 + self._costs.error)
        trained = self._trials.refresh().in_state("trained")
        measured = [record.values for record in trained if record.values and record.measured_ms is not None]
        faster = [accuracy for accuracy, cost in measured if cost <= least]
        return bool(faster) and max(faster) >= self._accuracy(at)

    def _cost(self, record: "TrialRecord") -> float:
        """Return the cost of the trial's network, as its record has it."""
        assert record.deployed is not None  # it was noted
        first_ms = record.deployed.predicted_ms if record.measured_ms is None else record.measured_ms
        known_ms = [latency.ms for latency in record.latencies.values()] or [first_ms]
        return worst(self._devices, [MeasuredLatency(ms, ms) for ms in known_ms]).ms

    def _measured(self, costs: "Costs", target: float) -> tuple[int, float] | None:
        """Return what `_deployed` does, by measuring some of the networks on each device."""
        from hwnas.latency import largest_measured

        self._trials.refresh()
        known = {place: self._known(network) for place, network in enumerate(self._networks)}
        measured = {place: worst(self._devices, latencies) for place, latencies in known.items() if latencies}
        before = min(len(self.trial.record.measured_on(device.measured_as)) for device in self._devices)
        at = largest_measured(
            costs,
            self._budget,
            measured,
            lambda place: worst(self._devices, self._measure(self._networks[place])),
            target_ms=target,
            most=_MOST_MEASURED - before,
        )
        self._trials.refresh()
        if at >= 0:
            self._note(costs, at, is_measured=True)
            return at, self._cost(self.trial.record)
        at = min(measured, key=lambda place: measured[place].upper_ms)
        self._note(costs, at, is_measured=True, left_out=_MEASURED_OVER.format(self._how_measured(at)))
        return None

    def _how_measured(self, at: int) -> str:
        """Say how the latencies of the network at a scale are known: measured, or a tool's estimates."""
        return " and ".join(
            dict.fromkeys(how(latency.estimated_by) for latency in self._known(self._networks[at]) or ())
        )

    def _known(self, network: "Architecture") -> "list[MeasuredLatency] | None":
        """Return what a network was measured to take on each device; None where it is not known of one."""
        latencies = []
        for device in self._devices:
            measurement = self._trials.measurement(network, device=device.measured_as)
            if measurement is None:
                return None
            latencies.append(measurement.latency(device.canary_ms))
        return latencies

    def _measure(self, network: "Architecture") -> "list[MeasuredLatency]":
        """Time a network whole on each device now, and keep that in the trial."""
        return [self._measure_on(device, network).latency(device.canary_ms) for device in self._devices]

    def _measure_on(self, device: "SearchDevice", network: "Architecture") -> "Measurement":
        """Time a network whole on a device, once nobody else times anything there."""
        from hwnas.latency import TimedNetwork, time_network

        with locked(device_lock(device.machine)):
            known = self._trials.refresh().measurement(network, device=device.measured_as)
            if known:  # by another worker, meanwhile
                return known
            table, seed = device.costs.table, self._settings.seed
            measurement = time_network(network.graph, device.machine, table.setting, table=table, seed=seed)
            self.trial.measured(TimedNetwork(network, measurement), device=device.measured_as)
        return measurement

    def _note(self, costs: "Costs", at: int, *, is_measured: bool = False, left_out: str = "") -> None:
        """Keep in the trial its network at a scale, what it takes on each device, and how far it is from each cap."""
        from hwnas.runs import Deployed

        network = self._networks[at]
        memory = self._evaluator.memory.of(network)
        predicted = [model.predict(network) for model in self._costs.models]
        measured = self._known(network) if is_measured else None
        latencies = self._latencies(predicted, measured)
        first = next(iter(latencies.values()))
        deployed = Deployed(
            architecture=network,
            mult_adds=int(costs.mult_adds[0, at]),
            parameters=int(costs.parameters[0, at]),
            predicted_ms=first.predicted_ms,
            predicted_error=first.predicted_error,
            file_bytes=memory.file_bytes,
            arena_bytes=memory.arena_bytes,
        )
        stated = measured or [MeasuredLatency(one.ms, one.upper_ms) for one in predicted]
        self.trial.deploy(
            deployed,
            excesses={
                **self._budget.excesses(mult_adds=deployed.mult_adds, parameters=deployed.parameters, **memory.in_kib),
                **self._excesses(stated, is_left_out=bool(left_out)),
            },
            measured_ms=first.measured_ms,
            estimated_by=first.estimated_by,
            latencies=latencies if len(latencies) > 1 else {},
            left_out=left_out,
        )

    def _latencies(
        self, predicted: "Sequence[Prediction]", measured: "Sequence[MeasuredLatency] | None"
    ) -> "dict[str, DeviceLatency]":
        """Return a network's latency on each device, by its name and its setting's, for the trial's record."""
        from hwnas.runs import DeviceLatency

        latencies = {}
        for place, device in enumerate(self._devices):
            latencies[device.cap.name] = DeviceLatency(
                predicted_ms=predicted[place].ms,
                predicted_error=predicted[place].error,
                measured_ms=measured[place].ms if measured else None,
                estimated_by=measured[place].estimated_by if measured else "",
            )
        return latencies

    def _excesses(self, latencies: "Sequence[MeasuredLatency]", *, is_left_out: bool) -> dict[str, float]:
        """Return by what share each device's latency is above its cap, and as the latency's the largest.

        Where the network is left out it is the upper end of what is known that is above the target.
        """
        share = self.trial.record.target if is_left_out else 1.0
        each = {}
        for device, latency in zip(self._devices, latencies, strict=True):
            held_ms = latency.upper_ms if is_left_out else latency.ms
            each[f"latency {device.cap.name}"] = held_ms / (share * device.cap.max_latency_ms) - 1.0
        return {**(each if len(each) > 1 else {}), "latency": max(each.values())}

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


def _cost_in_words(record: "TrialRecord", cost: float) -> str:
    """Return a trial's latency, or of several devices each one and how much of its cap the worst one takes."""
    about = "" if record.measured_ms else "about "
    if not record.latencies:
        return f"{about}{cost:.3f} ms{_by(record.estimated_by)}"
    each = (f"{latency.ms:.3f} ms on {name}{_by(latency.estimated_by)}" for name, latency in record.latencies.items())
    return f"{about}{', '.join(each)}, at the most {cost:.1%} of a cap"


def _by(tool: str) -> str:
    return f" ({how(tool)})" if tool else ""


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
