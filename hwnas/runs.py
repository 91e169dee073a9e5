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

from hwnas.budget import Budget
from hwnas.curves import Curve, Look
from hwnas.errors import InputError
from hwnas.files import locked, read_json, write_bytes, write_json
from hwnas.latency import TimedNetwork
from hwnas.networks import Architecture, Scale, ladder

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hwnas.datasets import Dataset

_STUDY = "search"


class SearchSettings(BaseModel):
    """What a search was asked for; all of it but `trials` must be the same when it is taken up again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    device: str
    setting: str
    threads: int = Field(ge=1)
    max_latency_ms: float = Field(gt=0)
    max_mult_adds: float | None = Field(default=None, gt=0)
    max_parameters: float | None = Field(default=None, gt=0)
    data: str
    resolution: tuple[int, ...]
    skeleton: Literal["cifar", "imagenet"] | None = None
    channels: int
    classes: int
    validation: float
    space: str
    cells: tuple[int, ...]
    filters: tuple[int, ...]
    strategy: str
    surrogate: str
    proxies: tuple[str, ...] = ()
    estimator: str = "training"
    trials: int = Field(ge=1)
    targets: tuple[float, ...]
    proxy_filters: float = Field(gt=0, le=1)
    images: int | None
    epochs: float = Field(gt=0)
    pruner: str = "none"
    inherit: bool = False
    seed: int
    predicted: bool
    storage: str | None

    @property
    def budget(self) -> Budget:
        """The caps."""
        return Budget(self.max_latency_ms, self.max_mult_adds, self.max_parameters)

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The scales that a candidate may be deployed at."""
        return ladder(
            self.cells,
            self.filters,
            self.resolution,
            classes=self.classes,
            channels=self.channels,
            skeleton=self.skeleton,
        )

    def proxy_scale(self, scale: Scale) -> Scale:
        """Return the scale of short training for one of deployment."""
        return scale.with_filters(max(1, round(scale.filters * self.proxy_filters)))

    def dataset(self, resolution: int) -> "Dataset":
        """Return the run's data at one of its resolutions, in pixels."""
        from hwnas import datasets

        return datasets.load(self.data, seed=self.seed, resolution=resolution)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained trial: its network at deployed scale, the accuracy of its proxy, its latency.

    `latency_ms` was measured on the device, unless `measured` is false: then it is the prediction. Where training was
    `stopped_after` so many epochs, the accuracy is what it would have come to, give or take its `spread`.
    """

    trial: int
    architecture: Architecture
    target: float
    accuracy: float
    latency_ms: float
    measured: bool
    predicted_ms: float
    predicted_error: float
    mult_adds: int
    parameters: int
    stopped_after: float | None = None
    spread: float | None = None


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

    def choose(self, winners: int, *, trial: int | None = None) -> list[Candidate]:
        """Return one trial, or `winners` of the front: the most accurate one, and others spread evenly over it.

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
        count = min(winners, len(front))
        return [front[len(front) - 1 - (index * len(front)) // count] for index in range(count)]

    def winner_folder(self, trial: int) -> Path:
        """Return where a winner's weights and JSON are."""
        return self.folder / "winners" / f"{trial:04d}"


def front_of(candidates: list[Candidate]) -> list[Candidate]:
    """Return the Pareto front, accuracy against latency, by rising latency, of those that were trained to the end."""
    import numpy as np

    from hwnas.pareto import front

    candidates = [candidate for candidate in candidates if candidate.stopped_after is None]
    if not candidates:
        return []
    accuracy, latency = np.array([(c.accuracy, c.latency_ms) for c in candidates]).T
    return [candidates[position] for position in front(accuracy, latency)]


def candidate_of(trial: "FrozenTrial") -> Candidate:
    """Return what a finished trial says of its candidate."""
    attributes = trial.user_attrs
    stopped = attributes.get("stopped", {})
    return Candidate(
        trial=trial.number,
        architecture=Architecture.from_json(attributes["architecture"]),
        target=trial.params["target"],
        accuracy=trial.values[0],
        latency_ms=trial.values[1],
        measured=attributes["measured_ms"] is not None,
        predicted_ms=attributes["predicted_ms"],
        predicted_error=attributes["predicted_error"],
        mult_adds=attributes["mult_adds"],
        parameters=attributes["parameters"],
        stopped_after=stopped.get("epoch"),
        spread=stopped.get("spread"),
    )


def curve_of(trial: "FrozenTrial") -> Curve:
    """Return the learning curve of a trial that was looked at, whether it is finished or not."""
    attributes = trial.user_attrs
    measured = attributes.get("measured_ms")
    return Curve(
        number=trial.number,
        target=trial.params["target"],
        latency_ms=attributes["predicted_ms"] if measured is None else measured,
        looks=tuple(Look(**look) for look in attributes["looks"]),
        accuracy=trial.values[0] if trial.values is not None and "stopped" not in attributes else None,
    )


def timed_networks(trials: "Iterable[FrozenTrial]") -> list[TimedNetwork]:
    """Return the whole networks that trials measured, their attribute "timed".

    Raises TableError for what is no measurement.
    """
    return [
        TimedNetwork.from_json(entry, f"trial {trial.number} of the study")
        for trial in trials
        for entry in trial.user_attrs.get("timed", [])
    ]


def repair_journal(path: Path) -> Path | None:
    """Cut off what a crash or a full disk left of a journal's last record; return the file that keeps it, if any."""
    content = path.read_bytes() if path.exists() else b""
    whole = content if content.endswith(b"\n") else content[: content.rfind(b"\n") + 1]
    if content != whole and _is_record(content[len(whole) :]):
        whole = content + b"\n"  # only the line's end was lost
    while whole and not _is_record(whole[whole.rfind(b"\n", 0, -1) + 1 :]):  # a crash can also leave zeros
        whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
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
    except ValueError:
        return False


class JournalLock:
    """A lock for Optuna's journal that the system frees when its owner dies; Optuna's own then blocks for 30 s.

    What an owner that was killed left of a record is cut off before another one is written behind it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_name(f".{journal.stem}.lock")

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if self._is_torn():
            repair_journal(self._journal)
        return True

    def release(self) -> None:
        """Let others have it."""
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


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def make_settings(**values: Any) -> SearchSettings:
    """Return validated settings; raises InputError that names the option."""
    try:
        return SearchSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise InputError(f"--{option}: {first['msg']}; got {first['input']!r}") from None
