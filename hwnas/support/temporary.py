"""Temporary folders, which are removed at the end; those of processes that were killed, by the next one."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hwnas.support.locks import fcntl
from hwnas.support.stopping import held

_open: set[Path] = set()  # those of this process
_PREFIX = "hwnas-tmp-"  # a board's folders, which may be beside these, have other names


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder in the system's place for such, and remove it at the end, with what has been written there.

    It is locked while its process lives: what a killed one left is found by that, and removed. What a thread still has
    at the end of the process, for which nobody waits, is removed then.
    """
    lock = -1
    try:
        with held():
            folder, lock = _make()
            _open.add(folder)
        yield folder
    finally:
        with held():
            if lock >= 0:
                shutil.rmtree(folder, ignore_errors=True)
                _open.discard(folder)
                os.close(lock)


@atexit.register
def remove_open() -> None:
    """Remove the folders that this process still has."""
    for folder in list(_open):
        shutil.rmtree(folder, ignore_errors=True)


def _make() -> tuple[Path, int]:
    """Make a folder and lock it; return it with the descriptor that holds the lock."""
    remove_left_behind(Path(tempfile.gettempdir()))
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Until it is locked, another process may take it for one that was left, and remove it: then make another.
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # a file system without locks: nothing is removed there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder, lock
        os.close(lock)


def remove_left_behind(place: Path) -> None:
    """Remove the temporary folders of this user's processes that are no more."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
