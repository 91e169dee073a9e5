"""Records on disk: a frozen class for a file's content, which alone spells its keys, reads it and writes it.

What is unknown in a record is kept as it is; what was not given is not written.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.errors import InputError, cut, short
from hwnas.support.commands import Command
from hwnas.support.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

_MOST = 5  # fields that are told of many


def reasons(error: ValidationError, *, below: int = 0) -> str:
    """Return what pydantic has against a record, in words.

    Of each field that is wrong: where it is, from so many steps into the record on, the rule, and what it is.
    """
    return "; ".join(_in_words(fault, fault["loc"][below:]) for fault in error.errors()[:_MOST])


def _in_words(fault: "ErrorDetails", place: "Sequence[str | int]") -> str:
    got = "" if fault["type"] == "missing" else f", got {short(fault['input'])}"
    return f"{cut('.'.join(map(str, place))) or 'content'}: {cut(fault['msg'])}{got}"


class Record(BaseModel):
    """A record, or a part of one."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, of what was given alone."""
        return self.model_dump(mode="json", exclude_unset=True)


class FileRecord(Record):
    """A record that is a JSON file by itself, with a version."""

    VERSION: ClassVar[int] = 1  # that is written, and the newest that is read
    WHAT: ClassVar[str]  # the file is, in words

    version: int = Field(strict=True, ge=1)

    @classmethod
    def read(cls, path: Path, *, again: Command) -> Self:
        """Read a file; raises InputError that names it and the command `again`, which writes it anew."""
        if not path.exists():
            raise InputError(f"{cls.WHAT} must exist; got {path}, which does not. Type: {again}")
        try:
            content = read_json(path, what=cls.WHAT)
        except InputError as error:
            raise InputError(f"{error}. Delete it and type: {again}") from None
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > cls.VERSION:
            raise InputError(
                f"{path}: {cls.WHAT} must be of version {cls.VERSION} or older; got {short(version)}, which a newer "
                f"hwnas wrote. Update hwnas, or delete the file and type: {again}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{path} is not {cls.WHAT}: {reasons(error)}. Delete it and type: {again}") from None
        except InputError as error:  # of a part that is no pydantic class
            raise InputError(f"{path} is not {cls.WHAT}: {error}. Delete it and type: {again}") from None

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        write_json(path, self.to_json())
