"""`hwnas profile`: measures on the device every operator that a space can need, and some whole networks.

Each operator is written as a tiny model by the exporter's own code and timed in the real runtime; whole networks then
correct the sums. The table is saved every few entries, and a second call measures only what is missing.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from hwnas.latency import Profiled, Task, profile_setting
from hwnas.runs import DeviceOptions, Sides, SpaceOptions
from hwnas.support import MAX_SEED, AnyPath, checked, commands
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable
    from hwnas.runs import SearchSettings

_IMAGES = ("resolution", "channels", "classes")


class ProfileOptions(DeviceOptions, SpaceOptions):
    """The options of `hwnas profile`."""

    device: AnyPath = Field(default="host", kw_only=False, description="device: a file devices/NAME.toml, or its path")
    setting: str | None = Field(
        default=None, description="one of the device's settings, such as tflite-fp32-1t; without it all"
    )
    resolution: Sides = Field(default=(28,), description="choices of the side of the images in pixels")
    channels: int = Field(default=1, gt=0, description="channels of the images")
    classes: int = Field(default=10, gt=0, description="classes")
    networks: int = Field(default=32, ge=0, description="whole networks to time, which correct the sums of operators")
    held_out: int = Field(
        default=0,
        alias="validate",
        ge=0,
        description="further networks to time, to which nothing is fitted: how well the table predicts",
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="seed of every random choice")
    fresh: bool = Field(default=False, description="measure anew what the table has; the old one is kept")
    unstable: bool = Field(default=False, description="measure again what the table has and whose rounds disagree")
    max_wait: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="wait for a device that has slowed down, for this share of the time at most",
    )


@takes(ProfileOptions)
def profile(options: ProfileOptions) -> list[Profiled]:
    """Measure a device: fill its latency table for a space.

    Without `setting` every setting of the device is measured. Raises UnknownNameError, TableError where the existing
    table was measured under other conditions, and DeviceError.
    """
    from hwnas.device import asked_device
    from hwnas.device.transports import check_times

    machine = asked_device(options.device)
    check_times(machine)
    names = [options.setting] if options.setting else [setting.name for setting in machine.settings]
    settings = [machine.setting(name, threads=options.threads) for name in names]
    task = task_of(options)
    profiled = [profile_setting(machine, setting, task, options.fresh, options.unstable) for setting in settings]
    return [replace(table, next=str(_search(options, table.setting))) for table in profiled]


def task_of(options: ProfileOptions) -> Task:
    """Return what is to be measured of every setting."""
    from hwnas.network import ladder

    scales = ladder(
        *options.sizes,
        options.resolution,
        classes=options.classes,
        channels=options.channels,
        skeleton=options.skeleton,
    )
    return Task(options.space, scales, options.networks, options.held_out, options.seed, options.max_wait)


def options_of_search(settings: "SearchSettings", table: "LatencyTable | None") -> ProfileOptions:
    """Return what measures all that a search needs; a profile of it that the table says was stopped goes on."""
    names = ("device", "setting", *SpaceOptions.model_fields, *_IMAGES)
    values = {name: getattr(settings, name) for name in names}
    if table and (stopped := table.unfinished(settings.space, settings.scales)):
        values |= {"networks": stopped.networks, "validate": stopped.held_out, "seed": stopped.seed}
    return checked(ProfileOptions, values)


def _search(options: ProfileOptions, setting: str) -> commands.Command:
    """Return the command that searches what was measured in a setting; DATA are other images than its own default's."""

    def given(names: Iterable[str]) -> dict[str, object]:
        fields = ProfileOptions.model_fields
        return {name: getattr(options, name) for name in names if getattr(options, name) != fields[name].default}

    others = {"resolution": options.resolution, "data": "DATA"} if given(_IMAGES) else {}
    return commands.search(options={**given(["device", *SpaceOptions.model_fields]), "setting": setting, **others})
