"""The table of what was measured on one device in one setting: a versioned JSON file, read and written here alone."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hwnas.device import Setting
from hwnas.errors import TableError
from hwnas.latency.measurement import (
    Measurement,
    OtherCosts,
    TimedNetwork,
    _from_json,
    _is_time,
    _Quantity,
    _reasons,
    _to_json,
    lower_quartile,
)
from hwnas.network import Architecture
from hwnas.support import write_text

_VERSION = 1
_UNIT = "ms"

_NO_OTHER = OtherCosts()


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
        from hwnas.latency.slowness import fit_slowness

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

    def network(self, architecture: Architecture) -> Measurement | None:
        """Return what was measured of a whole network, if anything."""
        return next((n.measurement for n in self.networks if n.architecture == architecture), None)

    def set_network(
        self,
        architecture: Architecture,
        measurement: Measurement,
        *,
        held_out: bool = False,
        other: OtherCosts = _NO_OTHER,
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


def _again(path: Path) -> str:
    """Return what to do about a table's file that cannot be used; its path names the device and the setting."""
    return f"Restore the file, or measure it again: hwnas profile {path.parent.name} --setting {path.stem} --fresh"


@cache
def _session_reader() -> TypeAdapter[Session]:
    return TypeAdapter(Session)


def _session(value: Any, path: Path, number: int) -> Session:
    try:
        return _session_reader().validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise TableError(
            f"{path}: session {number} must have the fields of a session: {_reasons(error)}. Delete its line"
        ) from None
