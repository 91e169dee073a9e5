"""The table of what was measured on one device in one setting: a versioned JSON file, read and written here alone."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from hwnas.device import Setting
from hwnas.errors import InputError, TableError, quoted, short
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement, OtherCosts, Quantity, Time, TimedNetwork, lower_quartile
from hwnas.network import Architecture, Scale
from hwnas.support import MIB, check_nesting, commands, fields_once, read_bytes, reasons, write_text

_VERSION = 1
MOST_BYTES = 256 * MIB  # a million entries
_UNIT: Literal["ms"] = "ms"
_FIELDS_OF = {"setting": "a setting's fields", "conditions": "the conditions of a device"}
_NO_OTHER = OtherCosts()


def scale_choices(scales: Iterable[Scale]) -> dict[str, list[bool | int | float | str | None]]:
    """Return the values of each field of the scales, each once."""
    values = [asdict(scale) for scale in scales]
    return {name: list(dict.fromkeys(scale[name] for scale in values)) for name in values[0]}


@dataclass(frozen=True, slots=True)
class Session:
    """A call of `hwnas profile` that measured something: from what its networks were drawn, how the device was."""

    space: str
    scales: dict[str, list[bool | int | float | str | None]]  # the values of each field of the scales
    networks: int  # that were wanted, to fit to
    seed: int  # of those
    held_out: int
    held_out_seed: int
    before: Conditions
    after: Conditions
    others_busy: Quantity | None = None  # the most of all cores' time that other programs took
    throttled: str = ""  # in words
    waited_s: Quantity = 0.0  # for the device to become as fast again as it was
    unfinished: bool = False  # it was stopped before all was measured; an older hwnas did not tell

    @property
    def seconds(self) -> float | None:
        """What passed from its first to its last conditions; None where they do not tell the time."""
        try:
            first, last = (datetime.fromisoformat(conditions.date) for conditions in (self.before, self.after))
            return (last - first).total_seconds()
        except (TypeError, ValueError):  # TypeError: only one of them tells where it is
            return None

    def is_of(self, space: str, scales: Iterable[Scale]) -> bool:
        """Say whether it was about a space at these scales."""
        return (self.space, self.scales) == (space, scale_choices(scales))

    def command(
        self, device: str, setting: Setting, *, fresh: bool = False, unstable: bool = False
    ) -> commands.Command:
        """Return the command that measures all of it in a setting of a device."""
        return commands.profile(
            device,
            setting=setting.name,
            space=self.space,
            cells=self._choices("cells"),
            filters=self._choices("filters"),
            resolution=self._choices("resolution"),
            channels=self._only("input_channels"),
            classes=self._only("classes"),
            skeleton=self._only("skeleton"),
            networks=self.networks,
            validate=self.held_out,
            seed=self.seed,
            fresh=fresh,
            unstable=unstable,
        )

    def _choices(self, name: str) -> list[Any]:
        """Return the values of a field of the scales; none where the file does not tell."""
        return self.scales.get(name, [])

    def _only(self, name: str) -> Any:
        return next(iter(self._choices(name)), None)

    def to_json(self) -> dict[str, Any]:
        """Return the session as JSON values; of one that was not stopped, as tables of version 1 have always had it."""
        names = [part.name for part in fields(self) if part.name != "unfinished" or self.unfinished]
        values = {name: getattr(self, name) for name in names}
        return values | {"before": self.before.to_json(), "after": self.after.to_json()}


@dataclass
class LatencyTable:
    """What was measured on one device in one setting: layers by key, and whole networks.

    The file is JSON, one entry a line, so that people can read and diff it. Raises TableError on reading for a file
    that is truncated, of another version, or holds an entry that is no measurement.
    """

    path: Path
    device: str
    setting: Setting  # with the rewrites that its models were written without
    conditions: Conditions
    entries: dict[str, Measurement] = field(default_factory=dict)
    networks: list[TimedNetwork] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)  # in their order; those before 2026-11 are not there
    rewrites: dict[str, float] = field(default_factory=dict)  # by name: what networks take with one, without it 1

    def choose(self, rewrites: dict[str, float]) -> None:
        """Keep what rewrites are worth; what is measured from now on is written without those that are slower."""
        self.rewrites |= rewrites
        slower = [name for name, ratio in rewrites.items() if ratio > 1]
        self.setting = self.setting.model_copy(update={"without": (*self.setting.without, *slower)})

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
    def estimated_by(self) -> str:
        """The tool whose estimates it holds, with its version, as in `Vela 5.2.0`; empty where it was measured."""
        measured = chain(self.entries.values(), (network.measurement for network in self.networks))
        return next((measurement.estimated_by for measurement in measured), "")

    @property
    def drift(self) -> float | None:
        """How much slower than `canary_ms` the canary was in the slowest tenth of the rounds, as a share."""
        rounds_ms = sorted(self._canaries_ms())
        return rounds_ms[len(rounds_ms) * 9 // 10] / lower_quartile(rounds_ms) - 1.0 if rounds_ms else None

    def _canaries_ms(self) -> list[float]:
        measured = [*self.entries.values(), *(network.measurement for network in self.networks)]
        return [ms for measurement in measured for ms in measurement.canary_ms]

    def again(self, *, fresh: bool = False, unstable: bool = False) -> commands.Command:
        """Return the command by which it was filled last; older tables tell no more of it than the setting."""
        if not self.sessions:
            return commands.profile(self.device, setting=self.setting.name, fresh=fresh, unstable=unstable)
        return self.sessions[-1].command(self.device, self.setting, fresh=fresh, unstable=unstable)

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

    def unfinished(self, space: str, scales: Iterable[Scale]) -> Session | None:
        """Return the last session about a space at these scales, if it was stopped before all was measured."""
        choices = list(scales)
        last = next((session for session in reversed(self.sessions) if session.is_of(space, choices)), None)
        return last if last and last.unfinished else None

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that have no entry, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self.entries]

    def require(self, keys: Iterable[str], *, command: commands.Command) -> None:
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
            command = commands.profile(self.device, setting=self.setting.name)
            raise TableError(f"{self.path} has no entry {key!r}. Measure it: {command}") from None

    def save(self) -> None:
        """Write the table atomically."""
        write_text(self.path, self.text())

    def text(self) -> str:
        """Return what stands in the table's file."""
        head = {
            "version": _VERSION,
            "unit": _UNIT,
            "device": self.device,
            "setting": self.setting.to_json(),
            "conditions": self.conditions.to_json(),
            "rewrites": self.rewrites,
        }
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        entries = [f"{json.dumps(key)}: {json.dumps(m.to_json())}" for key, m in sorted(self.entries.items())]
        networks = [json.dumps(network.to_json()) for network in self.networks]
        sessions = [json.dumps(session.to_json()) for session in self.sessions]
        lines.append('"entries": {\n' + ",\n".join(entries) + "\n}")
        lines.append('"networks": [\n' + ",\n".join(networks) + "\n]")
        lines.append('"sessions": [\n' + ",\n".join(sessions) + "\n]")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def read(cls, path: Path) -> "LatencyTable":
        """Read a table from its file."""
        content, constants = _content(path)
        head = _head(content, path)
        table = cls(path, head.device, head.setting, head.conditions, sessions=head.sessions, rewrites=head.rewrites)
        again = table.again()
        for key, entry in content["entries"].items():
            table.entries[key] = Measurement.from_json(entry, f"{path}: entry {key!r}", again=again)
        for at, entry in enumerate(content["networks"]):
            table.networks.append(TimedNetwork.from_json(entry, f"{path}: network {at}", again=again))
        if constants:
            raise TableError(f"{path} must hold JSON's numbers only; got {constants[0]}. {_again(path)}")
        return table


@dataclass(frozen=True, slots=True)
class _Head:
    """What a file says of its table beside entries and networks, which must be there and are read by themselves."""

    device: str
    setting: Setting
    conditions: Conditions
    unit: Literal["ms"] = _UNIT  # files from before units were written are in ms too
    rewrites: dict[str, Time] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)


@cache
def _head_reader() -> TypeAdapter[_Head]:
    return TypeAdapter(_Head)


def _content(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a file's content, of this version, and the names of its NaN and infinities, which JSON has not."""
    constants: list[str] = []

    def constant(name: str) -> float:
        constants.append(name)
        return float(name)

    try:
        text = read_bytes(path, what="a latency table", most_bytes=MOST_BYTES).decode("utf-8-sig")
        content = json.loads(text, parse_constant=constant, object_pairs_hook=fields_once)
        check_nesting(content)
    except InputError as error:
        raise TableError(f"{error}. {_again(path)}") from None
    except (ValueError, RecursionError) as error:  # ValueError: what the decoder and the parser raise
        raise TableError(
            f"{path} must be a latency table in JSON; it is not ({quoted(error)}). {_again(path)}"
        ) from None
    version = content.get("version") if isinstance(content, dict) else type(content).__name__
    if type(version) is int and version > _VERSION:
        raise TableError(
            f"{path} is a latency table of version {version}, of a newer hwnas; this one reads version {_VERSION}. "
            f"Install the newer hwnas, or measure with this one. {_again(path)}"
        )
    if type(version) is not int or version != _VERSION:
        raise TableError(f"{path} must be a latency table of version {_VERSION}; got {short(version)}. {_again(path)}")
    return content, constants


def _head(content: dict[str, Any], path: Path) -> _Head:
    """Return what the file says beside its entries and networks; raises TableError, which names the part."""
    for name, kind in (("entries", dict), ("networks", list)):
        if not isinstance(content.get(name), kind):
            raise TableError(f"{path}: {name!r} is missing or of a wrong type. {_again(path)}")
    head = {name: value for name, value in content.items() if name not in ("entries", "networks")}
    try:
        return _head_reader().validate_json(json.dumps(head), strict=True)
    except ValidationError as error:
        raise TableError(f"{path}: {_broken_part(error, content, path)}") from None


def _broken_part(error: ValidationError, content: dict[str, Any], path: Path) -> str:
    """Return which part of a file is broken, why, and what to do."""
    match error.errors()[0]["loc"]:
        case ("unit",):
            return f"the unit must be {_UNIT!r}; got {short(content['unit'])}. {_again(path)}"
        case ("rewrites", _, *_):
            return f"'rewrites' must be positive numbers by name; got {short(content['rewrites'])}. {_again(path)}"
        case (("setting" | "conditions") as name, _, *_):
            return f"{name!r} must have {_FIELDS_OF[name]}: {reasons(error, below=1)}. {_again(path)}"
        case ("sessions", number, *_):
            return f"session {number} must have the fields of a session: {reasons(error, below=2)}. Delete its line"
        case (name, *_):
            return f"{short(name)} is missing or of a wrong type. {_again(path)}"
    return f"{reasons(error)}. {_again(path)}"


def _again(path: Path) -> str:
    """Return what to do about a table's file that cannot be used; its path names the device and the setting."""
    command = commands.profile(path.parent.name, setting=path.stem, fresh=True)
    return f"Restore the file, or delete it, as a search measures what it needs, or measure it again: {command}"
