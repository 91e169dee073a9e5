"""`hwnas profile`: measures on the device every operator that a space can need, and some whole networks.

Each operator is written as a tiny model by the exporter's own code and timed in the real runtime; whole networks then
correct the sums. The table is saved every few entries, and a second call measures only what is missing.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.latency import Profiled
from hwnas.support import plugins
from hwnas.verbs._options import (
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

if TYPE_CHECKING:
    pass
from hwnas.latency import Task, profile_setting


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
    unstable: Annotated[
        bool, typer.Option("--unstable", help="measure again what the table has and whose rounds disagree")
    ] = False,
    max_wait: Annotated[
        float,
        typer.Option(min=0, max=1, help="wait for a device that has slowed down, for this share of the time at most"),
    ] = 0.1,
) -> list[Profiled]:
    """Measure a device: fill its latency table for a space.

    Without `setting` every setting of the device is measured. Raises UnknownNameError, TableError where the existing
    table was measured under other conditions, and DeviceError.
    """
    from hwnas.device import load_device
    from hwnas.device.transports import check_times
    from hwnas.network import ladder

    machine = load_device(device)
    check_times(machine)
    names = [setting] if setting is not None else [known.name for known in machine.settings]
    plugins.load("spaces", space)
    scales = ladder(cells, filters, resolution or (28,), classes=classes, channels=channels, skeleton=skeleton)
    task = Task(space, scales, networks, validate, seed, max_wait)
    return [profile_setting(machine, machine.setting(name, threads=threads), task, fresh, unstable) for name in names]
