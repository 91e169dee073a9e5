"""What can be scarce, and how it is made so: room on the disk, the right to write folders, file handles."""

import dataclasses
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

IS_ROOT = sys.platform == "linux" and os.geteuid() == 0
MOUNTED = 256 * 2**20
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)  # of what the verb writes: the room that there is
HANDLES = (8, 16, 32, 64, 128)
NOBODY = 65534
AS_NOBODY = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # the interpreter may be root's
FOLDERS = ("place", "place/runs", "place/export", "place/latency_tables", "place/devices", "cache", "home", "tmp")
ANYWHERE = ("/tmp", "/var/tmp", "/dev/shm")  # where temporary files may go otherwise


@dataclasses.dataclass
class Scarce:
    """What is done to a case: before its process starts, and in it; `undo` gives enough of everything."""

    words: str
    start: Callable[[], object] = lambda: None
    undo: Callable[[], object] = lambda: None
    in_child: Callable[[], object] | None = None
    is_other: bool = False  # a user without any rights
    folders: tuple[str, ...] = ()  # that may not be written: an error names one of them
    out: str = ""  # where it prints to
    may_leave: bool = False  # temporary files, as it takes handles to remove folders; the next call removes its own
    within: str = ""  # the case that has still less: where that ends well, so must this one


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def room_taken(folder: Path) -> int:
    if not IS_ROOT:
        sizes = [entry.stat().st_size for entry in folder.rglob("*") if entry.is_file()]
        return max(sizes, default=0)  # what RLIMIT_FSIZE bounds
    system = os.statvfs(folder)
    return (system.f_blocks - system.f_bfree) * system.f_frsize


def room_written(folder: Path, since_ns: int) -> int:
    """Return how much the files take that were written since, which is more than what is taken beyond before."""
    files = [entry.stat() for entry in folder.rglob("*") if entry.is_file()]
    sizes = [-(-file.st_size // 4096) * 4096 for file in files if file.st_mtime_ns >= since_ns]
    return sum(sizes) if IS_ROOT else max(sizes, default=0)


def of_disk(folder: Path, peak: int) -> Iterator[Scarce]:
    """Yield the five levels, one where nothing is written at all; and where what is printed goes to a full disk."""
    if Path("/dev/full").exists():
        yield Scarce("output", out="/dev/full")
    words_before = ""
    for share in SHARES if peak else SHARES[:1]:
        words = f"room {share:.0%}"
        if IS_ROOT:

            def start(room: int = int(share * peak)) -> None:
                size = max(4096, room_taken(folder) + room)
                mount("-o", f"remount,size={size}", str(folder))

            undo = lambda: mount("-o", f"remount,size={MOUNTED}", str(folder))  # noqa: E731
            yield Scarce(words, start, undo, within=words_before)
        else:
            limit = (max(4096, int(share * peak)), resource.RLIM_INFINITY)  # as what is printed goes to files, too
            bound = lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, limit)  # noqa: E731
            yield Scarce(words, in_child=bound, within=words_before)
        words_before = words


def of_folders(folder: Path, peak: int) -> Iterator[Scarce]:
    """Yield all folders at once, each of them, and somebody who may write none, or only the workplace."""
    if IS_ROOT:
        yield Scarce("all", *read_only([str(folder), *ANYWHERE]), folders=("place", "home", "tmp"))
    for name in FOLDERS:
        paths = [str(folder / name), *(ANYWHERE if name == "tmp" and IS_ROOT else ())]
        yield Scarce(name, *read_only(paths), folders=(name,), within="all")
    if IS_ROOT:
        own = lambda: subprocess.run(["chown", "-R", str(NOBODY), str(folder)], check=True)  # noqa: E731
        yield Scarce("user", undo=own, is_other=True, folders=("place", "home"))
        of_place = lambda: subprocess.run(["chown", "-R", str(NOBODY), str(folder / "place")], check=True)  # noqa: E731
        yield Scarce("user's place", of_place, own, is_other=True, folders=("home",))


def read_only(paths: list[str]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what makes folders read-only, and what undoes it."""

    def start() -> None:
        for path in filter(os.path.isdir, paths):
            if IS_ROOT:
                mount("--rbind", path, path)
                mount("-o", "remount,bind,ro", path)
            else:
                Path(path).chmod(0o555)

    def undo() -> None:
        for path in filter(os.path.isdir, reversed(paths)):
            subprocess.run(["umount", "-R", "-l", path], check=True) if IS_ROOT else Path(path).chmod(0o755)

    return start, undo


def of_handles(folder: Path, peak: int) -> Iterator[Scarce]:
    """Yield five numbers of files that may be open."""
    words_before = ""
    for most in HANDLES:
        bound = lambda limit=(most, most): resource.setrlimit(resource.RLIMIT_NOFILE, limit)  # noqa: E731
        yield Scarce(f"{most} handles", in_child=bound, may_leave=True, within=words_before)
        words_before = f"{most} handles"


KINDS = {"disk": of_disk, "folders": of_folders, "handles": of_handles}
