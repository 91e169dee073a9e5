"""The journal of a study: read on from where it was read, written together, as Optuna's own backend reads it."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hwnas.errors import InputError
from hwnas.runs.study import Journal, open_study


def opened(folder: Path) -> tuple[optuna.Study, Any]:
    return open_study(folder, storage=None, name="unused")


def flushes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr("os.fsync", calls.append)
    return calls


def test_what_is_written_together_is_flushed_once_and_seen_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, together = opened(tmp_path)
    trial = study.ask()
    calls = flushes(monkeypatch)
    before = (tmp_path / "journal.log").read_bytes()
    with together():
        for number in range(5):
            trial.set_user_attr(f"attribute {number}", number)
            assert study.get_trials()[0].user_attrs[f"attribute {number}"] == number
        assert (tmp_path / "journal.log").read_bytes() == before
    assert len(calls) == 1
    assert opened(tmp_path)[0].get_trials()[0].user_attrs == {f"attribute {number}": number for number in range(5)}


def test_what_was_known_when_something_failed_is_written_all_the_same(tmp_path: Path) -> None:
    study, together = opened(tmp_path)
    trial = study.ask()

    def fail() -> None:
        with together():
            trial.set_user_attr("attribute", 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert opened(tmp_path)[0].get_trials()[0].user_attrs == {"attribute": 1}
    assert study.get_trials()[0].user_attrs == {"attribute": 1}


def test_two_processes_that_write_in_turns_see_the_same_study_as_optunas_own_backend(tmp_path: Path) -> None:
    (one, together), (other, _) = opened(tmp_path), opened(tmp_path)
    for number in range(4):
        trial = one.ask()
        other.ask().set_user_attr("by", "other")
        with together():
            trial.set_user_attr("by", "one")
            trial.set_user_attr("number", number)
        assert one.get_trials() == other.get_trials()
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    theirs = optuna.load_study(study_name=one.study_name, storage=storage)
    assert theirs.get_trials() == one.get_trials()
    assert [trial.number for trial in one.get_trials()] == list(range(8))


def test_a_journal_is_parsed_once_by_who_reads_it_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = opened(tmp_path)
    parsed: list[bytes] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))  # type: ignore[func-returns-value]
    for _ in range(20):
        study.ask()
        study.get_trials(deepcopy=False)
    assert len(parsed) == 20


def test_reading_from_the_beginning_gives_every_record(tmp_path: Path) -> None:
    study, _ = opened(tmp_path)
    for _ in range(3):
        study.ask()
    journal = Journal(tmp_path / "journal.log")
    every = list(journal.read_logs(0))
    assert list(journal.read_logs(0)) == every
    assert list(journal.read_logs(2)) == every[2:]
    assert list(journal.read_logs(len(every))) == []


def test_a_study_that_a_newer_hwnas_wrote_is_refused(tmp_path: Path) -> None:
    study, _ = opened(tmp_path)
    study.set_user_attr("hwnas:format", 99)
    with pytest.raises(InputError, match=r"must be of format 2 or older; got 99, which a newer hwnas wrote\. Update"):
        opened(tmp_path)
