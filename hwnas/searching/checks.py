"""What a search could fail of later, found before its first trial."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hwnas import spaces
from hwnas.errors import ExportError, InputError
from hwnas.searching import estimators, strategies
from hwnas.searching.estimators import supernet
from hwnas.support import plugins, say

if TYPE_CHECKING:
    from hwnas.device import Device, Setting
    from hwnas.latency import CostModel, LatencyTable
    from hwnas.network import Architecture, Scale
    from hwnas.runs import DeviceCap, SearchSettings


def check_estimator(settings: "SearchSettings") -> None:
    """Raise InputError for options of short trainings where the run's estimator lets no candidate go through one."""
    if not estimators.is_quick(settings.estimator):
        return
    for option, is_given in (("--pruner", settings.pruner != "none"), ("--inherit", settings.inherit)):
        if is_given:
            raise InputError(
                f"{option} is for candidates that each go through a whole short training; with --estimator "
                f"{settings.estimator} none does. Leave {option} out, or take --estimator training"
            )


def check_quantised(settings: "SearchSettings") -> None:
    """Raise InputError where a run is to judge candidates in int8, and its setting or its estimator does not."""
    if not settings.quantised:
        return
    if not settings.is_int8:
        raise InputError(
            f"--quantised is for what ships in int8; got the setting {settings.setting}. Take one of int8, such as "
            "tflite-int8-1t, or leave --quantised out"
        )
    if not estimators.quantises(settings.estimator):
        able = [name for name in plugins.names("estimators") if estimators.quantises(name)]
        raise InputError(
            f"--quantised is for candidates that are each trained, as an int8 file needs weights of its own; with "
            f"--estimator {settings.estimator} none is. Take --estimator {' or '.join(able)}, or leave --quantised "
            "out: finalists of `hwnas train` are ranked by int8 in any case"
        )


def check_strategy(settings: "SearchSettings") -> None:
    """Raise InputError where the run's strategy mixes all networks of a space, and those of its space cannot be."""
    is_mixing = getattr(plugins.load("strategies", settings.strategy), "MIXED", False)
    if not is_mixing or hasattr(plugins.load("spaces", settings.space), "mixed"):
        return
    mixed = [name for name in plugins.names("spaces") if hasattr(plugins.load("spaces", name), "mixed")]
    raise InputError(
        f"--strategy {settings.strategy} trains all networks of a space in one, which the spaces {', '.join(mixed)} "
        f"allow; got --space {settings.space}. Take one of those, or --strategy progressive"
    )


def check_weights(settings: "SearchSettings", folder: Path) -> None:
    """Raise InputError for known weights that the run's shared ones cannot begin with.

    Their file is not needed any more where the run's folder has the shared ones.
    """
    if settings.weights is None:
        return
    space = plugins.load("spaces", settings.space)
    if settings.estimator != "supernet" or not hasattr(space, "smallest"):
        raise InputError(
            "--weights is for --estimator supernet and --space mbconv, whose networks have a MobileNet's blocks; got "
            f"{settings.estimator} and {settings.space}. Take these, or leave --weights out"
        )
    if getattr(plugins.load("strategies", settings.strategy), "SHARES", False):
        raise InputError(
            f"--weights is for weights that are trained before a strategy begins; {settings.strategy} trains its own. "
            "Take --strategy evolution, or leave --weights out"
        )
    if not (folder / supernet.FILE).exists():
        supernet.known_network(settings)


def check_length(settings: "SearchSettings") -> None:
    """Raise InputError for a length of shared weights' training where the run trains none."""
    usual = type(settings).model_fields["supernet"].default
    trains = estimators.prepared_file(settings.estimator) == supernet.FILE or strategies.derives(settings.strategy)
    if settings.supernet == usual or trains:
        return
    raise InputError(
        f"--supernet is how long shared weights train; got {settings.supernet:g}, and with --estimator "
        f"{settings.estimator} and --strategy {settings.strategy} there are none. Leave --supernet out, or take "
        "--estimator supernet"
    )


def check_writes(settings: "SearchSettings", setting: "Setting") -> None:
    """Raise ExportError for an operation of the space that the runtime lacks; say which others' files lack one.

    One scale of each resolution is looked at: cells and filters are no operations.
    """
    from hwnas import formats

    space = plugins.load("spaces", settings.space)
    scales = {scale.resolution: scale for scale in reversed(settings.scales)}
    graphs = [architecture.graph for scale in scales.values() for architecture in space.cover(scale)]
    formats.check_writes(setting.runtime, graphs, precision=setting.precision)
    for runtime in (name for name in plugins.names("formats") if name != setting.runtime):
        try:
            formats.check_writes(runtime, graphs)
        except ExportError as error:
            say(f"hwnas export will refuse files of the runtime {runtime}: {error}")


def costs_of_run(settings: "SearchSettings", device: "Device", setting: "Setting") -> "CostModel":
    """Return the costs of the space on the device; raises TableError where there is no table."""
    from hwnas.latency import CellCosts, CostModel, open_table

    table = open_table(device, setting, command=settings.profile_command)
    space = plugins.load("spaces", settings.space)
    if spaces.grows(space):
        return CellCosts(table, settings.scales, operations=space.OPERATIONS)
    return CostModel(table, settings.scales)


def check_table(model: "CostModel", settings: "SearchSettings", device: "Device", setting: "Setting") -> None:
    """Raise TableError where the table was measured under other conditions, or lacks entries that the space needs."""
    check_table_conditions(model.table, settings, device, setting)
    check_entries(model, settings)


def check_entries(model: "CostModel", settings: "SearchSettings") -> None:
    """Raise TableError where the table lacks entries that the space needs."""
    model.require(_cover(settings), command=settings.profile_command())


def check_table_conditions(
    table: "LatencyTable", settings: "SearchSettings", device: "Device", setting: "Setting"
) -> None:
    """Raise TableError where the table was measured under other conditions; of predictions alone nobody asks that."""
    from hwnas.latency import check_conditions, read_conditions

    if not settings.predicted:
        now = read_conditions(device, setting).fingerprint
        check_conditions(table, now, command=settings.profile_command(fresh=True))


def lacking(table: "LatencyTable | None", settings: "SearchSettings") -> str:
    """Return in words what a device's table, if there is one, lacks for a search; nothing where it has all."""
    from hwnas.latency import CostModel

    if table is None:
        return f"device {settings.device} has no latency table in setting {settings.setting} yet"
    if table.unfinished(settings.space, settings.scales):
        return f"{table.path} is of a profile of this space that was stopped before its end"
    if not CostModel(table, settings.scales).has(_cover(settings)):
        return f"{table.path} has not every operator of this search"
    return ""


def _cover(settings: "SearchSettings") -> "Iterable[Architecture]":
    """Return networks that have every operator of the run's space, each once."""
    space = plugins.load("spaces", settings.space)
    return dict.fromkeys(chain.from_iterable(map(space.cover, settings.scales)))


def check_reachable(model: "CostModel", settings: "SearchSettings", *, cap: "DeviceCap | None" = None) -> None:
    """Raise BudgetError where not one of the space's small networks fits the caps at any scale.

    It names the `cap` of one of several devices.
    As a rule one does at the smallest scale: then the others, of which there are many to walk, need no look.
    """
    space = plugins.load("spaces", settings.space)
    budget = replace(settings.budget, devices=str(cap)) if cap else settings.budget
    smallest = model.walked([[network] for network in small_networks(space, model.scales[0])])
    if (smallest.largest(budget, target_ms=budget.max_latency_ms) < 0).all():
        networks = list(zip(*(small_networks(space, scale) for scale in model.scales), strict=False))
        model.check_reachable(model.walked(networks), budget)


def small_networks(space: ModuleType, scale: "Scale") -> "Iterator[Architecture]":
    """Yield the cells of one block, or the networks that cover a space whose cells do not grow."""
    if not spaces.grows(space):
        yield from space.cover(scale)
        return
    for code in space.first_level():
        yield space.architecture(space.parameters(code[None]), scale)
