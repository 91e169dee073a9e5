"""`hwnas run`: profile, search, train, export and report, from one line or a TOML file; it goes on where it stopped.

out = "runs/a"

[device]     device, setting, threads
[search]     the options of `hwnas search`, with `_` for `-`
[profile]    the options of `hwnas profile` that are not the search's own
[train]      the options of `hwnas train`
[export]     the options of `hwnas export`

All of it is checked before the first step. Without a file the few options below are all that is not the default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from hwnas.artefacts import Exported
from hwnas.errors import HwnasError, InputError, short
from hwnas.latency import Profiled
from hwnas.runs import DeviceOptions, SearchOptions, SpaceOptions, has_caps
from hwnas.searching import Searched
from hwnas.support import (
    AnyPath,
    FilePath,
    FolderPath,
    Options,
    checked,
    commands,
    each_option,
    named_in,
    read_toml,
    say,
)
from hwnas.verbs._takes import apply, takes
from hwnas.verbs.export import ExportOptions, export
from hwnas.verbs.profile import ProfileOptions, profile
from hwnas.verbs.report import Reported, report
from hwnas.verbs.search import asked_devices, search, start_run
from hwnas.verbs.train import TrainedWinner, TrainOptions, check_shares, train

if TYPE_CHECKING:
    from hwnas.datasets import Dataset

AnyOptions = TypeVar("AnyOptions", bound=Options)

SECTIONS: dict[str, type[Options]] = {
    "device": DeviceOptions,
    "profile": ProfileOptions,
    "search": SearchOptions,
    "train": TrainOptions,
    "export": ExportOptions,
}
_OF_DEVICE = {option.name for option in each_option(DeviceOptions)}
_ELSEWHERE = {  # options of a verb that are no keys of its section
    "device": set(),
    "profile": _OF_DEVICE,
    "search": {"out", "plan", *_OF_DEVICE},
    "train": {"run"},
    "export": {  # but for `run` those of published networks
        *("run", "weights", "data", "resolution", "seed", "transparent", "skip_broken"),
        *_OF_DEVICE,
    },
}
SECTION_OF = {  # where an option of the command line stands in a file
    "data": "search",
    "max_latency_ms": "search",
    "device": "device",
    "setting": "device",
    "trials": "search",
    "epochs": "train",
}
_OF_SPACE = [option.name for option in each_option(SpaceOptions)]  # which profile takes from the search


@dataclass(frozen=True, slots=True)
class Ran:
    """What each verb returned."""

    profiled: list[Profiled]
    searched: Searched
    winners: list[TrainedWinner]
    exported: list[Exported]
    reported: Reported


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of each step, and the data that all are about."""

    profile: ProfileOptions
    search: SearchOptions
    train: TrainOptions
    export: ExportOptions
    dataset: "Dataset"
    further: list[ProfileOptions]  # of devices beside the first


class RunRequest(Options):
    """What a run is about, where all that is not said is the default."""

    data: str | None = Field(default=None, description="data set, such as folder:PATH (one folder a class)")
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="cap on the latency on the device, in milliseconds"
    )
    out: FolderPath | None = Field(default=None, description="the run's folder; without it runs/NAME-OF-THE-DATA")
    device: AnyPath | None = Field(
        default=None,
        description="device: a file devices/NAME.toml, or its path; or several, each with its cap, as in "
        "pixel8=12ms,pi4=40ms; without it host, this machine",
    )
    setting: str | None = Field(
        default=None, description="one of the device's settings, such as tflite-fp32-1t; without it the first"
    )
    trials: int | None = Field(default=None, gt=0, description="candidates to train in the search; without it 40")
    epochs: float | None = Field(
        default=None, gt=0, description="epochs of the winners' training over the whole training set; without it 60"
    )


class RunOptions(RunRequest):
    """The options of `hwnas run`: a file, or the data, the cap, and what else is not to be the default."""

    config: FilePath | None = Field(
        default=None,
        kw_only=False,
        description="TOML file with `out` and sections [device], [search], [train], ...; it has all options, so that "
        "none is given beside it; without a file --data and --max-latency-ms must be given",
    )


class _File(Options):
    """What a file has besides its sections."""

    out: FolderPath = Field(description="the run's folder")


@takes(RunOptions)
def run(options: RunOptions) -> Ran:
    """Profile, search, train, export and report, by defaults or a TOML file; what is done already is not done again.

    Raises InputError for a file or options that are not as they should be, before anything is done, and whatever the
    verbs raise.
    """
    plan = make_plan(options)
    say("[1/5] profile")
    profiled = _profile(plan)
    say("[2/5] search")
    searched = apply(search, plan.search)
    say("[3/5] train")
    winners = apply(train, plan.train)
    say("[4/5] export")
    exported = apply(export, plan.export)
    say("[5/5] report")
    return Ran(profiled, searched, winners, exported, report(plan.search.out))


def _profile(plan: Plan) -> list[Profiled]:
    """Profile, and look at all images meanwhile: none is to turn out to be broken after hours of training.

    Where this machine itself is timed they are looked at before: what computes beside disturbs.
    """

    def profile_all() -> list[Profiled]:
        return [profiled for options in (plan.profile, *plan.further) for profiled in apply(profile, options)]

    if any(capped.machine.transport == "local" for capped in asked_devices(plan.search)):
        plan.dataset.check()
        return profile_all()
    found: list[HwnasError] = []
    looking = Thread(target=_look_at_images, args=(plan.dataset, found), daemon=True)
    looking.start()
    profiled = profile_all()
    looking.join()
    if found:
        raise found[0]
    return profiled


def _look_at_images(dataset: "Dataset", found: list[HwnasError]) -> None:
    """Look at all images; what is broken is said at once and added to `found`."""
    try:
        dataset.check()
    except HwnasError as error:
        say(str(error))
        found.append(error)


def make_plan(options: RunOptions) -> Plan:
    """Return what a file asks for, or options without one; raises InputError for both, and for too few of these."""
    from hwnas.device import named_device

    given = {name: value for name, value in options if value is not None and name != "config"}
    if options.config is not None:
        if given:
            name = next(iter(given))
            section = f"[{SECTION_OF[name]}]" if name in SECTION_OF else "above the sections"
            raise InputError(
                f"a run's file has all of its options; got --{name.replace('_', '-')} beside {options.config}. Write "
                f"{name} in the file, {section}, and type: {commands.run(options.config)}"
            )
        return read_plan(Path(options.config))
    device = options.device or "host"
    if options.data is None or (options.max_latency_ms is None and not has_caps(device)):
        command = commands.run(**{"data": "folder:PATH", "max_latency_ms": "MS", **given})
        raise InputError(f"a run must have a TOML file, or --data and --max-latency-ms. Type: {command}")
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, section in SECTION_OF.items():
        if name in given:
            sections[section][name] = given[name]
    if not has_caps(device):  # the search's setting: profile would measure all
        sections["device"]["setting"] = named_device(device).setting(options.setting).name
    return _plan(str(options.out or f"runs/{_name_of(options.data)}"), sections, None)


def _name_of(data: str) -> str:
    """Return what a data set is called: its folder's or its file's name, or that which hwnas knows it by."""
    kind, _, path = data.partition(":")
    names = {"folder": Path(path).resolve().name, "npz": Path(path).stem}
    return names.get(kind) or kind


def read_plan(path: Path) -> Plan:
    """Return what a file asks for; raises InputError, which names the file, the section and the key."""
    out, sections = _read(path)
    checked(_File, {"out": out}, section=f"{path}:")
    return _plan(out, sections, path)


def _place(path: Path | None, section: str) -> str:
    """Return the words for a section of a file; none for the command line."""
    return f"{path}: [{section}]" if path else ""


def _plan(out: str, sections: Mapping[str, Mapping[str, Any]], path: Path | None) -> Plan:
    """Return what sections ask for, those of a file or of the command line."""
    device = dict(_checked(DeviceOptions, path, "device", sections["device"]))
    searching = _checked(SearchOptions, path, "search", {"out": out, **device, **sections["search"]})
    dataset = _found(searching, path)
    with named_in(_place(path, "search")):
        start_run(searching, dataset)
    images = {
        "resolution": searching.resolution or (dataset.resolution,),
        "channels": dataset.channels,
        "classes": len(dataset.classes),
    }
    space = {name: getattr(searching, name) for name in _OF_SPACE}
    training = _checked(TrainOptions, path, "train", {"run": out, **sections["train"]})
    with named_in(_place(path, "train")):
        training.check()
        if training.from_supernet:
            check_shares(searching.estimator)
            _check_widths(searching)
    each = [device]
    if has_caps(searching.device):
        names = ("device", "setting", "threads")
        each = [{name: getattr(capped.record, name) for name in names} for capped in asked_devices(searching)]
    first, *further = [
        _checked(ProfileOptions, path, "profile", {**one, **space, **images, **sections["profile"]}) for one in each
    ]
    exporting = _checked(ExportOptions, path, "export", {"run": out, **sections["export"]})
    return Plan(first, searching, training, exporting, dataset, further)


def _check_widths(searching: SearchOptions) -> None:
    """Raise InputError where winners may have more channels than the weights that they are to begin with."""
    widest = max(searching.sizes[1])
    if round(widest * searching.proxy_filters) < widest:
        raise InputError(
            "from_supernet needs shared weights of as many channels as the widest winner; with proxy_filters = "
            f"{searching.proxy_filters:g} they have fewer. Leave it out, or write proxy_filters = 1 in [search]"
        )


def _read(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the run's folder and the sections, whose keys are known."""
    content = read_toml(path, what="a run's config")
    out = content.pop("out", None)
    if not isinstance(out, str):
        raise InputError(f'{path} must say where the run goes: out = "runs/NAME"; got {short(out)}')
    for name, section in content.items():
        if name not in SECTIONS or not isinstance(section, dict):
            raise InputError(f"{path} may have the sections {', '.join(SECTIONS)}; got {short(name)}")
        known = _keys(name)
        if unknown := next((key for key in section if key not in known), None):
            raise InputError(f"{path}: [{name}] has no {short(unknown)}; known: {', '.join(known)}")
    device = str(content.get("device", {}).get("device", ""))
    if "max_latency_ms" not in content.get("search", {}) and not has_caps(device):
        raise InputError(f"{path}: [search] must have max_latency_ms, the cap in milliseconds")
    return out, {name: content.get(name, {}) for name in SECTIONS}


def _keys(section: str) -> list[str]:
    return sorted({option.name for option in each_option(SECTIONS[section])} - _ELSEWHERE[section])


def _checked(options: type[AnyOptions], path: Path | None, section: str, values: Mapping[str, object]) -> AnyOptions:
    return checked(options, values, section=_place(path, section))


def _found(options: SearchOptions, path: Path | None) -> "Dataset":
    """Return the data; raises InputError where there is no such device, setting or data set."""
    from hwnas import datasets
    from hwnas.runs import check_storage, trust_storage

    if options.storage:
        with named_in(f"{path}: [search] storage"):
            check_storage(options.storage)
        trust_storage(options.storage, named_by=str(path))
    with named_in(_place(path, "device")):
        asked_devices(options)
    with named_in(f"{_place(path, 'search')} data" if path else ""):
        resolution = options.resolution[0] if options.resolution else None
        return datasets.load(
            options.data,
            seed=options.seed,
            resolution=resolution,
            background=options.transparent,
            skip_broken=options.skip_broken,
        )
