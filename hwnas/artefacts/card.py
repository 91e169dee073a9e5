"""What is known of an artefact: card.json, which this file alone reads and writes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from operator import gt
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, model_validator

from hwnas.artefacts.comparison import Comparison
from hwnas.formats import Form, Input, MetadataReader
from hwnas.latency import Placement, how
from hwnas.runs import (
    LONG_TRAINING,
    DataRecord,
    DeviceField,
    NetworkField,
    Share,
    TrainingField,
    WinnerRecord,
    check_figures,
)
from hwnas.support import FileRecord, Record


class TensorEntry(Record):
    """A model file's input or output; `scale` and `zero_point` are those of integers."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


class TensorEntries(Record):
    """A model file's input and output."""

    input: TensorEntry
    output: TensorEntry


class Calibration(Record):
    """How an int8 file's ranges were found: the best method, and what each lost on images that it had not seen."""

    images: int
    of: str
    method: str
    rmse: dict[str, float]  # of the logits, by method, relative to their deviation


class FineTuning(Record):
    """How an int8 file was fine-tuned: the shares of accuracy lost before and after; `kept` if it was better."""

    steps: int
    lost_before: float
    lost_after: float
    kept: bool


class RewriteEntry(Record):
    """A rewrite in a model file: of how many layers, and where both were timed what an image takes with and without."""

    layers: int
    with_ms: float | None = None
    without_ms: float | None = None
    ratio: float | None = None

    @property
    def is_timed(self) -> bool:
        """Whether it is known what the rewrite saves."""
        return self.ratio is not None


class MicroEntry(Record):
    """What `hwnas verify` found of a TFLite file in TensorFlow Lite Micro, for a board whose memory it fits in.

    `arena_bytes` are those of the smallest arena that it runs in; `steps` and `relative_error` how far its outputs are
    from those of TFLite's reference kernels, as Verified says.
    """

    device: str
    runtime: str
    arena_bytes: int
    operators: tuple[str, ...]
    steps: int | None = None
    relative_error: float | None = None


class RightByClassEntry(Record):
    """Of each class how many test images were compared, and how many of them a file and PyTorch find."""

    images: tuple[NonNegativeInt, ...]
    right: tuple[NonNegativeInt, ...]
    right_in_pytorch: tuple[NonNegativeInt, ...]

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for right in (self.right, self.right_in_pytorch):
            if len(right) != len(self.images) or any(map(gt, right, self.images)):
                raise ValueError("of each class no more images can be right than there are")
        return self


class FileEntry(Record):
    """What a card says of a model file; latencies are those of an image, None where it was not timed.

    `agreement` and `accuracy` are shares of test images: of PyTorch's class, and of the right one. `arena_bytes` are of
    a TFLite file's activations, without a delegate.
    """

    runtime: str
    precision: str = "fp32"
    bytes: int
    arena_bytes: int | None = None  # an older hwnas did not work it out
    sha256: str | None = None  # an older hwnas stated none, and no tensors
    tensors: TensorEntries | None = None
    setting: str | None = None
    measured_ms: float | None = None
    opset: int | None = None  # of ONNX
    input: str | None = None  # layout and numbers, as in "NHWC float32"
    batch: int | str | None = None
    calibration: Calibration | None = None
    fine_tuning: FineTuning | None = None
    rewrites: dict[str, RewriteEntry] = Field(default_factory=dict)
    max_relative_error: float | None = None
    agreement: float | None = None
    accuracy: float | None = None
    test_images: int | None = None
    by_class: RightByClassEntry | None = None  # an older hwnas kept none
    first_inference_ms: float | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    placement: Placement | None = None  # where it ran when it was timed
    cpu: str | None = None  # of the device that it was timed on, as this names it; an older hwnas states none
    micro: MicroEntry | None = None  # where it was verified for a microcontroller

    @property
    def how(self) -> str:
        """How its latency came about, in words: `measured`, or `estimated by` some tool."""
        return how(self.placement.estimated_by if self.placement else "")

    def in_form(self, form: Form, facts: Mapping[str, Any]) -> Self:
        """Return this entry with what its format says of files of a form."""
        layout, number = facts["input"].split()
        number = "uint8" if form.input == "uint8" else number
        stated = {**facts, "input": f"{layout} {number}", "batch": form.batch or facts["batch"]}
        return self.model_copy(update=stated)

    def calibrated(self, calibration: Calibration) -> Self:
        """Return this entry with how it was calibrated."""
        return self.model_copy(update={"calibration": calibration})

    def fine_tuned(self, fine_tuning: FineTuning) -> Self:
        """Return this entry with how it was fine-tuned."""
        return self.model_copy(update={"fine_tuning": fine_tuning})

    def rewritten(self, layers: Mapping[str, int]) -> Self:
        """Return this entry with the rewrites in so many layers."""
        entries = {rewrite: RewriteEntry(layers=count) for rewrite, count in layers.items()}
        return self.model_copy(update={"rewrites": entries})

    def explained(self, rewrite: str, *, with_ms: float, without_ms: float, ratio: float) -> Self:
        """Return this entry with what one of its rewrites saves."""
        entry = RewriteEntry(layers=self.rewrites[rewrite].layers, with_ms=with_ms, without_ms=without_ms, ratio=ratio)
        return self.model_copy(update={"rewrites": {**self.rewrites, rewrite: entry}})

    def compared(self, comparison: Comparison) -> Self:
        """Return this entry with how it compares with PyTorch; fp32's accuracy is the network's."""
        stated: dict[str, object] = {
            "max_relative_error": comparison.max_relative_error,
            "agreement": comparison.agreement,
        }
        if self.precision != "fp32":
            by_class = RightByClassEntry(**asdict(comparison.by_class))
            stated |= {"accuracy": comparison.accuracy, "test_images": comparison.images, "by_class": by_class}
        return self.model_copy(update=stated)

    def timed(
        self,
        setting: str,
        measured_ms: float,
        *,
        first_ms: float | None,
        load_ms: float | None,
        peak_memory_bytes: int | None,
        placement: Placement | None = None,
        cpu: str = "",
    ) -> Self:
        """Return this entry with what was measured on the device."""
        stated = {
            "setting": setting,
            "measured_ms": measured_ms,
            "first_inference_ms": first_ms,
            "load_ms": load_ms,
            "peak_memory_bytes": peak_memory_bytes,
        }
        told = {"placement": placement, "cpu": cpu or None}
        return self.model_copy(update=stated | {name: value for name, value in told.items() if value})


class Accuracies(Record):
    """A network's accuracies, shares: on the test set, and its proxy's in the search; None where there are none.

    `balanced` is the mean of the classes' on the test set; an older hwnas took none. `test_of` and `search_of` say what
    they are of, as in "long training" and "shared weights"; an older hwnas says neither.
    """

    test: Share | None
    search: float | None
    balanced: float | None = None
    test_of: str | None = None
    search_of: str | None = None


class CheckEntry(Record):
    """What a card says of check.npz."""

    images: int
    sha256: str


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]  # in the artefact's folder, and no path


GIVEN_WEIGHTS = "given weights"  # what a published network's accuracy is of


class GivenWeights(Record):
    """Instead of a training: the file's name, or "random"."""

    weights: str


Origin = Annotated[GivenWeights | TrainingField, Field(union_mode="left_to_right")]


def hash_of_card(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card's JSON values but for the one that states it, however they are laid out."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Card(FileRecord):
    """What an artefact's card.json says: of which run and trial (None: a published network) it is, and how good."""

    WHAT: ClassVar[str] = "an artefact's card"

    run: str
    trial: int | None
    device: DeviceField
    setting: str
    cap_ms: float | None
    max_file_kib: float | None = None  # an older hwnas had no caps on memory
    max_activation_kib: float | None = None
    predicted_ms: float | None
    predicted_error: float | None
    accuracy: Accuracies
    mult_adds: int
    parameters: int
    peak_activation_bytes: int
    architecture: NetworkField
    data: DataRecord
    training: Origin
    files: dict[FileName, FileEntry]
    weights_sha256: str | None
    versions: dict[str, str | None]
    input: Input = "normalised"  # an older hwnas states neither form nor check
    batch: int | None = None
    metadata: MetadataReader = "tflite"
    check: CheckEntry | None = None
    study: str | None = None  # the run's, which no other run has; an older hwnas states none
    texts: dict[FileName, str] = Field(default_factory=dict)  # SHA-256 of README.md and run.py; an older one: none
    sha256: str | None = None  # of the card without this; None of an older one

    def sealed(self, texts: Mapping[str, str]) -> Self:
        """Return this card with the SHA-256 of its folder's texts, and its own over all the rest of it."""
        stated = self.model_copy(update={"texts": dict(texts), "sha256": None})
        return stated.model_copy(update={"sha256": hash_of_card(stated.to_json())})

    @model_validator(mode="after")
    def _is_of_its_network(self) -> Self:
        check_figures(self.architecture, self.data, mult_adds=self.mult_adds, parameters=self.parameters)
        if self.peak_activation_bytes != self.architecture.graph.peak_activation_bytes:
            raise ValueError(f"peak_activation_bytes {self.peak_activation_bytes} are not its network's")
        for name, entry in self.files.items():
            if entry.by_class and len(entry.by_class.images) != len(self.data.classes):
                raise ValueError(f"{name}'s by_class must be of its {len(self.data.classes)} classes")
        return self

    @property
    def form(self) -> Form:
        """What the files read."""
        return Form(self.input, self.batch, self.metadata)

    @property
    def is_trained(self) -> bool:
        """Whether the network has an accuracy: random weights have none."""
        return self.accuracy.test is not None

    @property
    def accuracy_of(self) -> str:
        """What the accuracy on the test set is of; that of a file of reduced precision is the exported file's."""
        return GIVEN_WEIGHTS if self.trial is None else LONG_TRAINING

    @property
    def timed_on(self) -> str:
        """The processor that its files were timed on, or a tool estimated; empty where none is known."""
        return ", ".join(dict.fromkeys(entry.cpu for entry in self.files.values() if entry.cpu))

    @property
    def is_explained(self) -> bool:
        """Whether each file that was timed was also timed without each of its rewrites."""
        timed = [entry for entry in self.files.values() if entry.measured_ms]
        return all(rewrite.is_timed for entry in timed for rewrite in entry.rewrites.values())

    @property
    def own_file(self) -> FileEntry | None:
        """The file of the run's own setting, whose latency counts, if there is one."""
        return self.file_in(self.setting)

    def differs_from(self, record: WinnerRecord) -> str:
        """Return the first field that says another thing than a winner's record; nothing where none does."""
        stated = {
            "architecture": (self.architecture, record.architecture),
            "data": (self.data, record.data),
            "training": (self.training, record.training),
            "test accuracy": (self.accuracy.test, record.test_accuracy),
            "search accuracy": (self.accuracy.search, record.search_accuracy),
            "predicted_ms": (self.predicted_ms, record.predicted_ms),
            "predicted_error": (self.predicted_error, record.predicted_error),
        }
        return next((name for name, (mine, theirs) in stated.items() if mine != theirs), "")

    @property
    def micro_file(self) -> str | None:
        """The name of the first file that was verified for a microcontroller, if there is one."""
        return next((name for name, entry in self.files.items() if entry.micro), None)

    def file_in(self, setting: str) -> FileEntry | None:
        """Return the first file that was timed in a setting, if there is one."""
        return next((entry for entry in self.files.values() if entry.setting == setting), None)
