"""Several processes that search together on this machine: started, listened to, replaced and stopped.

A worker is a process that calls `work` of hwnas/searching/loop.py and ends when that returns. One that is killed is
replaced; one that fails stops all. None outlives the process that started it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from hwnas.device import runner
from hwnas.errors import HwnasError
from hwnas.support import Terminated, raised, say, system_errors_in_words

_LOOK_EVERY_S = 0.5
_REPLACED = 3  # times the number of workers
_PATIENCE_S = 10.0  # for a worker that is asked to stop: training writes its checkpoint
_WIDE = "10000"  # columns: lines are broken where they are shown
_STOPPED = 130  # as shells count a Ctrl-C


def supervise(options: Mapping[str, Any], *, count: int, on_look: Callable[[], None]) -> None:
    """Keep `count` processes on `work(**options)` of hwnas/searching/loop.py until all have done it.

    Options are JSON values. What they say is passed on, and `on_look` is called twice a second. Raises HwnasError where
    one of them fails, and where too many are killed.
    """
    running: list[_Worker] = []
    replacements = _REPLACED * count
    try:
        for _ in range(count):
            running.append(_Worker(options, count=count))
        while running:
            time.sleep(_LOOK_EVERY_S)
            on_look()
            for worker in [one for one in running if one.has_ended()]:
                running.remove(worker)
                worker.close()
                if worker.was_killed():
                    replacements -= 1
                    _say_replaced(worker, replacements)
                    running.append(_Worker(options, count=count))
    finally:
        for worker in running:
            worker.ask_to_stop()
        for worker in running:
            worker.stop()


def _say_replaced(worker: "_Worker", replacements: int) -> None:
    """Say that a worker is replaced; raises HwnasError where that was done too often."""
    if replacements < 0:
        raise HwnasError(
            f"workers must not be killed again and again; got one more that was ended by {worker.signal}. Nothing is "
            "lost: type the same command again to go on, with fewer --workers where memory is short"
        )
    say(f"a worker was ended by {worker.signal}: another one takes its place, {replacements} more times at most")


class _Worker:
    """One process, and a thread that passes on what it says."""

    def __init__(self, options: Mapping[str, Any], *, count: int) -> None:
        self._stopping = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hwnas.searching.workers", json.dumps(options)],
            stdin=subprocess.PIPE,  # it closes when this process ends: see `main`
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={"OMP_NUM_THREADS": str(_threads(count)), **os.environ, "COLUMNS": _WIDE},
            start_new_session=True,  # a Ctrl-C is for this process, which passes it on once
        )
        self._listener = threading.Thread(target=self._pass_on, daemon=True)
        self._listener.start()

    @property
    def signal(self) -> str:
        """What ended a worker that was killed."""
        return signal.Signals(-self._process.returncode).name

    def has_ended(self) -> bool:
        """Say whether it works no more."""
        return self._process.poll() is not None

    def was_killed(self) -> bool:
        """Say whether a signal ended it."""
        return self._process.returncode < 0

    def close(self) -> None:
        """Pass on the rest of what it said, now that it has ended; raises HwnasError where it has failed."""
        self._listener.join(_PATIENCE_S)
        with self._process as process:
            error = process.stdout.read() if process.stdout else ""
        if process.returncode > 0 and not self._stopping:
            raise HwnasError(error or "a worker must not fail; got one that did, with the traceback above")

    def ask_to_stop(self) -> None:
        """Stop it as Ctrl-C does; what it says to that is of no interest."""
        self._stopping = True
        self._process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Wait until it has stopped, but not for long."""
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.close()

    def _pass_on(self) -> None:
        for line in self._process.stderr or ():
            if not self._stopping:
                say(line.rstrip("\n"))


def _threads(count: int) -> int:
    """Return how many threads each worker may use, for all to have the cores of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // count)


def main(options: str) -> None:
    """Be a worker: end when standard input closes; an error meant for the user is all that goes to standard output."""
    from hwnas.searching.loop import work

    errors = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells turn it off for what runs in the background
    threading.Thread(target=runner.watch, daemon=True).start()
    try:
        with raised(), system_errors_in_words():
            work(**json.loads(options))
    except HwnasError as error:
        errors.write(str(error))
        errors.close()
        sys.exit(1)
    except Terminated:  # it has given back what it had, and is one that was killed, which another one replaces
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(_STOPPED)


if __name__ == "__main__":
    main(*sys.argv[1:])
