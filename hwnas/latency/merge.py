"""Brings two tables of one setting together, and compares them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import InputError, TableError, short
from hwnas.support import commands, read_bytes

if TYPE_CHECKING:
    from hwnas.latency.measurement import Measurement
    from hwnas.latency.table import LatencyTable


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that two tables' heads disagree in."""

    field: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class MergedTable:
    """What went into a merged table; `common` entries and networks have the rounds of both."""

    table: str
    entries: int
    common_entries: int
    networks: int
    common_networks: int
    unstable: int


def merge_files(first: Path, second: Path, out: Path) -> MergedTable:
    """Write a table of what two files have; raises TableError, naming the fields, where they do not go together.

    Raises InputError for a file `out` that has something else, and is neither of them.
    """
    from hwnas.latency.table import MOST_BYTES, LatencyTable
    from hwnas.latency.where import table_lock

    with table_lock(out):  # it may be one of the two, and be filled by `hwnas profile`
        merged = LatencyTable.read(first)
        entries, networks = len(merged.entries), len(merged.networks)
        other = LatencyTable.read(second)
        check_comparable(merged, other)
        merge_into(merged, other)
        merged.path = out
        if not (out.exists() and out.resolve() not in (first.resolve(), second.resolve())):
            merged.save()
        elif read_bytes(out, what="--out", most_bytes=MOST_BYTES) != merged.text().encode():
            raise InputError(f"--out must be a new file or one of the two tables; {out} exists. Name another one")
    return MergedTable(
        table=str(out),
        entries=len(merged.entries),
        common_entries=entries + len(other.entries) - len(merged.entries),
        networks=len(merged.networks),
        common_networks=networks + len(other.networks) - len(merged.networks),
        unstable=sum(entry.unstable for entry in merged.entries.values()),
    )


def check_comparable(a: "LatencyTable", b: "LatencyTable") -> None:
    """Raise TableError, naming the fields and both values, for tables whose figures cannot be put together."""
    if differences := differences_of(a, b):
        listed = "; ".join(f"{d.field} is {short(d.a)} in {a.path} and {short(d.b)} in {b.path}" for d in differences)
        raise TableError(
            f"tables must agree in device, setting and conditions to be merged: {listed}. "
            f"To see them side by side: {commands.tables_diff(a.path, b.path)}"
        )


def differences_of(a: "LatencyTable", b: "LatencyTable") -> list[Difference]:
    """Return what must agree for two tables to be comparable, and does not."""
    heads = [_comparable(table) for table in (a, b)]
    differences = [
        Difference(field, *(head.get(field) for head in heads))
        for field in dict.fromkeys([*heads[0], *heads[1]])
        if heads[0].get(field) != heads[1].get(field)
    ]
    canaries = [_canary(table) for table in (a, b)]
    return differences + [Difference("canary", *canaries)] * (None not in canaries and canaries[0] != canaries[1])


def _comparable(table: "LatencyTable") -> Mapping[str, Any]:
    return {"device": table.device, **table.setting.model_dump(), **table.conditions.fingerprint}


def _canary(table: "LatencyTable") -> bool | None:
    """Return whether a table's rounds were timed beside a canary; None where it has none."""
    measured = [*table.entries.values(), *(network.measurement for network in table.networks)]
    return any(measurement.canary_ms for measurement in measured) if measured else None


def merge_into(table: "LatencyTable", other: "LatencyTable") -> None:
    """Add to a table what another one has."""
    for key, entry in other.entries.items():
        table.entries[key] = _together(table.entries.get(key), entry)
    held_out = [network.architecture for network in (*table.networks, *other.networks) if network.held_out]
    for network in other.networks:
        together = _together(table.network(network.architecture), network.measurement)
        table.set_network(
            network.architecture, together, held_out=network.architecture in held_out, other=network.other
        )
    table.sessions += [session for session in other.sessions if session not in table.sessions]


def _together(earlier: "Measurement | None", later: "Measurement") -> "Measurement":
    """Return a measurement with the rounds of both; those that both have count once.

    Where only one of them was timed beside a canary, it is that one alone.
    """
    from hwnas.device import Job

    if earlier is None or bool(earlier.canary_ms) != bool(later.canary_ms):
        return later if earlier is None or later.canary_ms else earlier
    new = [at for at, samples in enumerate(later.rounds_ms) if samples not in earlier.rounds_ms]
    if not new:
        return earlier
    rounds_ms = tuple(later.rounds_ms[at] for at in new)
    canary_ms = tuple(later.canary_ms[at] for at in new if later.canary_ms)
    together = dataclasses.replace(later, rounds_ms=rounds_ms, canary_ms=canary_ms).after(earlier)
    return dataclasses.replace(together, unstable=together.spread > Job.max_spread)
