"""The memory of a run's networks, and whether anything in its space is inside the caps on it."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from hwnas.errors import BudgetError
from hwnas.searching.checks import small_networks
from hwnas.support import plugins

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Setting
    from hwnas.latency import MemoryModel
    from hwnas.runs import SearchSettings

_TRIAL = 9999  # that files are said to be of: up to there a number makes TFLite's no larger, from then on by 16 bytes


def memory_of_run(
    settings: "SearchSettings", setting: "Setting", dataset_of: "Callable[[int], Dataset]"
) -> "MemoryModel":
    """Return the memory of a run's networks, as `hwnas export` without options writes them.

    `dataset_of` gives the data at a resolution in pixels, of which a file has the classes, the mean and the deviation.
    """
    from hwnas.formats import AS_USUAL, Reading
    from hwnas.latency import MemoryModel
    from hwnas.runs import DataRecord

    def metadata_of(resolution: int) -> Mapping[str, str]:
        data = DataRecord.of(dataset_of(resolution), seed=settings.seed)
        read = Reading(AS_USUAL.input, data.mean, data.std, setting.precision)
        return data.metadata(_TRIAL) | read.left

    return MemoryModel(setting, cache(metadata_of))


def check_memory(memory: "MemoryModel", settings: "SearchSettings") -> None:
    """Raise BudgetError where not one of the space's small networks is inside the caps on memory.

    Raises InputError for a cap on what is not known of the setting's runtime.
    """
    budget, scale = settings.budget, settings.scales[0]
    if not budget.has_memory:
        return
    kib: dict[str, list[float]] = {}
    for network in small_networks(plugins.load("spaces", settings.space), scale):
        memory.check(budget, network)
        known = memory.of(network).in_kib
        if budget.inside(**known):
            return
        for name, value in known.items():
            kib.setdefault(name, []).append(value or 0.0)
    least = {name: min(values) for name, values in kib.items()}
    over = [name for name, share in budget.excesses(**least).items() if share > 0]
    raise BudgetError(
        f"nothing in the space fits the caps on memory: at {scale} the smallest file has {least['file_kib']:,.1f} KiB, "
        f"the smallest arena of activations {least['activation_kib']:,.1f} KiB. Raise "
        f"{budget.options(over or ('file_kib', 'activation_kib'), joined_by=' and ')}, or allow fewer --filters or a "
        "lower --resolution"
    )
