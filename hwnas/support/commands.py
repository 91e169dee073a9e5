"""The commands that hwnas tells people to type: each is made here, and nowhere else is one spelled.

    raise InputError(f"{folder} has no trained winner. Type: {commands.train(folder)}")

In capitals stands what only the reader knows, as in `commands.export("RUN")`.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Text = str | os.PathLike[str]
EXPORT = "export"  # the folder of artefacts where none is named


@dataclass(frozen=True, slots=True)
class Command:
    """A command's words, the program included; its text is quoted as a POSIX shell takes it."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.argv)


def _command(*words: Text, **options: object) -> Command:
    """Return `hwnas WORDS --OPTION VALUE ...`; what is None, False or empty is left out."""
    argv = ["hwnas", *(os.fspath(word) for word in words)]
    for name, value in options.items():
        if value is None or value is False or value == ():
            continue
        argv.append(f"--{name.replace('_', '-')}")
        if value is not True:
            argv.append(_text(value))
    return Command(tuple(argv))


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.10g}"
    return short if float(short) == value else repr(value)


def _unless(default: str, text: Text) -> str | None:
    """Return a text that is not the option's default, which need not be typed."""
    return None if os.fspath(text) == default else os.fspath(text)


def profile(
    device: Text,
    *,
    setting: str | None = None,
    threads: int | None = None,
    space: str | None = None,
    cells: Sequence[int] = (),
    filters: Sequence[int] = (),
    resolution: Sequence[int] = (),
    channels: int | None = None,
    classes: int | None = None,
    skeleton: str | None = None,
    networks: int | None = None,
    validate: int | None = None,
    seed: int | None = None,
    fresh: bool = False,
    unstable: bool = False,
) -> Command:
    """Return the command that measures a device."""
    return _command(
        "profile",
        device,
        setting=setting,
        threads=threads,
        space=space,
        cells=tuple(cells),
        filters=tuple(filters),
        resolution=tuple(resolution),
        channels=channels,
        classes=classes,
        skeleton=skeleton,
        networks=networks,
        validate=validate,
        seed=seed,
        fresh=fresh,
        unstable=unstable,
    )


def search(
    out: Text = "RUN", *, max_latency_ms: float | str | None = "MS", options: Mapping[str, object] | None = None
) -> Command:
    """Return the command that searches in a run's folder; `options` are others of the verb, by their names."""
    return _command("search", max_latency_ms=max_latency_ms, out=os.fspath(out), **(options or {}))


def run(
    config: Text | None = None,
    *,
    data: str | None = None,
    max_latency_ms: float | str | None = None,
    out: Text | None = None,
    device: Text | None = None,
    setting: str | None = None,
    trials: int | None = None,
    epochs: float | None = None,
) -> Command:
    """Return the command that does all of it, from a file or from options."""
    words = [] if config is None else [config]
    given = {"device": device, "setting": setting, "trials": trials, "epochs": epochs}
    return _command("run", *words, data=data, max_latency_ms=max_latency_ms, out=out, **given)


def train(run: Text = "RUN", *, trial: int | None = None) -> Command:
    """Return the command that trains a run's winners, or one of them."""
    return _command("train", run, trial=trial)


def export(
    run: Text = "RUN", *, trial: int | None = None, out: Text = EXPORT, options: Mapping[str, object] | None = None
) -> Command:
    """Return the command that exports a run's winners, or a published network; `options` are others of the verb."""
    return _command("export", run, trial=trial, out=_unless(EXPORT, out), **(options or {}))


def report(run: Text = "RUN", *, export_folder: Text = EXPORT) -> Command:
    """Return the command that writes a run's page."""
    return _command("report", run, export_folder=_unless(EXPORT, export_folder))


def verify(artefact: Text = f"{EXPORT}/RUN/TRIAL", *, device: Text | None = None) -> Command:
    """Return the command that checks an artefact, here or on a device."""
    return _command("verify", artefact, device=None if device is None else os.fspath(device))


def zoo(name: Text | None = None, *, out: Text | None = None) -> Command:
    """Return the command that lists the networks that come with hwnas, or copies one."""
    words = [] if name is None else [name]
    return _command("zoo", *words, out=None if out is None else os.fspath(out))


def describe(what: Text) -> Command:
    """Return the command that says what a network costs."""
    return _command("describe", what)


def devices(*, patience_s: float | None = None, trust: bool = False) -> Command:
    """Return the command that lists the devices."""
    return _command("devices", patience_s=patience_s, trust=trust)


def devices_add(name: str = "NAME", *, setting: str | None = None) -> Command:
    """Return the command that adds a device."""
    return _command("devices", "add", name, setting=setting)


def devices_setup(name: str) -> Command:
    """Return the command that makes what an emulated device needs."""
    return _command("devices", "setup", name)


def tables_diff(a: Text, b: Text) -> Command:
    """Return the command that shows two latency tables side by side."""
    return _command("tables", "diff", a, b)


def doctor(*, data: str | None = None) -> Command:
    """Return the command that says what is installed, what answers and what goes wrong."""
    return _command("doctor", data=data)


def init(
    config: Text | None = None,
    *,
    data: str | None = None,
    max_latency_ms: float | str | None = None,
    out: Text | None = None,
    device: Text | None = None,
    setting: str | None = None,
    trials: int | None = None,
    epochs: float | None = None,
    yes: bool = False,
    force: bool = False,
) -> Command:
    """Return the command that writes a run's file."""
    words = [] if config is None else [config]
    given = {"out": out, "device": device, "setting": setting, "trials": trials, "epochs": epochs}
    return _command("init", *words, data=data, max_latency_ms=max_latency_ms, **given, yes=yes, force=force)


def pip_install(packages: Sequence[str], *, python: str, anew: bool = False) -> Command:
    """Return the command that installs packages for an interpreter; `anew`: also those that are there."""
    return Command((python, "-m", "pip", "install", *["--force-reinstall"] * anew, *packages))


def pip_uninstall(packages: Sequence[str], *, python: str) -> Command:
    """Return the command that removes packages of an interpreter."""
    return Command((python, "-m", "pip", "uninstall", "--yes", *packages))
