"""Where the user's own devices and latency tables are, and what no other user of the machine may touch."""

import os
import stat
from pathlib import Path

from hwnas.errors import InputError
from hwnas.support.refusals import refusal


def expanded(path: str | Path) -> Path:
    """Return a path with the user's home for its ~. Raises InputError where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # as for the users of many containers
        raise InputError(
            f"~ must stand for a home folder; there is none for {path}. Write the path in full, or name a home by HOME"
        ) from None


def root() -> Path:
    """Return the folder that has the user's devices/ and latency_tables/: HWNAS_ROOT, or else the current one."""
    return expanded(os.environ.get("HWNAS_ROOT", "")).absolute()


def cache() -> Path:
    """Return the user's cache: hwnas in XDG_CACHE_HOME, or else in ~/.cache. Raises InputError for one without home."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache").absolute() / "hwnas"


def private_folder() -> Path:
    """Return a folder of this user alone, for locks and for what was agreed to; it is made where there is none.

    In the shared temporary folder anybody could hold a lock, or put a link in its place. Raises InputError where the
    folder cannot be made, is a link, is another user's, or can be read or written by others.
    """
    folder = cache() / ".private"  # no device's name, whose emulators' files are beside it
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(_words(folder, str(error))) from None
    except OSError as error:
        raise InputError(
            f"{refusal(error)}, or name another cache folder by XDG_CACHE_HOME, and type the same command again"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(_words(folder, "a link or a file"))
    if found.st_uid != os.geteuid():
        raise InputError(_words(folder, f"one of the user with number {found.st_uid}"))
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise InputError(_words(folder, f"permissions {stat.S_IMODE(found.st_mode):o}"))
    return folder


def _words(folder: Path, got: str) -> str:
    return (
        f"{folder} must be a folder that only this user can read and write; got {got}. Remove it, or type: "
        f"chmod 700 {folder}, or name another cache folder by XDG_CACHE_HOME"
    )
