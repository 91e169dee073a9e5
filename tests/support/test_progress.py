"""What is said goes through the logger `hwnas`; bars and lines of several threads stand beside each other."""

import logging
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from hwnas.support import bar, say


def test_without_a_terminal_a_line_says_now_and_then_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with bar("measuring", 10, clock=lambda: now) as progress:
        now = 100.0  # preparation, of which the pace says nothing
        progress.advance()
        for _ in range(6):
            now += 10.0
            progress.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "measuring: 1 of 10",
        "measuring: 3 of 10, 70 s left",
        "measuring: 5 of 10, 50 s left",
        "measuring: 7 of 10, 30 s left",
    ]


def test_a_task_of_unknown_length_and_one_without_a_step_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with bar("waiting", 0, clock=lambda: now) as progress:
        now = 1000.0
        progress.advance(0)
        progress.describe("for the device")
        progress.advance()
    assert capsys.readouterr().err == ""


def test_a_line_is_not_broken_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line = "word " * 60 + "[bold] %s"
    say(line)
    assert capsys.readouterr().err == line + "\n"


# The logger.


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("hwnas")
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.handlers = handlers


def speak() -> None:
    say("it begins")
    now = 0.0
    with bar("working", 2, clock=lambda: now) as progress:
        now = 30.0
        progress.advance()


def test_a_level_silences_lines_and_bars(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.setLevel(logging.WARNING)
    speak()
    assert capsys.readouterr().err == ""


def test_a_handler_gets_what_is_said_in_place_of_standard_error(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.handlers = []
    speak()
    assert capsys.readouterr().err == ""
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("hwnas", "INFO", "it begins"),
        ("hwnas", "INFO", "working: 1 of 2"),
    ]
    assert caplog.records[0].funcName == "speak"


def said_by_a_program(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    return ran.stderr


def test_a_program_without_any_logging_sees_it_and_one_with_its_own_sees_it_once() -> None:
    speaks = "from hwnas.support import say; say('it begins')"
    assert said_by_a_program(speaks) == "it begins\n"
    silenced = "import logging; logging.getLogger('hwnas').setLevel(logging.WARNING)"
    assert said_by_a_program(f"{silenced}; {speaks}") == ""
    assert said_by_a_program(f"import logging; logging.basicConfig(); {speaks}") == "INFO:hwnas:it begins\n"


# Threads.

TWO_BARS = """
import threading, time
from hwnas.support import bar, say
begun, done = threading.Barrier(2), threading.Barrier(2)
def work(name):
    with bar(name, 10) as progress:
        begun.wait()
        progress.advance(5)
        say(f"{name} is half done")
        time.sleep(0.3)
        done.wait()
threads = [threading.Thread(target=work, args=(name,)) for name in ("left", "right")]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
say("both are done")
"""


def test_on_a_terminal_the_bars_of_two_threads_stand_one_below_the_other() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "20"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-c", TWO_BARS], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while read := os.read(ours, 4096):
                shown += read
        except OSError:  # the terminal's other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    lines = [line.strip() for line in shown.decode().replace("\r", "\n").split("\n")]
    bars = [index for index, line in enumerate(lines) if "5/10" in line]
    assert any("left" in lines[a] + lines[b] and "right" in lines[a] + lines[b] for a, b in pairwise(bars))
    for said in ("left is half done", "right is half done", "both are done"):
        assert any(line.endswith(said) for line in lines), shown.decode()


def test_bars_of_many_threads_end_with_none_left(capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(50):
                with bar(f"outer {number}", 2) as outer, bar(f"inner {number}", 2) as inner:
                    inner.advance()
                    outer.advance()
                    inner.describe("again")
        except BaseException as error:  # noqa: BLE001  a thread's own is lost
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert capsys.readouterr().err == ""
