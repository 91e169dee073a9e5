"""Every command that hwnas tells people to type is one that its command line takes: the verb, and each option of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import hwnas
from hwnas.cli.main import app

PACKAGE = Path(hwnas.__file__).parent
TOLD = re.compile(r"(?P<before>`|[Tt]ype:? |: |then |^)?hwnas (?P<words>[^`\n]*?)(?=`|\n|$|\. |; |hwnas )")
OPTION = re.compile(r"--[a-z][a-z-]*")
HOLE = "NAME"  # in the place of what a formatted text takes in


def strings(path: Path) -> Iterator[str]:
    """Yield the texts of a Python file that people may see: no docstrings; or the whole of another file."""
    if path.suffix != ".py":
        yield re.sub(r"{{.*?}}", HOLE, path.read_text())
        return
    tree = ast.parse(path.read_text())
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(node.body[0].value) for node in scopes if isinstance(node.body[0], ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            yield node.value


def told(path: Path) -> list[tuple[str, list[str]]]:
    """Return the commands in a file: what stands before each, and its words after `hwnas`."""
    return [
        (match["before"] or "", match["words"].split())
        for text in strings(path)
        for match in TOLD.finditer(text)
        if match["words"].strip()
    ]


def complaint(before: str, words: list[str]) -> str:
    """Return what is wrong with a command; nothing for a good one, and for what is none but a sentence on hwnas."""
    command: Any = typer.main.get_command(app)
    verb = [word.strip(".,)") for word in words]
    if verb[0] not in command.commands:
        is_command = before and not verb[0][0].isupper() and not verb[0].startswith("-")
        return f"there is no verb {verb[0]}" if is_command and before != ": " else ""
    while verb and verb[0] in getattr(command, "commands", {}):
        command = command.commands[verb.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = set(OPTION.findall(" ".join(verb))) - known - {"--help"}
    return f"{command.name} has no {', '.join(sorted(unknown))}" if unknown else ""


FILES = [
    *(path for suffix in ("py", "jinja", "toml") for path in sorted(PACKAGE.rglob(f"*.{suffix}"))),
    *sorted((PACKAGE.parent / "devices").glob("*.toml")),
    PACKAGE.parent / "README.md",
    PACKAGE.parent / "demo.toml",
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_the_command_line_takes_every_command_that_a_file_tells(path: Path) -> None:
    assert [
        f"hwnas {' '.join(words)}: {wrong}" for before, words in told(path) if (wrong := complaint(before, words))
    ] == []


def test_commands_are_found_in_texts_and_wrong_ones_are_told(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        '"""Not `hwnas nothing`."""\n'
        'a = f"it must be there; got {name}. Type: hwnas profile {name} --fresh --setting {name}"\n'
        'b = "Type: hwnas train RUN --fresh. See `hwnas tables show --jsn` or `hwnas trian RUN`; hwnas writes files"\n'
    )
    assert [complaint(*command) for command in told(path)] == [
        "",
        "train has no --fresh",
        "show has no --jsn",
        "there is no verb trian",
        "",
    ]


def test_there_are_such_commands() -> None:
    assert len(told(PACKAGE.parent / "README.md")) > 20
