"""A latency table that nobody measured: each operator's latency is its name's own."""

import zlib
from functools import cache
from pathlib import Path

from hwnas import formats
from hwnas.device import Setting
from hwnas.latency import Conditions, LatencyTable, Measurement
from hwnas.network import executed, ladder
from hwnas.support import plugins

_SETTING = Setting(runtime="tflite")


def pretend_table(
    folder: Path,
    space: str = "pnas",
    *,
    cells: tuple[int, ...] = (1,),
    filters: tuple[int, ...] = (4, 6),
    resolutions: tuple[int, ...] = (8,),
    channels: int = 1,
) -> LatencyTable:
    """Write latency_tables/host/tflite-fp32-1t.json in a folder, in which every operator has some latency.

    The networks have three classes. Where the space grows the scales are those of its cells.
    """
    path = folder / "latency_tables" / "host" / f"{_SETTING.name}.json"
    table = LatencyTable(path, "host", _SETTING, Conditions())
    for name in _operators(space, cells, filters, resolutions, channels):
        table.entries[name] = Measurement(((0.001 + zlib.crc32(name.encode()) % 1000 / 1e5,),))
    table.save()
    return table


@cache
def _operators(
    space: str, cells: tuple[int, ...], filters: tuple[int, ...], resolutions: tuple[int, ...], channels: int
) -> tuple[str, ...]:
    lower, cover = formats.get("tflite").lower, plugins.load("spaces", space).cover
    scales = ladder(cells, filters, resolutions, classes=3, channels=channels)
    graphs = (lower(architecture.graph) for scale in scales for architecture in cover(scale))
    return tuple(dict.fromkeys(name for graph in graphs for name, _, _ in executed(graph)))
