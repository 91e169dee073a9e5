"""`hwnas report`: one self-contained HTML page of a run."""

from dataclasses import dataclass
from typing import Annotated

import typer

from hwnas.options import RunFolder


@dataclass(frozen=True, slots=True)
class Reported:
    """The paths that `report` wrote."""

    page: str
    front_png: str
    front_svg: str


def report(
    run: RunFolder,
    *,
    export_folder: Annotated[str, typer.Option(help="folder that `hwnas export` wrote to")] = "export",
) -> Reported:
    """Write one self-contained HTML page of a run."""
    raise NotImplementedError
