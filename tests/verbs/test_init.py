"""A run's file that a newcomer gets: `run` reads it, and takes from it what the options alone would ask for."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_images
from pretended import write_device
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.errors import InputError
from hwnas.verbs.run import Plan, RunOptions, make_plan, read_plan

DATA = "npz:images.npz"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with nothing but images."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images.npz")
    return tmp_path


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sit at a terminal and answer what is in this list; nothing is Enter."""
    given: list[str] = []

    def prompt(question: str, *, default: str | None, **_: Any) -> str:
        answer = given.pop(0)
        assert answer or default is not None, question
        return answer or str(default)

    monkeypatch.setattr("hwnas.verbs.init.can_ask", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    return given


def steps(plan: Plan) -> list[object]:
    return [plan.profile, plan.search, plan.train, plan.export]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"device": "pretend"},
        {"setting": "tflite-int8-4t", "trials": 3, "epochs": 0.5},
        {"out": 'runs/it\'s "mine" \\ \x7f'},
    ],
)
def test_run_takes_from_the_file_what_it_would_from_the_options(more: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"data": DATA, "max_latency_ms": 2.5, **more}
    written = hwnas.init(**asked)
    assert steps(read_plan(Path(written.path))) == steps(make_plan(RunOptions(**asked)))
    assert written == hwnas.RunFile("hwnas.toml", more.get("out", "runs/images"), "hwnas run hwnas.toml")
    assert not Path("runs").exists()


def test_what_stands_there_as_a_comment_counts_once_its_mark_is_removed() -> None:
    path = Path(hwnas.init(data=DATA, max_latency_ms=2).path)
    text, examples = re.subn(r"^# (\w+ = .+)$", r"\1", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    plan = read_plan(path)
    assert examples == 7
    assert (plan.search.space, plan.search.max_mult_adds, plan.search.resolution) == ("mbconv", 300e6, (96,))
    assert (plan.train.winners, plan.train.class_weights) == (2, True)
    assert plan.export.files == ("model.tflite", "model.int8.tflite")


def test_every_line_that_is_written_has_its_option_s_words_above(folder: Path) -> None:
    lines = Path(hwnas.init(data=DATA, max_latency_ms=2).path).read_text().splitlines()
    assert "# cap on the latency on the device, in milliseconds" in lines
    for before, line in itertools.pairwise(lines):
        assert len(line) <= 120
        if re.match(r"(# )?\w+ = ", line):
            assert before.startswith("# "), line


def test_the_same_call_may_be_made_again() -> None:
    first = hwnas.init(data=DATA, max_latency_ms=2)
    assert hwnas.init(data=DATA, max_latency_ms=2) == first
    with pytest.raises(InputError, match=r"hwnas.toml does\. Name another one"):
        hwnas.init(data=DATA, max_latency_ms=3)


def test_nothing_is_asked_before_a_file_that_is_there_is_told(answers: list[str]) -> None:
    Path("hwnas.toml").write_text("mine")
    with pytest.raises(InputError, match=r"type: hwnas init hwnas.toml --force$"):
        hwnas.init()
    assert Path("hwnas.toml").read_text() == "mine"


def test_a_name_that_toml_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="must be text that TOML can hold"):
        hwnas.init(data=DATA, max_latency_ms=2, out="runs/\udcff")


def test_a_file_that_is_there_is_kept_unless_it_is_forced() -> None:
    path = Path("mine.toml")
    path.write_text("mine")
    typed = "hwnas init mine.toml --data npz:images.npz --max-latency-ms 2 --force"
    with pytest.raises(InputError, match=f"mine.toml does. Name another one, or type: {typed}$"):
        hwnas.init(path, data=DATA, max_latency_ms=2)
    assert path.read_text() == "mine"
    assert CliRunner().invoke(app, typed.split()[1:]).exit_code == 0
    assert read_plan(path).search.max_latency_ms == 2


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", r"needs --data and --max-latency-ms where .* hwnas.toml --data folder:PATH --max-latency-ms MS$"),
        ("--data npz:a b.npz", r"needs --max-latency-ms where nobody is asked. Type: hwnas init hwnas.toml --data"),
        ("--max-latency-ms 2 --trials 3", r"needs --data .* --data folder:PATH --max-latency-ms 2 --trials 3$"),
        ("--max-latency-ms 2 --yes", r"needs --data .* --data folder:PATH --max-latency-ms 2 --yes$"),
        ("--max-latency-ms 0 --data npz:images.npz", r"^--max-latency-ms must be above 0; got 0$"),
        ("--max-latency-ms 2 --data images.npz", r"images.npz is a path: give npz:images.npz$"),
        ("--max-latency-ms 2 --data npz:images.npz --device magic", r"^unknown device 'magic'; known: "),
        ("--max-latency-ms 2 --data npz:images.npz --setting x", r"^unknown setting of device host 'x'; known: "),
        (". --max-latency-ms 2 --data npz:images.npz", r"^config must be a file, and no folder; got '.'$"),
    ],
)
def test_nobody_is_asked_without_a_terminal_and_what_is_missing_or_wrong_is_said(typed: str, message: str) -> None:
    words = typed.replace("a b", "a_b").split()
    result = CliRunner().invoke(app, ["init", *words])
    assert isinstance(result.exception, InputError)
    assert re.search(message, str(result.exception)), result.exception
    assert not Path("hwnas.toml").exists()


def test_yes_asks_nothing_at_a_terminal_either(answers: list[str]) -> None:
    assert hwnas.init(data=DATA, max_latency_ms=2, yes=True).path == "hwnas.toml"
    with pytest.raises(InputError, match="needs --max-latency-ms"):
        hwnas.init("b.toml", data=DATA, yes=True)


def test_each_answer_is_checked_at_once_and_asked_for_again(
    answers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers += ["images.npz", DATA, "magic", "pretend", "fast", "tflite-int8-1t", "soon", "-1", "2.5", "3.5", "3", ""]
    path = Path(hwnas.init().path)
    assert answers == []
    said = capsys.readouterr().err
    for words in (
        "images.npz is a path: give npz:images.npz",
        "unknown device 'magic'; known: ",
        "unknown setting of device pretend 'fast'; known: ",
        "--max-latency-ms must be a number; got 'soon'",
        "--max-latency-ms must be above 0; got -1",
        "--trials must be a whole number; got '3.5'",
    ):
        assert words in said
    asked = {"data": DATA, "device": "pretend", "setting": "tflite-int8-1t", "max_latency_ms": 2.5, "trials": 3}
    assert steps(read_plan(path)) == steps(make_plan(RunOptions(**asked)))


def test_what_is_given_is_not_asked_for_but_checked_before_the_first_question(answers: list[str]) -> None:
    answers += ["", "", ""]
    assert hwnas.init(data=DATA, device="pretend", max_latency_ms=2.0).out == "runs/images"
    assert answers == []
    with pytest.raises(InputError, match="unknown device 'magic'"):
        hwnas.init("b.toml", data=DATA, device="magic")


def test_wrong_answers_are_not_asked_for_for_ever(answers: list[str]) -> None:
    answers += ["magic"] * 9
    with pytest.raises(InputError, match="unknown data set 'magic'"):
        hwnas.init()
    assert len(answers) == 4


@pytest.fixture
def profiled(folder: Path) -> Iterator[Path]:
    """Measure a pretended device on images of 8x8."""
    write_device(folder)
    hwnas.profile("pretend", space="mbconv", cells=1, filters=(4, 6), resolution=8, classes=3, networks=4)
    return folder


def test_the_cap_that_is_offered_is_what_networks_took_on_the_device(profiled: Path, answers: list[str]) -> None:
    answers += ["", "", ""]
    path = Path(hwnas.init(data=DATA, device="pretend", setting="tflite-fp32-1t").path)
    (shown,) = hwnas.tables_show("pretend", entries=True)
    took = [row.ms for row in shown.network_rows or ()]
    assert min(took) * 0.9 < read_plan(path).search.max_latency_ms < max(took) * 1.1
