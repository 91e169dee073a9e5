"""The command line: each verb's function is its command; this prints what the function returns.

The main path: profile -> search -> train -> export -> report; `run` does all of it.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

import hwnas
from hwnas.artefacts import Exported
from hwnas.benching import Benched
from hwnas.cli.show import (
    print_table,
    show_added,
    show_checked,
    show_devices,
    show_diff,
    show_merged,
    show_set_up,
    show_tables,
    show_verified,
)
from hwnas.errors import ExportError, HwnasError, InputError
from hwnas.latency import Profiled
from hwnas.searching import Searched
from hwnas.support import show_on_console
from hwnas.verbs.describe import Described, DescribedSpace, LayerCosts
from hwnas.verbs.report import Reported
from hwnas.verbs.run import Ran
from hwnas.verbs.train import TrainedWinner

if TYPE_CHECKING:
    from hwnas.artefacts import Card, FileEntry
    from hwnas.latency import Largest

app = typer.Typer(
    help="Finds, trains and ships the most accurate image network that a device can run in a given time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_tables = typer.Typer(help="Show, check, merge and compare latency tables.", no_args_is_help=True)
_devices = typer.Typer()
app.add_typer(_tables, name="tables")
app.add_typer(_devices, name="devices")
_BROKEN = 1  # exit status of a check that found something broken
_STOPPED = 130  # as shells count a Ctrl-C
_WIDTH = 120  # of a table of layers in a file or a pipe
_MANY_LAYERS = 60  # of a network that is also printed by part


def main() -> None:
    """Run the command line; errors are printed as text, without a traceback."""
    show_on_console()
    try:
        app()
    except HwnasError as error:
        print(f"hwnas: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _command(
    verb: Callable[..., Any],
    show: Callable[[Any], None],
    *,
    group: typer.Typer = app,
    broken: Callable[[Any], bool] = lambda result: False,
) -> None:
    """Register a verb, with `--json` in addition to its own options; `broken` results end with an exit status.

    In a group a verb's command is what follows the group's name, and `devices` itself is what the bare group does.
    """

    @functools.wraps(verb)
    def run(context: typer.Context, *, json_output: bool, **options: Any) -> None:
        if context.invoked_subcommand is not None:
            return
        refused: ExportError | None = None
        try:
            result = verb(**options)
        except ExportError as error:
            if not error.exported:
                raise
            result, refused = error.exported, error
        except KeyboardInterrupt:  # typer would only say "Aborted"
            print("hwnas: stopped; type the same command again to go on", file=sys.stderr)
            sys.exit(_STOPPED)
        if json_output:
            print(json.dumps(_plain(result), default=lambda record: record.to_json()))
        else:
            show(result)
        if refused:
            raise refused
        if broken(result):
            sys.exit(_BROKEN)

    signature = inspect.signature(verb)
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_ONLY, annotation=typer.Context)
    json_option = inspect.Parameter(
        "json_output",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="print the result as JSON")],
    )
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[context, *signature.parameters.values(), json_option], return_annotation=None
    )
    run.__annotations__ = {
        "context": typer.Context,
        **verb.__annotations__,
        "json_output": json_option.annotation,
    }
    run.__doc__ = (verb.__doc__ or "").split("\n\n")[0]
    noun, _, command = verb.__name__.partition("_")
    if group is not app and not command:
        group.callback(invoke_without_command=True)(run)
    else:
        group.command(command or noun)(run)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _show_profiled(profiled: list[Profiled]) -> None:
    for one in profiled:
        print(
            f"{one.table}: {one.entries} operators ({one.measured_now} measured now, {one.seconds:.0f} s), "
            f"{one.unstable} unstable; median spread {one.median_spread:.1%}; {one.networks} whole networks, "
            f"nine of ten predicted within {one.error:.1%}"
        )
        print(one.steadiness)
        if one.validation is not None:
            print(f"  {one.validation}")


def _show_searched(searched: Searched) -> None:
    rows = [
        [
            str(c.trial),
            f"{c.accuracy:.4f}",
            f"{c.latency_ms:.3f}" + ("" if c.measured else " (predicted)"),
            f"{c.predicted_ms:.3f}",
            f"{c.mult_adds / 1e6:.2f}",
            f"{c.parameters / 1e3:.0f}",
            c.architecture.name,
        ]
        for c in searched.front
    ]
    columns = ["trial", "accuracy (short)", "latency ms", "predicted ms", "Mult-Adds M", "params k", "network"]
    print_table(columns, rows, title=f"{searched.run}: the front of {searched.trained} trained candidates")
    stopped = f" ({searched.stopped} of them stopped early)" if searched.stopped else ""
    print(f"{searched.trained} trained{stopped}, {searched.left_out} left out (over a cap, or known)")
    for level in searched.surrogate:
        print(level)
    if searched.ended:
        print(f"ended early: {searched.ended}")


def _show_winners(winners: list[TrainedWinner]) -> None:
    rows = [
        [
            str(w.trial),
            f"{w.test_accuracy:.2%}",
            f"{w.mult_adds / 1e6:.2f}",
            f"{w.parameters / 1e3:.0f}",
            f"{w.seconds:.0f}",
            w.folder,
        ]
        for w in winners
    ]
    print_table(["trial", "accuracy", "Mult-Adds M", "params k", "seconds", "files"], rows)


def _show_exported(exported: list[Exported]) -> None:
    rows = []
    for one in exported:
        card = one.card
        own_ms = card.own_file and card.own_file.measured_ms
        rows.append(
            [
                card.run if card.trial is None else str(card.trial),
                "no" if card.accuracy.test is None else f"{card.accuracy.test:.2%}",
                f"{card.mult_adds / 1e6:.2f}",
                f"{card.parameters / 1e3:.0f}",
                "no" if card.predicted_ms is None else f"{card.predicted_ms:.3f} ± {card.predicted_error:.0%}",
                "no" if own_ms is None else f"{own_ms:.3f}",
                "no" if card.cap_ms is None else f"{card.cap_ms:g}",
            ]
        )
    print_table(["trial", "accuracy", "Mult-Adds M", "params k", "predicted ms", "measured ms", "cap ms"], rows)
    for one in exported:
        card = one.card
        for name, file in card.files.items():
            each = f" an image, of a batch of {card.batch}," if card.batch else ""
            timed = f"{file.measured_ms:.3f} ms{each} in {file.setting}" if file.measured_ms else "not timed"
            print(f"{one.folder}/{name}: {file.bytes / 1024:.0f} KiB, {timed}{_told_accuracy(card, file)}")
            for rewrite, entry in file.rewrites.items():
                times = f": {entry.with_ms:.3f} ms instead of {entry.without_ms:.3f} ms" if entry.is_timed else ""
                ratio = f" ({entry.ratio:.2f})" if entry.is_timed else ""
                print(f"  {rewrite} in {entry.layers} layers{times}{ratio}")


def _told_accuracy(card: "Card", file: "FileEntry") -> str:
    """Return how accurate a file of reduced precision is: one of fp32 is as the network, and random weights are not."""
    if file.accuracy is None or not card.is_trained:
        return ""
    tuned = file.fine_tuning
    how = f", fine-tuned, as it had lost {tuned.lost_before:.2%}" if tuned and tuned.kept else ""
    return f"; accuracy {file.accuracy:.2%}, {file.agreement:.1%} of PyTorch's classes{how}"


def _show_reported(reported: Reported) -> None:
    for path in asdict(reported).values():
        print(path)


def _show_ran(ran: Ran) -> None:
    _show_profiled(ran.profiled)
    _show_reported(ran.reported)
    _show_exported(ran.exported)


def _show_benched(benched: Benched) -> None:
    for under in benched.caps:
        title = (
            f"cap {under.cap:g}: {under.candidates} networks, the one that looks best has a regret of {under.floor:.2f}"
        )
        rows = [
            [one.strategy, str(one.runs), evaluations]
            + [
                "" if value is None else f"{value:.3f}"
                for value in (found.regret_seen, found.regret, found.hypervolume)
            ]
            + [f"{one.ask_ms['median']:.1f}"]
            for one in benched.compared
            if one.cap == under.cap
            for evaluations, found in one.evaluations.items()
        ]
        columns = ["strategy", "runs", "evaluations", "regret seen", "regret", "hypervolume", "ms an ask"]
        print_table(columns, rows, title=title, width=_WIDTH)
    ended = sum(sum(one.ended.values()) for one in benched.compared)
    if ended:
        print(f"{ended} runs ended before all evaluations: comparison.csv says why")
    print(f"{benched.out}: comparison.csv, summary.json, comparison.png, comparison.svg")


def _show_described(described: Described | DescribedSpace) -> None:
    if isinstance(described, DescribedSpace):
        _show_space(described)
        return
    _show_layers(described)
    if len(described.layers) > _MANY_LAYERS:
        _show_parts(described)
    print(described.network)
    print(
        f"{described.parameters:,} parameters, {described.mult_adds:,} Mult-Adds, "
        f"{described.peak_activation_bytes / 2**20:.2f} MiB of activations at the most at once (fp32, one image)"
    )
    print(
        f"as a TFLite file {described.file_bytes_fp32 / 2**20:.2f} MiB in fp32, "
        f"{described.file_bytes_int8 / 2**20:.2f} MiB in int8"
    )
    if described.largest is not None:
        _show_largest(described.largest)


def _show_space(described: DescribedSpace) -> None:
    print(f"{described.space}: {', '.join(described.operations)}")
    distinct = [f"{count:,}" for count in described.distinct] + ["not counted"] * len(described.choices)
    rows = [[str(at + 1), f"{choices:,}"] for at, choices in enumerate(described.choices)]
    if described.distinct:
        rows = [[*row, count] for row, count in zip(rows, distinct, strict=False)]
    print_table(["block, stage or layer", "choices", *["distinct cells so far"] * bool(described.distinct)], rows)


def _show_layers(described: Described) -> None:
    """Print a row for each layer, under a heading for each part of the network, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=0)
    peak = described.peak_activation_bytes
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("layer", "total", overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("shape", justify="right", no_wrap=True)
    table.add_column("Mult-Adds", f"{described.mult_adds:,}", justify="right", no_wrap=True)
    table.add_column("params", f"{described.parameters:,}", justify="right", no_wrap=True)
    table.add_column("KiB alive", _kib(peak), justify="right", no_wrap=True)
    table.add_column("", "peak", no_wrap=True)
    for part, members in groupby(described.layers, key=_part):
        layers = list(members)
        if len(layers) > 1:
            table.add_row("", part, style="bold")
        for layer in layers:
            is_peak = layer.activation_bytes == peak
            name = layer.name.removeprefix(f"{part}.") if len(layers) > 1 else layer.name
            row = [str(layer.number), name, layer.operator, "x".join(map(str, layer.shape))]
            row += [f"{layer.mult_adds:,}", f"{layer.parameters:,}", _kib(layer.activation_bytes), "peak" * is_peak]
            table.add_row(*row, end_section=layer is layers[-1], style="bold" if is_peak else None)
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH).print(table)


def _kib(count: int) -> str:
    return f"{count / 1024:,.1f}"


def _part(layer: LayerCosts) -> str:
    """Return the part of the network that a layer belongs to: a cell, a block, the stem, ..."""
    return layer.name.partition(".")[0]


def _show_parts(described: Described) -> None:
    """Print the sums over each part of a network."""
    rows = []
    for part, members in groupby(described.layers, key=_part):
        layers = list(members)
        mult_adds, alive = sum(layer.mult_adds for layer in layers), max(layer.activation_bytes for layer in layers)
        rows.append(
            [
                part,
                str(len(layers)),
                f"{mult_adds:,}",
                f"{mult_adds / max(described.mult_adds, 1):.1%}",
                f"{sum(layer.parameters for layer in layers):,}",
                "peak " * (alive == described.peak_activation_bytes) + _kib(alive),
            ]
        )
    print_table(["part", "layers", "Mult-Adds", "of all", "params", "KiB alive"], rows, title="by part")


def _show_largest(largest: "Largest") -> None:
    scale = largest.scale
    time = ""
    if largest.latency_ms is not None:
        time = f", predicted {largest.latency_ms:.3f} ms ({largest.upper_ms:.3f} with the error)"
    print(
        f"N={scale.cells} F={scale.filters} resolution={scale.resolution}: the largest of {largest.scales} scales "
        f"inside the caps{time}, found in {largest.milliseconds:.0f} ms"
    )


_command(hwnas.profile, _show_profiled)
_command(hwnas.search, _show_searched)
_command(hwnas.train, _show_winners)
_command(hwnas.export, _show_exported)
_command(hwnas.report, _show_reported)
_command(hwnas.run, _show_ran)
_command(hwnas.bench, _show_benched)
_command(hwnas.describe, _show_described)
_command(hwnas.verify, show_verified, broken=lambda verified: not all(one.fine for one in verified))
_command(hwnas.tables_show, show_tables, group=_tables)
_command(
    hwnas.tables_check,
    show_checked,
    group=_tables,
    broken=lambda checked: not all(one.fine for one in checked),
)
_command(hwnas.tables_merge, show_merged, group=_tables)
_command(hwnas.tables_diff, show_diff, group=_tables)
_command(hwnas.devices, show_devices, group=_devices)
_command(hwnas.devices_add, show_added, group=_devices)
_command(hwnas.devices_setup, show_set_up, group=_devices)
