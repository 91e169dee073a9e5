"""Plug-ins: one file each in a folder of hwnas; the file's name is the plug-in's name (`_` may be written `-`).

Another package adds one by an entry point of the group `hwnas.FOLDER`, such as `hwnas.strategies`, whose value is a
module that is as that folder's `__init__` says.
"""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from hwnas.errors import UnknownNameError

_PACKAGE = Path(__file__).parent.parent
_FOLDERS = {  # where the plug-ins of a kind are, and what one is called in words
    "kinds": ("network/kinds", "kind of network"),
    "spaces": ("spaces", "space"),
    "formats": ("formats", "runtime"),
    "transports": ("device/transports", "transport"),
    "datasets": ("datasets", "data set"),
    "strategies": ("searching/strategies", "strategy"),
    "surrogates": ("searching/surrogates", "surrogate"),
    "pruners": ("searching/pruners", "pruner"),
    "proxies": ("searching/proxies", "zero-cost proxy"),
    "estimators": ("searching/estimators", "estimator"),
}


def names(folder: str) -> list[str]:
    """Return the names of the plug-ins of a folder, hwnas's own and those of other packages, sorted."""
    return sorted({*_own_names(folder), *_entry_points(folder)})


def load(folder: str, name: str) -> ModuleType:
    """Import the plug-in `name` of a folder; hwnas's own comes before another package's of the same name.

    Raises UnknownNameError, which lists the known ones.
    """
    written = name.replace("_", "-")
    if written in _own_names(folder):
        path = _FOLDERS[folder][0].replace("/", ".")
        return importlib.import_module(f"hwnas.{path}.{written.replace('-', '_')}")
    if written in (others := _entry_points(folder)):
        module: ModuleType = others[written].load()
        return module
    raise UnknownNameError(_FOLDERS[folder][1], name, names(folder))


def forget() -> None:
    """Look anew for plug-ins when they are asked for next: packages have come or gone since."""
    _entry_points.cache_clear()


@cache
def _own_names(folder: str) -> tuple[str, ...]:
    modules = pkgutil.iter_modules([str(_PACKAGE / _FOLDERS[folder][0])])
    return tuple(module.name.replace("_", "-") for module in modules if not module.name.startswith("_"))


@cache
def _entry_points(folder: str) -> dict[str, EntryPoint]:
    return {entry.name.replace("_", "-"): entry for entry in entry_points(group=f"hwnas.{folder}")}
