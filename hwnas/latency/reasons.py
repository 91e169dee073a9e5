"""What pydantic has against a record, in words: for the errors of those who read one."""

from pydantic import ValidationError

_QUOTED = 100  # characters of a broken value in an error


def reasons(error: ValidationError, *, below: int = 0) -> str:
    """Return each field that is wrong, from so many steps into the record on, why, and what it is."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'][below:]))}: {fault['msg']}, got {short(fault['input'])}"
        for fault in error.errors()
    )


def short(value: object) -> str:
    """Return a value as Python writes it, cut where it is long."""
    words = repr(value)
    return words if len(words) <= _QUOTED else f"{words[:_QUOTED]}..."
