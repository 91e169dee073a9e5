"""Finalists of a run: what `hwnas train --finalists` keeps of each round, in the run's folder.

RUN/finalists/TRIAL-EPOCHS.json    a finalist's accuracy after so many epochs
RUN/finalists/TRIAL-latency.json   the latency of one that the search had only predicted; on a device beside the first
                                   in TRIAL-DEVICE-SETTING-latency.json
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from hwnas.errors import InputError
from hwnas.runs.winner import Milliseconds, Share, TrainingField
from hwnas.support import FileRecord, commands

AnyRecord = TypeVar("AnyRecord", bound=FileRecord)


class FinalistRecord(FileRecord):
    """What a finalist came to in a round: its accuracy on the validation images, a share.

    In a run whose setting is of int8 it is that in int8, and `fp32_accuracy` the network's own.
    """

    WHAT: ClassVar[str] = "a finalist's accuracy"

    trial: int
    training: TrainingField
    accuracy: Share
    precision: Literal["fp32", "int8"] = "fp32"  # in which it was taken; an older hwnas took none in int8
    fp32_accuracy: Share | None = None


class FinalistLatency(FileRecord):
    """The measured latency of a finalist that the search did not measure; `upper_ms` is held against the cap.

    Of a device whose figures are a tool's it is not measured but `estimated_by` that.
    """

    WHAT: ClassVar[str] = "a finalist's latency"

    trial: int
    measured_ms: Milliseconds
    upper_ms: Milliseconds
    estimated_by: str = ""


@dataclass(frozen=True, slots=True)
class FinalistsFolder:
    """The finalists of a run: what is damaged, or an older hwnas wrote, is none, and is made again."""

    path: Path

    @staticmethod
    def of(run: Path) -> "FinalistsFolder":
        """Return that of the run in a folder."""
        return FinalistsFolder(run / "finalists")

    def accuracy_path(self, trial: int, epochs: float) -> Path:
        """Return the file of a finalist's accuracy after so many epochs."""
        return self.path / f"{trial:04d}-{epochs:g}.json"

    def latency_path(self, trial: int, device: str = "") -> Path:
        """Return the file of a finalist's latency, on a device beside the first: DEVICE/SETTING."""
        on = f"-{device.replace('/', '-')}" if device else ""
        return self.path / f"{trial:04d}{on}-latency.json"

    def latency(self, trial: int, device: str = "") -> FinalistLatency | None:
        """Return the latency that was kept of a finalist, if there is one; the device is as in `latency_path`."""
        return _read(FinalistLatency, self.latency_path(trial, device))

    def accuracy(self, trial: int, epochs: float) -> FinalistRecord | None:
        """Return what was kept of a finalist's round, if that is done."""
        return _read(FinalistRecord, self.accuracy_path(trial, epochs))

    def records(self) -> list[FinalistRecord]:
        """Return what was kept of all rounds: round by round, in each the most accurate first."""
        paths = [path for path in sorted(self.path.glob("*.json")) if not path.stem.endswith("-latency")]
        kept = [record for path in paths if (record := _read(FinalistRecord, path))]
        return sorted(kept, key=lambda record: (record.training.epochs, -record.accuracy))


def _read(kind: type[AnyRecord], path: Path) -> AnyRecord | None:
    try:
        return kind.read(path, again=commands.train()) if path.exists() else None
    except InputError:
        return None
