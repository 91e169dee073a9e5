"""Commands that are told: quoted for a shell, and such as the command line takes."""

import inspect
import shlex
from typing import Any

import pytest
import typer

from hwnas.cli.main import app
from hwnas.support import commands

VALUES: dict[str, Any] = {  # by what is in the annotation, the first that is
    "Mapping": {"seed": 1},
    "Sequence[str]": ("a<2", "it's"),
    "Sequence": (1, 2),
    "PathLike": "a b/c",
    "int": 2,
    "float": 0.5,
    "bool": True,
    "str": "it's",
}
FUNCTIONS = [
    function
    for name, function in inspect.getmembers(commands, inspect.isfunction)
    if function.__module__ == commands.__name__ and not name.startswith("_")
]


def value_for(annotation: Any) -> Any:
    """Return a value that wants quoting, of a parameter's type."""
    name = str(annotation)
    return next(value for kind, value in VALUES.items() if kind in name)


def filled(function: Any) -> commands.Command:
    """Return a command with everything that it may have."""
    parameters = inspect.signature(function).parameters.values()
    given = {"skeleton": "cifar"}
    made: commands.Command = function(
        **{parameter.name: given.get(parameter.name, value_for(parameter.annotation)) for parameter in parameters}
    )
    return made


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_command_is_read_by_a_shell_as_the_words_it_is(function: Any) -> None:
    command = filled(function)
    assert tuple(shlex.split(str(command))) == command.argv


@pytest.mark.parametrize("function", [function for function in FUNCTIONS if "pip" not in function.__name__])
def test_the_command_line_has_every_command_and_option_that_is_told(function: Any) -> None:
    program, *words = filled(function).argv
    assert program == "hwnas"
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    command.make_context("hwnas", words)  # raises a UsageError for what it does not take


def test_what_is_not_given_is_left_out_and_numbers_are_plain() -> None:
    assert str(commands.profile("host", setting="tflite-fp32-1t")) == "hwnas profile host --setting tflite-fp32-1t"
    assert str(commands.profile("my board.toml", cells=[1, 2])) == "hwnas profile 'my board.toml' --cells 1,2"
    assert str(commands.devices(patience_s=120.0)) == "hwnas devices --patience-s 120"
    assert str(commands.search("runs/a")) == "hwnas search --max-latency-ms MS --out runs/a"
    assert str(commands.export("runs/a", out="export")) == "hwnas export runs/a"


def test_a_number_is_told_with_as_many_digits_as_it_takes_to_be_the_same_again() -> None:
    for number in (0.1, 1 / 3, 1e-7, 2.0, 5.000000000001):
        assert float(commands.search(max_latency_ms=number).argv[3]) == number
