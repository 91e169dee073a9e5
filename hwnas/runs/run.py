"""A run's folder: its settings, its study, its winners; what search writes and train, export and report read.

runs/RUN/settings.json     what the search was asked for
runs/RUN/journal.log       the Optuna study (unless --storage names another place)
runs/RUN/winners/ID/       a winner's weights and JSON, by train
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.latency import Budget
from hwnas.training import Curve, Look
from hwnas.errors import InputError
from hwnas.support import locked, read_json, write_bytes, write_json
from hwnas.latency import TimedNetwork
from hwnas.network import Architecture, Scale, ladder

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hwnas.datasets import Dataset
from hwnas.runs.trial import Candidate
from hwnas.runs.study import JournalLock
from hwnas.runs.study import Leases
from hwnas.runs.settings import SearchSettings
from hwnas.runs.settings import _first_error
from hwnas.runs.trial import candidate_of
from hwnas.runs.front import front_of
from hwnas.runs.study import repair_journal

_STUDY = "search"


class Run:
    """One run's folder."""

    def __init__(self, folder: Path, settings: SearchSettings) -> None:
        self.folder = folder
        self.settings = settings

    @property
    def name(self) -> str:
        """The folder's name, under which export writes."""
        return self.folder.resolve().name

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run that `hwnas search` made; raises InputError where there is none."""
        path = Path(folder) / "settings.json"
        if not path.is_file():
            raise InputError(
                f"{folder} must be a run's folder; it has no settings.json. Type: hwnas search --out {folder}"
            )
        try:
            return cls(Path(folder), SearchSettings.model_validate(read_json(path, what="a run's settings")))
        except ValidationError as error:
            raise InputError(f"{path} is not what `hwnas search` writes: {_first_error(error)}") from None

    @classmethod
    def start(cls, folder: str | Path, settings: SearchSettings) -> "Run":
        """Make the folder, or take a run up again; raises InputError where that was asked for other things."""
        path = Path(folder) / "settings.json"
        if path.exists():
            before = cls.open(folder).settings
            for name, value in settings:
                if name != "trials" and getattr(before, name) != value:
                    raise InputError(
                        f"{folder} was begun with {name} = {getattr(before, name)!r}; got {value!r}. "
                        f"Give that again to go on, or another --out to begin anew"
                    )
        write_json(path, settings.model_dump())
        return cls(Path(folder), settings)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working in this folder; raises InputError where one does."""
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{self.folder} is in use by another hwnas; wait for it, or stop it") from None
            yield

    def deciding(self) -> AbstractContextManager[None]:
        """Let one worker at a time decide what is done next."""
        return locked(self.folder / ".deciding.lock")

    @contextmanager
    def leases(self) -> "Iterator[Leases]":
        """Take leases of trials; all are given back in the end."""
        with (self.folder / ".leases.lock").open("a") as file:
            yield Leases(file)

    def study(self) -> "optuna.Study":
        """Return the study, made if there is none yet; a journal that was cut short is repaired first."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage: Any = self.settings.storage
        name = f"{self.folder.resolve().name}" if storage else _STUDY
        if storage is None:
            journal = self.folder / "journal.log"
            lock: Any = JournalLock(journal)
            lock.acquire()  # a record that another process is writing is not a torn one
            repair_journal(journal)
            lock.release()
            storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
        try:
            return optuna.create_study(
                storage=storage, study_name=name, directions=["maximize", "minimize"], load_if_exists=True
            )
        except (ImportError, ValueError, OSError, SQLAlchemyError) as error:
            raise InputError(f"--storage must be a URL that Optuna knows, such as sqlite:///x.db; {error}") from None

    def candidates(self) -> list[Candidate]:
        """Return the trained trials, in their order."""
        from optuna.trial import TrialState

        return [candidate_of(trial) for trial in self.study().get_trials(states=(TrialState.COMPLETE,))]

    def choose(self, winners: int, *, best: bool = False, trial: int | None = None) -> list[Candidate]:
        """Return one trial, or `winners` of the front: the most accurate one, and others spread evenly over it.

        With `best` the most accurate ones.

        Raises InputError where there is no such trial.
        """
        candidates = self.candidates()
        if trial is not None:
            found = [candidate for candidate in candidates if candidate.trial == trial]
            if not found:
                trained = ", ".join(str(candidate.trial) for candidate in candidates) or "none"
                raise InputError(f"--trial must be one that the search trained; got {trial}; there are: {trained}")
            return found
        front = front_of(candidates)
        if not front:
            raise InputError(f"{self.folder} has no trained trial yet. Type: hwnas search --out {self.folder}")
        if best:
            return front[::-1][:winners]
        count = min(winners, len(front))
        return [front[len(front) - 1 - (index * len(front)) // count] for index in range(count)]

    def winner_folder(self, trial: int) -> Path:
        """Return where a winner's weights and JSON are."""
        return self.folder / "winners" / f"{trial:04d}"
