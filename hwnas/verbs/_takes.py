"""What makes a verb of a function of options: its signature, its help, and the check of what it is called with."""

import inspect
import textwrap
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from hwnas.support import Options, checked, each_option, system_errors_in_words

P = ParamSpec("P")
Result = TypeVar("Result")
AnyOptions = TypeVar("AnyOptions", bound=Options)


def takes(options: Callable[P, AnyOptions]) -> Callable[[Callable[[AnyOptions], Result]], Callable[P, Result]]:
    """Give a function of one class of options the arguments that the class has; they are checked when it is called."""
    options_class = cast(type[Options], options)

    def decorate(function: Callable[[AnyOptions], Result]) -> Callable[P, Result]:
        signature = _signature(options_class, inspect.signature(function).return_annotation)

        @wraps(function)
        def verb(*arguments: P.args, **named: P.kwargs) -> Result:
            try:
                values = signature.bind(*arguments, **named).arguments
            except TypeError as error:  # which does not say of what
                raise TypeError(f"{function.__name__}(): {error}") from None
            with system_errors_in_words():
                return function(cast(AnyOptions, checked(options_class, values)))

        described = vars(verb)
        described["__signature__"] = signature
        described["options"] = options_class
        verb.__annotations__ = {option.name: option.hint for option in each_option(options_class)}
        verb.__annotations__["return"] = signature.return_annotation
        verb.__doc__ = f"{function.__doc__}\n{_listing(options_class)}"
        return verb

    return decorate


def options_of(verb: Callable[..., object]) -> type[Options]:
    """Return the class of options that a verb takes."""
    return cast(type[Options], vars(verb)["options"])


def apply(verb: Callable[..., Result], options: Options) -> Result:
    """Call a verb with options that are checked already."""
    return cast(Result, vars(verb)["__wrapped__"](options))


def _signature(options: type[Options], returned: object) -> inspect.Signature:
    """Return a verb's signature: its arguments, then what must be given, then the rest; with plain types."""
    parameters = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD if option.is_argument else inspect.Parameter.KEYWORD_ONLY,
            default=option.default,
            annotation=option.hint,
        )
        for option in each_option(options)
    ]
    parameters.sort(key=lambda parameter: (parameter.kind, parameter.default is not inspect.Parameter.empty))
    return inspect.Signature(parameters, return_annotation=returned)


def _listing(options: type[Options]) -> str:
    """Return a line or two for each option, for `help`."""
    lines = [f"{option.name}: {option.description}" for option in each_option(options)]
    indent = " " * 8
    wrapped = (textwrap.fill(line, 110, initial_indent=" " * 4, subsequent_indent=indent) for line in lines)
    return "    Options:\n" + "\n".join(textwrap.indent(text, "    ") for text in wrapped) + "\n    "
