"""A journal that is damaged in its middle: what is whole is kept, what is not is set aside, and said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import hwnas
from hwnas.errors import InputError
from hwnas.runs.mending import mend_journal
from hwnas.runs.run import Run

BEFORE = Path(__file__).parent.parent / "data" / "before"
Damage = Callable[[list[bytes]], list[bytes]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a copy of the records of before, and return a run of it."""
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    return Path("runs/a")


def lines_of(run: Path) -> list[bytes]:
    return (run / "journal.log").read_bytes().splitlines(keepends=True)


def set_aside(run: Path) -> bytes:
    (path,) = run.glob("journal.log.damaged-*")
    return path.read_bytes()


def line_of(lines: list[bytes], code: int, number: int = 0) -> int:
    """Return where the line of this number with one of Optuna's codes is."""
    return [at for at, line in enumerate(lines) if json.loads(line)["op_code"] == code][number]


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe no text\n",
        b"{}\n",
        b"[]\n",
        b'{"op_code": 99, "worker_id": ""}\n',
        b"[" * 100_000 + b"\n",
        b"\0" * 80 + b"\n",
    ],
    ids=["bytes", "empty", "list", "code", "nested", "zeros"],
)
def test_a_line_that_is_no_record_is_set_aside_and_the_others_are_kept(run: Path, damage: bytes) -> None:
    candidates = Run.open(run).candidates()
    lines = lines_of(run)
    (run / "journal.log").write_bytes(b"".join([*lines[:20], damage, *lines[20:]]))
    assert Run.open(run).candidates() == candidates
    assert lines_of(run)[: len(lines)] == lines
    assert set_aside(run) == damage


def test_it_is_said_which_lines_are_set_aside_and_where(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(run)
    (run / "journal.log").write_bytes(b"".join([*lines[:20], b"x\n", *lines[20:50], b"y\n", *lines[50:]]))
    hwnas.report(str(run))
    said = " ".join(capsys.readouterr().err.split())
    assert "journal.log is damaged: 2 of its lines (21, 52) are set aside in" in said
    assert set_aside(run) == b"x\ny\n"
    hwnas.report(str(run))  # and the next time it is whole
    assert "damaged" not in capsys.readouterr().err


def test_a_lost_line_of_a_trial_costs_no_more_than_what_it_said(run: Path) -> None:
    """Whichever it is: no traceback, and every candidate that is there is as it was."""
    before = {candidate.trial: candidate for candidate in Run.open(run).candidates()}
    lines = lines_of(run)
    for number in range(0, len(lines), 7):
        for left in run.glob("journal.log.damaged-*"):
            left.unlink()
        (run / "journal.log").write_bytes(b"".join([*lines[:number], b"\xff\n", *lines[number + 1 :]]))
        after = {candidate.trial: candidate for candidate in Run.open(run).candidates()}
        assert len(after) >= len(before) - 1, number
        assert sum(after[trial] != before[trial] for trial in after) <= 1, number


@pytest.mark.parametrize("number", [0, 1, -1])
def test_where_the_line_is_lost_that_began_a_trial_the_trials_behind_it_stay_themselves(run: Path, number: int) -> None:
    candidates = Run.open(run).candidates()
    lines = lines_of(run)
    lines[line_of(lines, 4, number)] = b"x\n"
    (run / "journal.log").write_bytes(b"".join(lines))
    assert Run.open(run).candidates() == candidates


def test_where_the_line_is_lost_that_began_the_study_it_is_written_anew(run: Path) -> None:
    candidates = Run.open(run).candidates()
    lines = lines_of(run)
    (run / "journal.log").write_bytes(b"".join([b"x\n", *lines[1:]]))
    assert Run.open(run).candidates() == candidates


def test_two_lines_that_were_swapped_lose_nothing_but_what_came_too_late(run: Path) -> None:
    candidates = Run.open(run).candidates()
    lines = lines_of(run)
    begins = line_of(lines, 4, 1)
    lines[begins], lines[begins + 1] = lines[begins + 1], lines[begins]
    (run / "journal.log").write_bytes(b"".join(lines))
    assert len(Run.open(run).candidates()) >= len(candidates) - 1


def test_a_trial_whose_record_cannot_be_is_evaluated_anew(run: Path) -> None:
    """Its last line is set aside, too: it counts as one that was cut off."""
    candidates = Run.open(run).candidates()
    lines = lines_of(run)
    at = next(at for at, line in enumerate(lines) if "architecture" in json.loads(line).get("user_attr", {}))
    record = json.loads(lines[at])
    record["user_attr"]["architecture"] = {"kind": "magic"}
    lines[at] = json.dumps(record).encode() + b"\n"
    (run / "journal.log").write_bytes(b"".join(lines))
    opened = Run.open(run)
    number = record["trial_id"]
    assert [one.trial for one in opened.candidates()] == [one.trial for one in candidates if one.trial != number]
    assert number in opened.trials().running


def test_where_the_studys_name_is_another_it_is_written_anew(run: Path) -> None:
    candidates = Run.open(run).candidates()
    lines = lines_of(run)
    (run / "journal.log").write_bytes(b"".join([lines[0].replace(b'"search"', b'"other"'), *lines[1:]]))
    assert Run.open(run).candidates() == candidates
    assert set_aside(run).startswith(lines[0].replace(b'"search"', b'"other"'))


def test_a_whole_journal_is_left_alone(run: Path) -> None:
    before = lines_of(run)
    assert mend_journal(run / "journal.log") is None
    assert lines_of(run) == before


def test_a_journal_of_a_newer_hwnas_is_not_mended(run: Path) -> None:
    lines = lines_of(run)
    newer = json.dumps({"op_code": 2, "worker_id": "a", "study_id": 0, "user_attr": {"hwnas:format": 99}})
    (run / "journal.log").write_bytes(b"".join([*lines, newer.encode() + b"\n"]))
    with pytest.raises(InputError, match="which a newer hwnas wrote"):
        Run.open(run).trials()
    assert not list(run.glob("journal.log.*"))
