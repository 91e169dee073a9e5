"""Where an artefact's network comes from, a run's winner: its record, its weights, and the data that it was trained on.

A published network is another source: published.py.
"""

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Self

from hwnas.artefacts.files import sha256
from hwnas.errors import ExportError, InputError

if TYPE_CHECKING:
    from hwnas.artefacts.card import Accuracies, GivenWeights
    from hwnas.datasets import Dataset
    from hwnas.latency import Budget
    from hwnas.network import Architecture
    from hwnas.runs import DataRecord, Run, WinnerFolder, WinnerRecord
    from hwnas.training import Network, TrainingSettings

_SAME = 1e-4  # difference of two means or deviations, of pixels from 0 to 1


@dataclass(frozen=True, slots=True)
class Purpose:
    """What an artefact is for: its run or published network by name; the device and setting whose latency counts.

    There may be a cap. Where latency is `predicted`, nothing is timed.
    """

    name: str
    device: str
    setting: str
    threads: int
    cap_ms: float = inf
    predicted: bool = False
    study: str | None = None  # the run's, which no other run has
    max_file_kib: float | None = None
    max_activation_kib: float | None = None

    @property
    def budget(self) -> "Budget":
        """The caps that a file is held against."""
        from hwnas.latency import Budget

        return Budget(self.cap_ms, max_file_kib=self.max_file_kib, max_activation_kib=self.max_activation_kib)

    @classmethod
    def of(cls, run: "Run", place: int = 0) -> Self:
        """Return what a run's winners are for on the device at a place of the run's."""
        settings = run.settings.by_device[place]
        return cls(
            run.name,
            settings.device,
            settings.setting,
            settings.threads,
            settings.max_latency_ms,
            settings.predicted,
            run.identity.study,
            settings.max_file_kib,
            settings.max_activation_kib,
        )


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A network with weights, in eval mode, what is known of it, and the data that it is checked on.

    A published one has no `trial`, and random weights have neither hash nor accuracy.
    """

    network: "Network"
    dataset: "Dataset"
    trial: int | None
    architecture: "Architecture"
    training: "TrainingSettings | GivenWeights"
    data: "DataRecord"
    accuracy: "Accuracies"
    predicted_ms: float | None
    predicted_error: float | None
    versions: dict[str, str | None]
    weights_sha256: str | None

    @property
    def is_trusted(self) -> bool:
        """Whether files of reduced precision must find the network's classes: those of random weights are noise."""
        return self.accuracy.test is not None


def read_record(folder: "WinnerFolder") -> "WinnerRecord":
    """Return a winner's record; raises ExportError where it cannot be read."""
    try:
        return folder.read()
    except InputError as error:
        raise ExportError(str(error)) from None


def hash_weights(folder: "WinnerFolder") -> str:
    """Return the hash of a winner's weights; raises ExportError where they cannot be read."""
    try:
        return sha256(folder.weights)
    except OSError as error:
        raise _unreadable(folder, error.strerror or str(error)) from None


def load_winner(run: "Run", folder: "WinnerFolder", record: "WinnerRecord", weights_sha256: str) -> TrainedNetwork:
    """Return a winner's network.

    Raises ExportError where the weights do not fit, or are no numbers, and InputError where the data have changed.
    """
    from hwnas.artefacts.card import Accuracies
    from hwnas.runs import LONG_TRAINING

    network = load_network(record.architecture, folder)
    dataset = run.settings.dataset(network.graph.layers[0].shape[1])
    _refuse_other_data(record, dataset)
    return TrainedNetwork(
        network,
        dataset,
        trial=record.trial,
        architecture=record.architecture,
        training=record.training,
        data=record.data,
        accuracy=Accuracies(
            test=record.test_accuracy,
            search=record.search_accuracy,
            balanced=record.test_balanced_accuracy,
            test_of=LONG_TRAINING,
            search_of=record.search_accuracy_of,
        ),
        predicted_ms=record.predicted_ms,
        predicted_error=record.predicted_error,
        versions=record.versions,
        weights_sha256=weights_sha256,
    )


def load_network(architecture: "Architecture", folder: "WinnerFolder") -> "Network":
    """Return a winner's network in eval mode; raises ExportError where its weights are missing or do not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from hwnas.training import Network

    network = Network(architecture.graph)
    try:
        network.load_state_dict(load_file(folder.weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise _unreadable(folder, str(error)) from None
    for name, value in network.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise _unreadable(folder, f"{name} has numbers that are not finite")
    return network.eval()


def _refuse_other_data(record: "WinnerRecord", dataset: "Dataset") -> None:
    """Raise InputError where a data set is not the one that a winner was trained on, and tested."""
    if changes := _changes(record.data, dataset):
        raise InputError(
            f"{dataset.name} must be as it was when trial {record.trial} was trained: {changes}. Put the old images "
            "back, or search and train again with the new ones"
        )


def _changes(trained: "DataRecord", dataset: "Dataset") -> str:
    """Say what is another in a data set now; nothing where all that is known of it is the same."""
    from hwnas.datasets import class_changes

    shape = (len(dataset.classes), dataset.channels, dataset.resolution)
    wanted = (len(trained.classes), trained.channels, trained.resolution)
    if shape != wanted:
        return f"classes, channels and resolution {wanted}; got {shape}"
    if trained.fingerprint and dataset.fingerprint:
        before, now = trained.fingerprint, dataset.fingerprint
        changes = before.changes(now) or before.test_changes(now)
    else:  # an older hwnas took none
        changes = class_changes(trained.classes, dataset.classes)
    if changes:
        return changes
    statistics = [*zip(trained.mean, dataset.mean, strict=False), *zip(trained.std, dataset.std, strict=False)]
    if any(abs(then - now) > _SAME for then, now in statistics):
        return f"mean {list(trained.mean)}; got {list(dataset.mean)}"
    return ""


def _unreadable(folder: "WinnerFolder", why: str) -> ExportError:
    """Return the error for weights that are missing or broken."""
    return ExportError(
        f"{folder.weights} must hold the winner's weights; it cannot be read ({' '.join(why.split())}). "
        f"Delete {folder.path} and type: {folder.again}"
    )
