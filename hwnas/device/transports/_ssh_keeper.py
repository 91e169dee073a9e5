"""Goes to an ssh device and keeps its runs alive there while connections come and go: `keeper.py ROLE ...`.

    open PARENT PATIENCE_S    make a private folder in PARENT (empty: the system's), guard it, write its path
    run RUN FIRST ARGUMENT... start this Python with these arguments, detached, its output in the folder RUN, unless
                              that is there; write its lines from number FIRST (of 0, 1, ...) on, until it has ended
    stop RUN                  end the run, and wait for its end
    close FOLDER              end the runs of a private folder, and remove it

Before anything else it writes BEGIN. It needs Python 3.9 and POSIX. A run outlives the connection that started it. What
ends it if the client never comes back is the guard, one process for each private folder: the client changes the time of
the file `alive` there every few seconds, and PATIENCE_S after the last change the guard does what `close` does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLL_S = 0.2  # between two looks at a run's output: about 0.1 ms of work each
STOP_S = 5  # for a killed process to be gone
START_S = 10  # for a run that another call starts
TAIL = 2000  # bytes of standard error that are told at the end
BEGIN = "hwnas-keeper"  # the first line of each call: what a login script has written comes before it
LOST = "lost"  # instead of a run's status: it was ended together with what waited for it

ALIVE = "alive"  # holds the guard's process id
# A run's files. Its state is the name of a file: on a full disk, one can be renamed but not written.
OUTPUT, ERRORS, LOCK, RUNNING, ENDED = "out", "err", "lock", "running", "ended."


def detach() -> bool:
    """Fork. Return True in the child, which no terminal and no connection's end reaches."""
    if os.fork():
        return False
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    return True


def open_folder(parent: str, patience_s: float) -> None:
    """Make a private folder, write its path, and guard it."""
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="hwnas-", dir=parent or None)).absolute()
    (folder / ALIVE).touch()
    print(folder, flush=True)
    if detach():
        guard(folder, patience_s)


def guard(folder: Path, patience_s: float) -> None:
    """Clear the folder away when it has had no sign of life for too long."""
    lock = os.open(folder / ALIVE, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process has ended
    with contextlib.suppress(OSError):  # of a full disk
        os.write(lock, str(os.getpid()).encode())
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < patience_s:
        time.sleep(min(3.0, patience_s / 10))
        try:
            changed = (folder / ALIVE).stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed != seen:
            seen, since = changed, time.monotonic()
    clear(folder)


def close_folder(folder: Path) -> None:
    """End the guard, and do what it would have done."""
    with contextlib.suppress(OSError, ValueError):
        if locked(folder / ALIVE):
            os.kill(int((folder / ALIVE).read_text()), signal.SIGKILL)
    clear(folder)


def clear(folder: Path) -> None:
    """End the folder's runs and remove it."""
    for running in folder.glob(f"*/{RUNNING}"):
        stop(running.parent)
    shutil.rmtree(folder, ignore_errors=True)


def start(run: Path, arguments: list[str]) -> None:
    """Start a run, unless another call has done so, and return when it runs."""
    try:
        run.mkdir()
    except FileExistsError:
        await_start(run)
        return
    told, tell = os.pipe()
    if detach():
        keep(run, arguments, tell)
        sys.exit()
    os.close(tell)
    with os.fdopen(told) as words:
        error = words.read()
    if error:
        sys.exit(error)


def await_start(run: Path) -> None:
    """Return when a run that another call starts has a state; ends this process where that takes too long."""
    end = time.monotonic() + START_S
    while state(run) is None and not (run / RUNNING).exists():
        if time.monotonic() > end:
            sys.exit(f"{run} was not started within {START_S} s")
        time.sleep(POLL_S)


def keep(run: Path, arguments: list[str], tell: int) -> None:
    """Start a process and wait for it, in the background; `tell` is closed when it runs, or is written an error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        lock = os.open(run / LOCK, os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)  # until this process has ended, however it does
        with (run / OUTPUT).open("wb") as out, (run / ERRORS).open("wb") as errors:
            (run / RUNNING).write_text(str(os.getpid()))
            command = [sys.executable, "-u", *arguments]
            # the pipe to its standard input stays open as long as this process lives
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=errors, start_new_session=True
            )
    except OSError as error:
        os.write(tell, f"{type(error).__name__}: {error}".encode())
        return
    os.close(tell)
    status: int | str = LOST
    try:
        status = process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
        process.wait()
        (run / RUNNING).rename(run / f"{ENDED}{status}")


def state(run: Path) -> str | None:
    """Return the status of a run that has ended, or LOST; None for one that runs or is being started."""
    if not run.exists():
        return LOST
    status = ended(run)
    if status is not None or not (run / RUNNING).exists() or locked(run / LOCK):
        return status
    return ended(run) or LOST


def locked(path: Path) -> bool:
    """Tell whether a process holds a file's lock: unlike its process id, that does not outlive it, nor a restart."""
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def ended(run: Path) -> str | None:
    """Return the status that a run has ended with, if it is known."""
    return next((path.name[len(ENDED) :] for path in run.glob(f"{ENDED}*")), None)


def follow(run: Path, first: int) -> None:
    """Copy a run's output, from a line on, until it has ended or standard input closes, as it does without a client.

    Its last line on standard error is an object: `status`, `words` (the end of the run's standard error) and
    `free` (bytes on the disk).
    """
    with (run / OUTPUT).open("rb") as out:
        for _ in range(first):
            out.readline()
        while True:
            status = state(run)
            shutil.copyfileobj(out, sys.stdout.buffer)
            sys.stdout.flush()
            if status is not None:
                break
            if select.select([0], [], [], POLL_S)[0] and not os.read(0, 4096):
                return
    words = (run / ERRORS).read_bytes()[-TAIL:].decode(errors="replace")
    ending = {"status": status, "words": words, "free": shutil.disk_usage(run).free}
    print(json.dumps(ending), file=sys.stderr)


def stop(run: Path) -> None:
    """End a run and wait until it has ended."""
    if state(run) is not None:
        return
    try:
        os.kill(int((run / RUNNING).read_text()), signal.SIGTERM)
    except (OSError, ValueError):
        return
    end = time.monotonic() + STOP_S
    while state(run) is None and time.monotonic() < end:
        time.sleep(POLL_S / 10)


def main(arguments: list[str]) -> None:
    """Play a role."""
    print(BEGIN, flush=True)
    role, where, *rest = arguments
    if role == "open":
        open_folder(where, float(rest[0]))
    elif role == "run":
        start(Path(where), rest[1:])
        follow(Path(where), int(rest[0]))
    elif role == "stop":
        stop(Path(where))
    else:
        close_folder(Path(where))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"{type(error).__name__}: {error}")
