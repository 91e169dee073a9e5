"""What all that is printed shares: tables whose lines are broken on a terminal, and nowhere else."""

import sys

from rich.console import Console
from rich.table import Table

from hwnas.errors import printable

_TEXT = ("network", "files", "part", "entry", "state")  # columns of words
_WIDE = 10_000  # columns of a file or a pipe: no line is broken there


def console() -> Console:
    """Return where results are printed, as they are: brackets are brackets."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


def print_table(columns: list[str], rows: list[list[str]], *, title: str = "") -> None:
    """Print rows under their columns' names, numbers to the right."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in _TEXT else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))  # much of it was read from files of others
    if title:
        print(title)
    console().print(table)


def in_kib(count: int | None) -> str:
    """Return bytes in KiB, or that they are not known."""
    return "unknown" if count is None else f"{count / 1024:,.1f}"
