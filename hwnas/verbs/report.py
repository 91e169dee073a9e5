"""`hwnas report`: one self-contained HTML page of a run, and the picture of its front, from the run's folder alone.

Neither the device nor the data set is needed: figures come from the study, the winners' records, the artefacts' cards
and, for the latency by operator, the latency table. What is not there yet is said in its place, with what to type.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from hwnas.runs import RunFolder
from hwnas.support import FilePath, FolderPath, commands, say
from hwnas.verbs._takes import takes


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


@takes(ReportOptions)
def report(options: ReportOptions) -> Reported:
    """Write a run's report: one HTML page with its front, its winners and its settings, and the front as a picture.

    A card that cannot be read is said, on the page as well, and left out. Raises InputError where nothing was trained
    yet, and for a winner's record that cannot be read.
    """
    from hwnas.pages import ContestRecord, View, pictures, render_page
    from hwnas.runs import Run
    from hwnas.support import write_bytes, write_text

    opened = Run.open(str(options.run))
    contest = ContestRecord.read(Path(options.contest), again=ContestRecord.AGAIN) if options.contest else None
    view = View(opened, Path(options.export_folder), contest)
    for why in view.unreadable:
        say(why)
    written = Reported(*(str(opened.folder / name) for name in ("report.html", "front.png", "front.svg")))
    front = view.front_figure()
    write_bytes(Path(written.front_png), pictures.png(front))
    write_text(Path(written.front_svg), pictures.svg(front))
    write_text(Path(written.page), render_page(view))
    return written
