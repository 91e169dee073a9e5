"""`hwnas profile`: measures on the device every operator that a space can need, and some whole networks.

Each operator is written as a tiny model by the exporter's own code and timed in the real runtime; whole networks then
correct the sums. The table is saved every few entries, and a second call measures only what is missing.
"""

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas import plugins
from hwnas.options import (
    DEFAULT_CELLS,
    DEFAULT_FILTERS,
    Cells,
    Filters,
    Seed,
    SettingName,
    SpaceName,
    Threads,
)
from hwnas.progress import bar, say

if TYPE_CHECKING:
    from hwnas.device import Device, Setting
    from hwnas.graph import Graph
    from hwnas.latency import LatencyTable
    from hwnas.measure import Conditions
    from hwnas.network import Architecture, Scale

_BUSY = 0.1  # share of the cores
_SAVE_EVERY = 16  # entries
_CHUNK = 256  # tiny models that lie on the disk at once


@dataclass(frozen=True, slots=True)
class Profiled:
    """What `profile` did to one table; `error` is the prediction's, as a share, on networks it was not fitted to."""

    device: str
    setting: str
    table: str
    entries: int
    measured_now: int
    unstable: int
    networks: int
    median_spread: float
    error: float
    seconds: float


def profile(
    device: Annotated[str, typer.Argument(help="device: a file devices/NAME.toml, or its path")] = "host",
    *,
    setting: SettingName = None,
    threads: Threads = None,
    space: SpaceName = "pnas",
    cells: Cells = DEFAULT_CELLS,
    filters: Filters = DEFAULT_FILTERS,
    resolution: Annotated[int, typer.Option(help="side of the images in pixels")] = 28,
    channels: Annotated[int, typer.Option(help="channels of the images")] = 1,
    classes: Annotated[int, typer.Option(help="classes")] = 10,
    networks: Annotated[int, typer.Option(help="whole networks to time, which correct the sums of operators")] = 32,
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
    from hwnas.network import ladder

    machine = load_device(device)
    names = [setting] if setting is not None else [known.name for known in machine.settings]
    plugins.load("spaces", space)
    scales = ladder(cells, filters, resolution=resolution, classes=classes, channels=channels)
    return [
        _profile_setting(machine, machine.setting(name, threads=threads), space, scales, networks, seed, fresh)
        for name in names
    ]


def _profile_setting(
    device: "Device", setting: "Setting", space: str, scales: "Sequence[Scale]", networks: int, seed: int, fresh: bool
) -> Profiled:
    from hwnas.costs import CostModel

    started = time.monotonic()
    table = _table_to_fill(device, setting, fresh)
    before = len(table.entries)
    say(f"profiling {device.name} in setting {setting.name}, into {table.path}")
    _measure_operators(device, setting, table, _missing_operators(table, space, scales), seed)
    _measure_networks(device, setting, table, space, scales, networks, seed)
    model = CostModel(table, scales, operations=plugins.load("spaces", space).OPERATIONS)
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
        error=model.correction.error,
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


def _missing_operators(table: "LatencyTable", space: str, scales: "Sequence[Scale]") -> "dict[str, Graph]":
    """Return the operators that have no entry: by key, the graph of that layer alone."""
    from hwnas import formats
    from hwnas.graph import key, one_layer

    runtime = formats.get(table.setting["runtime"])
    found: dict[str, Graph] = {}
    with bar("listing the operators", len(scales)) as listing:
        for scale in scales:
            for architecture in plugins.load("spaces", space).cover(scale):
                graph = runtime.lower(architecture.graph)
                for layer in graph.layers:
                    if layer.kind != "input":
                        shapes = graph.input_shapes(layer)
                        name = key(layer, shapes)
                        if name not in table.entries and name not in found:
                            found[name] = one_layer(layer, shapes)
            listing.advance()
    return found


def _measure_operators(
    device: "Device", setting: "Setting", table: "LatencyTable", missing: "Mapping[str, Graph]", seed: int
) -> None:
    """Time the missing operators in random order, saving the table every few entries."""
    import random

    from hwnas.measure import time_models, write_models

    names = list(missing)
    random.Random(seed).shuffle(names)
    with bar("measuring operators", len(names)) as measuring:
        for chunk in _chunks(names):
            with tempfile.TemporaryDirectory(prefix="hwnas-") as folder, _saved(table):
                files = write_models({name: missing[name] for name in chunk}, setting.runtime, Path(folder), seed=seed)
                timings = time_models(device, setting, files, seed=seed, on_conditions=_warn_if_busy)
                for count, timed in enumerate(timings, start=1):
                    table.entries[timed.name] = timed.measurement
                    measuring.advance()
                    if count % _SAVE_EVERY == 0:
                        table.save()


def _measure_networks(
    device: "Device",
    setting: "Setting",
    table: "LatencyTable",
    space: str,
    scales: "Sequence[Scale]",
    networks: int,
    seed: int,
) -> None:
    """Time whole random networks of the space, at random scales, those that the table has not yet."""
    from hwnas import formats
    from hwnas.latency import TimedNetwork
    from hwnas.measure import time_models, write_models

    runtime = formats.get(setting.runtime)
    known = [network.architecture for network in table.networks]
    wanted = {
        str(index): architecture
        for index, architecture in enumerate(random_networks(space, scales, networks, seed=seed))
        if architecture.to_json() not in known
    }
    graphs = {name: runtime.lower(architecture.graph) for name, architecture in wanted.items()}
    with (
        bar("measuring whole networks", len(wanted)) as measuring,
        tempfile.TemporaryDirectory(prefix="hwnas-") as folder,
        _saved(table),
    ):
        files = write_models(graphs, setting.runtime, Path(folder), seed=seed)
        for timed in time_models(device, setting, files, group=8, seed=seed, on_conditions=_warn_if_busy):
            table.networks.append(TimedNetwork(wanted[timed.name].to_json(), timed.measurement))
            table.save()
            measuring.advance()


def random_networks(space: str, scales: "Sequence[Scale]", count: int, *, seed: int) -> "list[Architecture]":
    """Return random networks of a space, each at a random scale."""
    import random

    from hwnas.network import Architecture

    chooser = random.Random(seed)
    cells = plugins.load("spaces", space).random_cells(count, seed=seed)
    return [Architecture(cell, chooser.choice(list(scales))) for cell in cells]


def _chunks(names: Sequence[str]) -> Iterator[list[str]]:
    left = iter(names)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


def _warn_if_busy(conditions: "Conditions") -> None:
    if (conditions.others_busy or 0.0) > _BUSY:
        say(
            f"other programs took {conditions.others_busy:.0%} of this device's cores: figures may be too high. "
            f"Stop them, and type `hwnas profile --fresh`"
        )


@contextmanager
def _saved(table: "LatencyTable") -> Iterator[None]:
    """Save the table when the block ends, however it ends."""
    try:
        yield
    finally:
        table.save()
