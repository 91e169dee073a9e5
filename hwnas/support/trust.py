"""What a file may have started or reached: its user is asked once, and the answer is kept by a hash.

A device's file names an interpreter, `adb` or a host, a run's settings.json a database. Files come from others as well,
with a repository or an artefact. So what they name is used only once it was agreed to: in answer to a question on the
terminal, by `--trust`, or by HWNAS_TRUST=1 in the environment, which keeps nothing.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from hwnas.errors import InputError, printable
from hwnas.support import commands
from hwnas.support.files import locked
from hwnas.support.places import private_folder
from hwnas.support.records import FileRecord

VARIABLE = "HWNAS_TRUST"
_agrees = False  # to all that is named, by --trust


class Agreed(FileRecord):
    """What was agreed to, by its hash; deleting the file makes hwnas ask again."""

    WHAT: ClassVar[str] = "the record of what was agreed to"

    named: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of_user(cls) -> "Agreed":
        """Read the user's own record; one without anything where there is none yet."""
        path = _path()
        return cls.read(path, again=commands.devices()) if path.exists() else cls(version=cls.VERSION)


@contextmanager
def trusting(agrees: bool = True) -> Iterator[None]:
    """Agree meanwhile to all that is asked, if wanted, and keep that."""
    global _agrees
    before, _agrees = _agrees, agrees
    try:
        yield
    finally:
        _agrees = before


def check_trusted(what: str, content: bytes = b"", *, named_by: str) -> None:
    """Ask whether what a file names may be started or reached, unless that was agreed to, with this very content.

    Raises InputError, with what to type, where it is not agreed to, and where nobody can be asked.
    """
    if os.environ.get(VARIABLE) == "1" or _hash(what, content) in Agreed.of_user().named:
        return
    if not (_agrees or _confirmed(what, named_by)):
        raise InputError(
            f"what a file names is started or reached only once that was agreed to; {printable(named_by)} names "
            f"{printable(what)}. If you trust it, type the same command with --trust; it is kept. Programs "
            f"set {VARIABLE}=1"
        )
    keep_trusted(what, content)


def keep_trusted(what: str, content: bytes = b"") -> None:
    """Keep that something was agreed to."""
    path = _path()
    with locked(path.with_suffix(".lock")):
        agreed = Agreed.of_user()
        named = {**agreed.named, _hash(what, content): what}
        Agreed(version=Agreed.VERSION, named=named).write(path)


def _path() -> Path:
    return private_folder() / "agreed.json"


def _hash(what: str, content: bytes) -> str:
    return hashlib.sha256(what.encode(errors="surrogatepass") + b"\0" + hashlib.sha256(content).digest()).hexdigest()


def can_ask() -> bool:
    """Tell whether somebody sits at a terminal who may be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _confirmed(what: str, named_by: str) -> bool:
    """Ask on the terminal, if there is one."""
    if not can_ask():
        return False
    import typer

    return typer.confirm(f"{printable(named_by)} names {printable(what)}. Start or reach it, from now on?", err=True)
