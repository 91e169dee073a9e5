"""The one training loop: short, of a search's proxies (`hwnas search`), and long, of its winners (`hwnas train`).

By default SGD with Nesterov momentum, a warm-up and cosine decay to 0 (PNAS, section 5.1; Loshchilov & Hutter, 2017).
Every random choice comes from the seed and the step's number, so a training that was cut off at any step and taken up
again ends with the very weights of one that was not (on the CPU with the same number of threads).
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from pydantic import NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from hwnas.errors import DivergedError, InputError
from hwnas.support import held
from hwnas.training import checkpoint as _checkpoint
from hwnas.training import hardware as _hardware
from hwnas.training.averaging import Average
from hwnas.training.bank import Bank
from hwnas.training.batches import Order, augmented, random_seed
from hwnas.training.curves import Epoch, Look, Progress, Watch
from hwnas.training.distillation import Teacher, distillation_loss
from hwnas.training.hardware import keep_freed_memory, seeded
from hwnas.training.module import Classifier, Network
from hwnas.training.optimizer import learning_rate_at, make_optimizer
from hwnas.training.reparameterised import Reparameterised
from hwnas.training.scoring import accuracy, scores
from hwnas.training.settings import TrainingSettings
from hwnas.training.targets import Targets
from hwnas.training.weights import inherit

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images
    from hwnas.network import Architecture

AnyNetwork = TypeVar("AnyNetwork", bound=Classifier)
_SMOOTHING = 0.95  # of the loss that is shown
_AVERAGE, _BEST = "average.", "best."  # prefixes of a checkpoint's tensors, beside those of the network
_NUMBERS = (  # beside the tensors
    *("step", "seconds", "loss", "epoch_loss", "epoch_began", "look_loss", "looked_at"),
    *("best_score", "best_epoch"),
)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network, in eval mode on the device that it was trained on.

    `seconds` are those of training, over all the times it was taken up. Where it was `stopped` by a watch or for want
    of patience, the last look or the history says at which epoch.
    """

    network: Network
    seconds: float
    images_seen: int
    history: list[Epoch]
    looks: tuple[Look, ...] = ()
    stopped: bool = False


def train_network(
    architecture: "Architecture",
    images: "Images",
    dataset: "Dataset",
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    watch: Watch | None = None,
    initial: Path | Bank | None = None,
    teacher: Teacher | None = None,
    clock: Callable[[], float] = time.monotonic,
    save_every_s: float = 60.0,
) -> Trained:
    """Train an architecture on `images`, normalised by the data set's statistics and flipped where it says so.

    With `checkpoint`, training is saved there after each epoch, every `save_every_s` and on the first Ctrl-C, and goes
    on from there if the file exists. With `watch` it is looked at, and may be stopped then; the steps are the same
    ones. With `initial` it begins with the weights of another network, where they have the same names and shapes, or
    with its slice of a bank. With a `teacher` it learns from that as well, as the settings say.

    Raises InputError where the architecture and the data do not fit, TrainingError where the loss is not finite and
    where the checkpoint is broken or of another training.
    """
    training = network_training(
        architecture, images, dataset, settings, watch=watch, initial=initial, teacher=teacher, clock=clock
    )
    run_training(training, checkpoint=checkpoint, on_progress=on_progress, save_every_s=save_every_s)
    network = training.finished()
    network.auxiliary = None
    if isinstance(network, Reparameterised):
        network = network.folded().to(memory_format=training.hardware.memory_format)
    return Trained(
        network, training.seconds, training.images_seen, training.history, tuple(training.looks), training.stopped
    )


def network_training(
    architecture: "Architecture",
    images: "Images",
    dataset: "Dataset",
    settings: TrainingSettings,
    *,
    watch: Watch | None = None,
    initial: Path | Bank | None = None,
    teacher: Teacher | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "Training[Network]":
    """Return the training of an architecture before its first step; see `train_network`."""
    _check_fits(architecture, images, dataset)
    if settings.trivial_augment and dataset.channels not in (1, 3):
        raise InputError(
            f"TrivialAugment is for images of 1 or 3 channels; {dataset.name} has {dataset.channels}; leave it out"
        )
    settings = replace(settings, teacher_sha256=teacher.sha256 if teacher else None)
    if teacher is not None:
        teacher.check(dataset, settings)

    def begun() -> Network:
        kind = partial(Reparameterised, convolutions=settings.branches) if settings.reparameterise else Network
        network = kind(architecture.graph, dropout_rate=settings.dropout_rate, auxiliary=settings.auxiliary_weight > 0)
        if isinstance(network, Reparameterised) and initial is not None:
            network.silence()
        if isinstance(initial, Bank):
            initial.fill(network)
        elif initial is not None:
            inherit(network, initial)
        return network

    identity = {"architecture": architecture.to_json()}
    return Training(begun, identity, images, dataset, settings, watch=watch, teacher=teacher, clock=clock)


def run_training(
    training: "Training[AnyNetwork]",
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    save_every_s: float = 60.0,
) -> None:
    """Bring a training to its end, from the checkpoint if it exists; see `train_network`."""
    with held(second=False) as interrupted:  # so that it stops between two steps; a second one stops it at once
        if checkpoint is not None and checkpoint.exists():
            training.resume(checkpoint)
        for ended_epoch in training.run():
            stopping = interrupted.is_set()
            due = ended_epoch or stopping or training.seconds_unsaved() >= save_every_s
            if checkpoint is not None and due:
                training.save(checkpoint)
            if on_progress and (progress := training.progress()):
                on_progress(progress)
            if stopping:
                interrupted.stop()


def _check_fits(architecture: "Architecture", images: "Images", dataset: "Dataset") -> None:
    graph = architecture.graph
    wanted = (graph.output_shape[0], *graph.layers[0].shape[:2])
    got = (len(dataset.classes), dataset.channels, dataset.resolution)
    if wanted != got:
        raise InputError(
            f"an architecture must be of its data's classes, channels and resolution; it has {wanted}, "
            f"{dataset.name} has {got}; search again with this data set"
        )
    if len(images.labels) < 2:
        raise InputError(f"training needs two images or more; {dataset.name} has {len(images.labels)}; add some")


def steps_of(settings: TrainingSettings, images: int) -> int:
    """Return how many steps a training on so many images has."""
    epoch_images = settings.images_per_epoch or images
    return max(1, math.ceil(settings.epochs * epoch_images / min(settings.batch_size, images) - 1e-9))


def _check_every(device: torch.device) -> int:
    """Return after how many steps to look at the loss: a look makes the CPU wait for an accelerator."""
    return 1 if device.type == "cpu" else 20


@dataclass(frozen=True, slots=True)
class _Saved:
    """What a checkpoint has of a training beside its tensors, in the terms of `Training`."""

    step: NonNegativeInt
    seconds: float
    loss: float
    epoch_loss: float
    epoch_began: NonNegativeInt
    look_loss: float
    looked_at: NonNegativeInt
    history: list[Epoch]
    looks: list[Look]
    scaler: dict[str, Any]
    best_score: float = -1.0  # an older hwnas kept neither this
    best_epoch: NonNegativeInt = 0  # nor this


@cache
def _saved_reader() -> TypeAdapter[_Saved]:
    return TypeAdapter(_Saved)


class Training(Generic[AnyNetwork]):
    """One training between its steps; `step` of them are done.

    `make` returns the network as it begins; `identity` are JSON values that say what it is, and must be the same for a
    checkpoint to be taken up.
    """

    def __init__(
        self,
        make: Callable[[], AnyNetwork],
        identity: dict[str, Any],
        images: "Images",
        dataset: "Dataset",
        settings: TrainingSettings,
        *,
        watch: Watch | None = None,
        teacher: Teacher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        hardware = _hardware.choose(settings.device, precision=settings.precision, channels_last=settings.channels_last)
        self._identity_of_network, self.images = identity, images
        self.dataset = replace(dataset, flips=settings.flips_of(dataset))
        self.settings, self.hardware, self.watch, self.clock = settings, hardware, watch, clock
        self.teacher = teacher.to(hardware.device) if teacher else None
        self.batch_size = min(settings.batch_size, len(images.labels))
        self.epoch_images = settings.images_per_epoch or len(images.labels)
        self.steps = steps_of(settings, len(images.labels))
        self.look_steps = {self._step_of(epoch) for epoch in watch.epochs} if watch else set()
        self.order = Order(images.labels, seed=settings.seed)
        with seeded(random_seed(settings.seed, 1)):
            network = make().train()
        self.network: AnyNetwork = network.to(hardware.device).to(memory_format=hardware.memory_format)
        self.average = Average(self.network, decay=settings.ema) if settings.ema else None
        self.model = torch.compile(self.network) if settings.compile else self.network
        self.optimizer = make_optimizer(self.network.learned, settings)
        self.targets = Targets(images.labels, len(dataset.classes), settings)
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.autocast is torch.float16)
        self.step = 0
        self.seconds = 0.0
        self.loss = 0.0  # smoothed
        self.epoch_loss = 0.0  # the sum over the epoch's steps
        self.epoch_began = 0  # at this step
        self.history: list[Epoch] = []
        self.looks: list[Look] = []
        self.look_loss = 0.0  # the sum over the steps since the last look
        self.looked_at = 0  # at this step
        self.best_score = -1.0  # on the validation part, where there is patience
        self.best_epoch = 0  # finished epochs then
        self.best: dict[str, Tensor] = {}  # the weights and statistics then
        self.stopped = False
        self._unread: list[Tensor] = []  # losses of the last steps, on the device
        self._saved = clock()
        if hardware.device.type == "cpu":
            keep_freed_memory()

    def run(self) -> Iterator[bool]:
        """Do the steps that are left, or until a look stops them; after each say whether it ended an epoch."""
        self._first, self._seconds_before, begun = self.step, self.seconds, self.clock()
        every = _check_every(self.hardware.device)
        for pixels, labels in self._batches():
            if self._is_to_stop():
                break
            with seeded(random_seed(self.settings.seed, 2, self.step), self.hardware.device):  # what is dropped
                self._unread.append(self._train_step(pixels, labels))
            self.step += 1
            self.seconds = self._seconds_before + self.clock() - begun
            ended, look_due = self._ends_epoch(), self.step in self.look_steps
            if ended or look_due or len(self._unread) >= every:
                self._read_losses()
            if ended:
                self._end_epoch()
            if look_due:
                self._look()
            yield ended

    def _step_of(self, epoch: float) -> int:
        """Return the step with which so many epochs are done."""
        return max(1, math.ceil(epoch * self.epoch_images / self.batch_size - 1e-9))

    def _look(self) -> None:
        """Note what the training shows now, unless it is done."""
        if self.step == self.steps:
            return
        loss = self.look_loss / (self.step - self.looked_at)
        self.looks.append(Look(self._epochs_done(), loss, self.seconds, self._share_of_some()))
        self.look_loss, self.looked_at = 0.0, self.step

    def _share_of_some(self) -> float | None:
        """Return the accuracy on as many validation images as are wanted, the same ones for all candidates."""
        if self.watch is None or not self.watch.images:
            return None
        labels = self.dataset.validation.labels
        some = Order(labels, seed=0).indices(0, min(self.watch.images, len(labels)))
        return accuracy(self._kept(), self.dataset.validation, self.dataset, indices=some)

    def _is_to_stop(self) -> bool:
        """Say whether the look at the last step, if there was one, stops the training, or its patience is at an end."""
        looked = self.watch is not None and self.looks and self.looked_at == self.step
        self.stopped = bool(looked and self.watch and self.watch.stops(self.looks[-1]))
        self.stopped |= 0 < self.settings.patience <= len(self.history) - self.best_epoch
        return self.stopped

    def _kept(self) -> AnyNetwork:
        """Return the network that is scored, and left at the end: the average where there is one."""
        return self.average.network if self.average else self.network

    def progress(self) -> Progress | None:
        """Return how far this is, or nothing while losses are still being computed."""
        if self._unread:
            return None
        images = (self.step - self._first) * self.batch_size
        speed = images / max(self.seconds - self._seconds_before, 1e-9)
        return Progress(self.step, self.steps, self._epochs_done(), self.loss, speed)

    def _train_step(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Take one step; return its loss without waiting for it."""
        settings, device = self.settings, self.hardware.device
        if self.network.before_step(self.step, self.steps):
            self._take_in_new()
        self.network.path_drop_rate = settings.path_drop_rate * (self.step + 1) / self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.steps, settings)
        labels = labels.to(device, non_blocking=True)
        inputs, wanted = self.targets.of(self._inputs(pixels), labels, step=self.step)
        autocast = self.hardware.autocast
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            outputs = self.model(inputs)
        loss = self.network.loss(outputs.float(), wanted, settings)
        if self.teacher:
            loss = self._distilled(loss, outputs.float(), inputs)
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        if settings.clip_gradient_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.step)
        return loss.detach()

    def _inputs(self, pixels: Tensor) -> Tensor:
        """Return this step's images as the network reads them, on its device."""
        return augmented(
            pixels.to(self.hardware.device, non_blocking=True),
            self.dataset,
            crop=self.settings.augment,
            cutout=self.settings.cutout,
            trivial=self.settings.trivial_augment,
            seed=random_seed(self.settings.seed, 3, self.step),
        ).contiguous(memory_format=self.hardware.memory_format)

    def _distilled(self, loss: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Return the loss with the teacher's share in it."""
        assert self.teacher is not None  # else nobody asks
        indices = self.order.indices(self.step * self.batch_size, self.batch_size)
        said, settings = self.teacher.logits(inputs, indices, self.dataset), self.settings
        logits = outputs if outputs.dim() == 2 else outputs[0]  # not the auxiliary head's
        taught = distillation_loss(logits, said, temperature=settings.temperature)
        return torch.lerp(loss, taught, settings.distillation_weight)

    def _take_in_new(self) -> None:
        """Bring weights that the network has made since to the device, and let the optimiser know of them.

        To begin with all of them would come to the same: what has no gradient yet is not changed.
        """
        self.network.to(self.hardware.device).to(memory_format=self.hardware.memory_format)
        decayed, others = (group["params"] for group in self.optimizer.param_groups)
        known = {id(parameter) for parameter in (*decayed, *others)}
        for parameter in self.network.learned.parameters():
            if id(parameter) not in known:
                (decayed if parameter.dim() > 1 else others).append(parameter)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the batches of the steps that are left; where an accelerator computes, one batch ahead."""
        steps = range(self.step, self.steps)
        if self.hardware.device.type == "cpu":
            yield from map(self._read_batch, steps)
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read_batch, self.step)
            for step in steps:
                batch = coming.result()
                if step + 1 < self.steps:
                    coming = reader.submit(self._read_batch, step + 1)
                yield batch

    def _read_batch(self, step: int) -> tuple[Tensor, Tensor]:
        indices = self.order.indices(step * self.batch_size, self.batch_size)
        return self.images.read(indices), self.images.labels[indices]

    def _read_losses(self) -> None:
        """Wait for the losses of the last steps and count them; raise TrainingError where one is not finite."""
        losses: list[float] = torch.stack(self._unread).tolist() if self._unread else []
        for step, loss in enumerate(losses, start=self.step - len(losses) + 1):
            if not math.isfinite(loss):
                raise self._not_finite(f"got {loss} at step {step} of {self.steps}")
            self.loss = loss if step == 1 else _SMOOTHING * self.loss + (1 - _SMOOTHING) * loss
            self.epoch_loss += loss
            self.look_loss += loss
        self._unread.clear()

    def _not_finite(self, got: str) -> DivergedError:
        remedies = ["lower the learning rate", "raise the warm-up", "clip the gradient's norm"]
        remedies += ["take fp32"] * (self.hardware.autocast is not None)
        return DivergedError(
            f"the loss must stay finite; {got}, with a learning rate of {self.settings.learning_rate:g}; "
            f"{', or '.join(remedies)}"
        )

    def _epochs_done(self) -> float:
        return min(self.step * self.batch_size / self.epoch_images, self.settings.epochs)

    def _ends_epoch(self) -> bool:
        seen = self.step * self.batch_size
        before = seen - self.batch_size
        return self.step == self.steps or seen // self.epoch_images > before // self.epoch_images

    def _end_epoch(self) -> None:
        done = self._epochs_done()
        self.history.append(
            Epoch(
                epoch=done if self.step == self.steps else math.floor(done),
                step=self.step,
                loss=self.epoch_loss / (self.step - self.epoch_began),
                learning_rate=self.optimizer.param_groups[0]["lr"],
                seconds=self.seconds,
                accuracy=self._validate() if self.settings.patience else None,
            )
        )
        self.epoch_loss, self.epoch_began = 0.0, self.step

    def _validate(self) -> float:
        """Score the network on the validation part, keep it if it is the best yet, and return its accuracy there."""
        network = self._kept()
        scored = scores(network, self.dataset.validation, self.dataset)
        score = scored.balanced if self.settings.class_weights else scored.accuracy
        if score > self.best_score:
            self.best_score, self.best_epoch = score, len(self.history) + 1
            self.best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        return scored.accuracy

    def _optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Return all whose state a checkpoint holds."""
        return [self.optimizer]

    def seconds_unsaved(self) -> float:
        """Return how long ago the last checkpoint was written, or training begun."""
        return self.clock() - self._saved

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a checkpoint to be taken up, as JSON values."""
        data = self.dataset
        identity = {
            **self._identity_of_network,
            "settings": self.settings.to_json(),
            "data": {"name": data.name, "images": len(self.images.labels), "mean": data.mean, "std": data.std},
        }
        as_json: dict[str, Any] = json.loads(json.dumps(identity))
        return as_json

    def save(self, path: Path) -> None:
        """Write a checkpoint; raises TrainingError, and leaves the last one, where a loss was not finite."""
        self._read_losses()
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        state = {
            "training": self._identity(),
            "history": [asdict(epoch) for epoch in self.history],
            "looks": [asdict(look) for look in self.looks],
            "scaler": self.scaler.state_dict(),
            **numbers,
        }
        tensors = _checkpoint.tensors_of(self.network, *self._optimizers())
        if self.average:
            tensors |= _checkpoint.tensors_of_network(self.average.network, prefix=_AVERAGE)
        tensors |= {f"{_BEST}{name}": tensor for name, tensor in self.best.items()}
        _checkpoint.save(path, tensors, state)
        self._saved = self.clock()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint; raises TrainingError where it is broken or of another training."""
        tensors, state = _checkpoint.load(path)
        _checkpoint.check_same(path, state.get("training"), self._identity())
        try:
            saved = _saved_reader().validate_python(state)
            _checkpoint.restore_network(self.network, tensors)
            self._take_in_new()
            if self.average:
                _checkpoint.restore_network(self.average.network, tensors, prefix=_AVERAGE)
            _checkpoint.restore_optimizers(self.network, tensors, *self._optimizers())
            if saved.scaler:
                self.scaler.load_state_dict(saved.scaler)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:  # of tensors and numbers that do not fit
            raise _checkpoint.broken(path, " ".join(str(error).split())) from None
        if not saved.step <= self.steps:
            raise _checkpoint.broken(path, f"it says step {saved.step} of {self.steps}")
        for name in _NUMBERS:
            setattr(self, name, getattr(saved, name))
        self.history, self.looks = saved.history, saved.looks
        self.best = {name.removeprefix(_BEST): value for name, value in tensors.items() if name.startswith(_BEST)}

    @property
    def images_seen(self) -> int:
        """How many images it has learned from, some of them more than once."""
        return self.step * self.batch_size

    def finished(self) -> AnyNetwork:
        """Return the trained network, in eval mode; raises TrainingError where its weights are not finite."""
        network = self._kept()
        if self.best:
            network.load_state_dict(self.best)
        if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
            raise self._not_finite("the last step made weights that are not")
        return network.eval()
