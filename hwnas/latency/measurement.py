"""What was measured of one model: its raw samples, and what they say. Records of tables and of trials, read here."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from hwnas.errors import InputError, TableError, short
from hwnas.latency.placement import Placement
from hwnas.network import Architecture, UnreadableArchitecture
from hwnas.support import reasons
from hwnas.support.commands import Command

Time = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]  # in ms
Quantity = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
Flag = Annotated[bool, Field(strict=True)]
_Samples = Annotated[tuple[Time, ...], Field(min_length=1)]


def lower_quartile(values: Sequence[float]) -> float:
    """Return the value below which a quarter of `values` lies (linear between neighbours)."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")[0]


@dataclass(frozen=True, slots=True)
class MeasuredLatency:
    """A network's latency in ms as it is stated, and what is held against a target: with the spread added.

    Where a tool estimated it, `estimated_by` names that.
    """

    ms: float
    upper_ms: float
    estimated_by: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one model in milliseconds: a tuple for each round, a sample for each timed call.

    A device has faster and slower minutes. The canary, a model that is timed throughout, tells them: rounds are
    compared as multiples of it, and a table states latencies at one and the same canary (`at`). No two rounds have
    exactly the same canary: its figure is the round's name as well.

    What a tool estimates (`estimated_by`) is the same in every run: a round is then a network that an operator is in.
    """

    rounds_ms: Annotated[tuple[_Samples, ...], Field(min_length=1)]
    unstable: Flag = False
    canary_ms: tuple[Time, ...] = ()  # for each round what the device's canary took then; empty without one
    placement: Placement | None = None  # where it ran, in all rounds; None where nothing tells, or they differ

    @property
    def round_medians_ms(self) -> list[float]:
        """The median sample of each round."""
        return [statistics.median(samples) for samples in self.rounds_ms]

    @property
    def median_ms(self) -> float:
        """The median of all samples."""
        return statistics.median(sample for samples in self.rounds_ms for sample in samples)

    @property
    def ms(self) -> float:
        """The latency without regard to a canary: the lower quartile, over the rounds, of the rounds' medians.

        Of estimates it is the mean of all samples: none is disturbed, and only a mean adds up to what networks take.
        """
        if self.estimated_by:
            return statistics.fmean(sample for samples in self.rounds_ms for sample in samples)
        return lower_quartile(self.round_medians_ms)

    @property
    def estimated_by(self) -> str:
        """The tool that estimated it, with its version, as in `Vela 5.2.0`; empty where it was measured."""
        return self.placement.estimated_by if self.placement else ""

    def at(self, canary_ms: float | None, slowness: Mapping[float, float] | None = None) -> float:
        """Return the latency in ms with the canary at this figure: the median over rounds that are made equally fast.

        A round with the canary at c is taken to be slower by `slowness[c]`, where that is known, otherwise by
        c / canary_ms. Without a canary, here or there, it is `ms`.
        """
        if canary_ms is None or not self.canary_ms:
            return self.ms
        known = slowness or {}
        factors = [known.get(canary, canary / canary_ms) for canary in self.canary_ms]
        pairs = zip(self.round_medians_ms, factors, strict=True)
        return statistics.median(median / factor for median, factor in pairs)

    def upper(self, canary_ms: float | None) -> float:
        """Return what is held against a target, in ms: `at` with the spread added."""
        return self.at(canary_ms) * (1.0 + self.spread)

    def latency(self, canary_ms: float | None) -> "MeasuredLatency":
        """Return what of it counts, with the canary at this figure."""
        return MeasuredLatency(self.at(canary_ms), self.upper(canary_ms), self.estimated_by)

    @property
    def spread(self) -> float:
        """How far the rounds disagree: (median - lower quartile) / lower quartile of the rounds' medians.

        Where there is a canary, of their multiples of it.
        """
        medians = self.round_medians_ms
        if self.canary_ms:
            medians = [median / canary for median, canary in zip(medians, self.canary_ms, strict=True)]
        return statistics.median(medians) / lower_quartile(medians) - 1.0

    def after(self, earlier: "Measurement | None") -> "Measurement":
        """Return this measurement with the rounds of an earlier one before its own; a canary must be in both."""
        if earlier is None or bool(earlier.canary_ms) != bool(self.canary_ms):
            return self
        return replace(
            self,
            rounds_ms=earlier.rounds_ms + self.rounds_ms,
            canary_ms=earlier.canary_ms + self.canary_ms,
            placement=self.placement if self.placement == earlier.placement else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as JSON values, from which `from_json` makes an equal one."""
        canary = {"canary_ms": self.canary_ms} if self.canary_ms else {}
        placement = {"placement": self.placement.to_json()} if self.placement else {}
        return {"rounds_ms": self.rounds_ms, **canary, "unstable": self.unstable, **placement}

    @classmethod
    def from_json(cls, value: Any, place: str, *, again: Command | None = None) -> "Measurement":
        """Read what `to_json` wrote.

        Raises TableError, in which `place` names the file and the entry, with the command that measures it `again`.
        """
        try:
            measurement = _measurements().validate_python(value)
        except ValidationError as error:
            fault = error.errors()[0]
            field = fault["loc"][0] if fault["loc"] else ""
            raise _no_measurement(place, field, fault["input"], again=again) from None
        if measurement.canary_ms and len(measurement.canary_ms) != len(measurement.rounds_ms):
            raise _no_measurement(place, "canary_ms", value["canary_ms"], again=again)
        return measurement


@dataclass(frozen=True, slots=True)
class OtherCosts:
    """What a model costs on the device beside its latency; None where nothing tells."""

    file_bytes: Bytes | None = None
    peak_memory_bytes: Bytes | None = None  # until the first inference is done, beyond what there was before loading
    load_ms: Quantity | None = None  # to create and allocate
    first_ms: Quantity | None = None  # the first inference

    def after(self, earlier: "OtherCosts") -> "OtherCosts":
        """Return what two measurements of a model tell together: the shorter times, the larger sizes.

        What disturbs makes times longer; memory that was used before and is free makes sizes smaller.
        """
        best = {"file_bytes": max, "peak_memory_bytes": max, "load_ms": min, "first_ms": min}
        both = {name: [getattr(costs, name) for costs in (earlier, self)] for name in best}
        known = {name: [cost for cost in costs if cost is not None] for name, costs in both.items()}
        return OtherCosts(**{name: best[name](costs, default=None) for name, costs in known.items()})


@dataclass(frozen=True, slots=True)
class TimedNetwork:
    """A whole network that was timed on the device: corrects the sum of its operators, or, held out, judges that."""

    architecture: Architecture
    measurement: Measurement
    held_out: bool = False
    other: OtherCosts = OtherCosts()

    def to_json(self) -> dict[str, Any]:
        """Return the network as JSON values, from which `from_json` makes an equal one."""
        known = {name: cost for name, cost in asdict(self.other).items() if cost is not None}
        architecture = self.architecture.to_json()
        return {"architecture": architecture, "held_out": self.held_out, **self.measurement.to_json(), **known}

    @classmethod
    def from_json(cls, value: Any, place: str, *, again: Command | None = None) -> "TimedNetwork":
        """Read what `to_json` wrote; an architecture that cannot be read is an `UnreadableArchitecture`.

        Raises TableError, in which `place` names the file and the entry, with the command that measures others `again`.
        """
        try:
            head = _heads().validate_python(value)
            measurement = Measurement.from_json(value, place, again=again)
            return cls(_architecture(head), measurement, head.held_out, _other_costs().validate_python(value))
        except ValidationError as error:
            remedy = f". Delete it and measure others: {again}" if again else ""
            raise TableError(f"{place} must have {_rule_of_network(error)}{remedy}") from None


@dataclass(frozen=True, slots=True)
class _Head:
    """What a network's entry has beside its measurement and other costs."""

    architecture: dict[str, Any]
    held_out: Flag = False


def _architecture(head: _Head) -> Architecture:
    try:
        return Architecture.from_json(head.architecture)
    except InputError as error:
        return UnreadableArchitecture(head.architecture, error)


@cache
def _measurements() -> TypeAdapter[Measurement]:
    return TypeAdapter(Measurement)


@cache
def _heads() -> TypeAdapter[_Head]:
    return TypeAdapter(_Head)


@cache
def _other_costs() -> TypeAdapter[OtherCosts]:
    return TypeAdapter(OtherCosts)


def _no_measurement(place: str, field: str | int, got: Any, *, again: Command | None) -> TableError:
    """Return the error for a field of an entry that is broken, or for what is no entry."""
    rule = "rounds_ms, lists of positive numbers of milliseconds"
    if field == "canary_ms":
        rule = "canary_ms, a positive number of milliseconds for each round, or none"
    if field == "placement":
        rule = "a placement that says on which processor it ran (cpu, gpu or npu), and whether whole, or none"
    if field == "unstable":
        rule += ", and whether it is unstable, true or false"
    remedy = f". To measure it again, delete the entry and type: {again}" if again else ""
    return TableError(f"{place} must have {rule}; got {short(got)}{remedy}")


def _rule_of_network(error: ValidationError) -> str:
    """Return the rule that a network's entry breaks, and what it has instead."""
    fault = error.errors()[0]
    match fault["loc"]:
        case ("held_out",):
            return f"held_out, true or false; got {short(fault['input'])}"
        case () | ("architecture", *_):
            return f"an architecture; got {short(fault['input'])}"
    return f"other costs that are numbers from 0 on, or null: {reasons(error)}"
