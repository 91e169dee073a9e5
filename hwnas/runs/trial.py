"""A trial of a search: its record, and what writes it. Nothing else spells the names of a study's attributes.

What a trial chose are its parameters in the study; what is known of its network and what has come of it are user
attributes, each written once: a measurement, and a look at its training, is an attribute of its own.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from functools import cache
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, InstanceOf, TypeAdapter, ValidationError, with_config

from hwnas.errors import InputError, TableError, short
from hwnas.latency import CAPS, TimedNetwork, how
from hwnas.network import Architecture
from hwnas.support import commands, reasons
from hwnas.training import Curve, Look

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

TARGET = "target"  # the parameter that is the latency target, a share of the cap
_MEASUREMENT, _LOOK = "measurement:", "look:"  # + a number: attributes of which a trial may have several
_ON_DEVICE = "measurement@"  # + DEVICE/SETTING: + a number, on devices beside the first
_MEASUREMENTS_BEFORE, _LOOKS_BEFORE = "timed", "looks"  # in format 1 each was one list

State = Literal["waiting", "running", "trained", "left out", "failed"]
_STATES: Mapping[str, State] = {
    "WAITING": "waiting",
    "RUNNING": "running",
    "COMPLETE": "trained",
    "PRUNED": "left out",
    "FAIL": "failed",
}


@dataclass(frozen=True, slots=True)
class DeviceLatency:
    """A network's latency on one of several devices: measured, or estimated by some tool, unless only predicted."""

    predicted_ms: float
    predicted_error: float
    measured_ms: float | None = None
    estimated_by: str = ""

    @property
    def ms(self) -> float:
        """What is known best."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained trial: its network at deployed scale, the accuracy of its proxy, its latency.

    `latency_ms` was measured on the device, unless `measured` is false: then it is the prediction. Of a device whose
    figures are a tool's it was not measured but `estimated_by` that, whole. Where training was `stopped_after` so many
    epochs, the accuracy is what it would have come to in fp32, give or take its `spread`. `file_bytes` and
    `arena_bytes` are worked out, of the file of the run's setting; an older hwnas did not. Where the accuracy is that
    in int8, `fp32_accuracy` is the proxy's own. A run on several devices has the `latencies` by DEVICE/SETTING and the
    largest share of a cap, `cap_share`; all else is of the first device.
    """

    trial: int
    architecture: Architecture
    target: float
    accuracy: float
    latency_ms: float
    measured: bool
    predicted_ms: float
    predicted_error: float
    mult_adds: int
    parameters: int
    stopped_after: float | None = None
    spread: float | None = None
    balanced_accuracy: float | None = None  # the mean of the classes', where it was taken
    estimated_by: str = ""
    file_bytes: int | None = None
    arena_bytes: int | None = None  # None, too, where the runtime's is not known
    fp32_accuracy: float | None = None
    latencies: Mapping[str, DeviceLatency] = field(default_factory=dict)
    cap_share: float | None = None

    @property
    def how(self) -> str:
        """How its latency came about, in words: measured, predicted, or estimated by some tool."""
        return how(self.estimated_by) if self.measured else "predicted"

    @property
    def cost(self) -> float:
        """What the front is by, beside accuracy: the latency in ms; on several devices the largest share of a cap."""
        return self.latency_ms if self.cap_share is None else self.cap_share

    def on(self, device: str) -> "Candidate":
        """Return it as a candidate of one of its devices alone, DEVICE/SETTING."""
        latency = self.latencies[device]
        return replace(
            self,
            latency_ms=latency.ms,
            measured=latency.measured_ms is not None,
            predicted_ms=latency.predicted_ms,
            predicted_error=latency.predicted_error,
            estimated_by=latency.estimated_by,
            latencies={},
            cap_share=None,
        )


@dataclass(frozen=True, slots=True)
class Deployed:
    """A trial's network at the scale that it is deployed at, what it costs and was predicted to take."""

    architecture: Architecture
    mult_adds: int
    parameters: int
    predicted_ms: float
    predicted_error: float
    file_bytes: int | None = None  # an older hwnas worked out neither
    arena_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """After how many epochs a short training was stopped, and the accuracy that it would have come to."""

    epoch: float
    accuracy: float
    spread: float


@dataclass(frozen=True, slots=True)
class ShortlyTrained:
    """What a short training took, and its accuracy, a share; that of the classes' mean, where it was taken.

    Where these are of the network in int8, `fp32_accuracy` is its own.
    """

    seconds: float
    images_seen: int
    accuracy: float
    seed: int
    balanced_accuracy: float | None = None
    fp32_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """What the study has of a trial.

    `scale` is the place, among the search's scales, at which its network is trained; a trial that has one has claimed
    that network, unless it was left out. `choices` has all parameters once the trial has chosen.
    """

    number: int
    state: State
    choices: Mapping[str, Any]
    values: tuple[float, float] | None = None  # accuracy, a share, and a candidate's cost, of a trained one
    began: datetime | None = None
    ended_at: datetime | None = None
    deployed: Deployed | None = None
    measured_ms: float | None = None
    estimated_by: str = ""  # the tool that measured_ms is an estimate of, in place of a device
    measurements: tuple[TimedNetwork, ...] = ()
    latencies: Mapping[str, DeviceLatency] = field(default_factory=dict)  # by DEVICE/SETTING, of several devices
    further_measurements: Mapping[str, tuple[TimedNetwork, ...]] = field(default_factory=dict)  # beside the first's
    scale: int | None = None
    left_out: str = ""  # why
    ended: str = ""  # why the search ended with it
    looks: tuple[Look, ...] = ()
    stopped: Stopped | None = None
    parent: int | None = None  # the trial with whose weights its training began
    parent_is_chosen: bool = False
    training: ShortlyTrained | None = None

    @property
    def has_measured(self) -> bool:
        """Whether it measured a network, on any device."""
        return bool(self.measurements or self.further_measurements)

    def measured_on(self, device: str) -> tuple[TimedNetwork, ...]:
        """Return what it measured on a device: DEVICE/SETTING, and nothing for the first one."""
        return self.further_measurements.get(device, ()) if device else self.measurements

    @property
    def target(self) -> float:
        """The latency target, a share of the cap."""
        return float(self.choices[TARGET])

    @property
    def over(self) -> list[str]:
        """The caps, as a `Budget` names them, for which it was left out; none where that was for another reason."""
        over = [name for name, option in CAPS.items() if option in self.left_out]
        return over or (["latency"] if "its target" in self.left_out else [])

    @property
    def claimed(self) -> Architecture | None:
        """The network that it trains, or has trained, and no other trial is to train."""
        return self.deployed.architecture if self.deployed and self.scale is not None and not self.left_out else None

    @property
    def candidate(self) -> Candidate:
        """The candidate of a trained trial."""
        assert self.deployed is not None  # or it would not be trained
        assert self.values is not None
        first = next(iter(self.latencies.values()), None)
        return Candidate(
            trial=self.number,
            architecture=self.deployed.architecture,
            target=self.target,
            accuracy=self.values[0],
            latency_ms=first.ms if first else self.values[1],
            measured=self.measured_ms is not None,
            predicted_ms=self.deployed.predicted_ms,
            predicted_error=self.deployed.predicted_error,
            mult_adds=self.deployed.mult_adds,
            parameters=self.deployed.parameters,
            stopped_after=self.stopped.epoch if self.stopped else None,
            spread=self.stopped.spread if self.stopped else None,
            balanced_accuracy=self.training.balanced_accuracy if self.training else None,
            estimated_by=self.estimated_by,
            file_bytes=self.deployed.file_bytes,
            arena_bytes=self.deployed.arena_bytes,
            fp32_accuracy=self.training.fp32_accuracy if self.training else None,
            latencies=self.latencies,
            cap_share=self.values[1] if first else None,
        )

    @property
    def curve(self) -> Curve:
        """The learning curve, in fp32, of a trial that was looked at, whether it is finished or not."""
        assert self.deployed is not None  # or it would not be trained
        accuracy = self.values[0] if self.values is not None and self.stopped is None else None
        if accuracy is not None and self.training is not None and self.training.fp32_accuracy is not None:
            accuracy = self.training.fp32_accuracy  # as the looks are
        return Curve(
            number=self.number,
            target=self.target,
            latency_ms=self.deployed.predicted_ms if self.measured_ms is None else self.measured_ms,
            looks=self.looks,
            accuracy=accuracy,
        )

    @classmethod
    def of(cls, trial: "FrozenTrial") -> "TrialRecord":
        """Read a trial of the study; raises InputError, which names it, for what is no record."""
        place = f"trial {trial.number} of the study"
        attributes = trial.user_attrs
        try:
            noted = _reader().validate_python({name: attributes[name] for name in _NOTED & attributes.keys()})
            record = cls(
                number=trial.number,
                state=_STATES[trial.state.name],
                choices=trial.params,
                values=(trial.values[0], trial.values[1]) if trial.state.name == "COMPLETE" else None,
                began=trial.datetime_start,
                ended_at=trial.datetime_complete,
                deployed=noted.deployed,
                measured_ms=noted.measured_ms,
                estimated_by=noted.estimated_by,
                measurements=tuple(
                    TimedNetwork.from_json(value, place)
                    for value in _numbered(attributes, _MEASUREMENT, before=_MEASUREMENTS_BEFORE)
                ),
                latencies=noted.latencies,
                further_measurements={
                    device: tuple(
                        TimedNetwork.from_json(value, place)
                        for value in _numbered(attributes, f"{_ON_DEVICE}{device}:", before="")
                    )
                    for device in _measured_devices(attributes)
                },
                scale=noted.scale,
                left_out=noted.left_out,
                ended=noted.ended,
                looks=tuple(map(_look_reader().validate_python, _numbered(attributes, _LOOK, before=_LOOKS_BEFORE))),
                stopped=noted.stopped,
                parent=noted.parent,
                parent_is_chosen="parent" in attributes,
                training=noted.training,
            )
            record._check_whole()
        except (ValidationError, KeyError, TypeError, IndexError, ValueError, RecursionError, TableError) as error:
            raise InputError(
                f"{place} must be as `hwnas search` writes it; got: {_reason(error)}. "
                f"Search in another folder: {commands.search()}"
            ) from None
        return record

    def _check_whole(self) -> None:
        """Raise ValueError for a trial that lacks what it must have by then, or has figures that cannot be."""
        if self.deployed is not None and self.measured_ms is not None:
            self._check_latencies(self.deployed.predicted_ms, self.measured_ms)
        for latency in self.latencies.values():
            self._check_latencies(latency.predicted_ms, latency.ms)
        if not (self.looks or self.state == "trained"):
            return
        if self.deployed is None or not isinstance(self.choices.get(TARGET), (int, float)):
            raise ValueError("neither its network nor its target may be missing")
        if self.state == "trained" and (self.values is None or not all(map(isfinite, self.values))):
            raise ValueError("its accuracy and its latency must be finite numbers")
        self._check_latencies(self.deployed.predicted_ms)

    @staticmethod
    def _check_latencies(*latencies_ms: float) -> None:
        if not all(0 < ms < inf for ms in latencies_ms):
            raise ValueError(f"latencies must be above 0; they are {', '.join(map(str, latencies_ms))} ms")


class OpenTrial:
    """A trial that is being evaluated: each method writes what has come about, all of it at once."""

    def __init__(
        self, trial: "optuna.Trial", together: "Callable[[], AbstractContextManager[None]]" = nullcontext
    ) -> None:
        self.optuna, self._together = trial, together
        self.number = trial.number

    @property
    def record(self) -> TrialRecord:
        """What the study has of it now."""
        return TrialRecord.of(self.optuna.study._storage.get_trial(self.optuna._trial_id))

    def deploy(
        self,
        network: Deployed,
        *,
        excesses: Mapping[str, float],
        measured_ms: float | None = None,
        estimated_by: str = "",
        latencies: Mapping[str, DeviceLatency] | None = None,
        left_out: str = "",
    ) -> None:
        """Note the trial's network and how far it is from each cap, as a share; and where it is left out, why.

        Of several devices it has the `latencies`, the first device's first.
        """
        with self._together():
            self._note(
                architecture=network.architecture.to_json(),
                mult_adds=network.mult_adds,
                parameters=network.parameters,
                predicted_ms=network.predicted_ms,
                predicted_error=network.predicted_error,
            )
            if network.file_bytes is not None:
                self._note(file_bytes=network.file_bytes, arena_bytes=network.arena_bytes)
            if measured_ms is not None:
                self._note(measured_ms=measured_ms)
            if estimated_by:
                self._note(estimated_by=estimated_by)
            if latencies:
                self._note(latencies={device: asdict(latency) for device, latency in latencies.items()})
            for name, excess in excesses.items():
                if name not in self.optuna.constraints:
                    self.optuna.set_constraint(name, excess)
            if left_out:
                self._note(left_out=left_out)

    def leave_out(self, why: str) -> None:
        """Note why the trial is not trained to its end."""
        self._note(left_out=why)

    def claim(self, scale: int) -> None:
        """Note at which of the search's scales the trial's network is trained."""
        self._note(scale=scale)

    def end(self, why: str) -> None:
        """Note why the search ends with it."""
        self._note(ended=why)

    def measured(self, network: TimedNetwork, *, device: str = "") -> None:
        """Note a measurement; on a device beside the first that is DEVICE/SETTING."""
        prefix = f"{_ON_DEVICE}{device}:" if device else _MEASUREMENT
        self._note(**{f"{prefix}{len(self.record.measured_on(device))}": network.to_json()})

    def looked(self, look: Look) -> None:
        """Note a look at its training, unless the same one was noted before the trial was cut off."""
        before = self.record.looks
        at = next((at for at, earlier in enumerate(before) if earlier.epoch >= look.epoch), len(before))
        self._note(**{f"{_LOOK}{at}": asdict(look)})

    def inherited(self, parent: int | None) -> None:
        """Note with the weights of which trial its training begins."""
        self._note(parent=parent)

    def trained(self, training: ShortlyTrained, stopped: Stopped | None) -> None:
        """Note what its training has come to."""
        with self._together():
            self._note(**{name: value for name, value in asdict(training).items() if value is not None})
            if stopped is not None:
                self._note(stopped=asdict(stopped))

    def tell(self, accuracy: float, cost: float) -> None:
        """End it as trained; the cost is a candidate's."""
        self.optuna.study.tell(self.optuna, [accuracy, cost])

    def tell_left_out(self) -> None:
        """End it as left out."""
        from optuna.trial import TrialState

        self.optuna.study.tell(self.optuna, state=TrialState.PRUNED)

    def fail(self) -> None:
        """End it without a candidate."""
        from optuna.trial import TrialState

        self.optuna.study.tell(self.optuna, state=TrialState.FAIL)

    def _note(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            self.optuna.set_user_attr(name, value)


def scale_of(trial: "FrozenTrial") -> int | None:
    """Return the place of the scale at which a trial's network is trained, as its record has it, without the rest."""
    scale: int | None = trial.user_attrs.get("scale")
    return scale


@with_config(ConfigDict(arbitrary_types_allowed=True))
@dataclass(frozen=True, slots=True)
class _Noted:
    """A trial's user attributes, but for those of which it may have several; each field is one by its name."""

    architecture: Annotated[InstanceOf[Architecture], BeforeValidator(Architecture.from_json)] | None = None
    mult_adds: int = 0
    parameters: int = 0
    predicted_ms: float = 0.0
    predicted_error: float = 0.0
    file_bytes: int | None = None
    arena_bytes: int | None = None
    measured_ms: float | None = None
    estimated_by: str = ""
    scale: int | None = None
    left_out: str = ""
    ended: str = ""
    parent: int | None = None
    stopped: Stopped | None = None
    seconds: float = 0.0
    images_seen: int = 0
    accuracy: float | None = None
    seed: int = 0
    balanced_accuracy: float | None = None
    fp32_accuracy: float | None = None
    latencies: dict[str, DeviceLatency] = field(default_factory=dict)

    @property
    def deployed(self) -> Deployed | None:
        """The network, if there is one yet."""
        if self.architecture is None:
            return None
        return Deployed(
            architecture=self.architecture,
            mult_adds=self.mult_adds,
            parameters=self.parameters,
            predicted_ms=self.predicted_ms,
            predicted_error=self.predicted_error,
            file_bytes=self.file_bytes,
            arena_bytes=self.arena_bytes,
        )

    @property
    def training(self) -> ShortlyTrained | None:
        """The training, if it is done."""
        if self.accuracy is None:
            return None
        return ShortlyTrained(
            self.seconds, self.images_seen, self.accuracy, self.seed, self.balanced_accuracy, self.fp32_accuracy
        )


_NOTED = frozenset(attribute.name for attribute in fields(_Noted))


@cache
def _reader() -> TypeAdapter[_Noted]:
    return TypeAdapter(_Noted)


@cache
def _look_reader() -> TypeAdapter[Look]:
    return TypeAdapter(Look)


def _measured_devices(attributes: Mapping[str, Any]) -> list[str]:
    """Return on which devices beside the first a trial has measured."""
    names = (name.removeprefix(_ON_DEVICE) for name in attributes if name.startswith(_ON_DEVICE))
    return list(dict.fromkeys(name.rpartition(":")[0] for name in names))


def _numbered(attributes: Mapping[str, Any], prefix: str, *, before: str) -> list[Any]:
    """Return the values of attributes that are numbered; of older trials those in the list `before`."""
    values = dict(enumerate(attributes.get(before, ())))
    values |= {int(name.removeprefix(prefix)): attributes[name] for name in attributes if name.startswith(prefix)}
    return [values[number] for number in sorted(values)]


def _reason(error: Exception) -> str:
    """Return what is wrong with an attribute, in words."""
    if isinstance(error, TableError):  # which is in words
        return str(error)
    return reasons(error) if isinstance(error, ValidationError) else short(error)
