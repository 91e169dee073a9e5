"""The study of a run: its journal, which survives a crash, and the leases of its trials."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.latency import Budget
from hwnas.training import Curve, Look
from hwnas.errors import InputError
from hwnas.support import locked, read_json, write_bytes, write_json
from hwnas.latency import TimedNetwork
from hwnas.network import Architecture, Scale, ladder

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hwnas.datasets import Dataset


def repair_journal(path: Path) -> Path | None:
    """Cut off what a crash or a full disk left of a journal's last record; return the file that keeps it, if any."""
    content = path.read_bytes() if path.exists() else b""
    whole = content if content.endswith(b"\n") else content[: content.rfind(b"\n") + 1]
    if content != whole and _is_record(content[len(whole) :]):
        whole = content + b"\n"  # only the line's end was lost
    while whole and not _is_record(whole[whole.rfind(b"\n", 0, -1) + 1 :]):  # a crash can also leave zeros
        whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
    if whole == content:
        return None
    torn = None
    if not whole.startswith(content):
        torn = path.with_name(f"{path.name}.torn-{time.strftime('%Y%m%dT%H%M%S')}")
        write_bytes(torn, content[len(whole) :])
    write_bytes(path, whole)
    return torn


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


class JournalLock:
    """A lock for Optuna's journal that the system frees when its owner dies; Optuna's own then blocks for 30 s.

    What an owner that was killed left of a record is cut off before another one is written behind it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f".{journal.stem}.lock")

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if self._is_torn():
            repair_journal(self._journal)
        return True

    def release(self) -> None:
        """Let others have it."""
        self._file.close()

    def _is_torn(self) -> bool:
        if not self._journal.exists() or not self._journal.stat().st_size:
            return False
        with self._journal.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"


class Leases:
    """Which process evaluates which trial: a lock on one byte of a file for each.

    The system frees it when its owner dies, however that happens: no clock tells a slow worker from a dead one, and it
    is the same for every storage. In exchange it holds for the processes of one machine only; Optuna's heartbeat, which
    would do for several, is no part of the journal.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def take(self, number: int) -> bool:
        """Take the lease of the trial of this number; return whether no other process has it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # which of them depends on the system
            return False
        return True

    def release(self, number: int) -> None:
        """Let others have it."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
