"""The journal of a study: read on from where it was read, written together, as Optuna's own backend reads it."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

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


def test_a_list_of_trials_that_is_kept_is_the_one_that_optuna_makes_anew(tmp_path: Path) -> None:
    (one, _), (other, _) = opened(tmp_path), opened(tmp_path)
    states = [None, *((state,) for state in TrialState), (TrialState.COMPLETE, TrialState.RUNNING)]
    running: list[tuple[optuna.Study, optuna.Trial]] = []
    for number in range(30):  # in turns by two processes, of which neither lists what it wrote itself alone
        study = (one, other)[number % 2]
        if number == 7:
            study.enqueue_trial({"x": 1})
        running.append((study, study.ask()))
        running[-1][1].suggest_categorical("x", [0, 1])
        if number % 3:  # trials end in another order than they began
            owner, ended = running.pop(number % len(running))
            owner.tell(ended, [1.0, 2.0] if number % 4 else None, state=None if number % 4 else TrialState.FAIL)
        optunas = optuna.load_study(study_name=None, storage=JournalStorage(Journal(tmp_path / "journal.log")))
        for chosen in states:
            expected = optunas.get_trials(deepcopy=False, states=chosen)
            for kept in (one, other):
                assert kept.get_trials(deepcopy=False, states=chosen) == expected


def test_listing_trials_reads_only_what_has_changed(tmp_path: Path) -> None:
    study, _ = opened(tmp_path)
    for _ in range(5):
        study.tell(study.ask(), [1.0, 2.0])
    before = study.get_trials(deepcopy=False)
    study.ask()
    after = study.get_trials(deepcopy=False)
    assert len(before) == 5  # a list that was given out stays as it is
    assert all(one is other for one, other in zip(before, after, strict=False))
    assert [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))] == [5]
