"""Files that are either whole or absent: written to a temporary name, flushed, renamed. And files that are locks.

What is read may be anything: its size and the depth of its nesting are bounded, and what is no file is not opened, as a
pipe would keep its reader waiting for ever.
"""

import json
import os
import re
import stat
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hwnas.errors import InputError, quoted
from hwnas.support.locks import fcntl
from hwnas.support.stopping import held

MIB = 2**20
_MOST_JSON = 16 * MIB  # of a record: a parser takes 30 times as much
_MOST_TOML = 1 * MIB  # of a file that people write
_MOST_NESTED = 64  # lists and tables within each other
_TEMPORARY = re.compile(r"\d+-\d+\.tmp")  # after the name of the file that it becomes
_HALF_A_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # a surrogate, which no UTF-8 has


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`; on failure `path` is untouched.

    `write` is to overwrite the file that is there: it is locked, by which those of killed processes are told from it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(), _temporary_beside(path) as temporary:
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            error.filename = error.filename or str(path)  # a full disk's error has none
            raise


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """Make an empty temporary file, locked, and remove it at the end if it is still there.

    What killed processes have left of the same kind is removed first.
    """
    _remove_left_behind(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    lock = _locked_file(temporary)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


def _locked_file(path: Path) -> int:
    """Make a file and lock it; return the descriptor that holds the lock."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        with suppress(OSError):  # a file system without locks: nothing is removed there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():  # another process may have taken it for one that was left, before it was locked
            return lock
        os.close(lock)


def _remove_left_behind(path: Path) -> None:
    """Remove the temporary files beside a path whose processes are no more."""
    with os.scandir(path.parent) as entries:
        names = [name for entry in entries if (name := entry.name).startswith(f".{path.name}.")]
    for left in (path.with_name(name) for name in names if _TEMPORARY.fullmatch(name[len(path.name) + 2 :])):
        with suppress(OSError):
            lock = os.open(left, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(lock)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    """Write `content` atomically as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write `value` atomically as JSON; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str, most_bytes: int = _MOST_JSON) -> Any:
    """Return the content of a JSON file; `what` names the file in errors.

    Raises InputError where the file is missing, is larger than `most_bytes` or is not JSON.
    """
    return _read(path, parse_json, "JSON", what, most_bytes)


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """Return the content of a TOML file; `what` names the file in errors.

    Raises InputError where the file is missing, too large or not TOML.
    """
    content: dict[str, Any] = _read(path, tomllib.loads, "TOML", what, _MOST_TOML)
    return content


def read_bytes(path: Path, *, what: str, most_bytes: int) -> bytes:
    """Return a file's content; `what` names the file in errors.

    Raises InputError where the file is missing, no file, or larger than `most_bytes`.
    """
    check_file(path, what=what)
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise InputError(f"{what} must have at most {most_bytes // MIB} MiB; {path} has {size / MIB:.1f} MiB")
        return path.read_bytes()
    except OSError as error:  # one that may not be read, a path through a file
        raise InputError(f"{what} must be a file that can be read; got {path}: {error.strerror}") from None


def check_file(path: Path, *, what: str) -> None:
    """Raise InputError for what is no file: nothing, a folder, a pipe, a device; `what` names it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{what} must exist; got {path}, which does not") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{what} must be a file that can be read; got {path}: {reason}") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(f"{what} must be a file that can be read; got {path}: it is {kind}")


def parse_json(text: str) -> Any:
    """Return the values of JSON; raises ValueError for any other text, and for one that cannot be taken at its word.

    That is one with two fields of one name in an object, or with half a character.
    """
    value = json.loads(text, object_pairs_hook=fields_once)
    if _HALF_A_CHARACTER.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    return value


def fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's fields; raises ValueError for two of one name, of which JSON would drop one."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{repeated[:40]!r} is there twice")
    return fields


def check_nesting(value: Any) -> None:
    """Raise ValueError for values that are nested so deep that what handles them would fail."""
    level = [value]
    for _ in range(_MOST_NESTED):
        level = [part for container in level for part in _parts(container) if isinstance(part, (dict, list))]
        if not level:
            return
    raise ValueError(f"its values are nested more than {_MOST_NESTED} deep")


def _parts(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container if isinstance(container, list) else ()


def _read(path: Path, parse: Callable[[str], Any], form: str, what: str, most_bytes: int) -> Any:
    content = read_bytes(path, what=what, most_bytes=most_bytes)
    try:
        value = parse(content.decode("utf-8-sig"))  # editors put a byte order mark before the text
        check_nesting(value)
    except RecursionError:
        raise InputError(f"{what} must be {form}; {path} is nested too deep") from None
    except ValueError as error:  # what both parsers and the decoder raise
        raise InputError(f"{what} must be {form}; {path} is not: {quoted(error)}") from None
    return value


@contextmanager
def locked(path: Path, *, shared: bool = False, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Wait until nobody else has a file locked, and keep it so; the system frees it when the process dies.

    Those who lock it `shared` keep out, and wait for, only those who do not. `on_wait` is called where it is not free.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, how)
        yield


def toml_value(value: Any) -> str:
    """Return text, a number, a truth value or a list in TOML, which writes all but one character as JSON does."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
