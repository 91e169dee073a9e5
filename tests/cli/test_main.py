"""The command line as a whole: its help, its exit statuses, and lines that nothing breaks."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import FILTERS
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.cli.show import print_table
from hwnas.errors import HwnasError, InputError
from hwnas.support.options import each_option
from hwnas.verbs._takes import options_of

VERBS = [name for name in hwnas.__all__ if name.islower() and not name.startswith("_")]
REACHING = ("devices", "doctor", "export", "profile", "report", "run", "search", "tables_check", "train", "verify")
LONG = "network " * 30
BEFORE = Path(__file__).parent.parent / "data" / "before"


def words_of(command: str) -> list[str]:
    noun, _, rest = command.partition("_")
    return [noun, *([rest] if rest else [])]


def command_of(verb: str) -> Any:
    command: Any = typer.main.get_command(app)
    for word in words_of(verb):
        command = command.commands[word]
    return command


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_command_with_an_option_for_each_of_its_arguments(verb: str) -> None:
    names = {option.name for option in each_option(options_of(getattr(hwnas, verb)))}
    trust = {"trust"} if verb in REACHING else set()
    assert {parameter.name for parameter in command_of(verb).params} == {*names, *trust, "json_output"}


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_of_every_option_what_its_description_says(verb: str) -> None:
    """Brackets and all: what rich takes for markup would be missing."""
    shown = CliRunner().invoke(app, [*words_of(verb), "--help"], env={"TERMINAL_WIDTH": "1000", "COLUMNS": "1000"})
    assert shown.exit_code == 0
    printed = " ".join(shown.output.split())
    for option in each_option(options_of(getattr(hwnas, verb))):
        assert " ".join(option.description.split()) in printed
    assert " ".join(getattr(hwnas, verb).__doc__.split("\n\n")[0].split()) in printed


def test_the_list_of_commands_says_of_each_what_its_docstring_says() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"TERMINAL_WIDTH": "1000", "COLUMNS": "1000"})
    printed = " ".join(shown.output.split())
    for verb in (verb for verb in VERBS if not verb.startswith(("tables_", "devices_"))):
        assert " ".join(getattr(hwnas, verb).__doc__.split("\n\n")[0].split()).split(";")[0].split(":")[0] in printed


def test_the_help_of_run_names_its_sections() -> None:
    shown = " ".join(CliRunner().invoke(app, ["run", "--help"], env={"TERMINAL_WIDTH": "200"}).output.split())
    assert "TOML file with `out` and sections [device], [search], [train], ..." in shown


def test_a_table_of_results_is_not_broken_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["network", "ms"], [[LONG + "[bold]:smile:", "1.5"]], title=LONG)
    lines = capsys.readouterr().out.splitlines()
    assert LONG in lines
    assert [line for line in lines if LONG + "[bold]:smile:" in line and "1.5" in line]


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"hwnas {hwnas.__version__}\n"


@pytest.mark.slow
def test_no_row_of_a_front_is_broken_in_a_pipe(workplace: Path) -> None:
    folder = "a-folder-with-a-name-that-is-as-long-as-that-of-many-people-s-projects-and-then-some-more"
    command = ["search", "--out", folder, "--max-latency-ms", "2", "--estimator", "size", "--strategy", "random"]
    tiny = ["--data", "npz:images.npz", "--cells", "1", "--filters", ",".join(map(str, FILTERS)), "--predicted"]
    tiny += ["--space", "pnas"]
    done = subprocess.run(
        [sys.executable, "-m", "hwnas.cli", *command, "--trials", "2", *tiny],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{folder}: the front of 2 trained candidates" in done.stdout.splitlines()
    rows = [line for line in done.stdout.splitlines() if re.search(r"N=1 F=\d+ 8x8: .*│$", line)]
    assert rows
    assert len({len(line) for line in rows}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--out", "a", "--max-latency-ms", "1", "--seed", "-1"], "--seed must be 0 or more; got -1"),
        (["profile", "--seed", "-1"], "--seed must be 0 or more; got -1"),
        (["verify", "a", "--seed", "-1"], "--seed must be 0 or more; got -1"),
        (["export", "mobilenet-v2", "--seed", "-1"], "--seed must be 0 or more; got -1"),
        (["search", "--out", "a", "--max-latency-ms", "1", "--seed", str(2**32)], "--seed must be at most 4294967295"),
        (["train", "a", "--winners", "best"], "--winners must be a number of networks above 0, as in 2 or best:2"),
        (["train", "a", "--winners", "best:0"], "--winners must be a number of networks above 0"),
        (["search", "--out", "a", "--max-latency-ms", "nan"], "--max-latency-ms must be a finite number; got nan"),
        (["search", "--out", "a", "--max-latency-ms", "1", "--cells", "1,x"], "--cells must be whole numbers above 0"),
        (["run", "."], "config must be a file, and no folder; got '.'"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("error", "status"), [("InputError", 2), ("DeviceError", 1)])
def test_an_error_of_hwnas_is_printed_without_a_traceback(
    error: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwnas.cli import main

    def fail() -> None:
        raised: HwnasError = getattr(hwnas, error)(LONG)
        raise raised

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as exit_:
        main.main()
    assert exit_.value.code == status
    assert capsys.readouterr().err == f"hwnas: {LONG}\n"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.15, 0.25, 0.35, 0.5, 0.75, 1.0])
def test_a_ctrl_c_in_the_first_second_is_no_traceback(seconds: float, tmp_path: Path) -> None:
    """While Python itself starts, before the first line of hwnas, there is nobody yet who could catch it."""
    shutil.copytree(BEFORE / "runs", tmp_path / "runs")
    command = [sys.executable, "-m", "hwnas.cli", "report", "runs/a"]
    started = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(seconds)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert "Traceback" not in said or "/hwnas/" not in said
    assert started.returncode != 0


STRIKE = """
import os, sys
where, number, *sys.argv[1:] = sys.argv[1:]
class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Strike())
from hwnas.cli import main
main()
"""


@pytest.mark.parametrize("where", ["hwnas.cli.main", "hwnas.cli.options", "hwnas.pages.report", "numpy"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_while_something_is_loaded_is_a_line(
    number: signal.Signals, status: int, where: str, tmp_path: Path
) -> None:
    shutil.copytree(BEFORE / "runs", tmp_path / "runs")
    command = [sys.executable, "-c", STRIKE, where, str(int(number)), "report", "runs/a"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1] == "hwnas: stopped; type the same command again to go on"
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs/a").glob("*.html"))


def test_next_to_nothing_is_loaded_before_ctrl_c_is_seen_to() -> None:
    """Until then it is Python's own traceback."""
    code = "import sys; before = set(sys.modules); import hwnas.cli; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"hwnas", "hwnas.cli"}
