"""Progress bars with the remaining time, on standard error; a line now and then where that is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

console = Console(stderr=True, highlight=False)
_LINE_EVERY_S = 20.0


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
            console.print(f"{task.description}: {task.completed:.0f} of {task.total:.0f}{left}")


_active: list["Progress"] = []


@contextmanager
def bar(description: str, total: float, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Bar]:
    """Show a bar for a task of `total` steps; a bar inside another one is shown below it."""
    if _active:
        progress = _active[0]
        task = progress.add_task(description, total=total)
        try:
            yield Bar(progress, task, description, clock)
        finally:
            progress.remove_task(task)
        return
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
    progress = Progress(*columns, console=console, transient=True)
    if console.is_terminal:
        progress.start()
    _active.append(progress)
    try:
        yield Bar(progress, progress.add_task(description, total=total), description, clock)
    finally:
        _active.clear()
        if console.is_terminal:  # elsewhere it would end with an empty line
            progress.stop()


def say(text: str) -> None:
    """Print a line of information above the bars."""
    (_active[0].console if _active else console).print(text, markup=False)
