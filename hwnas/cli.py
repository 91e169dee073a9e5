"""The command line: each verb's function is its command; this prints what the function returns.

The main path: profile -> search -> train -> export -> report; `run` does all of it.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import hwnas
from hwnas.describe import Described, DescribedSpace
from hwnas.errors import HwnasError, InputError
from hwnas.export import Exported
from hwnas.pipeline import Ran
from hwnas.profile import Profiled
from hwnas.report import Reported
from hwnas.search import Searched
from hwnas.train import Winner

app = typer.Typer(
    help="Finds, trains and ships the most accurate image network that a device can run in a given time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_STOPPED = 130  # as shells count a Ctrl-C


def main() -> None:
    """Run the command line; errors are printed as text, without a traceback."""
    try:
        app()
    except HwnasError as error:
        print(f"hwnas: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _command(verb: Callable[..., Any], show: Callable[[Any], None]) -> None:
    """Register a verb, with `--json` in addition to its own options."""

    @functools.wraps(verb)
    def run(*, json_output: bool, **options: Any) -> None:
        try:
            result = verb(**options)
        except KeyboardInterrupt:  # typer would only say "Aborted"
            print("hwnas: stopped; type the same command again to go on", file=sys.stderr)
            sys.exit(_STOPPED)
        if json_output:
            print(json.dumps(_plain(result)))
        else:
            show(result)

    signature = inspect.signature(verb)
    json_option = inspect.Parameter(
        "json_output",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="print the result as JSON")],
    )
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), json_option], return_annotation=None
    )
    run.__annotations__ = {**verb.__annotations__, "json_output": json_option.annotation}
    run.__doc__ = (verb.__doc__ or "").split("\n\n")[0]
    app.command()(run)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _print_table(columns: list[str], rows: list[list[str]], *, title: str = "") -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("network", "files", "layer", "kind") else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def _show_profiled(profiled: list[Profiled]) -> None:
    for one in profiled:
        stable = (
            "stable" if one.unstable == 0 else f"{one.unstable} unstable: close other programs, then profile --fresh"
        )
        print(
            f"{one.table}: {one.entries} operators ({one.measured_now} measured now, {one.seconds:.0f} s), {stable}; "
            f"median spread {one.median_spread:.1%}; {one.networks} whole networks, nine of ten predicted "
            f"within {one.error:.1%}"
        )


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
    _print_table(columns, rows, title=f"{searched.run}: the front of {searched.trained} trained candidates")
    print(f"{searched.trained} trained, {searched.left_out} left out (over a cap, or known)")
    if searched.ended:
        print(f"ended early: {searched.ended}")


def _show_winners(winners: list[Winner]) -> None:
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
    _print_table(["trial", "accuracy", "Mult-Adds M", "params k", "seconds", "files"], rows)


def _show_exported(exported: list[Exported]) -> None:
    rows = []
    for one in exported:
        card = one.card
        own = next((file for file in card["files"].values() if file["setting"] == card["setting"]), None)
        rows.append(
            [
                str(card["trial"]),
                f"{card['accuracy']['test']:.2%}",
                f"{card['mult_adds'] / 1e6:.2f}",
                f"{card['parameters'] / 1e3:.0f}",
                f"{card['predicted_ms']:.3f} ± {card['predicted_error']:.0%}",
                f"{own['measured_ms']:.3f}" if own else "no",
                f"{card['cap_ms']:g}",
            ]
        )
    _print_table(["trial", "accuracy", "Mult-Adds M", "params k", "predicted ms", "measured ms", "cap ms"], rows)
    for one in exported:
        for name, file in one.card["files"].items():
            timed = f"{file['measured_ms']:.3f} ms in {file['setting']}" if file["measured_ms"] else "not timed"
            print(f"{one.folder}/{name}: {file['bytes'] / 1024:.0f} KiB, {timed}")


def _show_reported(reported: Reported) -> None:
    for path in asdict(reported).values():
        print(path)


def _show_ran(ran: Ran) -> None:
    _show_profiled(ran.profiled)
    _show_reported(ran.reported)
    _show_exported(ran.exported)


def _show_described(described: Described | DescribedSpace) -> None:
    if isinstance(described, DescribedSpace):
        print(f"{described.space}: {', '.join(described.operations)}")
        _print_table(
            ["block", "choices", "distinct cells so far"],
            [
                [str(block + 1), f"{choices:,}", f"{described.distinct[block]:,}" if block < 3 else "not counted"]
                for block, choices in enumerate(described.choices)
            ],
        )
        return
    rows = [
        [layer.name, layer.kind, "x".join(map(str, layer.shape)), f"{layer.mult_adds:,}", f"{layer.parameters:,}"]
        for layer in described.layers
    ]
    _print_table(["layer", "kind", "shape", "Mult-Adds", "parameters"], rows)
    print(described.network)
    print(
        f"{described.parameters:,} parameters, {described.mult_adds:,} Mult-Adds, "
        f"{described.peak_activation_bytes / 2**20:.2f} MiB of activations at the most at once (fp32, one image)"
    )


_command(hwnas.profile, _show_profiled)
_command(hwnas.search, _show_searched)
_command(hwnas.train, _show_winners)
_command(hwnas.export, _show_exported)
_command(hwnas.report, _show_reported)
_command(hwnas.run, _show_ran)
_command(hwnas.describe, _show_described)
