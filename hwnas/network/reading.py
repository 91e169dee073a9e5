"""Reads what people and earlier runs wrote of a network: TOML or JSON values into records, strictly."""

import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.errors import InputError, cut, short

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

_T = TypeVar("_T")
STRICT: Any = {"strict": True, "extra": "forbid"}  # a record's `__pydantic_config__`
_MOST = 3  # faults that are told of many
_WORDS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dataclass_type": "must be a table of fields",
    "missing": "is missing",
    "unexpected_keyword_argument": "is not known",
}
_MEMBERS = ("int", "float", "inverted", "fused", "basic", "plain")  # of unions, which pydantic names after the field


def read_as(kind: Callable[..., _T], value: Any, *, rule: str) -> _T:
    """Return a record, a dataclass whose `__pydantic_config__` is STRICT, of JSON or TOML values.

    Raises InputError: the rule, each field that breaks it, and what that was.
    """
    from pydantic import ValidationError

    try:
        record: _T = _reader(kind).validate_json(json.dumps(value, default=str), strict=True)
    except RecursionError:
        raise InputError(f"{rule}: it is nested too deep") from None
    except ValidationError as error:
        faults = {_place(fault): _in_words(fault) for fault in error.errors()}
        broken = [f"{place} {words}".strip() for place, words in faults.items()]
        more = f"; and {len(broken) - _MOST} more" if len(broken) > _MOST else ""
        raise InputError(f"{rule}: {'; '.join(broken[:_MOST])}{more}") from None
    return record


@cache
def _reader(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _place(fault: "ErrorDetails") -> str:
    return cut(".".join(str(part) for part in fault["loc"] if part not in _MEMBERS))


def _in_words(fault: "ErrorDetails") -> str:
    """Return the rule that a field breaks, and what it is."""
    words = _WORDS.get(fault["type"], fault["msg"])
    if fault["type"] == "literal_error":
        words = "must be " + fault["ctx"]["expected"].replace("'", '"')
    if fault["type"] in ("missing", "unexpected_keyword_argument"):
        return words
    return f"{words}; got {short(fault['input'])}"


def check_between(what: str, value: float, least: float, most: float) -> None:
    """Raise InputError for a number, `what` it is, that is not from `least` to `most`."""
    if value < least:
        raise InputError(f"{what} must be at least {least}; got {value}")
    if not value <= most:
        raise InputError(f"{what} must be at most {most}; got {short(value)}")
