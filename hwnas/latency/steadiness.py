"""How steady a device was while it was measured, in words, and what to do where it was not: the end of `profile`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hwnas.device import throttled
from hwnas.latency.conditions import Conditions
from hwnas.latency.placement import how
from hwnas.latency.table import LatencyTable, Session
from hwnas.support.commands import Command

_DRIFT = 0.25  # of the slowest tenth of the rounds
_UNSTABLE = 0.05  # of the entries
_BUSY = 0.1  # of all cores, by other programs
_COOL = "cool it: a fan, out of its case, off the charger"
_POWER = "give it a stronger power supply"
_STOP_OTHERS = "stop other programs (`top` lists them)"


@dataclass(frozen=True, slots=True)
class Steadiness:
    """What a device told of itself while a table was filled; pairs are before and after the last call of `profile`.

    `drift` is how much slower than in the device's faster minutes the canary was in the slowest tenth of all rounds
    (None without a canary), `unstable` the share of entries whose rounds disagree to the end, `others_busy` the most of
    all cores' time that other programs took, `frequency_mhz` that of the slowest core in use. `reasons` say why the
    device was not steady, `remedies` what to do.
    """

    drift: float | None
    unstable: float
    others_busy: float | None = None
    throttled: str = ""
    waited_s: float = 0.0
    temperature_c: tuple[float | None, float | None] = (None, None)
    frequency_mhz: tuple[float | None, float | None] = (None, None)
    governor: tuple[str | None, str | None] = (None, None)
    reasons: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)
    estimated_by: str = ""  # where nothing was measured

    @property
    def figures(self) -> str:
        """What was seen, reason or not."""
        pairs = [
            _pair("{:.0f} °C", self.temperature_c),
            _pair("{:.0f} MHz", self.frequency_mhz),
            _pair("governor {}", self.governor),
        ]
        waited = [f"waited {self.waited_s:.0f} s for it"] * (self.waited_s >= 1)
        drift = [] if self.drift is None else [f"slower by {self.drift:.0%} or more in a tenth of the rounds"]
        return ", ".join([*drift, f"{self.unstable:.1%} of the entries unstable", *filter(None, pairs), *waited])

    def __str__(self) -> str:
        if self.estimated_by:
            return f"nothing was measured: {how(self.estimated_by)}, whose figures are the same each time"
        if not self.reasons:
            return f"the device was steady: {self.figures}"
        todo = "".join(f"\n  {remedy}" for remedy in self.remedies)
        return f"the device was unsteady: {'; '.join(self.reasons)} ({self.figures}). What helps:{todo}"


def judge(table: LatencyTable) -> Steadiness:
    """Return how steady the device of a table was; what is not in tables of earlier versions is unknown."""
    if table.estimated_by:
        return Steadiness(None, 0.0, estimated_by=table.estimated_by)
    unstable = sum(entry.unstable for entry in table.entries.values()) / max(1, len(table.entries))
    session = table.sessions[-1] if table.sessions else None
    drift = table.drift
    causes = list(_reasons(drift, unstable, session))
    reasons = [reason for reason, _ in causes]
    remedies = list(dict.fromkeys(remedy for _, remedy in causes)) + [f"then type: {again(table)}"] * bool(causes)
    if session is None:
        return Steadiness(drift, unstable, reasons=reasons, remedies=remedies)
    return Steadiness(
        drift=drift,
        unstable=unstable,
        others_busy=session.others_busy,
        throttled=session.throttled,
        waited_s=session.waited_s,
        temperature_c=(session.before.temperature_c, session.after.temperature_c),
        frequency_mhz=(_slowest(session.before), _slowest(session.after)),
        governor=(session.before.governor, session.after.governor),
        reasons=reasons,
        remedies=remedies,
    )


def again(table: LatencyTable) -> Command:
    """Return the command that measures unstable entries again; all, where none is or their space is unknown."""
    measured = [*table.entries.values(), *(network.measurement for network in table.networks)]
    some = bool(table.sessions) and any(measurement.unstable for measurement in measured)
    return table.again(unstable=some, fresh=not some)


def _reasons(drift: float | None, unstable: float, session: Session | None) -> Iterator[tuple[str, str]]:
    """Yield why a device was not steady, and what to do about each."""
    busy = (session and session.others_busy) or 0.0
    if session and session.throttled:
        yield f"it throttled: {session.throttled}", _cooler(session.throttled)
    if busy > _BUSY:
        yield f"other programs took up to {busy:.0%} of its cores", _STOP_OTHERS
    drifts = (drift or 0.0) > _DRIFT
    if not drifts and unstable <= _UNSTABLE:
        return
    remedy = "measure when nothing else runs, also on the machine that a virtual one shares"
    governor = session.after.governor if session else None
    if governor not in (None, "performance"):
        remedy = _fixed_clock(governor)
    yield "its speed changed too much" if drifts else "too many entries are unstable", remedy


def foreseen(now: Conditions) -> list[tuple[str, str]]:
    """Return why a device would be unsteady if it were measured in these conditions, and what to do about each."""
    causes = []
    if (now.others_busy or 0.0) > _BUSY:
        causes.append((f"other programs take {now.others_busy:.0%} of its cores", _STOP_OTHERS))
    since_boot = {"throttle_count": now.throttle_count}
    if said := throttled(since_boot, now.model_dump()):
        causes.append((f"it throttles: {said}", _cooler(said)))
    if now.governor not in (None, "performance"):
        causes.append(("its clock changes with the load", _fixed_clock(now.governor)))
    return causes


def _cooler(said: str) -> str:
    return _POWER if "under-voltage" in said else _COOL


def _fixed_clock(governor: str | None) -> str:
    return f"fix its clock: the governor is {governor}; `cpupower frequency-set -g performance`"


def _slowest(conditions: Conditions) -> float | None:
    return min(conditions.frequency_mhz, default=None)


def _pair(words: str, pair: tuple[Any, Any]) -> str:
    """Return what was before and after in words; once where it is the same, nothing where it is unknown."""
    words_of_each = list(dict.fromkeys(words.format(value) for value in pair if value is not None))
    return " before, ".join(words_of_each) + " after" * (len(words_of_each) > 1)
