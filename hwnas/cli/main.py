"""The command line: each verb is a command, with the options of its class; what it returns is printed.

The main path: profile -> search -> train -> export -> report; `run` does all of it. Of a verb nothing is loaded until
it is typed, so that `hwnas --help` takes no time.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import hwnas
from hwnas.cli import say_stopped, show_devices, show_networks, show_runs, show_start, show_tables
from hwnas.errors import ExportError, HwnasError, InputError, printable
from hwnas.support import show_on_console, system_errors_in_words

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_tables = typer.Typer(help="Show, check, merge and compare latency tables.", no_args_is_help=True)
_devices = typer.Typer()
app.add_typer(_tables, name="tables")
app.add_typer(_devices, name="devices")
_BROKEN = 1  # exit status of a check that found something broken, and of a search that trained nothing
_STOPPED, _TERMINATED = 130, 143  # as shells count a Ctrl-C and SIGTERM
_CONTEXT = inspect.Parameter("context", inspect.Parameter.POSITIONAL_ONLY, annotation=typer.Context)
_JSON = inspect.Parameter(
    "json_output",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--json", help="print the result as JSON")],
)
_TRUST = inspect.Parameter(
    "trust",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option("--trust", help="agree to what files name: a device's interpreter, adb or host, a run's storage"),
    ],
)


def _show_version(asked: bool) -> None:
    """Print the version and end, where that is asked for."""
    if asked:
        print(f"hwnas {hwnas.__version__}")
        raise typer.Exit


_Version = Annotated[
    bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_show_version)
]


@app.callback(help="Finds, trains and ships the most accurate image network that a device can run in a given time.")
def _before_any_verb(version: _Version = False) -> None: ...


def main() -> None:
    """Run the command line; errors are printed as text, without a traceback."""
    show_on_console()
    try:
        with system_errors_in_words():
            _refuse_namesake()
            _run_to_the_end()
    except HwnasError as error:
        print(f"hwnas: {printable(str(error))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:  # whoever reads what is printed has enough, as `head` has
        sys.exit(1)


def _refuse_namesake() -> None:
    """Raise InputError where another package has put its own file in the place of hwnas/__init__.py."""
    if "__getattr__" in vars(hwnas):
        return
    from hwnas.verbs._installed import namesake

    if check := namesake():
        raise InputError(f"{hwnas.__file__} must be hwnas's own; {check.words}. Type: {check.next}")


def _run_to_the_end() -> None:
    """Run a verb; what it prints is written, or refused, before this process ends, which would say that otherwise."""
    try:
        try:
            app()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except OSError:
        with suppress(OSError):  # what is left of it can only fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@dataclass(frozen=True)
class _Verb:
    """A verb by its name in `hwnas`, and how its result is shown; a `broken` one ends with an exit status.

    One that `reaches` what files name takes --trust.
    """

    name: str
    show: Callable[[Any], None]
    broken: Callable[[Any], bool]
    reaches: bool

    @functools.cached_property
    def command(self) -> Any:
        """The command that has the verb's options, as typer makes it."""
        from hwnas.cli.options import parameters
        from hwnas.verbs._takes import options_of

        def run(context: typer.Context, **options: Any) -> None:
            if context.invoked_subcommand is None:
                self._run(**options)

        more = [_TRUST, _JSON] if self.reaches else [_JSON]
        signature = inspect.Signature([_CONTEXT, *parameters(options_of(getattr(hwnas, self.name))), *more])
        vars(run)["__signature__"] = signature
        run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        alone = typer.Typer(add_completion=False)
        alone.command()(run)
        return typer.main.get_command(alone)

    def _run(self, *, json_output: bool, trust: bool = False, **options: Any) -> None:
        """Call the verb, and print what it returns."""
        from hwnas.cli.encode import encoded
        from hwnas.support import Terminated, raised, trusting

        refused: ExportError | None = None
        try:
            with trusting(trust), raised():
                result = getattr(hwnas, self.name)(
                    **{name: value for name, value in options.items() if value is not None}
                )
        except ExportError as error:  # what was exported beside what was refused is shown
            if not error.exported:
                raise
            result, refused = error.exported, error
        except KeyboardInterrupt as stopped:  # typer would only say "Aborted"
            say_stopped()
            sys.exit(_TERMINATED if isinstance(stopped, Terminated) else _STOPPED)
        if json_output:
            print(encoded(result))
        else:
            self.show(result)
        if refused:
            raise refused
        if self.broken(result):
            sys.exit(_BROKEN)


def _when_typed(base: type[Any], verb: _Verb) -> type[Any]:
    """Return a class of commands whose options and action are looked up when they are asked for."""

    class WhenTyped(base):  # type: ignore[misc]
        @property
        def params(self) -> list[Any]:
            self.callback = verb.command.callback
            params: list[Any] = verb.command.params
            return params

        @params.setter
        def params(self, nothing: list[Any]) -> None:
            """Leave the options that typer finds, none, alone."""

    return WhenTyped


def _command(
    name: str,
    summary: str,
    show: Callable[[Any], None],
    *,
    group: typer.Typer = app,
    broken: Callable[[Any], bool] = lambda result: False,
    reaches: bool = True,
) -> None:
    """Register a verb, with `--json` in addition to its own options; the summary is its docstring's first line.

    In a group a verb's command is what follows the group's name, and `devices` itself is what the bare group does.
    """
    verb = _Verb(name, show, broken, reaches)
    noun, _, command = name.partition("_")
    if group is not app and not command:
        group.callback(cls=_when_typed(TyperGroup, verb), invoke_without_command=True, help=summary)(lambda: None)
    else:
        group.command(command or noun, cls=_when_typed(TyperCommand, verb), help=summary)(lambda: None)


_command(
    "doctor",
    "Say what is installed, which devices answer, which latency tables fit, and what a run would stumble over.",
    show_start.show_diagnosis,
    broken=lambda diagnosis: not diagnosis.runs_here,
)
_command(
    "init",
    "Write a TOML file for `hwnas run`, from options and, in a terminal, a few questions.",
    show_start.show_run_file,
    reaches=False,
)
_command("profile", "Measure a device: fill its latency table for a space.", show_tables.show_profiled)
_command(
    "search",
    "Search for the most accurate networks inside the caps; a search that was stopped goes on from its folder.",
    show_runs.show_searched,
    broken=lambda searched: not searched.trained and not searched.plan,
)
_command(
    "train",
    "Train winners of a run's front; training that was stopped goes on from its last checkpoint.",
    show_runs.show_winners,
)
_command(
    "export",
    "Export a run's trained winners, or a published network, as ONNX and TFLite (fp32 and int8), checked and timed.",
    show_runs.show_exported,
)
_command(
    "report",
    "Write a run's report: one HTML page with its front, its winners and its settings, and the front as a picture.",
    show_runs.show_reported,
)
_command(
    "run",
    "Profile, search, train, export and report, by defaults or a TOML file; what is done already is not done again.",
    show_runs.show_ran,
)
_command(
    "bench",
    "Compare strategies on a table of known results; a comparison that was stopped goes on from its folder.",
    show_runs.show_benched,
    reaches=False,
)
_command(
    "describe",
    "Print what a cell, a winner or an artefact costs, layer by layer; with caps, at the largest scale inside them.",
    show_networks.show_described,
    reaches=False,
)
_command(
    "verify",
    "Check an artefact's files: their SHA-256, what they compute here beside PyTorch, and on a device beside here.",
    show_devices.show_verified,
    broken=lambda verified: not all(file.fine for file in verified),
)
_command(
    "zoo",
    "List the networks that come with hwnas, found and trained by itself, or copy one into a folder.",
    show_runs.show_zoo,
    broken=lambda networks: any(network.problem for network in networks),
    reaches=False,
)
_command(
    "tables_show",
    "Show what latency tables hold: conditions, entries by kind, how stable they are, how well they predict.",
    show_tables.show_tables,
    group=_tables,
    reaches=False,
)
_command(
    "tables_check",
    "Read and validate latency tables; say whether those of this machine fit it as it is now.",
    show_tables.show_checked,
    group=_tables,
    broken=lambda tables: not all(table.fine for table in tables),
)
_command(
    "tables_merge",
    "Merge two latency tables of one device, setting, CPU and runtime; entries in both get the rounds of both.",
    show_tables.show_merged,
    group=_tables,
    reaches=False,
)
_command(
    "tables_diff",
    "Compare two latency tables: entries of only one, and the ratios b / a of those in both.",
    show_tables.show_diff,
    group=_tables,
    reaches=False,
)
_command(
    "devices",
    "List the devices, with their settings and tables; reach each, and say what is missing and what to type next.",
    show_devices.show_devices,
    group=_devices,
)
_command(
    "devices_add",
    "Write devices/NAME.toml from the options, asking for what is missing.",
    show_devices.show_added,
    group=_devices,
    reaches=False,
)
_command(
    "devices_setup",
    "Make what an emulated device needs on this machine, once; a second call goes on where the first one stopped.",
    show_devices.show_set_up,
    group=_devices,
    reaches=False,
)
