"""The training of a bank by paths that take turns (single paths; Guo et al., 2020, section 3.2), and looks at paths."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from hwnas.errors import InputError, SharedWeightsError, quoted
from hwnas.support import check_file, parse_json
from hwnas.training.bank import Bank
from hwnas.training.batches import Order, normalise
from hwnas.training.checkpoint import checksum, identity_in, write_tensors
from hwnas.training.hardware import keep_freed_memory
from hwnas.training.loop import Training, run_training
from hwnas.training.module import Classifier, Network
from hwnas.training.scoring import Scores

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images
    from hwnas.network import Architecture
    from hwnas.training.curves import Progress
    from hwnas.training.settings import TrainingSettings

_VERSION = 3  # of the file; before 2 sides of a cell had weights of their own, before 3 chains had other names
CALIBRATION = 128  # training images that BatchNorm's statistics are taken anew from: 512 rank 12 cells alike (0.99)
LOOKED_AT = 1000  # validation images, the same ones for all: 2,000 rank 40 candidates alike (0.99)
_BATCH = 64  # an image takes a fifth less than with 128: what it needs stays in the caches
_UNREADABLE = (  # what reading a file that is none, or was cut short, raises
    SafetensorError,
    InputError,
    OSError,
    LookupError,
    ArithmeticError,
    ValueError,
    TypeError,
    RuntimeError,
)
_ANEW = "Delete it, and type the search again to train them anew"


@dataclass(frozen=True, slots=True)
class BankOrigin:
    """What the weights in a file were trained for: those of another search say nothing of its candidates.

    `learned_by` says what drew the paths; `known` is the checksum of the weights that they began with.
    """

    space: str
    scales: tuple[str, ...]
    proxy_filters: float
    seed: int
    learned_by: str
    known: int | None = None


class Shared(Classifier):
    """A bank that computes at each step the next one of many architectures, or the `ends` and the next ones.

    The ends are the largest and the smallest of a space: the sandwich rule, with distillation in place (Yu and Huang,
    2019, section 3; BigNAS, Yu et al., 2020, section 3.1).
    """

    def __init__(
        self, bank: Bank, paths: "Sequence[Architecture]", *, ends: "Sequence[Architecture]" = (), beside: int = 2
    ) -> None:
        super().__init__()
        self.bank, self._paths, self._ends = bank, paths, ends
        self._turns = beside if ends else 1  # a step
        self._step = 0  # of the training

    def before_step(self, step: int, steps: int) -> bool:
        """Let the paths of this step have their turn."""
        self._step = step
        return False

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images [n, channels, height, width] of any size: [n, classes], or [1 + m, n, classes].

        The latter where there are ends: of the largest, and of the m others.
        """
        first = self._step * self._turns
        turns = [self._paths[number % len(self._paths)] for number in range(first, first + self._turns)]
        logits = [logits_of(self.bank, architecture, images) for architecture in (*self._ends, *turns)]
        return torch.stack(logits) if self._ends else logits[0]

    def loss(self, outputs: Tensor, labels: Tensor, settings: "TrainingSettings") -> Tensor:
        """Return the mean over networks: the largest learns the labels, the others what the largest says."""
        if outputs.dim() == 2:
            return super().loss(outputs, labels, settings)
        largest, *others = outputs
        said = largest.detach().softmax(1)
        losses = [super().loss(largest, labels, settings)]
        losses += [F.cross_entropy(logits, said) for logits in others]
        return torch.stack(losses).mean()


def logits_of(bank: Bank, architecture: "Architecture", images: Tensor) -> Tensor:
    """Return an architecture's logits [n, classes] for images [n, channels, height, width], brought to its size."""
    side = architecture.graph.layers[0].shape[1]
    if images.shape[2] != side:
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    logits: Tensor = bank(architecture.graph, images)
    return logits


def train_shared(
    paths: "Sequence[Architecture]",
    largest: "Sequence[Architecture]",
    dataset: "Dataset",
    settings: "TrainingSettings",
    *,
    identity: Mapping[str, Any],
    ends: "Sequence[Architecture]" = (),
    known: Network | None = None,
    checkpoint: Path | None = None,
    on_progress: "Callable[[Progress], None] | None" = None,
) -> Bank:
    """Train a bank that has the weights of the `largest`, on `paths` and `ends`; as `train_network` does, which see.

    What it shares with a `known` network begins with the weights of that. `identity` are JSON values that, with the
    settings and the data, must be the same when it is taken up again.
    """

    def begun() -> Shared:
        bank = Bank(seed=settings.seed)
        for architecture in (*largest, *ends, *paths):
            bank.hold(architecture.graph)
        if known is not None:
            bank.take(known)
        return Shared(bank, paths, ends=ends)

    begins = {"known": checksum(known.state_dict())} if known is not None else {}
    training = Training(
        begun, {"shared": {**identity, **begins, "paths": len(paths)}}, dataset.train, dataset, settings
    )
    run_training(training, checkpoint=checkpoint, on_progress=on_progress)
    return training.finished().bank


def begun_with(checkpoint: Path) -> int | None:
    """Return the checksum of the known weights that a bank began with which was cut off; nothing where it had none."""
    shared = identity_in(checkpoint).get("shared")
    return shared.get("known") if isinstance(shared, dict) else None


def write_bank(bank: Bank, path: Path, *, origin: BankOrigin | None = None) -> None:
    """Write a bank's weights to a safetensors file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in bank.named_parameters()}
    header: dict[str, Any] = {"version": _VERSION, "seed": bank.seed}
    if origin is not None:
        header["origin"] = _origin_reader().dump_python(origin, mode="json")
    write_tensors(path, tensors, metadata={"bank": json.dumps(header)})


def read_bank(path: Path) -> Bank:
    """Read what `write_bank` wrote; raises SharedWeightsError for anything else."""
    with _opened(path) as (file, header):
        bank = Bank(seed=int(header["seed"]))
        for name in file.keys():  # noqa: SIM118  (it is no mapping)
            tensor = file.get_tensor(name).clone()  # of its own: it is lost where the file is cut short later
            bank.register_parameter(name, nn.Parameter(tensor))
    return bank


def read_origin(path: Path) -> BankOrigin | None:
    """Read what the weights in a file were trained for, and no weights; nothing where an older hwnas wrote it.

    Raises SharedWeightsError as `read_bank` does, also for a file that was cut short.
    """
    with _opened(path) as (_, header):
        return _origin_reader().validate_python(header["origin"]) if "origin" in header else None


def check_origin(path: Path, wanted: BankOrigin) -> BankOrigin | None:
    """Return what `read_origin` does; raises SharedWeightsError where it is another search's, whatever was `known`."""
    written = read_origin(path)
    if written is None:
        return None
    names = [field.name for field in fields(wanted) if field.name != "known"]
    if differing := [name for name in names if getattr(written, name) != getattr(wanted, name)]:
        listed = ", ".join(name.replace("_", " ") for name in differing)
        raise SharedWeightsError(
            f"{path} must be the shared weights of its own run; got those of another one, which differs in: {listed}. "
            f"{_ANEW}"
        )
    return written


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Give a file of shared weights and its header; raises SharedWeightsError for what cannot be read of it."""
    try:
        check_file(path, what="shared weights")
        with safe_open(path, framework="pt") as file:  # it compares the file's length with the header
            header = parse_json((file.metadata() or {})["bank"])
            if header["version"] != _VERSION:
                raise ValueError(f"it is of version {header['version']}, and {_VERSION} is read")
            yield file, header
    except _UNREADABLE as error:
        raise SharedWeightsError(
            f"{path} must be shared weights that hwnas wrote; it cannot be read: {quoted(error)}. {_ANEW}"
        ) from None


@cache
def _origin_reader() -> TypeAdapter[BankOrigin]:
    return TypeAdapter(BankOrigin)


@torch.no_grad()
def look(bank: Bank, architecture: "Architecture", dataset: "Dataset") -> Scores:
    """Return how often an architecture is right with a bank's weights, on some of the validation images.

    BatchNorm's statistics are taken anew, of training images. Weights that no path had are those that they begin with.
    Raises SharedWeightsError where the bank's are of fewer channels: then it is another space's.
    """
    keep_freed_memory()
    graph = architecture.graph
    try:
        lent = bank.hold(graph)
    except ValueError as error:
        raise SharedWeightsError(
            f"shared weights must be as large as those of every candidate; got another run's ({error}). Delete the "
            "run's file of them, and type the search again to train them anew"
        ) from None
    statistics = bank.calibrated(graph, _batches(dataset.train, dataset, CALIBRATION))
    bank.eval()
    chosen = [bank(graph, images, statistics).argmax(1) for images in _batches(dataset.validation, dataset, LOOKED_AT)]
    bank.forget(lent)
    return Scores.of(torch.cat(chosen), dataset.validation.labels[_some(dataset.validation, LOOKED_AT)])


def _some(images: "Images", most: int) -> Tensor:
    """Return which images are looked at, int64 [n]: of every class its share."""
    return Order(images.labels, seed=0).indices(0, min(most, len(images.labels)))


def _batches(images: "Images", dataset: "Dataset", most: int) -> Iterator[Tensor]:
    for batch in torch.split(_some(images, most), _BATCH):
        yield normalise(images.read(batch), dataset).contiguous(memory_format=torch.channels_last)
