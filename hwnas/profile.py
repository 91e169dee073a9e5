"""`hwnas profile`: measures on the device every operator that a space can need, and some whole networks.

Each operator is written as a tiny model by the exporter's own code and timed in the real runtime; whole networks then
correct the sums. The table is saved every few entries, and a second call measures only what is missing.
"""

import dataclasses
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas import plugins, spaces
from hwnas.options import (
    DEFAULT_CELLS,
    DEFAULT_FILTERS,
    Cells,
    Filters,
    Resolutions,
    Seed,
    SettingName,
    SkeletonName,
    SpaceName,
    Threads,
)
from hwnas.progress import Bar, bar, say

if TYPE_CHECKING:
    from hwnas.device import Device, Setting
    from hwnas.graph import Graph
    from hwnas.latency import LatencyTable, Measurement
    from hwnas.measure import Conditions
    from hwnas.networks import Architecture, Scale
    from hwnas.validation import Validation

_BUSY = 0.1  # share of the cores
_SAVE_EVERY = 64  # entries
_ROUNDS_A_PASS = 2
_ROUNDS = 6  # that an entry needs
_MOST_ROUNDS = 12  # that an entry gets whose rounds disagree by more than this share
_MAX_SPREAD = 0.1
_HELD_OUT = "held-out network"
_OTHER_SEED = 1_000_003  # far from the seeds that people choose
_CHUNK = 256  # tiny models that lie on the disk at once


@dataclass(frozen=True, slots=True)
class Profiled:
    """What `profile` did to one table; `error` is the prediction's, as a share, on networks it was not fitted to.

    `drift` is how much slower than in the device's faster minutes the canary was in the slowest tenth of the rounds.
    """

    device: str
    setting: str
    table: str
    entries: int
    measured_now: int
    unstable: int
    networks: int
    median_spread: float
    canary_ms: float
    drift: float
    error: float
    validation: "Validation | None"
    seconds: float


def profile(
    device: Annotated[str, typer.Argument(help="device: a file devices/NAME.toml, or its path")] = "host",
    *,
    setting: SettingName = None,
    threads: Threads = None,
    space: SpaceName = "pnas",
    cells: Cells = DEFAULT_CELLS,
    filters: Filters = DEFAULT_FILTERS,
    resolution: Resolutions = (28,),
    skeleton: SkeletonName = None,
    channels: Annotated[int, typer.Option(help="channels of the images")] = 1,
    classes: Annotated[int, typer.Option(help="classes")] = 10,
    networks: Annotated[int, typer.Option(help="whole networks to time, which correct the sums of operators")] = 32,
    validate: Annotated[
        int, typer.Option(help="further networks to time, to which nothing is fitted: how well the table predicts")
    ] = 0,
    seed: Seed = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="measure anew what the table has; the old one is kept")
    ] = False,
) -> list[Profiled]:
    """Measure a device: fill its latency table for a space.

    Without `setting` every setting of the device is measured. Raises UnknownNameError, TableError where the existing
    table was measured under other conditions, and DeviceError.
    """
    from hwnas.device import load_device
    from hwnas.networks import ladder

    machine = load_device(device)
    names = [setting] if setting is not None else [known.name for known in machine.settings]
    plugins.load("spaces", space)
    scales = ladder(cells, filters, resolution or (28,), classes=classes, channels=channels, skeleton=skeleton)
    wanted = (networks, validate)
    return [
        _profile_setting(machine, machine.setting(name, threads=threads), space, scales, wanted, seed, fresh)
        for name in names
    ]


def _profile_setting(
    device: "Device",
    setting: "Setting",
    space: str,
    scales: "Sequence[Scale]",
    networks: tuple[int, int],
    seed: int,
    fresh: bool,
) -> Profiled:
    from hwnas.costs import CostModel
    from hwnas.validation import validate

    started = time.monotonic()
    table = _table_to_fill(device, setting, fresh)
    before = len(table.entries)
    say(f"profiling {device.name} in setting {setting.name}, into {table.path}")
    graphs, architectures = _wanted(table, space, scales, networks, seed)
    _measure(device, setting, table, graphs, architectures, seed)
    model = CostModel(table, scales)
    spreads = sorted(entry.spread for entry in table.entries.values())
    return Profiled(
        device=device.name,
        setting=setting.name,
        table=str(table.path),
        entries=len(table.entries),
        measured_now=len(table.entries) - before,
        unstable=sum(entry.unstable for entry in table.entries.values()),
        networks=len(table.networks),
        median_spread=spreads[len(spreads) // 2],
        canary_ms=table.canary_ms,
        drift=table.drift,
        error=model.correction.error,
        validation=validate(model),
        seconds=time.monotonic() - started,
    )


def _table_to_fill(device: "Device", setting: "Setting", fresh: bool) -> "LatencyTable":
    """Return the user's own table if it fits the device as it is now, or a new one."""
    from hwnas import tables
    from hwnas.latency import LatencyTable
    from hwnas.measure import read_conditions

    path = tables.own_path(device, setting)
    conditions = read_conditions(device, setting)
    if path.exists() and fresh:
        path.replace(path.with_suffix(f".{time.strftime('%Y%m%dT%H%M%S')}.old"))
    if path.exists():
        table = LatencyTable.read(path)
        tables.check_conditions(table, conditions.fingerprint)
        return table
    return LatencyTable(path, device.name, setting.model_dump(), dataclasses.asdict(conditions))


def _wanted(
    table: "LatencyTable", space: str, scales: "Sequence[Scale]", networks: tuple[int, int], seed: int
) -> "tuple[dict[str, Graph], dict[str, Architecture]]":
    """Return what is to be measured, by name: lowered graphs, and the architectures of those that are whole networks.

    An operator's name is its key in the table, its graph that layer alone; those of networks that are to be held out
    begin with `_HELD_OUT`. `networks` are how many to fit to, and how many to hold out.
    """
    from hwnas import formats
    from hwnas.graph import executed, one_layer

    runtime = formats.get(table.setting["runtime"])
    graphs: dict[str, Graph] = {}
    with bar("listing the operators", len(scales)) as listing:
        for scale in scales:
            for architecture in plugins.load("spaces", space).cover(scale):
                for name, layer, shapes in executed(runtime.lower(architecture.graph)):
                    if name not in graphs:
                        graphs[name] = one_layer(layer, shapes)
            listing.advance()
    fitted = random_networks(space, scales, networks[0], seed=seed)
    others = random_networks(space, scales, networks[1], seed=seed + _OTHER_SEED)
    architectures = {f"network {index}": architecture for index, architecture in enumerate(fitted)}
    architectures |= {f"{_HELD_OUT} {i}": other for i, other in enumerate(others) if other not in fitted}
    graphs |= {name: runtime.lower(architecture.graph) for name, architecture in architectures.items()}
    return graphs, architectures


def _measure(
    device: "Device",
    setting: "Setting",
    table: "LatencyTable",
    graphs: "Mapping[str, Graph]",
    architectures: "Mapping[str, Architecture]",
    seed: int,
) -> None:
    """Time what lacks rounds, in passes over all of it, so that each entry's rounds are spread over the whole time."""
    busiest, done = 0.0, 0

    def note(conditions: "Conditions") -> None:
        nonlocal busiest
        busiest = max(busiest, conditions.others_busy or 0.0)

    with bar("measuring", 1) as measuring:
        for number in range(_MOST_ROUNDS // _ROUNDS_A_PASS):
            left = {name: _turns_left(_found(table, name, architectures)) for name in graphs}
            due = [name for name, turns in left.items() if turns]
            random.Random(seed + number).shuffle(due)
            measuring.describe(f"{len(due)} operators and networks, pass {number + 1}")
            measuring.at(done, total=done + sum(left.values()))
            for chunk in _chunks(due):
                chosen = {name: graphs[name] for name in chunk}
                _measure_chunk(device, setting, table, chosen, architectures, measuring, note)
            done += len(due)
    if busiest > _BUSY:
        say(
            f"other programs took up to {busiest:.0%} of this device's cores meanwhile: figures may be too high. "
            f"Stop them, and type `hwnas profile {device.name} --fresh`"
        )


def _measure_chunk(
    device: "Device",
    setting: "Setting",
    table: "LatencyTable",
    graphs: "Mapping[str, Graph]",
    architectures: "Mapping[str, Architecture]",
    measuring: Bar,
    note: Callable[["Conditions"], None],
) -> None:
    """Time one chunk, adding to the table's entries and saving it every few of them."""
    from hwnas.measure import time_models, write_models

    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder, _saved(table):
        files = write_models(graphs, setting.runtime, Path(folder))
        timings = time_models(device, setting, files, rounds=_ROUNDS_A_PASS, attempts=1, on_conditions=note)
        for count, timed in enumerate(timings, start=1):
            _add(table, timed.name, timed.measurement, architectures)
            measuring.advance()
            if count % _SAVE_EVERY == 0:
                table.save()


def _found(table: "LatencyTable", name: str, architectures: "Mapping[str, Architecture]") -> "Measurement | None":
    """Return what the table has of an operator or a whole network."""
    if name not in architectures:
        return table.entries.get(name)
    return table.network(architectures[name].to_json())


def _add(
    table: "LatencyTable", name: str, measurement: "Measurement", architectures: "Mapping[str, Architecture]"
) -> None:
    """Add rounds to an entry; one that stays spread after all its rounds is marked unstable."""
    merged = measurement.after(_found(table, name, architectures))
    merged = dataclasses.replace(merged, unstable=merged.spread > _MAX_SPREAD and _turns_left(merged) == 0)
    if name in architectures:
        table.set_network(architectures[name].to_json(), merged, held_out=name.startswith(_HELD_OUT))
    else:
        table.entries[name] = merged


def _turns_left(measurement: "Measurement | None") -> int:
    """Return how many more passes an entry needs: until it has its rounds, and more of them where they disagree."""
    if measurement is None:
        return _ROUNDS // _ROUNDS_A_PASS
    rounds = len(measurement.rounds_ms)
    wanted = _MOST_ROUNDS if rounds >= _ROUNDS and measurement.spread > _MAX_SPREAD else _ROUNDS
    return max(0, wanted - rounds) // _ROUNDS_A_PASS


def random_networks(space: str, scales: "Sequence[Scale]", count: int, *, seed: int) -> "list[Architecture]":
    """Return random networks of a space, each at a random scale."""
    chooser = random.Random(seed)
    plugin = plugins.load("spaces", space)
    chosen = spaces.random_parameters(plugin, count, seed=seed)
    return [plugin.architecture(parameters, chooser.choice(scales)) for parameters in chosen]


def _chunks(names: Sequence[str]) -> Iterator[list[str]]:
    left = iter(names)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


@contextmanager
def _saved(table: "LatencyTable") -> Iterator[None]:
    """Save the table when the block ends, however it ends."""
    try:
        yield
    finally:
        table.save()
