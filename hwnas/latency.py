"""Latency: what was measured of a model, and the table of a device's measurements."""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from hwnas.device import Setting
from hwnas.errors import TableError
from hwnas.files import write_text

_VERSION = 1
_UNIT = "ms"
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

    architecture: dict[str, Any]
    measurement: Measurement
    held_out: bool = False
    other: OtherCosts = OtherCosts()

    def to_json(self) -> dict[str, Any]:
        """Return the network as JSON values, from which `from_json` makes an equal one."""
        known = {name: cost for name, cost in asdict(self.other).items() if cost is not None}
        return {"architecture": self.architecture, "held_out": self.held_out, **_to_json(self.measurement), **known}

    @classmethod
    def from_json(cls, value: Any, place: str) -> "TimedNetwork":
        """Check and read what `to_json` wrote; raises TableError, in which `place` names the file and the entry."""
        architecture = _architecture(value, place)
        measurement = _from_json(value, place)
        return cls(architecture, measurement, value.get("held_out", False), _other_costs(value, place))


@dataclass(frozen=True, slots=True)
class Session:
    """A call of `hwnas profile` that measured something: from what its networks were drawn, how the device was."""

    space: str
    scales: dict[str, list[Any]]  # the values of each field of the scales
    networks: int  # that were wanted, to fit to
    seed: int  # of those
    held_out: int
    held_out_seed: int
    before: dict[str, Any]  # conditions
    after: dict[str, Any]
    others_busy: _Quantity | None = None  # the most of all cores' time that other programs took
    throttled: str = ""  # in words
    waited_s: _Quantity = 0.0  # for the device to become as fast again as it was


@dataclass
class LatencyTable:
    """What was measured on one device in one setting: layers by key, and whole networks.

    The file is JSON, one entry a line, so that people can read and diff it. Raises TableError on reading for a file
    that is truncated, of another version, or holds an entry that is no measurement.
    """

    path: Path
    device: str
    setting: dict[str, Any]
    conditions: dict[str, Any]
    entries: dict[str, Measurement] = field(default_factory=dict)
    networks: list[TimedNetwork] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)  # in their order; those before 2026-11 are not there
    rewrites: dict[str, float] = field(default_factory=dict)  # by name: what networks take with one, without it 1

    @property
    def measured_in(self) -> Setting:
        """The setting, with the rewrites that its models were written without."""
        return Setting.model_validate(self.setting)

    def choose(self, rewrites: dict[str, float]) -> None:
        """Keep what rewrites are worth; what is measured from now on is written without those that are slower."""
        self.rewrites |= rewrites
        slower = [name for name, ratio in rewrites.items() if ratio > 1]
        self.setting = {**self.setting, "without": [*self.measured_in.without, *slower]}

    @cached_property
    def canary_ms(self) -> float | None:
        """What the canary took in the device's faster minutes, when first asked for: the lower quartile of all rounds.

        None where there was no canary.
        """
        rounds_ms = self._canaries_ms()
        return lower_quartile(rounds_ms) if rounds_ms else None

    @cached_property
    def slowness(self) -> dict[float, float]:
        """By a round's canary how many times slower the device was in it, when first asked for (hwnas/slowness.py)."""
        from hwnas.slowness import fit_slowness

        measured = [*self.entries.values(), *(network.measurement for network in self.networks)]
        return fit_slowness(measured, self.canary_ms) if self.canary_ms else {}

    def stated_ms(self, measurement: Measurement) -> float:
        """Return a measurement's latency in ms at the table's canary: what hwnas states."""
        return measurement.at(self.canary_ms, self.slowness)

    @property
    def drift(self) -> float | None:
        """How much slower than `canary_ms` the canary was in the slowest tenth of the rounds, as a share."""
        rounds_ms = sorted(self._canaries_ms())
        return rounds_ms[len(rounds_ms) * 9 // 10] / lower_quartile(rounds_ms) - 1.0 if rounds_ms else None

    def _canaries_ms(self) -> list[float]:
        measured = [*self.entries.values(), *(network.measurement for network in self.networks)]
        return [ms for one in measured for ms in one.canary_ms]

    def network(self, architecture: dict[str, Any]) -> Measurement | None:
        """Return what was measured of a whole network, if anything."""
        return next((n.measurement for n in self.networks if n.architecture == architecture), None)

    def set_network(
        self,
        architecture: dict[str, Any],
        measurement: Measurement,
        *,
        held_out: bool = False,
        other: OtherCosts = OtherCosts(),
    ) -> None:
        """Put a whole network into the table, in the place of the same one if it has it, whose other costs count on."""
        for same in [n for n in self.networks if n.architecture == architecture]:
            self.networks.remove(same)
            other = other.after(same.other)
        self.networks.append(TimedNetwork(architecture, measurement, held_out, other))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that have no entry, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self.entries]

    def require(self, keys: Iterable[str], *, command: str) -> None:
        """Raise TableError, with the command that measures them, where entries are missing."""
        if missing := self.missing(keys):
            raise TableError(
                f"{self.path} must have an entry for every operator of the space; it lacks {len(missing)}, "
                f"such as {missing[0]!r}. Measure them: {command}"
            )

    def ms(self, key: str) -> float:
        """Return the latency of one layer in milliseconds, at the table's canary.

        Raises TableError where it was not measured.
        """
        try:
            return self.stated_ms(self.entries[key])
        except KeyError:
            raise TableError(f"{self.path} has no entry {key!r}; `hwnas profile {self.device}` measures it") from None

    def save(self) -> None:
        """Write the table atomically."""
        head = {
            "version": _VERSION,
            "unit": _UNIT,
            "device": self.device,
            "setting": self.setting,
            "conditions": self.conditions,
            "rewrites": self.rewrites,
        }
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        entries = [f"{json.dumps(key)}: {json.dumps(_to_json(m))}" for key, m in sorted(self.entries.items())]
        networks = [json.dumps(network.to_json()) for network in self.networks]
        sessions = [json.dumps(asdict(session)) for session in self.sessions]
        lines.append('"entries": {\n' + ",\n".join(entries) + "\n}")
        lines.append('"networks": [\n' + ",\n".join(networks) + "\n]")
        lines.append('"sessions": [\n' + ",\n".join(sessions) + "\n]")
        write_text(self.path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def read(cls, path: Path) -> "LatencyTable":
        """Read a table from its file."""
        value, constants = _head(path)
        entries = {key: _from_json(entry, f"{path}: entry {key!r}") for key, entry in value["entries"].items()}
        networks = [TimedNetwork.from_json(entry, f"{path}: network {i}") for i, entry in enumerate(value["networks"])]
        sessions = [_session(one, path, i) for i, one in enumerate(value.get("sessions", []))]
        if constants:
            raise TableError(f"{path} must hold JSON's numbers only; got {constants[0]}. {_again(path)}")
        head = {name: value[name] for name in ("device", "setting", "conditions")}
        rewrites = value.get("rewrites", {})
        return cls(path, **head, entries=entries, networks=networks, sessions=sessions, rewrites=rewrites)


def _head(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a file's content with its head checked, and the names of its NaN and infinities, which JSON has not."""
    constants: list[str] = []

    def constant(name: str) -> float:
        constants.append(name)
        return float(name)

    try:
        value = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=constant, object_pairs_hook=_without_repetition
        )
    except OSError as error:
        raise TableError(
            f"{path} must be a latency table; it cannot be read: {error.strerror}. {_again(path)}"
        ) from None
    except (ValueError, RecursionError) as error:  # ValueError: what the decoder and the parser raise
        raise TableError(f"{path} must be a latency table in JSON; it is not ({error}). {_again(path)}") from None
    _check_head(value, path)
    return value, constants


def _check_head(value: Any, path: Path) -> None:
    """Raise TableError for another version or unit, and for parts that are missing or of a wrong type."""
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        got = value.get("version") if isinstance(value, dict) else type(value).__name__
        raise TableError(f"{path} must be a latency table of version {_VERSION}; got {got!r}. {_again(path)}")
    if (unit := value.get("unit", _UNIT)) != _UNIT:  # files from before units were written are in ms too
        raise TableError(f"{path}: the unit must be {_UNIT!r}; got {unit!r}. {_again(path)}")
    parts = {"device": str, "setting": dict, "conditions": dict, "entries": dict, "networks": list, "sessions": list}
    for name, kind in {**parts, "rewrites": dict}.items():
        if not isinstance({"sessions": [], "rewrites": {}, **value}.get(name), kind):  # files from before have not
            raise TableError(f"{path}: {name!r} is missing or of a wrong type. {_again(path)}")
    if not all(map(_is_time, value.get("rewrites", {}).values())):
        raise TableError(
            f"{path}: 'rewrites' must be positive numbers by name; got {value['rewrites']}. {_again(path)}"
        )
    try:
        Setting.model_validate_json(json.dumps(value["setting"]), strict=True)
    except ValidationError as error:
        raise TableError(f"{path}: 'setting' must have a setting's fields: {_reasons(error)}. {_again(path)}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's fields; raises ValueError for two of one name, of which JSON would drop one."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"{repeated!r} is there twice")
    return fields


def _reasons(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one['input']!r}" for one in error.errors())


def _again(path: Path) -> str:
    """Return what to do about a table's file that cannot be used; its path names the device and the setting."""
    return f"Restore the file, or measure it again: hwnas profile {path.parent.name} --setting {path.stem} --fresh"


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


def _architecture(value: Any, place: str) -> dict[str, Any]:
    architecture = value.get("architecture") if isinstance(value, dict) else None
    if not isinstance(architecture, dict):
        raise TableError(f"{place} must have an architecture; delete it and run `hwnas profile` to measure others")
    if not isinstance(held_out := value.get("held_out", False), bool):
        raise TableError(
            f"{place} must have held_out, true or false; got {held_out!r}. "
            "Delete it and run `hwnas profile` to measure others"
        )
    return architecture


@cache
def _readers() -> tuple[TypeAdapter[OtherCosts], TypeAdapter[Session]]:
    return TypeAdapter(OtherCosts), TypeAdapter(Session)


def _other_costs(entry: dict[str, Any], place: str) -> OtherCosts:
    """Read what a network's entry has of other costs; raises TableError."""
    try:
        costs = {one.name: entry.get(one.name) for one in fields(OtherCosts)}
        return _readers()[0].validate_json(json.dumps(costs), strict=True)
    except ValidationError as error:
        raise TableError(
            f"{place} must have other costs that are numbers from 0 on, or null: {_reasons(error)}. "
            "Delete it and run `hwnas profile` to measure others"
        ) from None


def _session(value: Any, path: Path, number: int) -> Session:
    try:
        return _readers()[1].validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise TableError(
            f"{path}: session {number} must have the fields of a session: {_reasons(error)}. Delete its line"
        ) from None
