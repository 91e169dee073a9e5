"""Fills a latency table from whole networks, of a device whose figures are a tool's estimates: they tell each layer's.

An operator in a file of its own says little of such a device: what it reads and writes then lies in slow memory. So
its entry is what it takes in networks of the space, a round for each; few networks have all operators. Nothing is
asked twice, as estimates are the same each time.
"""

import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from hwnas import formats
from hwnas.errors import DeviceError
from hwnas.formats import output_name
from hwnas.latency.measure import time_models, write_models
from hwnas.latency.measurement import Measurement
from hwnas.latency.placement import Placement
from hwnas.network import executed
from hwnas.support import bar, say, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hwnas.device import Device
    from hwnas.latency.conditions import Conditions
    from hwnas.latency.lines import Timed
    from hwnas.latency.table import LatencyTable
    from hwnas.network import Architecture, Graph

_LEAST_MS = 1e-6  # of an operator that the tool makes nothing of, such as a concatenation
_CHUNK = 32  # networks that one process estimates, between which the table is saved


def fill(
    device: "Device",
    table: "LatencyTable",
    cover: "Iterable[Architecture]",
    wanted: "Mapping[str, Architecture]",
    *,
    held_out: str,
    on_conditions: "Callable[[Conditions], None]",
    seed: int,
) -> None:
    """Estimate the wanted networks and as many of `cover` as have all operators that the table lacks.

    Networks are wanted by name; of those whose name begins with `held_out` no entry is taken. Raises DeviceError.
    """
    lower = formats.get(table.setting.runtime).lower
    due = lacking(table, cover, wanted, seed=seed)
    graphs = {name: lower(network.graph, without=table.setting.without) for name, network in due.items()}
    started, names = time.monotonic(), iter(graphs)
    with bar("estimating whole networks", len(graphs)) as estimating, temporary_folder() as folder:
        while chunk := list(islice(names, _CHUNK)):
            models = write_models({name: graphs[name] for name in chunk}, table.setting, folder)
            for timed in time_models(device, table.setting, models, on_conditions=on_conditions):
                if timed.name in wanted:
                    table.set_network(
                        wanted[timed.name],
                        timed.measurement,
                        held_out=timed.name.startswith(held_out),
                        other=timed.other,
                    )
                if not timed.name.startswith(held_out):
                    _add_entries(table, graphs[timed.name], timed)
                estimating.advance()
            table.save()
            if chunk[0] == next(iter(graphs)) and len(graphs) > len(chunk):
                seconds = (time.monotonic() - started) * (len(graphs) / len(chunk) - 1)
                say(f"at this pace that takes {seconds:.0f} s more")
    table.save()


def lacking(
    table: "LatencyTable", cover: "Iterable[Architecture]", wanted: "Mapping[str, Architecture]", *, seed: int
) -> "dict[str, Architecture]":
    """Return the wanted networks that the table lacks, and of `cover`, by its JSON, some that have all it lacks."""
    known = {network.architecture for network in table.networks}
    due = {name: network for name, network in wanted.items() if network not in known}
    lower, covered = formats.get(table.setting.runtime).lower, set(table.entries)
    others = list(cover)
    random.Random(seed).shuffle(others)  # neighbours differ little: the first would have few operators each
    for number, network in enumerate(others):
        keys = {key for key, _, _ in executed(lower(network.graph, without=table.setting.without))}
        if keys - covered:
            due[f"cover {number}"] = network
            covered |= keys
    return due


def _add_entries(table: "LatencyTable", graph: "Graph", timed: "Timed") -> None:
    """Add what a network's layers take to the table's entries: a round of each operator that it has."""
    found: dict[str, list[float]] = defaultdict(list)
    ms = _by_layer(graph, timed)
    for key, layer, _ in executed(graph):
        found[key].append(max(ms[layer.name], _LEAST_MS))
    placement = timed.measurement.placement
    rest = placement and placement.model_dump(exclude={"operators", "of"}, exclude_unset=True)
    where = Placement.model_validate(rest) if rest else None
    for key, samples in found.items():
        estimate = Measurement((tuple(samples),), placement=where)
        table.entries[key] = estimate.after(table.entries.get(key))


def _by_layer(graph: "Graph", timed: "Timed") -> dict[str, float]:
    """Return what each layer takes: a layer's tensors have its name, those within it with something behind that.

    Raises DeviceError for a tensor that is no layer's.
    """
    names = {layer.name: layer.name for layer in graph.layers} | {output_name(graph): graph.layers[-1].name}
    ms = dict.fromkeys((layer.name for layer in graph.layers), 0.0)
    for tensor, layer_ms in timed.layers_ms.items():
        owner = next((name for name in _beginnings(tensor) if name in names), None)
        if owner is None:
            raise DeviceError(f"every operator must be of a layer; {tensor} of {timed.name} is of none")
        ms[names[owner]] += layer_ms
    return ms


def _beginnings(tensor: str) -> Iterator[str]:
    """Yield a tensor's name and what it begins with, the longest first."""
    for end in range(len(tensor), 0, -1):
        if end == len(tensor) or tensor[end] in "._/":
            yield tensor[:end]
