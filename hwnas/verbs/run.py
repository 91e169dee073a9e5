"""`hwnas run`: profile, search, train, export and report from one TOML file; it goes on where it was stopped.

out = "runs/a"

[device]     device, setting, threads
[search]     the options of `hwnas search`, with `_` for `-`
[profile]    the options of `hwnas profile` that are not the search's own
[train]      the options of `hwnas train`
[export]     the options of `hwnas export`
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.artefacts import Exported
from hwnas.latency import Profiled
from hwnas.searching import Searched
from hwnas.support import read_toml, say
from hwnas.verbs.export import export
from hwnas.verbs.profile import profile
from hwnas.verbs.report import Reported, report
from hwnas.verbs.search import search
from hwnas.verbs.train import TrainedWinner, train

_SECTIONS: dict[str, Callable[..., Any]] = {"profile": profile, "search": search, "train": train, "export": export}
_OF_NO_RUN = {"weights", "data", "resolution", "setting", "seed"}  # options of `export`, for published networks alone


@dataclass(frozen=True, slots=True)
class Ran:
    """What each verb returned."""

    profiled: list[Profiled]
    searched: Searched
    winners: list[TrainedWinner]
    exported: list[Exported]
    reported: Reported


def run(
    config: Annotated[str, typer.Argument(help="TOML file with `out` and sections [device], [search], [train], ...")],
) -> Ran:
    """Profile, search, train, export and report, as a TOML file says; what is done already is not done again.

    Raises InputError for a file that is not as it should be, and whatever the verbs raise.
    """
    from hwnas import datasets

    out, sections = _read(Path(config))
    common = sections.pop("device")
    wanted = sections["search"]
    data = datasets.load(wanted.get("data", "fashion-mnist"), seed=wanted.get("seed", 0))
    if isinstance(wanted.get("resolution"), int):
        wanted["resolution"] = [wanted["resolution"]]
    same = ("space", "cells", "filters", "skeleton")
    shared: dict[str, Any] = {name: wanted[name] for name in same if name in wanted}
    image: dict[str, Any] = {
        "resolution": wanted.get("resolution", (data.resolution,)),
        "channels": data.channels,
        "classes": len(data.classes),
    }
    say("[1/5] profile")
    profiled = profile(**{**common, **shared, **image, **sections["profile"]})
    say("[2/5] search")
    searched = search(out=out, **{**common, **wanted})
    say("[3/5] train")
    winners = train(out, **sections["train"])
    say("[4/5] export")
    exported = export(out, **sections["export"])
    say("[5/5] report")
    return Ran(profiled, searched, winners, exported, report(out))


def _read(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the run's folder and the sections, each checked against its verb's options."""
    from hwnas.errors import InputError

    content = read_toml(path, what="a run's config")
    out = content.pop("out", None)
    if not isinstance(out, str):
        raise InputError(f'{path} must say where the run goes: out = "runs/NAME"; got {out!r}')
    sections: dict[str, dict[str, Any]] = {"device": {}, **{name: {} for name in _SECTIONS}}
    for name, section in content.items():
        if name not in sections or not isinstance(section, dict):
            raise InputError(f"{path} may have the sections {', '.join(sections)}; got {name!r}")
        known = {"device", "setting", "threads"} if name == "device" else _options(_SECTIONS[name])
        if unknown := sorted(set(section) - known):
            raise InputError(f"{path}: [{name}] has no {unknown[0]!r}; known: {', '.join(sorted(known))}")
        sections[name] = section
    if "max_latency_ms" not in sections["search"]:
        raise InputError(f"{path}: [search] must have max_latency_ms, the cap in milliseconds")
    return out, sections


def _options(verb: Callable[..., Any]) -> set[str]:
    names = {name for name in inspect.signature(verb).parameters if name not in ("out", "run", "device")}
    return names - _OF_NO_RUN if verb is export else names
