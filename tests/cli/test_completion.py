"""What a shell is offered at the Tab key."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from pretended import write_device
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.support import plugins

ZOO = Path(__file__).parents[2] / "export" / "zoo"


def offered(words: str) -> list[str]:
    """Return what bash is offered for the last word, which may be empty."""
    environment = {"_HWNAS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return CliRunner().invoke(app, prog_name="hwnas", env=environment).output.split()


@pytest.mark.parametrize(
    ("option", "folder"),
    [
        ("--space", "spaces"),
        ("--strategy", "strategies"),
        ("--estimator", "estimators"),
        ("--surrogate", "surrogates"),
        ("--pruner", "pruners"),
        ("--proxies", "proxies"),
    ],
)
def test_names_of_plug_ins_are_offered(option: str, folder: str) -> None:
    assert offered(f"hwnas search {option} ") == plugins.names(folder)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("hwnas search --strategy pro", ["progressive", "proxyless"]),
        ("hwnas search --proxies naswot,s", ["naswot,synflow"]),
        ("hwnas search --skeleton ", ["cifar", "imagenet"]),
        ("hwnas search --data fo", ["folder:"]),
        ("hwnas train --optimizer ad", ["adamw"]),
        ("hwnas do", ["doctor"]),
        ("hwnas zoo fashion-mnist-", sorted(path.name for path in ZOO.iterdir() if path.is_dir())),
        ("hwnas tables ", ["show", "check", "merge", "diff"]),
        ("hwnas init --max", ["--max-latency-ms"]),
        ("hwnas search --out ", []),  # which the shell knows itself
    ],
)
def test_choices_verbs_and_options_are_offered(words: str, names: list[str]) -> None:
    assert offered(words) == names


def test_devices_and_the_settings_of_the_one_that_was_typed_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_device(tmp_path, name="mine")
    assert {"host", "mine", "pretend"} <= set(offered("hwnas search --device "))
    assert offered("hwnas profile m") == ["mine"]
    assert offered("hwnas search --device mine --setting ") == ["tflite-fp32-1t"]
    assert "onnx-fp32-1t" in offered("hwnas search --setting ")
    assert offered("hwnas search --device magic --setting ") == []


def test_nothing_heavy_is_loaded_for_it() -> None:
    code = "import atexit, sys; heavy = {'torch', 'optuna', 'onnx'}; "
    code += "atexit.register(lambda: print(*heavy & set(sys.modules), file=sys.stderr)); from hwnas.cli import main; "
    environment = {**os.environ, "_HWNAS_COMPLETE": "complete_bash"}
    for words in ("hwnas search --device ho", "hwnas search --setting onnx", "hwnas search --space pn"):
        environment |= {"COMP_WORDS": words, "COMP_CWORD": "3"}
        run = [sys.executable, "-c", f"{code} sys.argv = ['hwnas']; main()"]
        done = subprocess.run(run, env=environment, capture_output=True, text=True)
        assert done.stdout.startswith(words.split()[-1]), done.stderr
        assert done.stderr.split() == []


def test_every_device_and_plug_in_option_of_every_verb_is_completed() -> None:
    def commands_of(command: Any) -> list[Any]:
        inner = [part for one in getattr(command, "commands", {}).values() for part in commands_of(one)]
        return [command, *inner]

    group: Any = typer.main.get_command(app)
    parameters = [parameter for command in commands_of(group) for parameter in command.params]
    wanted = [p for p in parameters if p.name in ("device", "setting", "space", "strategy", "estimator")]
    assert len(wanted) > 15
    assert all(parameter._custom_shell_complete for parameter in wanted)
