import pytest

from hwnas.support.progress import bar


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
