"""What pydantic has against a record, in words: for the errors of those who read one."""

from pydantic import ValidationError

from hwnas.errors import cut, short

_MOST = 5  # fields that are told of many


def reasons(error: ValidationError, *, below: int = 0) -> str:
    """Return each field that is wrong, from so many steps into the record on, why, and what it is."""
    return "; ".join(
        f"{cut('.'.join(map(str, fault['loc'][below:])))}: {cut(fault['msg'])}, got {short(fault['input'])}"
        for fault in error.errors()[:_MOST]
    )
