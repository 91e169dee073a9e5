"""What a shell completes after `hwnas --install-completion`: the names that an option may have.

Nothing heavy is loaded for it: a shell asks at every touch of the Tab key.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args, get_origin

import typer

from hwnas.errors import HwnasError
from hwnas.support import Option, PlugIn, plugins

Complete = Callable[[typer.Context, str], list[str]]


def completion(option: Option) -> Complete | None:
    """Return what completes an option's value; None where only a shell knows, as of files."""
    known = _known(option)
    if known is None:
        return None

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",") if _takes_several(option) else ("", "", incomplete)
        return [f"{before}{comma}{name}" for name in known(context) if name.startswith(begun)]

    return complete


def _known(option: Option) -> Callable[[typer.Context], Iterable[str]] | None:
    """Return what lists the values that an option may have."""
    if folders := [plug_in.folder for plug_in in option.marks(PlugIn)]:
        return lambda context: plugins.names(folders[0])
    if choices := [choice for part in (option.hint, *get_args(option.hint)) for choice in _choices(part)]:
        return lambda context: choices
    return {"device": _devices, "setting": _settings, "data": _data_sets, "network": _zoo}.get(option.name)


def _choices(hint: object) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _takes_several(option: Option) -> bool:
    return any(get_origin(part) is Sequence for part in (option.hint, *get_args(option.hint)))


def _devices(context: typer.Context) -> list[str]:
    from hwnas.device import folders

    return sorted({path.stem for folder in folders("devices") for path in folder.glob("*.toml")})


def _settings(context: typer.Context) -> list[str]:
    """Return the settings of the device that was typed, else of the machine at hand; none of one that is not known."""
    from hwnas.device import asked_device

    try:
        device = asked_device(context.params.get("device") or "host")
    except HwnasError:
        return []
    return [setting.name for setting in device.settings]


def _zoo(context: typer.Context) -> list[str]:
    from hwnas.verbs.zoo import zoo_folders

    return list(zoo_folders())


def _data_sets(context: typer.Context) -> list[str]:
    """Return the data sets; what is in a folder or a file wants its path after a colon."""
    of_path = ("folder", "npz")
    return [f"{name}:" if name in of_path else name for name in plugins.names("datasets")]
