"""Where latency tables are, by device and setting, and whether one was measured under the conditions at hand."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hwnas.device import Device, Setting, folders
from hwnas.errors import InputError, TableError, UnknownNameError, short
from hwnas.latency.measurement import Measurement
from hwnas.latency.table import LatencyTable
from hwnas.support import commands, locked, root, say


def own_path(device: Device, setting: Setting) -> Path:
    """Return where `profile` writes: latency_tables/NAME/SETTING.json in the user's own folder."""
    return root() / "latency_tables" / device.name / f"{setting.name}.json"


@contextmanager
def table_lock(path: Path) -> Iterator[None]:
    """Wait until no other process fills or merges into the table of this path, and keep others out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.stem}.lock")
    with locked(lock, on_wait=lambda: say(f"another hwnas writes {path}: waiting for it")):
        yield


def open_table(device: Device, setting: Setting, *, command: Callable[[], commands.Command]) -> LatencyTable:
    """Read the table of a device's setting, the user's own before one that hwnas ships.

    Raises TableError, with the command that makes one, where there is none: only then it is asked for.
    """
    if table := find_table(device, setting):
        return table
    raise TableError(
        f"device {device.name} must be profiled in setting {setting.name} first; there is no "
        f"latency_tables/{device.name}/{setting.name}.json. Type: {command()}"
    )


def _path(device: Device, setting: Setting) -> Path | None:
    paths = (folder / device.name / f"{setting.name}.json" for folder in folders("latency_tables"))
    return next((path for path in paths if path.is_file()), None)


def find_table(device: Device, setting: Setting) -> LatencyTable | None:
    """Read the table of a device's setting, as `open_table`, if there is one."""
    path = _path(device, setting)
    if path is None:
        return None
    table = LatencyTable.read(path)
    if (table.device, table.setting.name) != (device.name, setting.name):
        raise TableError(
            f"{path} must be of the device and the setting that its path names; it says {table.device} in setting "
            f"{table.setting.name}. Put the right file there, or measure anew: "
            f"{commands.profile(device.name, setting=setting.name, fresh=True)}"
        )
    return table


def as_measured(device: Device, setting: Setting) -> Setting:
    """Return a setting with the rewrites that its table was measured without, if there is one."""
    table = find_table(device, setting)
    return setting.model_copy(update={"without": table.setting.without}) if table else setting


def stated_ms(measurement: Measurement, table: LatencyTable | None) -> float:
    """Return the latency that hwnas states of a measurement: at the canary of its setting's table, if there is one.

    So what was measured at other times, by a search and by an export, is held against the same cap.
    """
    return table.stated_ms(measurement) if table else measurement.ms


def find_tables() -> list[Path]:
    """Return every latency_tables/NAME/SETTING.json: the user's own, then those that hwnas ships."""
    return [path for folder in folders("latency_tables") for path in sorted(folder.glob("*/*.json"))]


def table_paths(what: str, setting: str | None = None) -> list[Path]:
    """Return the files that `what` stands for: a file itself, or the tables of DEVICE or DEVICE/SETTING.

    Where the user's own folder and the shipped one both have a table, it is the user's own.
    Raises UnknownNameError, which lists the known tables.
    """
    if what.endswith(".json"):
        return [Path(what)]
    device, _, named = what.partition("/")
    wanted = setting or named
    known = {(path.parent.name, path.stem): path for path in reversed(find_tables())}
    chosen = [path for (name, stem), path in sorted(known.items()) if name == device and stem == (wanted or stem)]
    if not chosen:
        raise UnknownNameError(
            "latency table",
            f"{device}/{wanted}" if wanted else device,
            ("/".join(names) for names in known),
            hint=f"Type: {commands.profile(device, setting=wanted or None)}",
        )
    return chosen


def one_table_path(what: str, setting: str | None = None) -> Path:
    """Return the one file that `what` stands for; raises InputError where a device has several."""
    paths = table_paths(what, setting)
    if len(paths) > 1:
        names = ", ".join(f"{what}/{path.stem}" for path in paths)
        raise InputError(f"one table must be named; {what} has {len(paths)}. Type one of {names} instead of {what}")
    return paths[0]


def check_conditions(
    table: LatencyTable, now: Mapping[str, str | int], *, command: commands.Command | None = None
) -> None:
    """Raise TableError, naming the fields, where a table's conditions are not those of a fingerprint.

    It has the `command` that measures anew all that is wanted; without one, that which measures what the table has.
    """
    then = {name: value or None for name, value in table.conditions.fingerprint.items()}
    differing = [
        f"{name} was {short(then[name])} and is {short(value)}" for name, value in now.items() if then[name] != value
    ]
    if differing:
        raise TableError(
            f"{table.path} was measured under other conditions: {'; '.join(differing)}. "
            f"Measure anew: {command or table.again(fresh=True)}"
        )
