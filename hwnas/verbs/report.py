"""`hwnas report`: one self-contained HTML page of a run, and the picture of its front, from the run's folder alone.

Neither the device nor the data set is needed: figures come from the study, the winners' records, the artefacts' cards
and, for the latency by operator, the latency table. What is not there yet is said in its place, with what to type.
"""

import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hwnas.errors import HwnasError, InputError
from hwnas.runs import RunFolder
from hwnas.support import FilePath, FolderPath, Terminated, commands, say
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.runs import Run

_LOOK_EVERY_S = 1.0
_REST = 4  # times the processor's time that the page took: what is measured or trained meanwhile is to be left alone
_WRITTEN = ("report.html", "front.png", "front.svg")

State = list[tuple[str, int, int]]  # of a folder: the paths, sizes and times of its files


@dataclass(frozen=True, slots=True)
class Reported:
    """The files that `report` wrote: the page, and its first picture by itself."""

    page: str
    front_png: str
    front_svg: str


class ReportOptions(RunFolder):
    """The options of `hwnas report`."""

    export_folder: FolderPath = Field(default=commands.EXPORT, description="where `hwnas export` wrote to: its --out")
    contest: FilePath | None = Field(
        default=None, description="contest.json of benchmarks/contest.py, whose hand-made networks are shown"
    )
    watch: bool = Field(
        default=False,
        description="serve the page on this machine alone (127.0.0.1), and write it anew whenever the run's folder "
        "changes; the page loads itself anew; Ctrl-C ends it",
    )
    port: int = Field(default=0, ge=0, le=65535, description="port of --watch; 0: one that is free")

    def check(self) -> None:
        """Raise InputError for a port of nothing that is served."""
        if self.port and not self.watch:
            raise InputError("--port is of --watch, which is not given: add it, or leave --port out")


@takes(ReportOptions)
def report(options: ReportOptions) -> Reported:
    """Write a run's report: one HTML page with its front, its winners and its settings, and the front as a picture.

    A card that cannot be read is said, on the page as well, and left out. Raises InputError where nothing was trained
    yet, and for a winner's record that cannot be read; with `watch` the page says so, until it is otherwise.
    """
    from hwnas.runs import Run

    options.check()
    if not options.watch:
        return _write(options)
    opened = Run.open(str(options.run))
    _check_watched(opened)
    _watch(options, opened.folder)
    return _reported(opened.folder)


def _reported(folder: Path) -> Reported:
    return Reported(*(str(folder / name) for name in _WRITTEN))


def _write(options: ReportOptions) -> Reported:
    from hwnas.pages import ContestRecord, View, pictures, render_page
    from hwnas.runs import Run
    from hwnas.support import write_bytes, write_text

    opened = Run.open(str(options.run))
    contest = ContestRecord.read(Path(options.contest), again=ContestRecord.AGAIN) if options.contest else None
    view = View(opened, Path(options.export_folder), contest)
    for why in view.unreadable:
        say(why)
    written = _reported(opened.folder)
    front = view.front_figure()
    write_bytes(Path(written.front_png), pictures.png(front))
    write_text(Path(written.front_svg), pictures.svg(front))
    write_text(Path(written.page), render_page(view))
    return written


def _watch(options: ReportOptions, folder: Path) -> None:
    """Serve the page, and write it anew when what it shows has changed, until Ctrl-C."""
    from hwnas.pages.serving import serving

    shown = (folder, Path(options.export_folder) / folder.name)
    with serving(options.port) as server:
        known: list[State] = []
        try:
            while True:
                began, state = time.process_time(), [_state(place) for place in shown]
                if state != known:
                    server.show(_page(options))
                if not known:
                    say(f"serving {server.address}, on this machine alone; Ctrl-C ends it")
                known = state
                time.sleep(max(_LOOK_EVERY_S, _REST * (time.process_time() - began)))
        except Terminated:
            raise
        except KeyboardInterrupt:
            say(f"no longer serving {server.address}")


def _check_watched(run: "Run") -> None:
    """Raise InputError for a run whose trials are not in its folder, where they cannot be seen to change."""
    if run.settings.storage:
        raise InputError(
            f"--watch looks at a run's folder, and the trials of {run.folder} are in {run.settings.storage}. "
            f"Type, as often as you like: {commands.report(run.folder)}"
        )


def _page(options: ReportOptions) -> str:
    """Return the page that was written, or one that says why there is none yet."""
    try:
        return Path(_write(options).page).read_text(encoding="utf-8")
    except HwnasError as error:
        return _WITHOUT_PAGE.format(reason=escape(str(error)))


_WITHOUT_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'"><meta name="color-scheme" content="light dark">
<title>hwnas report</title></head><body><h1>No report yet</h1><p>{reason}</p></body></html>
"""


def _state(folder: Path) -> State:
    """Return what there is in a folder, but for what `report` writes, and what is hidden."""
    state: State = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except OSError:  # it was removed just now
            continue
        if path.is_file() and path.name not in _WRITTEN and not path.name.startswith("."):
            grows = path.suffix == ".log"  # a journal, which is touched, and not changed, when it is opened
            state.append((str(path), status.st_size, 0 if grows else status.st_mtime_ns))
    return state
