"""A trained winner: the folder RUN/winners/TRIAL, and winner.json in it, which says what was trained and how well."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from hwnas.datasets import Background, Fingerprint
from hwnas.errors import InputError, short
from hwnas.network import Architecture
from hwnas.runs.trial import DeviceLatency
from hwnas.support import FileRecord, Record, commands
from hwnas.training import Epoch, TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwnas.datasets import Dataset
    from hwnas.runs.trial import Candidate
    from hwnas.training import Scores, Trained


def _architecture(value: Any) -> Architecture:
    """Return the architecture of JSON values, whose graph can be built."""
    try:
        architecture = value if isinstance(value, Architecture) else Architecture.from_json(value)
        _ = architecture.graph
    except InputError as error:
        raise ValueError(str(error)) from None
    return architecture


NetworkField = Annotated[Architecture, PlainValidator(_architecture), PlainSerializer(lambda one: one.to_json())]


TrainingField = Annotated[TrainingSettings, PlainSerializer(TrainingSettings.to_json)]


def _known(epoch: Epoch) -> dict[str, int | float]:
    return {name: value for name, value in asdict(epoch).items() if value is not None}


EpochField = Annotated[Epoch, PlainSerializer(_known)]


class DataRecord(Record):
    """What a data set says of itself to who reads a network that was trained on it; `seed` is of its split."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # by channel, of pixels from 0 to 1
    std: tuple[float, ...]
    resolution: int  # pixels
    channels: int
    seed: int
    background: Background = "white"  # how image files are read; an older hwnas states none of what follows
    black: int = 0
    white: int = 65535
    fingerprint: Fingerprint | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if not len(self.mean) == len(self.std) == self.channels or min(self.std, default=0) <= 0:
            raise ValueError(f"mean and std must be of {self.channels} channels, std above 0")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be distinct")
        return self

    @property
    def test_images(self) -> int | None:
        """How many images the test set has, where that is known."""
        return sum(self.fingerprint.test.counts) if self.fingerprint and self.fingerprint.test else None

    def metadata(self, trial: int | None) -> dict[str, str]:
        """Return what is written into the files of a trial's network, or of one that is no trial's."""
        numbers = {"mean": self.mean, "std": self.std}
        return {
            **({} if trial is None else {"hwnas_trial": str(trial)}),
            "classes": _line_of_csv(self.classes),
            **{name: ",".join(f"{value:.8g}" for value in values) for name, values in numbers.items()},
        }

    @classmethod
    def of(cls, dataset: "Dataset", *, seed: int) -> Self:
        """Return what a data set says."""
        return cls(
            name=dataset.name,
            classes=dataset.classes,
            mean=dataset.mean,
            std=dataset.std,
            resolution=dataset.resolution,
            channels=dataset.channels,
            seed=seed,
            background=dataset.background,
            black=dataset.black,
            white=dataset.white,
            fingerprint=dataset.fingerprint,
        )


def _line_of_csv(names: Sequence[str]) -> str:
    """Return names with commas between them, in quotes where they have some of their own."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


Share = Annotated[float, Field(ge=0, le=1)]
LONG_TRAINING = "long training"  # what a winner's accuracy is of
Milliseconds = Annotated[float, Field(gt=0)]


def check_figures(architecture: Architecture, data: DataRecord, *, mult_adds: int, parameters: int) -> None:
    """Raise ValueError where a record says of its network, or of the data that it is for, what is not so.

    These figures nobody measures: they are worked out anew when the record is read.
    """
    graph = architecture.graph
    pairs = {
        "mult_adds": (mult_adds, graph.mult_adds),
        "parameters": (parameters, graph.parameters),
        "data": ((data.channels, data.resolution, data.resolution), graph.layers[0].shape),
        "classes": (len(data.classes), graph.output_shape[0]),
    }
    for name, (stated, true) in pairs.items():
        if stated != true:
            raise ValueError(f"{name} {short(stated)}, where its network has {true}")


class WinnerRecord(FileRecord):
    """What winner.json says; accuracies are shares."""

    WHAT: ClassVar[str] = "a winner's record"

    trial: int
    architecture: NetworkField
    training: TrainingField
    data: DataRecord
    test_accuracy: Share
    test_balanced_accuracy: Share | None = None  # the mean of the classes'; an older hwnas took none
    test_int8_accuracy: Share | None = None  # of the int8 file before any fine-tuning, where the run's setting is int8
    search_accuracy: float
    search_accuracy_of: str | None = None  # as in "short training"; an older hwnas states none
    search_latency_ms: Milliseconds
    measured: bool  # what the search says of latency; otherwise it was predicted
    estimated_by: str | None = None  # the tool that estimated it, where nothing was measured
    predicted_ms: Milliseconds
    predicted_error: float
    latencies: dict[str, DeviceLatency] = Field(default_factory=dict)  # of several devices, by DEVICE/SETTING
    mult_adds: int
    parameters: int
    seconds: float
    images_seen: int
    history: tuple[EpochField, ...]
    versions: dict[str, str | None]

    @model_validator(mode="after")
    def _is_of_its_network(self) -> Self:
        check_figures(self.architecture, self.data, mult_adds=self.mult_adds, parameters=self.parameters)
        return self

    @classmethod
    def of(
        cls,
        candidate: "Candidate",
        trained: "Trained",
        settings: TrainingSettings,
        data: DataRecord,
        *,
        search_accuracy_of: str,
        test: "Scores",
        test_int8_accuracy: float | None,
        versions: "Mapping[str, str]",
    ) -> Self:
        """Return the record of a candidate that was trained to the end."""
        return cls(
            version=cls.VERSION,
            trial=candidate.trial,
            architecture=candidate.architecture,
            training=settings,
            data=data,
            test_accuracy=test.accuracy,
            test_balanced_accuracy=test.balanced,
            test_int8_accuracy=test_int8_accuracy,
            search_accuracy=candidate.accuracy,
            search_accuracy_of=search_accuracy_of,
            search_latency_ms=candidate.latency_ms,
            measured=candidate.measured,
            estimated_by=candidate.estimated_by or None,
            predicted_ms=candidate.predicted_ms,
            predicted_error=candidate.predicted_error,
            **({"latencies": dict(candidate.latencies)} if candidate.latencies else {}),
            mult_adds=candidate.mult_adds,
            parameters=candidate.parameters,
            seconds=trained.seconds,
            images_seen=trained.images_seen,
            history=tuple(trained.history),
            versions=dict(versions),
        )

    def on(self, device: str) -> Self:
        """Return the record with what was predicted for one of several devices, DEVICE/SETTING."""
        latency = self.latencies[device]
        predicted = {"predicted_ms": latency.predicted_ms, "predicted_error": latency.predicted_error}
        return self.model_copy(update=predicted)

    def differs_from(self, candidate: "Candidate") -> str:
        """Return the first figure of the search that is another in its study, in words; nothing where none is."""
        stated = {
            "trial": (self.trial, candidate.trial),
            "architecture": (self.architecture, candidate.architecture),
            "search_accuracy": (self.search_accuracy, candidate.accuracy),
            "search_latency_ms": (self.search_latency_ms, candidate.latency_ms),
            "measured": (self.measured, candidate.measured),
            "estimated_by": (self.estimated_by or "", candidate.estimated_by),
            "predicted_ms": (self.predicted_ms, candidate.predicted_ms),
            "predicted_error": (self.predicted_error, candidate.predicted_error),
            "latencies": (self.latencies, candidate.latencies),
        }
        other = ((name, mine, theirs) for name, (mine, theirs) in stated.items() if mine != theirs)
        return next((f"{name} is {short(mine)} here and {short(theirs)} there" for name, mine, theirs in other), "")


@dataclass(frozen=True, slots=True)
class WinnerFolder:
    """A winner's folder in a run: its record, once it is trained, its weights, and a checkpoint while it is trained."""

    path: Path

    @staticmethod
    def trained_in(run: Path) -> "list[WinnerFolder]":
        """Return the folders of a run's trained winners, by trial."""
        return [WinnerFolder(path.parent) for path in sorted(run.glob("winners/*/winner.json"))]

    @property
    def record(self) -> Path:
        """The record's file."""
        return self.path / "winner.json"

    @property
    def scores(self) -> Path:
        """The file of what the network says of the test images: see WinnerScores."""
        return self.path / "scores.json"

    @property
    def weights(self) -> Path:
        """The file of the trained weights."""
        return self.path / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The file by which a training that was cut off goes on."""
        return self.path / "checkpoint.safetensors"

    @property
    def again(self) -> commands.Command:
        """The command that trains it anew."""
        trial = int(self.path.name) if self.path.name.isdecimal() else None
        return commands.train(self.path.parent.parent, trial=trial)

    def read(self) -> WinnerRecord:
        """Return the record; raises InputError that says how it is made anew."""
        return WinnerRecord.read(self.record, again=self.again)
