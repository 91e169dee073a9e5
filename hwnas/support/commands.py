"""The commands that hwnas tells people to type: each is made here, and nowhere else is one spelled.

    raise InputError(f"{folder} has no trained winner. Type: {commands.train(folder)}")

In capitals stands what only the reader knows, as in `commands.export("RUN")`.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

Text = str | os.PathLike[str]


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
    return f"{value:.10g}" if isinstance(value, float) else str(value)


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
        fresh=fresh,
        unstable=unstable,
    )


def search(*, out: Text | None = None, space: str | None = None, max_latency_ms: float | str = "MS") -> Command:
    """Return the command that searches, in a run's folder or RUN."""
    folder = "RUN" if out is None else os.fspath(out)
    return _command("search", max_latency_ms=max_latency_ms, out=folder, space=space)


def train(run: Text = "RUN") -> Command:
    """Return the command that trains a run's winners."""
    return _command("train", run)


def export(run: Text = "RUN") -> Command:
    """Return the command that exports a run's winners, or a published network."""
    return _command("export", run)


def report(run: Text = "RUN") -> Command:
    """Return the command that writes a run's page."""
    return _command("report", run)


def verify(artefact: Text = "export/RUN/TRIAL", *, device: Text | None = None) -> Command:
    """Return the command that checks an artefact, here or on a device."""
    return _command("verify", artefact, device=None if device is None else os.fspath(device))


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


def pip_install(package: str, *, python: str) -> Command:
    """Return the command that installs a package for an interpreter."""
    return Command((python, "-m", "pip", "install", package))
