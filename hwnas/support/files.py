"""Files that are either whole or absent: written to a temporary name, flushed, renamed. And files that are locks."""

import fcntl
import json
import os
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwnas.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`; on failure `path` is untouched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    """Write `content` atomically as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write `value` atomically as JSON; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str) -> Any:
    """Return the content of a JSON file; `what` names the file in errors.

    Raises InputError where the file is missing or is not JSON.
    """
    return _read(path, json.loads, "JSON", what)


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """Return the content of a TOML file; `what` names the file in errors.

    Raises InputError where the file is missing or is not TOML.
    """
    content: dict[str, Any] = _read(path, tomllib.loads, "TOML", what)
    return content


def _read(path: Path, parse: Callable[[str], Any], form: str, what: str) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{what} must exist; got {path}, which does not") from None
    except OSError as error:  # a folder, one that may not be read, a path through a file
        raise InputError(f"{what} must be a file that can be read; got {path}: {error.strerror}") from None
    except ValueError as error:  # what both parsers and the decoder raise
        raise InputError(f"{what} must be {form}; {path} is not: {error}") from None


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait until nobody else has a file locked, and keep it so; the system frees it when the process dies.

    Those who lock it `shared` keep out, and wait for, only those who do not.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
