"""What was measured of one model: its raw samples, and what they say."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from hwnas.errors import InputError, TableError
from hwnas.network import Architecture, UnreadableArchitecture

_QUOTED = 100  # characters of a broken entry in an error


def lower_quartile(values: Sequence[float]) -> float:
    """Return the value below which a quarter of `values` lies (linear between neighbours)."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")[0]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one model in milliseconds: a tuple for each round, a sample for each timed call.

    A device has faster and slower minutes. The canary, a model that is timed throughout, tells them: rounds are
    compared as multiples of it, and a table states latencies at one and the same canary (`at`). No two rounds have
    exactly the same canary: its figure is the round's name as well.
    """

    rounds_ms: tuple[tuple[float, ...], ...]
    unstable: bool = False
    canary_ms: tuple[float, ...] = ()  # for each round what the device's canary took then; empty without one

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
        """The latency without regard to a canary: the lower quartile, over the rounds, of the rounds' medians."""
        return lower_quartile(self.round_medians_ms)

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
        canary_ms = earlier.canary_ms + self.canary_ms
        return replace(self, rounds_ms=earlier.rounds_ms + self.rounds_ms, canary_ms=canary_ms)


_Bytes = Annotated[int, Field(ge=0)]
_Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class OtherCosts:
    """What a model costs on the device beside its latency; None where nothing tells."""

    file_bytes: _Bytes | None = None
    peak_memory_bytes: _Bytes | None = None  # until the first inference is done, beyond what there was before loading
    load_ms: _Quantity | None = None  # to create and allocate
    first_ms: _Quantity | None = None  # the first inference

    def after(self, earlier: "OtherCosts") -> "OtherCosts":
        """Return what two measurements of a model tell together: the shorter times, the larger sizes.

        What disturbs makes times longer; memory that was used before and is free makes sizes smaller.
        """
        best = {"file_bytes": max, "peak_memory_bytes": max, "load_ms": min, "first_ms": min}
        both = {name: [getattr(one, name) for one in (earlier, self)] for name in best}
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
        return {
            "architecture": self.architecture.to_json(),
            "held_out": self.held_out,
            **_to_json(self.measurement),
            **known,
        }

    @classmethod
    def from_json(cls, value: Any, place: str) -> "TimedNetwork":
        """Check and read what `to_json` wrote; raises TableError, in which `place` names the file and the entry.

        An architecture that cannot be read is an `UnreadableArchitecture`.
        """
        architecture = _architecture(value, place)
        measurement = _from_json(value, place)
        return cls(architecture, measurement, value.get("held_out", False), _other_costs(value, place))


def _reasons(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one['input']!r}" for one in error.errors())


def _to_json(measurement: Measurement) -> dict[str, Any]:
    canary = {"canary_ms": measurement.canary_ms} if measurement.canary_ms else {}
    return {"rounds_ms": measurement.rounds_ms, **canary, "unstable": measurement.unstable}


def _from_json(value: Any, place: str) -> Measurement:
    """Check and read one measurement; `place` names the file and the entry in errors."""
    rule = f"{place} must have rounds_ms, lists of positive numbers of milliseconds"
    delete = "To measure it again, delete the entry and type: hwnas profile"
    rounds = value.get("rounds_ms") if isinstance(value, dict) else None
    if not isinstance(rounds, list) or not rounds or not isinstance(value.get("unstable", False), bool):
        raise TableError(f"{rule}, and whether it is unstable; got {_short(value)}. {delete}")
    for samples in rounds:
        if not isinstance(samples, list) or not samples:
            raise TableError(f"{rule}; got {samples!r}. {delete}")
        for sample in samples:
            if not _is_time(sample):
                raise TableError(f"{rule}; got {sample!r}. {delete}")
    canary = value.get("canary_ms", [])
    whole = isinstance(canary, list) and len(canary) in (0, len(rounds))
    if not whole or not all(map(_is_time, canary)):
        rule = f"{place} must have canary_ms, a positive number of milliseconds for each round, or none"
        raise TableError(f"{rule}; got {_short(canary)}. {delete}")
    return Measurement(
        tuple(tuple(map(float, samples)) for samples in rounds),
        bool(value.get("unstable", False)),
        tuple(map(float, canary)),
    )


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= sys.float_info.max


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= _QUOTED else f"{words[:_QUOTED]}..."


def _architecture(value: Any, place: str) -> Architecture:
    architecture = value.get("architecture") if isinstance(value, dict) else None
    if not isinstance(architecture, dict):
        raise TableError(f"{place} must have an architecture; delete it and run `hwnas profile` to measure others")
    if not isinstance(held_out := value.get("held_out", False), bool):
        raise TableError(
            f"{place} must have held_out, true or false; got {held_out!r}. "
            "Delete it and run `hwnas profile` to measure others"
        )
    try:
        return Architecture.from_json(architecture)
    except InputError as error:
        return UnreadableArchitecture(architecture, error)


@cache
def _reader() -> TypeAdapter[OtherCosts]:
    return TypeAdapter(OtherCosts)


def _other_costs(entry: dict[str, Any], place: str) -> OtherCosts:
    """Read what a network's entry has of other costs; raises TableError."""
    try:
        costs = {one.name: entry.get(one.name) for one in fields(OtherCosts)}
        return _reader().validate_json(json.dumps(costs), strict=True)
    except ValidationError as error:
        raise TableError(
            f"{place} must have other costs that are numbers from 0 on, or null: {_reasons(error)}. "
            "Delete it and run `hwnas profile` to measure others"
        ) from None
