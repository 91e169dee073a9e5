"""Prints what `hwnas profile` and `hwnas tables` return."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwnas.cli.show import print_table
from hwnas.support import commands

if TYPE_CHECKING:
    from hwnas.latency import (
        CheckedTable,
        ComparedTables,
        Conditions,
        Entry,
        MergedTable,
        NetworkEntry,
        OtherCosts,
        Profiled,
        ShownTable,
    )

_FEW = 3  # names that are printed of many
_CONDITIONS = {  # of a table, and how they are printed
    "date": "{}",
    "runtime_version": "{}",
    "cpu": "{}",
    "cores": "{} cores",
    "governor": "governor {}",
}


def show_profiled(profiled: "list[Profiled]") -> None:
    """Print what was measured of each setting, how steady the device was, and what to type next."""
    print_profiled(profiled)
    if profiled:
        print(f"next: {profiled[0].next}")


def print_profiled(profiled: "list[Profiled]") -> None:
    """Print what was measured of each setting, and how steady the device was."""
    for table in profiled:
        print(table)
        print(table.steadiness)
        if table.validation is not None:
            print(f"  {table.validation}")


def show_tables(shown: "list[ShownTable]") -> None:
    """Print what tables hold."""
    if not shown:
        print(f"there are no latency tables yet. Type: {commands.profile('host')}")
    for table in shown:
        print(f"{table.path}: device {table.device}, setting {table.setting}")
        for line in _lines(table):
            print(f"  {line}")
        if table.rows is not None:
            rows = [[row.key, f"{row.ms:.4f}", f"{row.spread:.1%}", str(row.rounds), _state(row)] for row in table.rows]
            print_table(["entry", "ms", "spread", "rounds", "state"], rows)
        if table.network_rows:
            columns = ["network", "ms", "spread", "file KiB", "peak KiB", "load ms", "first ms", "state"]
            print_table(columns, [_network_row(row) for row in table.network_rows])


def _lines(table: "ShownTable") -> list[str]:
    lines = [table.problem] * bool(table.problem)
    if table.entries is None or table.conditions is None:
        return lines
    lines += filter(None, [_conditions(table.conditions)])
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
    lines += table.ran or []
    lines += [f"their medians: {_other_costs(table.typical)}"] if table.typical else []
    lines += [str(table.validation)] if table.validation else []
    if table.rewrites:
        ratios = (f"{name} {ratio:.2f}{' (left out)' * (ratio > 1)}" for name, ratio in table.rewrites.items())
        lines.append(f"rewrites, with / without: {', '.join(ratios)}")
    if table.held_out:
        lines.append(f"held out were drawn {'; '.join(table.drawn or ['in a way that the file does not tell'])}")
    return lines


def _network_row(row: "NetworkEntry") -> list[str]:
    other = row.other
    sizes = ["" if size is None else f"{size / 1024:.0f}" for size in (other.file_bytes, other.peak_memory_bytes)]
    times = ["" if ms is None else f"{ms:.3f}" for ms in (other.load_ms, other.first_ms)]
    state = ["held out"] * row.held_out + [_state(row)]
    return [row.name, f"{row.ms:.4f}", f"{row.spread:.1%}", *sizes, *times, " ".join(filter(None, state))]


def _state(row: "Entry | NetworkEntry") -> str:
    """Return what is to be known of an entry: that its rounds disagree, and where it ran if not whole."""
    placement = row.placement
    partly = [str(placement)] if placement and not placement.whole else []
    return "; ".join(["unstable"] * row.unstable + partly)


def _other_costs(other: "OtherCosts") -> str:
    """Return what is known of a network's costs beside its latency."""
    costs = [
        ("file {:,.0f} KiB", other.file_bytes, 1024),
        ("peak memory {:,.0f} KiB", other.peak_memory_bytes, 1024),
        ("loaded in {:.2f} ms", other.load_ms, 1),
        ("first inference {:.2f} ms", other.first_ms, 1),
    ]
    return ", ".join(words.format(cost / unit) for words, cost, unit in costs if cost is not None)


def _conditions(conditions: "Conditions") -> str:
    """Return the conditions that say most, in a line."""
    known = {name: getattr(conditions, name) for name in _CONDITIONS}
    return ", ".join(_CONDITIONS[name].format(value) for name, value in known.items() if value)


def _few(names: Sequence[str]) -> str:
    """Return how many names there are, and the first few of them."""
    more = ", ..." if len(names) > _FEW else ""
    return f"{len(names)} ({', '.join(names[:_FEW])}{more})" if names else "none"


def show_checked(checked: "list[CheckedTable]") -> None:
    """Print of each table that it is fine, or what is wrong with it."""
    if not checked:
        print(f"there are no latency tables yet. Type: {commands.profile('host')}")
    for table in checked:
        if table.fine:
            print(f"{table.path}: fine; {table.remark}")
        else:
            print(f"broken: {table.problem}")


def show_merged(merged: "MergedTable") -> None:
    """Print what went into a merged table."""
    print(
        f"{merged.table}: {merged.entries} entries ({merged.common_entries} with the rounds of both), "
        f"{merged.networks} whole networks ({merged.common_networks} with the rounds of both); "
        f"{merged.unstable} unstable"
    )


def show_diff(compared: "ComparedTables") -> None:
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
            entry.key,
            f"{entry.a_ms:.4f}",
            f"{entry.b_ms:.4f}",
            f"{entry.ratio:.3f}",
            f"{entry.a_spread:.1%}",
            f"{entry.b_spread:.1%}",
        ]
        for entry in compared.largest
    ]
    columns = ["entry", "a ms", "b ms", "b / a", "spread a", "spread b"]
    print_table(columns, rows, title="the largest differences")
