"""What a latency table holds, for `hwnas tables show`: entries by kind, how stable they are, how well they predict."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.errors import HwnasError
from hwnas.latency.conditions import Conditions
from hwnas.latency.costs import CostModel
from hwnas.latency.measurement import OtherCosts
from hwnas.latency.placement import Placement
from hwnas.latency.steadiness import Steadiness, again, judge
from hwnas.latency.table import LatencyTable
from hwnas.latency.validation import Validation, validate


@dataclass(frozen=True, slots=True)
class Entry:
    """One operator of a table; `spread` is the share by which its rounds disagree."""

    key: str
    ms: float
    spread: float
    rounds: int
    unstable: bool
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """One whole network of a table, by its place in the file."""

    name: str
    ms: float
    spread: float
    held_out: bool
    unstable: bool
    other: OtherCosts
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class ShownTable:
    """What a table is. `entries` are counted by kind; `problem` says why the file, or its prediction, cannot be used.

    `prediction_error` is the share within which nine of ten networks are predicted that were left out of the fit;
    `validation` says how well those are that are held out, and what noise allows; `drawn` how they were chosen.
    `typical` are the medians of the whole networks' other costs; `again` measures unstable entries again. `rewrites`
    say what networks take with each, as a multiple of without; those above 1 are left out. `ran` says where, in words,
    as far as the table tells.
    """

    path: str
    device: str
    setting: str
    problem: str = ""
    conditions: Conditions | None = None
    entries: dict[str, int] | None = None
    networks: int = 0
    held_out: int = 0
    median_spread: float | None = None
    unstable: list[str] | None = None
    prediction_error: float | None = None
    validation: Validation | None = None
    drawn: list[str] | None = None
    steadiness: Steadiness | None = None
    typical: OtherCosts | None = None
    rewrites: dict[str, float] | None = None
    ran: list[str] | None = None
    again: str = ""
    rows: list[Entry] | None = None
    network_rows: list[NetworkEntry] | None = None


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


def shown(table: LatencyTable, *, with_rows: bool) -> ShownTable:
    """Return what a table holds; with every entry and network where rows are wanted."""
    error, validation, problem = _predictions(table)
    unstable = sorted(key for key, entry in table.entries.items() if entry.unstable)
    return ShownTable(
        path=str(table.path),
        device=table.device,
        setting=table.setting.name,
        problem=problem,
        conditions=table.conditions,
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
        ran=_ran(table),
        again=str(again(table)) if unstable else "",
        rows=[_row(key, table) for key in sorted(table.entries)] if with_rows else None,
        network_rows=[_network_row(at, table) for at in range(len(table.networks))] if with_rows else None,
    )


def _row(key: str, table: LatencyTable) -> Entry:
    entry = table.entries[key]
    return Entry(key, table.ms(key), entry.spread, len(entry.rounds_ms), entry.unstable, entry.placement)


def _network_row(number: int, table: LatencyTable) -> NetworkEntry:
    network = table.networks[number]
    measured = network.measurement
    return NetworkEntry(
        name=f"{number}: {network.architecture.size}",
        ms=table.stated_ms(measured),
        spread=measured.spread,
        held_out=network.held_out,
        unstable=measured.unstable,
        other=network.other,
        placement=measured.placement,
    )


def _ran(table: LatencyTable) -> list[str]:
    """Return in words where models ran, and how many of them whole; nothing where the table tells of none."""
    counted: dict[str, dict[str, list[bool]]] = {}
    measured = {"entries": [*table.entries.values()], "networks": [network.measurement for network in table.networks]}
    for kind, measurements in measured.items():
        for placement in filter(None, (measurement.placement for measurement in measurements)):
            counted.setdefault(placement.where, {}).setdefault(kind, []).append(placement.whole)
    lines = []
    for where, kinds in counted.items():
        shares = [f"{sum(whole)} of {len(whole)} {kind}" for kind, whole in kinds.items()]
        lines.append(f"whole {where}: {' and '.join(shares)}")
    untold = sum(m.placement is None for measurements in measured.values() for m in measurements)
    return lines + [f"of {untold} it is not told where they ran"] * bool(lines and untold)


def _typical(costs: list[OtherCosts]) -> OtherCosts | None:
    """Return the median of each cost over the networks of which it is known; None without any."""
    columns = {name: [getattr(cost, name) for cost in costs] for name in OtherCosts.__dataclass_fields__}
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    if not any(known.values()):
        return None
    return OtherCosts(**{name: statistics.median_low(values) for name, values in known.items() if values})


def _drawn(table: LatencyTable) -> list[str]:
    """Return in words from what the held-out networks were drawn, as far as the table tells."""
    drawn = []
    for session in table.sessions:
        names = {"cells": "N", "filters": "F", "resolution": "resolution"}
        scales = ", ".join(f"{words} {_listed(session.scales.get(name, []))}" for name, words in names.items())
        drawn += [f"at random from {session.space} ({scales}), seed {session.held_out_seed}"] * bool(session.held_out)
    return list(dict.fromkeys(drawn))


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


def _predictions(table: LatencyTable) -> tuple[float | None, Validation | None, str]:
    """Return the prediction's error and its report on held-out networks, or why there is none."""
    if not table.networks:
        return None, None, ""
    try:
        model = CostModel(table, ())
        return model.correction.error, validate(model), ""
    except HwnasError as error:
        return None, None, f"its networks cannot be predicted: {error}"


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
