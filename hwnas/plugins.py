"""Plug-ins: one file each in a folder of hwnas; the file's name is the plug-in's name (`_` may be written `-`)."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from hwnas.errors import UnknownNameError

_NOUNS = {
    "networks": "kind of network",
    "spaces": "space",
    "strategies": "strategy",
    "surrogates": "surrogate",
    "pruners": "pruner",
    "proxies": "zero-cost proxy",
    "estimators": "estimator",
    "formats": "runtime",
    "transports": "transport",
    "datasets": "data set",
}


def names(folder: str) -> list[str]:
    """Return the names of the plug-ins in hwnas/`folder`, sorted."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent / folder)])
    return sorted(module.name.replace("_", "-") for module in modules if not module.name.startswith("_"))


def load(folder: str, name: str) -> ModuleType:
    """Import the plug-in `name` of hwnas/`folder`.

    Raises UnknownNameError, which lists the known ones.
    """
    if name not in names(folder):
        raise UnknownNameError(_NOUNS[folder], name, names(folder))
    return importlib.import_module(f"hwnas.{folder}.{name.replace('-', '_')}")
