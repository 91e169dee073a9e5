"""`hwnas init`: writes a TOML file for `hwnas run`, from options and, in a terminal, a few questions.

Each answer is checked at once, and the whole before it is written, by the code that `hwnas run` checks it with.
"""

import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from pydantic import Field

from hwnas.errors import HwnasError, InputError
from hwnas.runs import has_caps
from hwnas.support import FilePath, can_ask, checked, commands, each_option, plugins, say, toml_value, write_bytes
from hwnas.verbs._takes import takes
from hwnas.verbs.run import SECTION_OF, SECTIONS, RunOptions, RunRequest, make_plan

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Device, Setting
    from hwnas.verbs.run import Plan

T = TypeVar("T")
_TRIES = 5  # answers to one question
_NEEDED = {"data": "folder:PATH", "max_latency_ms": "MS"}  # of which there is no default, and how they are told
_WIDE = 110  # columns of a comment
_NUMBERS: dict[str, Callable[[str], float]] = {"max_latency_ms": float, "trials": int, "epochs": float}
_WORTH_KNOWING = {  # further options, which are written as comments, with examples
    "search": {"max_mult_adds": "300e6", "space": '"mbconv"', "strategy": '"evolution"', "resolution": "[96]"},
    "train": {"winners": "2", "class_weights": "true"},
    "export": {"files": '["model.tflite", "model.int8.tflite"]'},
}


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file for `hwnas run`, the folder of its run, and what to type next."""

    path: str
    out: str
    next: str


class InitOptions(RunRequest):
    """The options of `hwnas init`."""

    config: FilePath = Field(default="hwnas.toml", kw_only=False, description="the file to write")
    yes: bool = Field(default=False, description="ask nothing: --data and --max-latency-ms must be given")
    force: bool = Field(default=False, description="write over a file that is there")


@takes(InitOptions)
def init(options: InitOptions) -> RunFile:
    """Write a TOML file for `hwnas run`, from options and, in a terminal, a few questions.

    Where nobody can be asked nothing is. Raises InputError for a file that is there, for what must be given and is not,
    and whatever `run` raises of its file before its first step.
    """
    answers = _given(options)
    if can_ask() and not options.yes:
        _refuse_other(options, None)
        answers = _asked(answers)
    _refuse_missing(options, answers)
    plan = make_plan(checked(RunOptions, answers))
    path, out = Path(options.config), str(plan.search.out)
    text = _encoded("\n".join(_lines(path, out, {**_usual(plan), **answers})) + "\n")
    _refuse_other(options, text)
    write_bytes(path, text)
    return RunFile(str(path), out, str(commands.run(path)))


def _given(options: InitOptions) -> dict[str, Any]:
    return {name: value for name, value in options if name in RunRequest.model_fields and value is not None}


def _refuse_other(options: InitOptions, text: bytes | None) -> None:
    """Raise InputError for a file that is there with another text: the same call may be made again."""
    path = Path(options.config)
    if options.force or not path.exists() or path.read_bytes() == text:
        return
    command = commands.init(path, **_given(options), yes=options.yes, force=True)
    raise InputError(f"a new run's file must not exist; {path} does. Name another one, or type: {command}")


def _refuse_missing(options: InitOptions, answers: Mapping[str, Any]) -> None:
    """Raise InputError for what has no default and is not given."""
    missing = {name: word for name, word in _NEEDED.items() if name not in answers}
    if has_caps(answers.get("device", "")):
        missing.pop("max_latency_ms", None)
    if not missing:
        return
    flags = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
    command = commands.init(options.config, **{**missing, **answers}, yes=options.yes, force=options.force)
    raise InputError(f"a run's file needs {flags} where nobody is asked. Type: {command}")


def _encoded(text: str) -> bytes:
    """Return text as UTF-8; raises InputError for what is none, as the names of some files."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(
            "a run's file must be text that TOML can hold; got the name of a file or folder that is no UTF-8. Rename it"
        ) from None


def _usual(plan: "Plan") -> dict[str, Any]:
    """Return what a run takes where it is not said."""
    names = ("device", "setting", "trials")
    usual = {**{name: getattr(plan.search, name) for name in names}, "epochs": plan.train.epochs}
    return {name: value for name, value in usual.items() if value is not None}


# Questions.


def _asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given, once it is checked, and the answers to what is not."""
    from hwnas import datasets
    from hwnas.device import named_device

    answers = dict(given)

    def ask(name: str, question: str, default: object, look: Callable[[Any], T]) -> T:
        if name in given:
            return look(given[name])
        answers[name], looked = _answer(name, question, default, look)
        return looked

    names = ", ".join(plugins.names("datasets"))
    dataset = ask(
        "data", f"images: folder:PATH (one folder a class), or one of {names}", "fashion-mnist", datasets.load
    )
    if not has_caps(given.get("device", "")):  # with its caps it says all of this
        question = f"device: host is this machine ({commands.devices()} lists them)"
        machine = ask("device", question, "host", named_device)
        settings = ", ".join(setting.name for setting in machine.settings)
        setting = ask("setting", f"how it runs networks: {settings}", machine.settings[0].name, machine.setting)
        known_ms = _known_ms(machine, setting, dataset)
        ask("max_latency_ms", f"most milliseconds for an image{_span(known_ms)}", _median(known_ms), float)
    ask("trials", "candidates to train in the search; fewer take less time", _default("search", "trials"), int)
    ask("epochs", "epochs to train the winners for; fewer take less time", _default("train", "epochs"), float)
    return answers


def _answer(name: str, question: str, default: object, look: Callable[[Any], T]) -> tuple[Any, T]:
    """Return what is answered and what `look` makes of it; raises what is wrong with the last of a few answers."""

    def once() -> tuple[Any, T]:
        text = typer.prompt(question, default=default, err=True, type=str)
        value = getattr(checked(RunOptions, {name: _typed(name, text)}), name)
        return value, look(value)

    for _ in range(_TRIES - 1):
        try:
            return once()
        except HwnasError as error:
            say(str(error))
    return once()


def _typed(name: str, text: str) -> str | float:
    """Return a number where one is wanted and typed: what is none is refused with the option's own rule."""
    with suppress(ValueError):
        return _NUMBERS[name](text) if name in _NUMBERS else text
    return text


def _default(section: str, name: str) -> str:
    return f"{SECTIONS[section].model_fields[name].default:g}"


def _known_ms(machine: "Device", setting: "Setting", dataset: "Dataset") -> list[float]:
    """Return what whole networks for such images took on a device, as far as that was measured; sorted."""
    from hwnas.latency import find_table

    image = (dataset.channels, dataset.resolution, dataset.resolution)
    with suppress(HwnasError):  # what is wrong with a table `run` says
        if table := find_table(machine, setting):
            networks = [network for network in table.networks if network.architecture.graph.layers[0].shape == image]
            return sorted(table.stated_ms(network.measurement) for network in networks)
    return []


def _span(known_ms: list[float]) -> str:
    return f" ({len(known_ms)} networks took {known_ms[0]:.2g} to {known_ms[-1]:.2g} ms)" if known_ms else ""


def _median(known_ms: list[float]) -> str | None:
    return f"{statistics.median(known_ms):.2g}" if known_ms else None


# The file.


def _lines(path: Path, out: str, answers: Mapping[str, Any]) -> Iterator[str]:
    """Yield the file's lines: each option below what it is, further ones as comments."""
    yield f"# Begins, and goes on where it was stopped: {commands.run(path)}"
    yield ""
    yield from _option("out", toml_value(out), "the run's folder")
    for section, options in SECTIONS.items():
        about = {option.name: option.description for option in each_option(options)}
        names = [name for name, where in SECTION_OF.items() if where == section and name in answers]
        further = _WORTH_KNOWING.get(section, {})
        if not names and not further:
            continue
        yield from ("", f"[{section}]")
        for name in names:
            yield from _option(name, toml_value(answers[name]), about[name])
        for name, example in further.items():
            yield from _option(name, example, about[name], mark="# ")
        if further:
            yield f"# more: hwnas {section} --help"


def _option(name: str, value: str, about: str, *, mark: str = "") -> Iterator[str]:
    """Yield the lines of an option; one that is marked is an example, which counts once the mark is removed."""
    yield from textwrap.wrap(about, _WIDE, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
    yield f"{mark}{name} = {value}"
