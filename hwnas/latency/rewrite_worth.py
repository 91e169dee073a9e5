"""Which of a format's rewrites are worth it on a device: files with and without each, timed in turns."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas import formats
from hwnas.formats import rewritten_layers, without_rewrite
from hwnas.support import temporary_folder

if TYPE_CHECKING:
    from hwnas.device import Device, Setting
    from hwnas.network import Graph

_NETWORKS = 4  # that a choice is made by
_ROUNDS = 6
_WITH = "with"


@dataclass(frozen=True, slots=True)
class Worth:
    """What a model takes with a rewrite and without it, in ms, and the median over the rounds of their ratio."""

    with_ms: float
    without_ms: float
    ratio: float


def measure_rewrites(device: "Device", setting: "Setting", graphs: "Sequence[Graph]") -> dict[str, float]:
    """Return for each rewrite that applies what networks take with it, as a multiple of what they take without it.

    It is the median of a few of the networks. Raises DeviceError.
    """
    from hwnas.latency.measure import write_models

    ratios: dict[str, list[float]] = {}
    with temporary_folder() as temporary:
        for number, graph in enumerate(graphs):
            names = [name for name in rewritten_layers(graph, setting) if len(ratios.get(name, ())) < _NETWORKS]
            if not names:
                continue
            files: dict[str, Path] = {}
            variants = {_WITH: setting, **{name: without_rewrite(setting, name) for name in names}}
            for name, variant in variants.items():
                folder = temporary / f"{number}-{name}"
                folder.mkdir()
                lowered = formats.get(variant.runtime).lower(graph, without=variant.without)
                files |= write_models({name: lowered}, variant, folder)
            for name, worth in compare_rewrites(device, setting, files.pop(_WITH), files).items():
                ratios.setdefault(name, []).append(worth.ratio)
    return {name: statistics.median(of_networks) for name, of_networks in ratios.items()}


def compare_rewrites(device: "Device", setting: "Setting", file: Path, others: Mapping[str, Path]) -> dict[str, Worth]:
    """Time a file, and what it is without each rewrite, by name, on a device.

    Raises DeviceError.
    """
    from hwnas.latency.measure import time_models

    files = {_WITH: file, **others}
    timings = time_models(device, setting, files, rounds=_ROUNDS, group=len(files), attempts=1)
    timed = {model.name: model.measurement for model in timings}
    rewritten = timed[_WITH]
    return {
        name: Worth(
            rewritten.ms,
            timed[name].ms,
            statistics.median(
                ms / other for ms, other in zip(rewritten.round_medians_ms, timed[name].round_medians_ms, strict=True)
            ),
        )
        for name in others
    }
