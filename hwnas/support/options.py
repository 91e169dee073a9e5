"""An option of a verb is declared once: as a field of the verb's class of options.

    class SearchOptions(Options):
        trials: int = Field(default=40, gt=0, description="candidates to train")

    @takes(SearchOptions)
    def search(options: SearchOptions) -> Searched: ...

From that field come
- the keyword argument of `hwnas.search`, with its type and default, which mypy checks, and its line in `help`;
- the command line's --trials, with its help and default (hwnas/cli/options.py); `kw_only=False` makes it an argument;
- the key `trials` in the section [search] of a file for `hwnas run` (hwnas/verbs/run.py);
- the check of the value, and the words in which it is refused (`checked`, below);
- for `search` the key in a run's settings.json, whose class inherits the field (hwnas/runs/settings.py).

So to add one is to add the field and to use it. A verb's class is in the verb's file; those of search, and what profile
shares with it, are in hwnas/runs/settings.py, as a run keeps them.
"""

import inspect
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic.fields import FieldInfo

from hwnas.errors import HwnasError, InputError, short
from hwnas.support import plugins

P = ParamSpec("P")
AnyOptions = TypeVar("AnyOptions", bound="Options")
Result = TypeVar("Result")

MAX_SEED = 2**32 - 1  # numpy's


class Options(BaseModel):
    """Base of the classes of options: values are taken as they are, or refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


@dataclass(frozen=True, slots=True)
class Metavar:
    """What stands for an option's value on the command line, as in `N,...`."""

    text: str


@dataclass(frozen=True, slots=True)
class PlugIn:
    """An option's value, or each of its values, is the name of a plug-in of this folder."""

    folder: str


def _listed(value: object) -> tuple[object, ...]:
    """Return the parts of `a,b,c`, or of a sequence; a lone number is one of it."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _numbers(value: object, kind: type[float], rule: str) -> tuple[float, ...]:
    numbers: list[float] = []
    for part in _listed(value):
        try:
            number = kind(part) if isinstance(part, str) else part
        except ValueError:
            raise ValueError(rule) from None
        if isinstance(number, bool) or not isinstance(number, int if kind is int else (int, float)) or not number > 0:
            raise ValueError(rule)
        numbers.append(kind(number))
    if not numbers:
        raise ValueError(rule)
    return tuple(numbers)


def _whole_numbers(value: object) -> tuple[int, ...]:
    return cast(tuple[int, ...], _numbers(value, int, "must be whole numbers above 0, such as 8,12,16"))


def _shares(value: object) -> tuple[float, ...]:
    rule = "must be shares above 0 and up to 1, such as 0.4,0.6,1"
    numbers = _numbers(value, float, rule)
    if max(numbers) > 1:
        raise ValueError(rule)
    return numbers


def _above_zero(value: object) -> tuple[float, ...]:
    rule = "must be numbers above 0, such as 3.3,6.4"
    numbers = _numbers(value, float, rule)
    if max(numbers) == float("inf"):
        raise ValueError(rule)
    return numbers


def _any_names(value: object) -> tuple[str, ...]:
    return _some_names(value) if value else ()


def _some_names(value: object) -> tuple[str, ...]:
    names = _listed(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("must be names, such as a,b,c")
    return cast(tuple[str, ...], names)


def _path(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a path")
    return value


def _no_file(path: str) -> str:
    if _kind_of(path) not in ("nothing", "folder"):
        raise ValueError("must be a folder, or a new one's path, and no file")
    return path


def _no_folder(path: str) -> str:
    if _kind_of(path) not in ("nothing", "file"):
        raise ValueError("must be a file, and no folder")
    return path


def _kind_of(path: str) -> str:
    """Return what there is at a path; raises ValueError for one that there cannot be."""
    try:
        mode = Path(path).stat().st_mode if path else 0
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except OSError as error:  # a name that is too long
        raise ValueError(f"must be a path that can be; {error.strerror}") from None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "neither"


_PathLike = str | os.PathLike[str]
WholeNumbers = Annotated[Sequence[int], PlainValidator(_whole_numbers)]
Shares = Annotated[Sequence[float], PlainValidator(_shares), Metavar("SHARE,...")]
NumbersAboveZero = Annotated[Sequence[float], PlainValidator(_above_zero)]
Names = Annotated[Sequence[str], PlainValidator(_some_names), Metavar("NAME,...")]
AnyNames = Annotated[Sequence[str], PlainValidator(_any_names), Metavar("NAME,...")]
AnyPath = Annotated[_PathLike, PlainValidator(_path)]
FilePath = Annotated[_PathLike, PlainValidator(_path), AfterValidator(_no_folder)]
FolderPath = Annotated[_PathLike, PlainValidator(_path), AfterValidator(_no_file)]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, the attribute in its class (another one where pydantic has the name), its plain type."""

    name: str
    attribute: str
    hint: Any
    field: FieldInfo

    @property
    def is_argument(self) -> bool:
        """Whether it may be given without its name."""
        return self.field.kw_only is False

    @property
    def description(self) -> str:
        """What it is, in words."""
        return self.field.description or ""

    @property
    def default(self) -> object:
        """What it is where it is not given; `inspect.Parameter.empty` where it must be."""
        return inspect.Parameter.empty if self.field.is_required() else self.field.default

    def marks(self, kind: type[Result]) -> list[Result]:
        """Return what its type is annotated with of this kind."""
        return [mark for mark in (*self.field.metadata, *_nested(self.field.annotation)) if isinstance(mark, kind)]


@cache
def each_option(options: type[Options]) -> tuple[Option, ...]:
    """Return the options of a class, in their order."""
    hints = get_type_hints(options)
    return tuple(Option(field.alias or name, name, hints[name], field) for name, field in options.model_fields.items())


def _nested(hint: Any) -> Iterator[object]:
    """Yield what the parts of a union are annotated with."""
    parts = get_args(hint)
    if get_origin(hint) is Annotated:
        yield from parts[1:]
    for part in parts:
        yield from _nested(part) if get_args(part) else ()


def checked(options: type[AnyOptions], values: Mapping[str, object], *, section: str = "") -> AnyOptions:
    """Return the options with these values; a path may be any `os.PathLike`, a number one of numpy's.

    `section` is where they were written, as in `demo.toml: [search]`; without it they are a call's, or the command
    line's. Raises InputError, which names the option, and UnknownNameError, which lists the known ones.
    """
    known = sorted(option.name for option in each_option(options))
    if unknown := next((name for name in values if name not in known), None):
        raise InputError(f"{section or 'this'} has no {short(unknown)}; known: {', '.join(known)}")
    try:
        made = options.model_validate({name: _plain(value) for name, value in values.items()})
    except ValidationError as error:
        raise InputError(_words(options, error, section)) from None
    for option in each_option(options):
        for plug_in in option.marks(PlugIn):
            with named_in(f"{section} {option.name}" if section else ""):
                _check_names(plug_in.folder, getattr(made, option.attribute))
    return made


@contextmanager
def named_in(place: str) -> Iterator[None]:
    """Name a place, such as a file's section, at the beginning of what errors of hwnas say, if there is one."""
    try:
        yield
    except HwnasError as error:
        if place:
            error.args = (f"{place}: {error}",)
        raise


def _check_names(folder: str, value: object) -> None:
    for name in _listed(value) if value else ():
        plugins.load(folder, str(name))


def _plain(value: object) -> object:
    """Return paths as text, and numbers of numpy as Python's, in lists and by themselves."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(part) for part in value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    return value


_RULES = {  # in the words of hwnas, by pydantic's name of the error
    "missing": "must be given",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:.10g}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


def _words(options: type[Options], error: ValidationError, section: str) -> str:
    """Return the first error: the option, its rule, and what was got."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    rule = _RULES.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
    got = "none" if first["type"] == "missing" else _shown(first["input"])
    is_argument = any(option.is_argument for option in each_option(options) if option.name == name)
    typed = name if is_argument else f"--{name.replace('_', '-')}"
    return f"{f'{section} {name}' if section else typed} {rule}; got {got}"


def _shown(value: object) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else short(value)
