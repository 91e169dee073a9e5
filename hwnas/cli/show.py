"""Prints tables of rows, and what `hwnas tables`, `hwnas devices` and `hwnas verify` return."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hwnas.verbs.devices import AddedDevice, FoundDevice, FoundSetting, SetUpDevice
from hwnas.verbs.tables import CheckedTable, ComparedTables, MergedTable, NetworkEntry, ShownTable
from hwnas.verbs.verify import Verified

if TYPE_CHECKING:
    from hwnas.latency import OtherCosts

_WIDTH = 120  # of a table in a file or a pipe
_TEXT = ("network", "files", "part", "entry", "state")  # columns of words
_FEW = 3  # names that are printed of many
_CONDITIONS = {  # of a table, and how they are printed
    "date": "{}",
    "runtime_version": "{}",
    "cpu": "{}",
    "cores": "{} cores",
    "governor": "governor {}",
}


def print_table(columns: list[str], rows: list[list[str]], *, title: str = "", width: int | None = None) -> None:
    """Print rows under their columns' names, numbers to the right."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in _TEXT else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else width)
    console.print(table)


def show_tables(shown: list[ShownTable]) -> None:
    """Print what tables hold."""
    if not shown:
        print("there are no latency tables yet. Type: hwnas profile host")
    for table in shown:
        print(f"{table.path}: device {table.device}, setting {table.setting}")
        for line in _lines(table):
            print(f"  {line}")
        if table.rows is not None:
            rows = [
                [row.key, f"{row.ms:.4f}", f"{row.spread:.1%}", str(row.rounds), "unstable" * row.unstable]
                for row in table.rows
            ]
            print_table(["entry", "ms", "spread", "rounds", "state"], rows, width=_WIDTH)
        if table.network_rows:
            columns = ["network", "ms", "spread", "file KiB", "peak KiB", "load ms", "first ms", "state"]
            print_table(columns, [_network_row(row) for row in table.network_rows], width=_WIDTH)


def _lines(table: ShownTable) -> list[str]:
    lines = [table.problem] * bool(table.problem)
    if table.entries is None or table.conditions is None:
        return lines
    lines += [_conditions(table.conditions)] * bool(table.conditions)
    kinds = ", ".join(f"{count} {kind}" for kind, count in table.entries.items())
    lines.append(f"{sum(table.entries.values())} entries{f': {kinds}' if kinds else ''}")
    if table.median_spread is not None:
        steady = table.steadiness is None or not table.steadiness.remedies  # which end with the same command
        again = f"; to measure them again: {table.again}" * bool(table.again and steady)
        lines.append(f"median spread {table.median_spread:.1%}; unstable: {_few(table.unstable or [])}{again}")
    lines += str(table.steadiness).splitlines() if table.steadiness else []
    error = "" if table.prediction_error is None else f"; nine of ten predicted within {table.prediction_error:.1%}"
    held_out = f" ({table.held_out} of them held out)" * bool(table.held_out)
    lines.append(f"{table.networks} whole networks{held_out}{error}")
    lines += [f"their medians: {_other_costs(table.typical)}"] if table.typical else []
    lines += [str(table.validation)] if table.validation else []
    if table.rewrites:
        told = (f"{name} {ratio:.2f}{' (left out)' * (ratio > 1)}" for name, ratio in table.rewrites.items())
        lines.append(f"rewrites, with / without: {', '.join(told)}")
    if table.held_out:
        lines.append(f"held out were drawn {'; '.join(table.drawn or ['in a way that the file does not tell'])}")
    return lines


def _network_row(row: NetworkEntry) -> list[str]:
    other = row.other
    sizes = ["" if size is None else f"{size / 1024:.0f}" for size in (other.file_bytes, other.peak_memory_bytes)]
    times = ["" if ms is None else f"{ms:.3f}" for ms in (other.load_ms, other.first_ms)]
    state = " ".join(["held out"] * row.held_out + ["unstable"] * row.unstable)
    return [row.name, f"{row.ms:.4f}", f"{row.spread:.1%}", *sizes, *times, state]


def _other_costs(other: "OtherCosts") -> str:
    """Return what is known of a network's costs beside its latency."""
    told = [
        ("file {:,.0f} KiB", other.file_bytes, 1024),
        ("peak memory {:,.0f} KiB", other.peak_memory_bytes, 1024),
        ("loaded in {:.2f} ms", other.load_ms, 1),
        ("first inference {:.2f} ms", other.first_ms, 1),
    ]
    return ", ".join(words.format(cost / unit) for words, cost, unit in told if cost is not None)


def _conditions(conditions: Mapping[str, Any]) -> str:
    """Return the conditions that say most, in a line."""
    return ", ".join(words.format(conditions[name]) for name, words in _CONDITIONS.items() if conditions.get(name))


def _few(names: Sequence[str]) -> str:
    """Return how many names there are, and the first few of them."""
    more = ", ..." if len(names) > _FEW else ""
    return f"{len(names)} ({', '.join(names[:_FEW])}{more})" if names else "none"


def show_checked(checked: list[CheckedTable]) -> None:
    """Print of each table that it is fine, or what is wrong with it."""
    if not checked:
        print("there are no latency tables yet. Type: hwnas profile host")
    for one in checked:
        if one.fine:
            print(f"{one.path}: fine; {one.remark}")
        else:
            print(f"broken: {one.problem}")


def show_merged(merged: MergedTable) -> None:
    """Print what went into a merged table."""
    print(
        f"{merged.table}: {merged.entries} entries ({merged.common_entries} with the rounds of both), "
        f"{merged.networks} whole networks ({merged.common_networks} with the rounds of both); "
        f"{merged.unstable} unstable"
    )


def show_diff(compared: ComparedTables) -> None:
    """Print two tables side by side."""
    print(f"a: {compared.a}\nb: {compared.b}")
    for difference in compared.differences:
        print(f"{difference.field}: {difference.a!r} in a, {difference.b!r} in b")
    print(f"entries only in a: {_few(compared.only_a)}")
    print(f"entries only in b: {_few(compared.only_b)}")
    if compared.ratio_median is None:
        print("no entry is in both")
        return
    print(
        f"{compared.common} entries in both; b / a: median {compared.ratio_median:.3f}, quartiles "
        f"{compared.ratio_lower_quartile:.3f} and {compared.ratio_upper_quartile:.3f}; {compared.beyond_10_percent} "
        f"differ by more than 10 % (median spread {compared.a_median_spread:.1%} in a, "
        f"{compared.b_median_spread:.1%} in b)"
    )
    rows = [
        [
            one.key,
            f"{one.a_ms:.4f}",
            f"{one.b_ms:.4f}",
            f"{one.ratio:.3f}",
            f"{one.a_spread:.1%}",
            f"{one.b_spread:.1%}",
        ]
        for one in compared.largest
    ]
    columns = ["entry", "a ms", "b ms", "b / a", "spread a", "spread b"]
    print_table(columns, rows, title="the largest differences", width=_WIDTH)


def show_devices(found: list[FoundDevice]) -> None:
    """Print the devices and their settings, with what is missing and what to type next."""
    if not found:
        print("there are no devices. Type: hwnas devices add NAME")
    for device in found:
        head = f"{device.name} ({device.transport})" if device.transport else device.name
        print(f"{head}: {device.path}" + f"; {device.description}" * bool(device.description))
        if device.problem:
            print(f"  {device.problem}")
        for setting in device.settings:
            print(f"  {setting.name}: {_state(setting)}")
            if setting.missing:
                print(f"    {setting.missing}")
            if setting.next:
                print(f"    next: {setting.next}")


def _state(setting: FoundSetting) -> str:
    reached = {None: "not tried", True: f"runs, {setting.runtime}", False: "cannot run now"}[setting.reached]
    return f"{reached}; " + (f"table {setting.table}" if setting.table else "no table yet")


def show_added(added: AddedDevice) -> None:
    """Print where a new device's file is, and what to type next."""
    print(f"{added.path}: {', '.join(added.settings)}\nnext: hwnas devices, then hwnas profile {added.name}")


def show_set_up(made: SetUpDevice) -> None:
    """Print where an emulated device's files are, and what to type next."""
    print(f"{made.name} is ready, in {made.folder}\nnext: hwnas verify export/RUN/TRIAL --device {made.name}")


def show_verified(verified: list[Verified]) -> None:
    """Print how each file compares with PyTorch here, and on a device with here; and instructions where counted."""
    rows = []
    for one in verified:
        error = f"{one.relative_error:.1e} of the largest" if one.steps is None else f"{one.steps} quantisation steps"
        counted = "not counted" if one.instructions is None else f"{one.instructions:,}"
        state = "the same" if one.fine else "NOT the same" if one.as_pytorch else "NOT as PyTorch"
        rows.append([one.file, one.setting, _beside_pytorch(one), error, state, counted])
    columns = ["file", "setting", "beside PyTorch", "largest difference", "outputs", "instructions an inference"]
    print_table(columns, rows, title=f"on {verified[0].device}, beside this machine", width=_WIDTH)


def _beside_pytorch(one: Verified) -> str:
    """Return how a file's outputs here compare with PyTorch's."""
    if one.check_error is None or one.check_agreement is None:
        return "not compared"
    if one.precision == "fp32":
        return f"{one.check_error:.1e} of the largest"
    return f"{one.check_agreement:.0%} the same class"
