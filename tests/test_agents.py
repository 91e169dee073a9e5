"""What coding agents are told, AGENTS.md and SKILL.md, and the Dockerfile: each names what there is."""

import json
import re
import shlex
import tomllib
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer
import yaml

import hwnas
from hwnas.artefacts.card import Accuracies, Card, FileEntry
from hwnas.cli.main import _BROKEN, _STOPPED, _TERMINATED, app
from hwnas.latency import Placement

ROOT = Path(__file__).parents[1]
AGENTS, SKILL, DOCKERFILE = ((ROOT / name).read_text() for name in ("AGENTS.md", "SKILL.md", "Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTRUCTIONS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
SHOWN = [line for block in re.findall(r"```sh\n(.*?)```", SKILL, re.DOTALL) for line in block.splitlines()]


def names_of(result: type) -> set[str]:
    return {field.name for field in fields(result)}


def test_the_skill_says_when_it_is_of_use() -> None:
    empty, head, _ = SKILL.split("---\n", maxsplit=2)
    said = yaml.safe_load(head)
    assert empty == ""
    assert said["name"] == PROJECT["project"]["name"]
    assert "latency" in said["description"]


@pytest.mark.parametrize("line", SHOWN)
def test_each_command_of_the_skill_is_taken_with_its_options(line: str) -> None:
    _, verb, *words = shlex.split(line)
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    context = command.make_context(verb, words)
    assert context.params["json_output"]


def test_the_skill_has_every_exit_status() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", SKILL, re.MULTILINE)
    stated = {int(number) for row in rows for number in row.split(",")}
    assert stated == {0, _BROKEN, 2, _STOPPED, _TERMINATED}


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (hwnas.TrainedWinner, {"test_accuracy"}),
        (hwnas.Searched, {"front", "accuracy_of"}),
        (hwnas.Candidate, {"accuracy", "latency_ms", "measured"}),
        (hwnas.Exported, {"card"}),
    ],
)
def test_fields_of_results_that_the_skill_names_are_there(result: type, names: set[str]) -> None:
    assert names <= names_of(result)
    assert all(name in SKILL for name in names)


def test_fields_of_a_card_that_the_skill_names_are_there() -> None:
    assert {"accuracy", "files", "predicted_ms", "predicted_error"} <= Card.model_fields.keys()
    assert "test" in Accuracies.model_fields
    assert {"accuracy", "measured_ms", "setting", "cpu", "placement"} <= FileEntry.model_fields.keys()
    assert "estimated_by" in Placement.model_fields


def test_paths_and_targets_that_agents_are_told_of_are_there() -> None:
    paths = re.findall(r"`([\w./_-]+/[\w./_-]*)`|\]\(([^)]+)\)", AGENTS)
    assert len(paths) > 10
    assert not [path for path in map("".join, paths) if not path.startswith(".venv") and not (ROOT / path).exists()]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in re.findall(r"`make (\w+)`", AGENTS))


def test_the_dockerfile_begins_with_a_python_that_hwnas_takes_and_ends_with_hwnas() -> None:
    assert {word for word, _ in INSTRUCTIONS} <= {"FROM", "WORKDIR", "COPY", "RUN", "ENTRYPOINT"}
    bases = [rest.split()[0] for word, rest in INSTRUCTIONS if word == "FROM"]
    assert {re.fullmatch(r"python:(3\.\d+)-slim", base)[1] for base in bases} == {"3.11"}  # type: ignore[index]
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert INSTRUCTIONS[-1][0] == "ENTRYPOINT"
    assert json.loads(INSTRUCTIONS[-1][1]) == list(PROJECT["project"]["scripts"])
    stages = {rest.split()[2] for word, rest in INSTRUCTIONS if word == "FROM" and " AS " in rest}
    assert set(re.findall(r"--from=(\w+)", DOCKERFILE)) == stages


def test_the_image_is_given_all_that_the_wheel_is_made_of_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    taken = {line.removeprefix("!") for line in lines if line.startswith("!")}
    project = PROJECT["project"]
    wanted = {*PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"], project["readme"]}
    assert taken == wanted | set(project["license-files"]) | {"pyproject.toml"}
    assert lines[0] == "*"
    assert any(fnmatch("latency_tables/host", line) for line in lines)
