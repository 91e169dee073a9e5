"""A run's folder: what search writes and train, export and report read.

runs/RUN/settings.json     what the search was asked for
runs/RUN/run.json          the run's identity
runs/RUN/journal.log       the Optuna study (unless --storage names another place)
runs/RUN/winners/ID/       a winner's weights and JSON, by train
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError

from hwnas.errors import HwnasError, InputError, quoted, short
from hwnas.runs.front import front_of, winners_of
from hwnas.runs.mending import DAMAGED, mend_journal
from hwnas.runs.settings import SETTINGS_VERSION, SearchSettings
from hwnas.runs.storage import is_same_storage, shown_storage
from hwnas.runs.study import JOURNAL, Leases, open_study
from hwnas.runs.trial import Candidate
from hwnas.runs.trials import Trials
from hwnas.support import FileRecord, check_trusted, commands, locked, read_json, reasons, say, write_json
from hwnas.support.locks import fcntl

_SETTINGS, _IDENTITY = "settings.json", "run.json"
# Of the storage it is compared what it stands for, of the fingerprint all but the test set.
_MAY_CHANGE = ("trials", "storage", "skip_broken", "fingerprint")
_OF_IMAGES = ("resolution", "channels", "classes")  # other images may have others: that they are others is said first


def trust_storage(storage: str, *, named_by: str) -> None:
    """Raise InputError where a file names a database that its user has not agreed to, as by typing it.

    Its URL also says which variable of the environment is sent there.
    """
    check_trusted(f"storage {shown_storage(storage)}", named_by=named_by)


def _storage_in_words(storage: str | None) -> str:
    return "none" if storage is None else shown_storage(storage)


class RunIdentity(FileRecord):
    """What tells a run from others, made once: folders may be renamed, and may have one and the same name."""

    WHAT: ClassVar[str] = "a run's identity"

    study: str  # its name in a storage that several runs share


class Run:
    """One run's folder."""

    def __init__(self, folder: Path, settings: SearchSettings, *, begins: bool = False) -> None:
        self.folder = folder
        self.settings = settings
        self._begins = begins  # or goes on: its settings are still to be written

    @property
    def name(self) -> str:
        """The folder's name, under which export writes."""
        return self.folder.resolve().name

    @property
    def again(self) -> commands.Command:
        """The command by which its search goes on."""
        return self.settings.search_command(self.folder)

    def untrained(self) -> InputError:
        """Return the error for a run without a trained trial: its search goes on, or has ended and needs other caps."""
        trials = self.trials().refresh()
        in_a_row = trials.too_many_untrained()
        ended = trials.ended_since(0) or (
            f"{len(in_a_row)} candidates in a row came to no training" if in_a_row else ""
        )
        caps = trials.caps_to_raise(in_a_row or trials.records) if ended else []
        if not caps:
            return InputError(f"{self.folder} has no trained trial yet. Type: {self.again}")
        return InputError(
            f"{self.folder} has no trained trial, and its search has ended: {ended}. Raise "
            f"{self.settings.budget.options(caps)}, in another folder. Type: {self.settings.raised_command(caps)}"
        )

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run that `hwnas search` made; raises InputError where there is none."""
        path = Path(folder) / _SETTINGS
        if not path.is_file():
            raise InputError(
                f"{folder} must be a run's folder; it has no settings.json. Type: {commands.search(folder)}"
            )
        content = read_json(path, what="a run's settings")
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > SETTINGS_VERSION:
            raise InputError(
                f"{path} must be of version {SETTINGS_VERSION} or older; got {version}, which a newer hwnas wrote. "
                f"Update hwnas, or search in another folder: {commands.search()}"
            )
        try:
            return cls(Path(folder), SearchSettings.model_validate(content))
        except ValidationError as error:
            raise InputError(
                f"{path} is not what `hwnas search` writes: {reasons(error)}. "
                f"Restore it, or search in another folder: {commands.search()}"
            ) from None

    @classmethod
    def start(cls, folder: str | Path, settings: SearchSettings) -> "Run":
        """Begin a run, or take one up again; nothing is written before it is `locked`.

        Raises InputError where the folder's run was asked for other things.
        """
        run = cls(Path(folder), settings, begins=True)
        if run._fills_nothing():
            run.settings = settings.model_copy(update={"fill": 0.0})
        run._check_same()
        return run

    @property
    def is_new(self) -> bool:
        """Whether nothing of it is written yet."""
        return not (self.folder / _SETTINGS).exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working in this folder; raises InputError where one does."""
        if self._begins:
            self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{self.folder} is in use by another hwnas; wait for it, or stop it") from None
            if self._begins:
                self._write_settings()
            yield

    def _write_settings(self) -> None:
        self._check_same()
        if not (self.folder / _SETTINGS).exists():
            self._identify(f"{self.name}-{uuid.uuid4().hex[:12]}")
        older = {"fill"} if self._fills_nothing() else None  # as it was, for the next time that it is taken up
        write_json(self.folder / _SETTINGS, self.settings.model_dump(exclude=older))

    def _fills_nothing(self) -> bool:
        """Say whether an older hwnas began this, which had no trials that fill the cap, nor a setting for them."""
        path = self.folder / _SETTINGS
        content = read_json(path, what="a run's settings") if path.exists() else None
        return isinstance(content, dict) and "fill" not in content

    def _check_same(self) -> None:
        """Raise InputError where the folder's run was asked for other things than this one."""
        if not (self.folder / _SETTINGS).exists():
            return
        before = Run.open(self.folder).settings
        again = before.model_copy(update={"trials": self.settings.trials}).search_command(self.folder)
        if not is_same_storage(before.storage, self.settings.storage):
            raise InputError(
                f"{self.folder} was begun with another storage, {_storage_in_words(before.storage)}; got "
                f"{_storage_in_words(self.settings.storage)}. Give that again to go on, or another --out to begin anew"
            )
        asked = [name for name, _ in self.settings if name not in (*_MAY_CHANGE, *_OF_IMAGES)]
        self._refuse_others(before, asked, again)
        before.refuse_other_data(self.settings.fingerprint)
        self._refuse_others(before, _OF_IMAGES, again)

    def _refuse_others(self, before: SearchSettings, names: Iterable[str], again: commands.Command) -> None:
        """Raise InputError for the first of these settings that the folder's run has otherwise."""
        for name in names:
            then, now = getattr(before, name), getattr(self.settings, name)
            if then != now:
                raise InputError(
                    f"{self.folder} was begun with {name} = {short(then)}; got {short(now)}. "
                    f"To begin anew, give another --out. To go on with it, type: {again}"
                )

    def _identify(self, study: str) -> RunIdentity:
        """Return the run's identity; it is made, with this study's name, where there is none yet."""
        path = self.folder / _IDENTITY
        if not path.exists():
            RunIdentity(version=RunIdentity.VERSION, study=study).write(path)
        return RunIdentity.read(path, again=self.again)

    @property
    def identity(self) -> RunIdentity:
        """What tells the run from others; of older runs, which have none, the study has the folder's name."""
        return self._identify(self.name)

    def deciding(self) -> AbstractContextManager[None]:
        """Let one worker at a time decide what is done next."""
        return locked(self.folder / ".deciding.lock")

    @contextmanager
    def leases(self) -> "Iterator[Leases]":
        """Take leases of trials; all are given back in the end."""
        with (self.folder / ".leases.lock").open("a") as file:
            yield Leases(file)

    def trials(self) -> Trials:
        """Return the trials of the study, which is made if there is none yet.

        Raises InputError for a storage that cannot be used, or that nobody has agreed to, and for a study that a newer
        hwnas has written.
        """
        if storage := self.settings.storage:
            trust_storage(storage, named_by=str(self.folder / _SETTINGS))
        study = self.identity.study
        try:
            return self._read_trials(study)
        except DAMAGED as error:
            if self.settings.storage or not self._mend():
                raise _unreadable(self.folder, error) from None
        return self._read_trials(study)

    def _read_trials(self, study: str) -> Trials:
        return Trials(*open_study(self.folder, storage=self.settings.storage, name=study)).refresh()

    def _mend(self) -> bool:
        """Set the damaged lines of the journal aside, and say so; return whether there were any."""
        mended = mend_journal(self.folder / JOURNAL)
        if mended is None:
            return False
        numbers = ", ".join(map(str, mended.lines[:10]))
        say(
            f"{self.folder / JOURNAL} is damaged: {len(mended.lines)} of its lines ({numbers}"
            f"{', ...' if len(mended.lines) > 10 else ''}) are set aside in {mended.kept_in}, the others are kept"
        )
        return True

    def candidates(self) -> list[Candidate]:
        """Return the trained trials, in their order."""
        return [record.candidate for record in self.trials().in_state("trained")]

    def choose(self, winners: int | str, *, trial: int | None = None) -> list[Candidate]:
        """Return one trial, or those of the front that are wanted: see `winners_of`.

        Raises InputError where there is no such trial.
        """
        candidates = self.candidates()
        if trial is not None:
            chosen = [candidate for candidate in candidates if candidate.trial == trial]
            if not chosen:
                trained = ", ".join(str(candidate.trial) for candidate in candidates) or "none"
                raise InputError(f"--trial must be one that the search trained; got {trial}; there are: {trained}")
            return chosen
        front = front_of(candidates)
        if not front:
            raise self.untrained()
        return winners_of(front, winners)

    def winner_folder(self, trial: int) -> Path:
        """Return where a winner's weights and JSON are."""
        return self.folder / "winners" / f"{trial:04d}"


def _unreadable(folder: Path, error: Exception) -> HwnasError:
    """Return the error for a study that cannot be read: hwnas's own, or one for what Optuna raised."""
    if isinstance(error, HwnasError):
        return error
    return InputError(
        f"the study of {folder} must be as `hwnas search` writes it; got {type(error).__name__}: {quoted(error)}. "
        "Search again, with another --out"
    )
