"""What is said while a verb works: lines, and progress bars with the remaining time.

Lines go through the logger `hwnas` as INFO: a program silences them by its level and redirects them by its handlers.
Where nobody has set logging up they are printed on standard error, above the bars; elsewhere there are no bars, and
where standard error is no terminal there is a line now and then. All threads share one display.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

logger = logging.getLogger("hwnas")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)  # the root's would leave out what is said
_console = Console(stderr=True, highlight=False)
_LINE_EVERY_S = 20.0


class ConsoleHandler(logging.Handler):
    """Prints lines on standard error, above the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record's message."""
        _print(record.getMessage())


def _print(text: str) -> None:
    """Print a line, which is broken at words on a terminal only."""
    _console.print(text, markup=False, soft_wrap=not _console.is_terminal)


def show_on_console() -> None:
    """Print what is said on standard error, whoever else listens to the logger."""
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())


def say(text: str) -> None:
    """Tell the user something."""
    if logger.hasHandlers():
        logger.info(text, stacklevel=2)
    elif logger.isEnabledFor(logging.INFO):
        _print(text)


@cache
def remark(text: str) -> None:
    """Tell the user something, once however often it is found."""
    say(text)


def _has_bars() -> bool:
    """Say whether bars are shown: what is said goes to a terminal."""
    shown = not logger.hasHandlers() or any(isinstance(handler, ConsoleHandler) for handler in logger.handlers)
    return shown and logger.isEnabledFor(logging.INFO) and _console.is_terminal


class Bar:
    """One running task; `advance` and `describe` may be called as often as one likes."""

    def __init__(self, progress: "Progress", task: "TaskID", description: str, clock: Callable[[], float]) -> None:
        self._progress, self._task, self._description, self._clock = progress, task, description, clock
        self._last_line = clock()
        self._first: tuple[float, float] | None = None  # when a step was first done, and how many then

    def advance(self, steps: float = 1) -> None:
        """Count `steps` as done."""
        self._progress.advance(self._task, steps)
        self._line_if_due()

    def at(self, completed: float, *, total: float | None = None) -> None:
        """Say how much is done in all, and of how much where that has changed."""
        self._progress.update(self._task, completed=completed, total=total)
        self._line_if_due()

    def describe(self, detail: str) -> None:
        """Add a word on what is being done."""
        self._progress.update(self._task, description=f"{self._description} {detail}")

    def _line_if_due(self) -> None:
        if self._progress.live.is_started:
            return
        now = self._clock()
        task = next(task for task in self._progress.tasks if task.id == self._task)
        if not task.total or not task.completed:
            return
        if self._first is None:  # what came before was preparation
            self._first = now, task.completed
        began, first = self._first
        if now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            done = task.completed - first
            left = f", {(now - began) / done * (task.total - task.completed):.0f} s left" if done else ""
            say(f"{task.description}: {task.completed:.0f} of {task.total:.0f}{left}")


class _Display:
    """The bars of all threads, one below the other, as long as there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._bars = 0

    @contextmanager
    def progress(self) -> "Iterator[Progress]":
        """Give what bars are added to; the first one starts it, the last one stops it."""
        with self._lock:
            if self._progress is None:
                self._progress = _new_progress()
                if _has_bars():
                    self._progress.start()
            self._bars += 1
            progress = self._progress
        try:
            yield progress
        finally:
            with self._lock:
                self._bars -= 1
                if not self._bars:
                    self._progress = None
                    if progress.live.is_started:  # elsewhere it would end with an empty line
                        progress.stop()


_display = _Display()


def _new_progress() -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=_console, transient=True)


@contextmanager
def bar(description: str, total: float, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Bar]:
    """Show a bar for a task of `total` steps, below those that there are."""
    with _display.progress() as progress:
        task = progress.add_task(description, total=total)
        try:
            yield Bar(progress, task, description, clock)
        finally:
            progress.remove_task(task)
