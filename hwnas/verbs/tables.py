"""`hwnas tables`: shows, checks, merges and compares latency tables, what `profile` fills and `search` reads.

A table is named by its file's path, or as DEVICE/SETTING, or as DEVICE where it has one table or all are meant.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hwnas.errors import InputError, TableError
from hwnas.support import AnyPath, FilePath, Options
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.latency import CheckedTable, ComparedTables, MergedTable, ShownTable


class ShowOptions(Options):
    """The options of `hwnas tables show`."""

    table: AnyPath | None = Field(
        default=None,
        kw_only=False,
        description="a table: its file, DEVICE or DEVICE/SETTING; without it all tables",
    )
    setting: str | None = Field(
        default=None, description="one of the device's settings, such as tflite-fp32-1t; without it all"
    )
    entries: bool = Field(default=False, description="list every entry")


class CheckOptions(Options):
    """The options of `hwnas tables check`."""

    tables: list[str] | None = Field(
        default=None,
        kw_only=False,
        description="tables: files, DEVICE or DEVICE/SETTING; without them all tables",
    )


class DiffOptions(Options):
    """The options of `hwnas tables diff`."""

    a: AnyPath = Field(kw_only=False, description="a table: its file, or DEVICE/SETTING")
    b: AnyPath = Field(kw_only=False, description="another one")


class MergeOptions(DiffOptions):
    """The options of `hwnas tables merge`."""

    out: FilePath = Field(description="file to write, .json; it may be one of the two")


@takes(ShowOptions)
def tables_show(options: ShowOptions) -> "list[ShownTable]":
    """Show what latency tables hold: conditions, entries by kind, how stable they are, how well they predict.

    Raises UnknownNameError for a table that there is not, and TableError for a broken file that was named.
    """
    from hwnas.latency import LatencyTable, ShownTable, find_tables, shown, table_paths

    if options.table is not None:
        paths = table_paths(str(options.table), options.setting)
        return [shown(LatencyTable.read(path), with_rows=options.entries) for path in paths]
    tables = []
    for path in find_tables():
        try:
            tables.append(shown(LatencyTable.read(path), with_rows=options.entries))
        except TableError as error:
            tables.append(ShownTable(str(path), path.parent.name, path.stem, problem=str(error)))
    return tables


@takes(CheckOptions)
def tables_check(options: CheckOptions) -> "list[CheckedTable]":
    """Read and validate latency tables; say whether those of this machine fit it as it is now.

    The command's exit status is 1 where a table is broken. Raises UnknownNameError for a table that there is not.
    """
    from hwnas.latency import checked, find_tables, table_paths

    paths = [path for what in options.tables for path in table_paths(what)] if options.tables else find_tables()
    return [checked(path) for path in dict.fromkeys(paths)]


@takes(MergeOptions)
def tables_merge(options: MergeOptions) -> "MergedTable":
    """Merge two latency tables of one device, setting, CPU and runtime; entries in both get the rounds of both.

    Rounds that both have count once; the conditions are those of the first. Raises TableError, naming the fields,
    where the two are not comparable, and InputError for a file `out` that has something else and is neither of them.
    """
    from hwnas.latency import merge_files, one_table_path

    first, second = one_table_path(str(options.a)), one_table_path(str(options.b))
    target = Path(options.out)
    _check_out(target, first, second)
    return merge_files(first, second, target)


@takes(DiffOptions)
def tables_diff(options: DiffOptions) -> "ComparedTables":
    """Compare two latency tables: entries of only one, and the ratios b / a of those in both.

    Raises UnknownNameError for a table that there is not, and TableError for a broken one.
    """
    from hwnas.latency import LatencyTable, compared, one_table_path

    first, second = LatencyTable.read(one_table_path(str(options.a))), LatencyTable.read(one_table_path(str(options.b)))
    return compared(first, second)


def _check_out(out: Path, first: Path, second: Path) -> None:
    if first.resolve() == second.resolve():
        raise InputError(f"two tables must be given to merge; got {first} twice")
    if out.suffix != ".json":
        raise InputError(f"--out must be a table's file, which ends in .json; got {out}")
