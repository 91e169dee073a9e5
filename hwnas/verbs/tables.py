"""`hwnas tables`: shows, checks, merges and compares latency tables, what `profile` fills and `search` reads.

A table is named by its file's path, or as DEVICE/SETTING, or as DEVICE where it has one table or all are meant.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hwnas.errors import HwnasError, InputError, TableError
from hwnas.support import AnyPath, FilePath, Options, takes

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable, OtherCosts, Steadiness, Validation
from hwnas.latency import Difference, check_comparable, differences_of, merge_into

_LARGEST = 10  # differences that `diff` lists
_NOTABLE = 1.1  # a ratio, or its inverse, that counts as a difference


@dataclass(frozen=True, slots=True)
class Entry:
    """One operator of a table; `spread` is the share by which its rounds disagree."""

    key: str
    ms: float
    spread: float
    rounds: int
    unstable: bool


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """One whole network of a table, by its place in the file."""

    name: str
    ms: float
    spread: float
    held_out: bool
    unstable: bool
    other: "OtherCosts"


@dataclass(frozen=True, slots=True)
class ShownTable:
    """What a table is. `entries` are counted by kind; `problem` says why the file, or its prediction, cannot be used.

    `prediction_error` is the share within which nine of ten networks are predicted that were left out of the fit;
    `validation` says how well those are that are held out, and what noise allows; `drawn` how they were chosen.
    `typical` are the medians of the whole networks' other costs; `again` measures unstable entries again. `rewrites`
    say what networks take with each, as a multiple of without; those above 1 are left out.
    """

    path: str
    device: str
    setting: str
    problem: str = ""
    conditions: dict[str, Any] | None = None
    entries: dict[str, int] | None = None
    networks: int = 0
    held_out: int = 0
    median_spread: float | None = None
    unstable: list[str] | None = None
    prediction_error: float | None = None
    validation: "Validation | None" = None
    drawn: list[str] | None = None
    steadiness: "Steadiness | None" = None
    typical: "OtherCosts | None" = None
    rewrites: dict[str, float] | None = None
    again: str = ""
    rows: list[Entry] | None = None
    network_rows: list[NetworkEntry] | None = None


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """Whether a table's file is fine, and else what is wrong; `fits_now` is None where the device was not asked."""

    path: str
    fine: bool
    problem: str = ""
    fits_now: bool | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class MergedTable:
    """What went into a merged table; `common` entries and networks have the rounds of both."""

    table: str
    entries: int
    common_entries: int
    networks: int
    common_networks: int
    unstable: int


@dataclass(frozen=True, slots=True)
class EntryDifference:
    """One operator that both tables have; `ratio` is b / a."""

    key: str
    a_ms: float
    b_ms: float
    ratio: float
    a_spread: float
    b_spread: float


@dataclass(frozen=True, slots=True)
class ComparedTables:
    """Two tables side by side: ratios are b / a, over the entries that both have; None without such entries."""

    a: str
    b: str
    differences: list[Difference]
    only_a: list[str]
    only_b: list[str]
    common: int
    ratio_lower_quartile: float | None
    ratio_median: float | None
    ratio_upper_quartile: float | None
    beyond_10_percent: int
    a_median_spread: float | None
    b_median_spread: float | None
    largest: list[EntryDifference]


class ShowOptions(Options):
    """The options of `hwnas tables show`."""

    table: AnyPath | None = Field(
        default=None,
        kw_only=False,
        description="a table: its file, DEVICE or DEVICE/SETTING; without it all tables",
    )
    setting: str | None = Field(
        default=None, description="one of the device's settings, such as tflite-fp32-1t; without it all"
    )
    entries: bool = Field(default=False, description="list every entry")


class CheckOptions(Options):
    """The options of `hwnas tables check`."""

    tables: list[str] | None = Field(
        default=None,
        kw_only=False,
        description="tables: files, DEVICE or DEVICE/SETTING; without them all tables",
    )


class DiffOptions(Options):
    """The options of `hwnas tables diff`."""

    a: AnyPath = Field(kw_only=False, description="a table: its file, or DEVICE/SETTING")
    b: AnyPath = Field(kw_only=False, description="another one")


class MergeOptions(DiffOptions):
    """The options of `hwnas tables merge`."""

    out: FilePath = Field(description="file to write, .json; it may be one of the two")


@takes(ShowOptions)
def tables_show(options: ShowOptions) -> list[ShownTable]:
    """Show what latency tables hold: conditions, entries by kind, how stable they are, how well they predict.

    Raises UnknownNameError for a table that there is not, and TableError for a broken file that was named.
    """
    from hwnas.latency import LatencyTable, find_tables, table_paths

    if options.table is not None:
        paths = table_paths(str(options.table), options.setting)
        return [_shown(LatencyTable.read(path), options.entries) for path in paths]
    shown = []
    for path in find_tables():
        try:
            shown.append(_shown(LatencyTable.read(path), options.entries))
        except TableError as error:
            shown.append(ShownTable(str(path), path.parent.name, path.stem, problem=str(error)))
    return shown


@takes(CheckOptions)
def tables_check(options: CheckOptions) -> list[CheckedTable]:
    """Read and validate latency tables; say whether those of this machine fit it as it is now.

    The command's exit status is 1 where a table is broken. Raises UnknownNameError for a table that there is not.
    """
    from hwnas.latency import find_tables, table_paths

    paths = [path for what in options.tables for path in table_paths(what)] if options.tables else find_tables()
    return [_checked(path) for path in dict.fromkeys(paths)]


@takes(MergeOptions)
def tables_merge(options: MergeOptions) -> MergedTable:
    """Merge two latency tables of one device, setting, CPU and runtime; entries in both get the rounds of both.

    Rounds that both have count once; the conditions are those of the first. Raises TableError, naming the fields,
    where the two are not comparable, and InputError for a file `out` that exists and is neither of them.
    """
    from hwnas.latency import LatencyTable, one_table_path

    first, second = one_table_path(str(options.a)), one_table_path(str(options.b))
    target = Path(options.out)
    _check_out(target, first, second)
    merged = LatencyTable.read(first)
    entries, networks = len(merged.entries), len(merged.networks)
    other = LatencyTable.read(second)
    check_comparable(merged, other)
    merge_into(merged, other)
    merged.path = target
    merged.save()
    return MergedTable(
        table=str(target),
        entries=len(merged.entries),
        common_entries=entries + len(other.entries) - len(merged.entries),
        networks=len(merged.networks),
        common_networks=networks + len(other.networks) - len(merged.networks),
        unstable=sum(entry.unstable for entry in merged.entries.values()),
    )


@takes(DiffOptions)
def tables_diff(options: DiffOptions) -> ComparedTables:
    """Compare two latency tables: entries of only one, and the ratios b / a of those in both.

    Raises UnknownNameError for a table that there is not, and TableError for a broken one.
    """
    from hwnas.latency import LatencyTable, one_table_path

    first, second = LatencyTable.read(one_table_path(str(options.a))), LatencyTable.read(one_table_path(str(options.b)))
    common = [_entry_difference(key, first, second) for key in sorted(first.entries.keys() & second.entries.keys())]
    quartiles = _quartiles([entry.ratio for entry in common])
    return ComparedTables(
        a=str(first.path),
        b=str(second.path),
        differences=differences_of(first, second),
        only_a=sorted(first.entries.keys() - second.entries.keys()),
        only_b=sorted(second.entries.keys() - first.entries.keys()),
        common=len(common),
        ratio_lower_quartile=quartiles[0],
        ratio_median=quartiles[1],
        ratio_upper_quartile=quartiles[2],
        beyond_10_percent=sum(_distance(entry) > math.log(_NOTABLE) for entry in common),
        a_median_spread=_median([entry.a_spread for entry in common]),
        b_median_spread=_median([entry.b_spread for entry in common]),
        largest=sorted(common, key=_distance, reverse=True)[:_LARGEST],
    )


def kind_of(key: str) -> str:
    """Return the kind of operator that an entry's key names: `depthwise` for `conv 3x3 g8 8x4x4 > 8x4x4`."""
    kind, *details = key.split() or ["unnamed"]
    if kind != "conv":
        return kind
    groups = next((detail[1:] for detail in details if detail[0] == "g" and detail[1:].isdigit()), "1")
    channels = details[details.index(">") + 1].partition("x")[0] if ">" in details[:-1] else ""
    if groups == "1":
        return kind
    return "depthwise" if groups == channels else "grouped conv"


def _shown(table: "LatencyTable", with_rows: bool) -> ShownTable:
    from hwnas.latency import again, judge

    error, validation, problem = _predictions(table)
    unstable = sorted(key for key, entry in table.entries.items() if entry.unstable)
    return ShownTable(
        path=str(table.path),
        device=table.device,
        setting=_setting_name(table),
        problem=problem,
        conditions=table.conditions.to_json(),
        entries=dict(Counter(map(kind_of, table.entries)).most_common()),
        networks=len(table.networks),
        held_out=sum(network.held_out for network in table.networks),
        median_spread=_median([entry.spread for entry in table.entries.values()]),
        unstable=unstable,
        prediction_error=error,
        validation=validation,
        drawn=_drawn(table),
        steadiness=judge(table) if table.entries else None,
        typical=_typical([network.other for network in table.networks]),
        rewrites=table.rewrites,
        again=again(table) if unstable else "",
        rows=[_row(key, table) for key in sorted(table.entries)] if with_rows else None,
        network_rows=[_network_row(at, table) for at in range(len(table.networks))] if with_rows else None,
    )


def _row(key: str, table: "LatencyTable") -> Entry:
    entry = table.entries[key]
    return Entry(key, table.ms(key), entry.spread, len(entry.rounds_ms), entry.unstable)


def _network_row(number: int, table: "LatencyTable") -> NetworkEntry:
    network = table.networks[number]
    measured = network.measurement
    return NetworkEntry(
        name=f"{number}: {network.architecture.size}",
        ms=table.stated_ms(measured),
        spread=measured.spread,
        held_out=network.held_out,
        unstable=measured.unstable,
        other=network.other,
    )


def _typical(costs: "list[OtherCosts]") -> "OtherCosts | None":
    """Return the median of each cost over the networks of which it is known; None without any."""
    from hwnas.latency import OtherCosts

    columns = {name: [getattr(one, name) for one in costs] for name in OtherCosts.__dataclass_fields__}
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    if not any(known.values()):
        return None
    return OtherCosts(**{name: statistics.median_low(values) for name, values in known.items() if values})


def _drawn(table: "LatencyTable") -> list[str]:
    """Return in words from what the held-out networks were drawn, as far as the table tells."""
    drawn = []
    for one in table.sessions:
        names = {"cells": "N", "filters": "F", "resolution": "resolution"}
        scales = ", ".join(f"{words} {_listed(one.scales.get(name, []))}" for name, words in names.items())
        drawn += [f"at random from {one.space} ({scales}), seed {one.held_out_seed}"] * bool(one.held_out)
    return list(dict.fromkeys(drawn))


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


def _predictions(table: "LatencyTable") -> "tuple[float | None, Validation | None, str]":
    """Return the prediction's error and its report on held-out networks, or why there is none."""
    from hwnas.latency import CostModel, validate

    if not table.networks:
        return None, None, ""
    try:
        model = CostModel(table, ())
        return model.correction.error, validate(model), ""
    except HwnasError as error:
        return None, None, f"its networks cannot be predicted: {error}"


def _setting_name(table: "LatencyTable") -> str:
    return table.setting.name


def _checked(path: Path) -> CheckedTable:
    from hwnas.latency import LatencyTable

    try:
        table = LatencyTable.read(path)
        _check_place(table)
        _check_networks(table)
    except HwnasError as error:
        return CheckedTable(str(path), fine=False, problem=str(error))
    fits_now, remark = _fits_now(table)
    return CheckedTable(str(path), fine=True, fits_now=fits_now, remark=remark)


def _check_place(table: "LatencyTable") -> None:
    """Raise TableError where a table lies in the folder of another device or under another setting's name."""
    inside = f"{table.device}/{_setting_name(table)}.json"
    if table.path.absolute().parts[-3] == "latency_tables" and not table.path.absolute().match(inside):
        raise TableError(
            f"{table.path} must be what its path says; it is of device {table.device} in setting "
            f"{_setting_name(table)}. Move it to latency_tables/{inside}"
        )


def _check_networks(table: "LatencyTable") -> None:
    from hwnas.network import UnreadableArchitecture

    for number, network in enumerate(table.networks):
        if isinstance(network.architecture, UnreadableArchitecture):
            raise TableError(
                f"{table.path}: network {number} must be an architecture: {network.architecture.size}. "
                f"Delete its line, then `hwnas profile {table.device}` measures another"
            )


def _fits_now(table: "LatencyTable") -> tuple[bool | None, str]:
    """Return whether the table of a device that is this machine fits it now, and what to say of it."""
    from hwnas.device import load_device
    from hwnas.latency import check_conditions, read_conditions

    try:
        device = load_device(table.device)
        if device.transport != "local":
            return None, f"whether it fits {device.name} as it is now: hwnas devices"
        now = read_conditions(device, table.setting).fingerprint
    except HwnasError as error:
        return None, str(error)
    try:
        check_conditions(table, now)
    except TableError as error:
        return False, str(error)
    return True, "it fits this machine"


def _check_out(out: Path, first: Path, second: Path) -> None:
    if first.resolve() == second.resolve():
        raise InputError(f"two tables must be given to merge; got {first} twice")
    if out.suffix != ".json":
        raise InputError(f"--out must be a table's file, which ends in .json; got {out}")
    if out.exists() and out.resolve() not in (first.resolve(), second.resolve()):
        raise InputError(f"--out must be a new file or one of the two tables; {out} exists. Name another one")


def _entry_difference(key: str, a: "LatencyTable", b: "LatencyTable") -> EntryDifference:
    a_ms, b_ms = a.ms(key), b.ms(key)
    return EntryDifference(key, a_ms, b_ms, b_ms / a_ms, a.entries[key].spread, b.entries[key].spread)


def _distance(entry: EntryDifference) -> float:
    """Return how far a ratio is from 1, alike in both directions."""
    return abs(math.log(entry.ratio))


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _quartiles(values: list[float]) -> Sequence[float | None]:
    if len(values) < 2:
        return [_median(values)] * 3
    return statistics.quantiles(values, n=4, method="inclusive")
