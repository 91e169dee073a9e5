"""A verb's options on the command line: what typer needs to know of each field of a class of options.

Lists are typed with commas, as in `--cells 1,2`; the class itself reads and checks them (hwnas/support/options.py).
"""

import inspect
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from rich.markup import escape

from hwnas.cli.completion import completion
from hwnas.support import Metavar, Option, Options, each_option


def parameters(options: type[Options]) -> list[inspect.Parameter]:
    """Return the parameters of a command that takes these options, what must be given first."""
    made = (_parameter(option) for option in each_option(options))
    return sorted(made, key=lambda parameter: parameter.default is not inspect.Parameter.empty)


def _parameter(option: Option) -> inspect.Parameter:
    kind, default = _kind(option.hint), _typed(option.default)
    metavar = next((metavar.text for metavar in reversed(option.marks(Metavar))), None)  # the last says most
    help_ = escape(option.description)
    if option.is_argument:
        about: Any = typer.Argument(help=help_, metavar=metavar, autocompletion=completion(option))
    else:
        flags = _flags(option, kind)
        about = typer.Option(*flags, help=help_, metavar=metavar, autocompletion=completion(option))
    kind = kind | None if default is None else kind
    annotation: Any = Annotated[kind, about]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _kind(hint: Any) -> Any:
    """Return what typer is to read: text for lists with commas and for paths, and the type itself otherwise."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [_kind(part) for part in get_args(hint) if part is not type(None)]
        return kinds[0] if len(kinds) == 1 else str
    return str if get_origin(hint) is Sequence else hint


def _flags(option: Option, kind: Any) -> list[str]:
    """Return an option's names: what is off as a rule has no --no-NAME."""
    flag = f"--{option.name.replace('_', '-')}"
    if kind is bool and option.default is not False:
        return [f"{flag}/--no-{flag[2:]}"]
    return [flag]


def _typed(default: object) -> object:
    """Return a default as it would be typed; None for nothing."""
    if isinstance(default, tuple):
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in default) or None
    return default
