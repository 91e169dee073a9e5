"""The study of a run: its journal, which survives a crash, and the leases of its trials.

The journal is a file as Optuna writes it, so that Optuna's own tools read it. It is read on from where it was read
before, and what belongs together is written, and flushed to the disk, at once.
"""

import json
import os
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from hwnas.errors import InputError
from hwnas.runs.storage import opened_storage, without_password
from hwnas.support import check_file, commands, say, write_bytes
from hwnas.support.locks import fcntl

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"
NAME = "search"  # of the study in a journal: there is one in each
_FORMAT = 2  # of trials' records: from 2 on each measurement and each look is an attribute of its own
_FORMAT_KEY = "hwnas:format"

Together = Callable[[], AbstractContextManager[None]]  # within it, what is written is written at once


def open_study(folder: Path, *, storage: str | None, name: str) -> "tuple[optuna.Study, Together]":
    """Return a run's study, made if there is none yet, and what writes to it together.

    It is in the folder's journal, which is repaired where it was cut short, or in another `storage` under its `name`.
    Raises InputError for a storage that cannot be used, and for a study that a newer hwnas has written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = None if storage else Journal(folder / JOURNAL)
    url = opened_storage(storage) if storage else ""
    place: Any = ListedStorage(journal) if journal else url
    if journal:
        _check_alone(place, folder)
        if place.get_all_studies():  # `create_study` would write that it was asked for, each time that a run is opened
            study = optuna.load_study(study_name=NAME, storage=place)
            _check_format(study, folder)
            return study, journal.together
    try:
        study = optuna.create_study(
            storage=place,
            study_name=NAME if journal else name,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
    except (ImportError, ValueError, OSError, SQLAlchemyError) as error:
        if journal:
            raise
        words = without_password(str(error), url)
        raise InputError(f"--storage must be a URL that Optuna knows, such as sqlite:///x.db; {words}") from None
    _check_format(study, folder)
    return study, journal.together if journal else nullcontext


def _check_alone(storage: "ListedStorage", folder: Path) -> None:
    """Raise InputError for a journal that has another study than a search's, or records and no study."""
    studies = [
        (study.study_name, [direction.name for direction in study.directions]) for study in storage.get_all_studies()
    ]
    if studies != [(NAME, ["MAXIMIZE", "MINIMIZE"])] and (studies or storage._replay_result.log_number_read):
        raise InputError(
            f"the journal of {folder} must have the study {NAME!r}, of accuracy and latency, alone; got {studies}. "
            "Search again, with another --out"
        )


def _check_format(study: "optuna.Study", folder: Path) -> None:
    """Note the format in a new study; raises InputError for one of a newer hwnas."""
    written = study.user_attrs.get(_FORMAT_KEY)
    if written is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_FORMAT_KEY, _FORMAT)
    elif written is not None and not (isinstance(written, int) and written <= _FORMAT):
        raise InputError(
            f"the study of {folder} must be of format {_FORMAT} or older; got {written!r}, which a newer hwnas wrote. "
            f"Update hwnas, or search in another folder: {commands.search()}"
        )


class Journal(BaseJournalBackend):
    """A journal file: a record a line, in JSON. Whoever writes has its lock; whoever reads needs none."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, JournalLock(path)
        self._read, self._offset = 0, 0  # how many records were read, and where the next one begins
        self._held: list[dict[str, Any]] | None = None  # what is to be written together
        if path.exists():
            check_file(path, what="a run's journal")
        with self._lock:  # a record that another process is writing is not a torn one
            if torn := repair_journal(path):
                say(f"the end of {path} is no record: it is set aside in {torn}, what is before it is kept")
            path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the records from this number on, up to the last whole one; then those that are not written yet."""
        yield from self._from_file(log_number_from)
        if self._held:
            yield from self._held[max(0, log_number_from - self._read) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, and flush them to the disk; not yet, where they are written together with others."""
        if self._held is not None:
            self._held += logs
        elif logs:
            with self._lock:
                self._write(logs)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write at its end, at once, what is written within it; nobody else writes meanwhile."""
        with self._lock:
            self._held = []
            try:
                yield
            finally:  # what is held is known to the study already
                held, self._held = self._held, None
                if held:
                    self._write(held)

    def _from_file(self, first: int) -> Iterator[dict[str, Any]]:
        if first < self._read:
            self._read, self._offset = 0, 0
        if self._path.stat().st_size == self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                number = self._read
                self._read, self._offset = number + 1, self._offset + len(line)
                if number >= first:
                    yield json.loads(line)

    def _write(self, logs: list[dict[str, Any]]) -> None:
        """Write records behind the others; where the disk is full, no half of one stays, which needs no room."""
        content = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        with self._path.open("ab", buffering=0) as file:
            end, written = file.seek(0, os.SEEK_END), 0
            try:
                while written < len(content):
                    written += file.write(content[written:])
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end + content.rfind(b"\n", 0, written) + 1)  # others may have read the whole ones
                error.filename = str(self._path)
                raise


class ListedStorage(JournalStorage):
    """Optuna's storage in a journal, of one study, which keeps the list of its trials.

    Optuna 5.0 makes that list anew whenever it is asked for, seven times a trial of a search: what a trial cost grew
    with their number. What is finished never changes, so only the others are looked at again.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self._listed: list[FrozenTrial] = []  # by the trial's number, which in a journal of one study is its id
        self._unfinished: list[int] = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the study's trials, or those in some states, by their numbers."""
        if deepcopy:  # whoever may change them
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            self._list_new()
            if states is None:
                return list(self._listed)
            finished = any(state in states for state in TrialState if state.is_finished())
            numbers = range(len(self._listed)) if finished else self._unfinished
            return [self._listed[number] for number in numbers if self._listed[number].state in states]

    def _list_new(self) -> None:
        """Look again at what was not finished, and at what is new."""
        trials = self._replay_result._trials
        looked_at = [*self._unfinished, *range(len(self._listed), len(trials))]
        self._listed += [trials[number] for number in range(len(self._listed), len(trials))]
        for number in self._unfinished:
            self._listed[number] = trials[number]
        self._unfinished = [number for number in looked_at if not trials[number].state.is_finished()]


def repair_journal(path: Path) -> Path | None:
    """Cut off what a crash or a full disk left of a journal's last record; return the file that keeps it, if any."""
    content = path.read_bytes() if path.exists() else b""
    whole = content if content.endswith(b"\n") else content[: content.rfind(b"\n") + 1]
    if content != whole and _is_record(content[len(whole) :]):
        whole = content + b"\n"  # only the line's end was lost
    end = len(whole)
    while end and not _is_record(whole[whole.rfind(b"\n", 0, end - 1) + 1 : end]):  # a crash can also leave zeros
        end = whole.rfind(b"\n", 0, end - 1) + 1
    whole = whole[:end]
    if whole == content:
        return None
    torn = None
    if not whole.startswith(content):
        torn = path.with_name(f"{path.name}.torn-{time.strftime('%Y%m%dT%H%M%S')}")
        write_bytes(torn, content[len(whole) :])
    write_bytes(path, whole)
    return torn


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class JournalLock:
    """A lock for the journal that the system frees when its owner dies; Optuna's own then blocks for 30 s.

    What an owner that was killed left of a record is cut off before another one is written behind it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f".{journal.stem}.lock")

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if self._is_torn():
            repair_journal(self._journal)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _is_torn(self) -> bool:
        if not self._journal.exists() or not self._journal.stat().st_size:
            return False
        with self._journal.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"


class Leases:
    """Which process evaluates which trial: a lock on one byte of a file for each.

    The system frees it when its owner dies, however that happens: no clock tells a slow worker from a dead one, and it
    is the same for every storage. In exchange it holds for the processes of one machine only; Optuna's heartbeat, which
    would do for several, is no part of the journal.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def take(self, number: int) -> bool:
        """Take the lease of the trial of this number; return whether no other process has it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # which of them depends on the system
            return False
        return True

    def release(self, number: int) -> None:
        """Let others have it."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)
