"""`hwnas train`: trains a run's winners at deployed scale on the whole training set, and tests them once."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PlainValidator

from hwnas.errors import InputError
from hwnas.runs import RunFolder, number_wanted, winners_wanted
from hwnas.support import AnyPath, Metavar, bar, expanded, plugins, remark, say
from hwnas.training import MOST_ALPHA, MOST_BRANCHES, Flips, Optimizer
from hwnas.verbs._finalists import Validated, best_finalists, finalists_of
from hwnas.verbs._takes import takes

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.device import Setting
    from hwnas.network import Architecture
    from hwnas.runs import Candidate, Run, SearchSettings, WinnerFolder, WinnerRecord
    from hwnas.training import Teacher, Trained, TrainingSettings
    from hwnas.training.bank import Bank

_VERSIONS = ("hwnas", "torch", "torchvision", "optuna")  # that a record states


@dataclass(frozen=True, slots=True)
class TrainedWinner:
    """A trained winner; `test_accuracy` is a share, measured once after training.

    So is `balanced_accuracy`, the mean of the classes'; None of a winner that an older hwnas trained. `accuracy_of`
    says what they are of: "long training". `int8_accuracy` is that of the int8 file as `hwnas export` calibrates it, on
    at most 10,000 test images, before it is fine-tuned; None in a run whose setting is of another precision.
    """

    trial: int
    accuracy_of: str
    test_accuracy: float
    balanced_accuracy: float | None
    mult_adds: int
    parameters: int
    seconds: float
    folder: str
    int8_accuracy: float | None = None


class TrainOptions(RunFolder):
    """The options of `hwnas train`; what is not about winners is a field of TrainingSettings, too."""

    winners: Annotated[int | str, PlainValidator(winners_wanted), Metavar("N|best:N")] = Field(
        default=2,
        description="networks of the front to train: the most accurate one, and others at even steps down the front "
        "(2: the one in its middle), which are faster and less accurate; best:2 takes the 2 most accurate",
    )
    finalists: int = Field(
        default=0,
        ge=0,
        description="so many of the most accurate candidates are trained for a tenth of the epochs, the better half "
        "for a third; the best of these, on the validation images and in int8 where the run's setting is, are the "
        "winners; those whose latency was only predicted are measured first; 0: the search's order counts",
    )
    trial: int | None = Field(default=None, ge=0, description="train this trial instead of winners of the front")
    epochs: float = Field(default=60.0, gt=0, description="epochs over the whole training set")
    batch_size: int | None = Field(
        default=None,
        ge=2,
        description="images a step; without it 128, and of fewer than 2,900 training images 64, 32 or 16, so that a "
        "pass over them has some 32 steps",
    )
    optimizer: Optimizer = Field(
        default="sgd", description="sgd (Nesterov momentum) or adamw, which takes a --learning-rate such as 0.002"
    )
    learning_rate: float = Field(default=0.1, gt=0, le=1000, description="peak learning rate, decayed by a cosine")
    weight_decay: float = Field(default=5e-4, ge=0, description="weight decay, not on BatchNorm and biases")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="label smoothing")
    augment: bool = Field(default=True, description="random crops, and flips as --flips says")
    flips: Flips = Field(
        default="auto",
        description="mirror images at random: auto does so where they stay in their class, as photos do, and not where "
        "mirrored images of one class look like another's, as signs that point left and right do",
    )
    cutout: int = Field(default=0, ge=0, description="side of a square that is cut out, in pixels; 0: none")
    path_drop_rate: float = Field(default=0.0, ge=0, lt=1, description="scheduled path dropping: the rate at the end")
    dropout_rate: float = Field(default=0.0, ge=0, lt=1, description="dropout before the classifier")
    auxiliary_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the loss of an auxiliary head at two thirds of the cells; 0: none",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of an exponential average of the weights, such as 0.999, which is what is tested, kept and "
        "exported; 0: none, the last weights are",
    )
    mixup: float = Field(
        default=0.0, ge=0, le=MOST_ALPHA, description="mixup's alpha, such as 0.2: images mixed in pairs; 0: none"
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        le=MOST_ALPHA,
        description="CutMix's alpha, such as 1: rectangles of other images pasted in; 0: none. With --mixup each batch "
        "takes one of both by chance",
    )
    trivial_augment: bool = Field(
        default=False,
        description="change each image by one random operation (TrivialAugment): it is sheared, moved, turned by up to "
        "135 degrees, or its brightness, contrast, colour or sharpness is changed; for 1 or 3 channels",
    )
    reparameterise: bool = Field(
        default=False,
        description="train each convolution larger than 1x1 with parallel branches, which fold into it at the end",
    )
    branches: int = Field(
        default=1,
        ge=1,
        le=MOST_BRANCHES,
        description="convolutions that --reparameterise trains in parallel in place of each; above 1 (MobileOne-S0: 4) "
        "1x1 ones have branches, too",
    )
    class_weights: bool = Field(
        default=False, description="weigh classes in the loss by the inverse of how many images they have"
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="end after so many epochs without a better score on the validation part, which is then not trained "
        "on, and keep the best epoch's weights; 0: train to the end",
    )
    teacher: AnyPath | None = Field(
        default=None,
        description="learn also what a trained network says: a winner's folder (RUN/winners/TRIAL), or an .npz file "
        "whose `logits` are of each image of the whole training set, in the order of hwnas.datasets' whole_train",
    )
    temperature: float = Field(default=4.0, gt=0, description="by which the --teacher's logits are divided")
    distillation_weight: float = Field(default=0.5, gt=0, le=1, description="the --teacher's share of the loss")
    accelerator: str = Field(default="auto", description="where to train: auto, cpu, cuda or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(default="auto", description="auto, fp32, bf16 or fp16")
    compile: bool = Field(
        default=False,
        description="use torch.compile: for a GPU; on a CPU it takes a minute or two first, and torch 2.14's then "
        "trained 0.6 to 0.8 times as fast as without",
    )
    from_supernet: bool = Field(
        default=False,
        description="begin with a winner's slice of the weights that the candidates of --estimator supernet shared",
    )
    skip_broken: bool = Field(default=False, description="leave out image files that cannot be read")

    def settings(self, images: int | None = None) -> "TrainingSettings":
        """Return how a winner is trained on so many images; where their number is not known as on many."""
        from hwnas.training import TrainingSettings, batch_size_for

        values = {name: getattr(self, name) for name in TrainingSettings.__dataclass_fields__ if hasattr(self, name)}
        if self.batch_size is None:
            values["batch_size"] = batch_size_for(images)
        return TrainingSettings(**values, device=self.accelerator)

    def check(self) -> None:
        """Raise InputError for settings that do not go together, and for an accelerator that is not there."""
        from hwnas.training import hardware

        settings = self.settings()
        hardware.choose(settings.device, precision=settings.precision, channels_last=settings.channels_last)
        wanted = number_wanted(self.winners)
        for name in ("temperature", "distillation_weight"):
            if self.teacher is None and getattr(self, name) != TrainOptions.model_fields[name].default:
                raise InputError(f"--{name.replace('_', '-')} is of a --teacher, and none is given: leave it out")
        if self.branches > 1 and not self.reparameterise:
            raise InputError("--branches is of --reparameterise, which is not given: add it, or leave --branches out")
        if self.finalists and self.trial is not None:
            raise InputError("--finalists is for winners, and --trial names one: leave one of them out")
        if 0 < self.finalists <= wanted:
            raise InputError(
                f"--finalists must be more than the winners, {wanted}; got {self.finalists}; take {3 * wanted}"
            )


@takes(TrainOptions)
def train(options: TrainOptions) -> list[TrainedWinner]:
    """Train winners of a run's front; training that was stopped goes on from its last checkpoint.

    A winner that was trained to the end with other settings is trained anew. Raises InputError where there is nothing
    to train, and TrainingError.
    """
    from hwnas.runs import Run

    options.check()
    teacher = _teacher(options.teacher) if options.teacher is not None else None
    run = Run.open(str(options.run))
    settings = replace(
        options.settings(run.settings.training_images), teacher_sha256=teacher.sha256 if teacher else None
    )
    if options.skip_broken:
        run.settings = run.settings.model_copy(update={"skip_broken": True})
    _int8_setting(run.settings)  # before any is trained: its device must be known
    with run.locked():
        dataset_at = cache(lambda resolution: _dataset(run, resolution, settings))

        def validated(candidate: "Candidate", shorter: "TrainingSettings", checkpoint: Path) -> Validated:
            dataset = dataset_at(_resolution(candidate))
            return _validated(run, candidate, shorter, dataset, checkpoint, teacher)

        if options.finalists:
            chosen = finalists_of(run, options.finalists)
        else:
            chosen = run.choose(options.winners, trial=options.trial)
        for candidate in chosen:  # before any is trained
            if settings.from_supernet:
                _with_shared(run, candidate)
            if teacher is not None:
                teacher.check(dataset_at(_resolution(candidate)), settings)
        if options.finalists:
            chosen = best_finalists(run, chosen, settings, validated, wanted=number_wanted(options.winners))
        return [_train_one(run, candidate, settings, dataset_at, teacher) for candidate in chosen]


def _train_one(
    run: "Run",
    candidate: "Candidate",
    settings: "TrainingSettings",
    dataset_at: "Callable[[int], Dataset]",
    teacher: "Teacher | None",
) -> TrainedWinner:
    from hwnas.runs import WinnerFolder

    folder = WinnerFolder(run.winner_folder(candidate.trial))
    if folder.record.exists():
        record = folder.read()
        if difference := record.differs_from(candidate):
            raise InputError(
                f"{folder.record} must say what the run's study says of trial {candidate.trial}; {difference}. Delete "
                f"{folder.path} and type the same command again, which trains it anew"
            )
        _remove_finished(folder, record)
        if record.training == settings:
            say(f"trial {candidate.trial} is trained already; its weights are in {folder.path}")
            if not folder.scores.exists():
                _write_scores(record, folder, dataset_at(_resolution(candidate)))
            return _result(record, folder)
        _say_anew(record, settings)
    record = _train_to_the_end(run, candidate, settings, folder, dataset_at, teacher)
    return _result(record, folder)


def _remove_finished(folder: "WinnerFolder", record: "WinnerRecord") -> None:
    """Remove the checkpoint of the training that a record tells of: hwnas was killed just then, or is an older one."""
    from hwnas.training import checkpoint

    if folder.checkpoint.exists() and checkpoint.settings_in(folder.checkpoint) == record.training.to_json():
        folder.checkpoint.unlink()


def _say_anew(record: "WinnerRecord", settings: "TrainingSettings") -> None:
    """Say that a winner is trained anew."""
    changes = ", ".join(
        f"{name} {_in_words(then)} (now {_in_words(value)})"
        for name, value in asdict(settings).items()
        if (then := getattr(record.training, name)) != value
    )
    say(f"trial {record.trial} was trained with {changes}: it is trained anew, and replaced when that is done")


def _in_words(setting: object) -> str:
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def _train_to_the_end(
    run: "Run",
    candidate: "Candidate",
    settings: "TrainingSettings",
    folder: "WinnerFolder",
    dataset_at: "Callable[[int], Dataset]",
    teacher: "Teacher | None",
) -> "WinnerRecord":
    """Train a candidate, test it once, and write its weights and its record."""
    from hwnas.runs import DataRecord, WinnerRecord, WinnerScores
    from hwnas.searching import estimators
    from hwnas.training import Scores, logits, quantised_scores, save_weights

    dataset = dataset_at(_resolution(candidate))
    say(f"training trial {candidate.trial}: {candidate.architecture.name}")
    trained = _trained(run, candidate, settings, dataset, folder.checkpoint, teacher, is_whole=True)
    outputs, in_int8 = logits(trained.network, dataset.test, dataset), None
    test = Scores.of(outputs.argmax(1), dataset.test.labels)
    if int8 := _int8_setting(run.settings):
        in_int8 = quantised_scores(
            trained.network, dataset.test, dataset, int8, calibrated_on=dataset.whole_train
        ).accuracy
        say(f"trial {candidate.trial}: {in_int8:.4f} of the test images right in int8, {test.accuracy:.4f} in fp32")
    record = WinnerRecord.of(
        candidate,
        trained,
        settings,
        DataRecord.of(dataset, seed=run.settings.seed),
        search_accuracy_of=estimators.accuracy_of(run.settings),
        test=test,
        test_int8_accuracy=in_int8,
        versions={name: metadata.version(name) for name in _VERSIONS},
    )
    folder.record.unlink(missing_ok=True)  # one of other settings: its weights are replaced before it is
    save_weights(trained.network, folder.weights)
    WinnerScores.of(record.trial, outputs, dataset).write(folder.scores)
    record.write(folder.record)
    folder.checkpoint.unlink(missing_ok=True)
    return record


def _write_scores(record: "WinnerRecord", folder: "WinnerFolder", dataset: "Dataset") -> None:
    """Write the scores of a winner of an older hwnas, which kept none, unless the test images have changed since."""
    from hwnas.artefacts import load_network
    from hwnas.runs import WinnerScores
    from hwnas.training import logits

    difference = "classes are others"
    if dataset.classes == record.data.classes:
        outputs = logits(load_network(record.architecture, folder), dataset.test, dataset)
        scores = WinnerScores.of(record.trial, outputs, dataset)
        difference = scores.differs_from(record)
    if difference:
        say(f"{folder.scores} is not written, as the test images are not those of {folder.record}: {difference}")
    else:
        scores.write(folder.scores)


def _validated(
    run: "Run",
    candidate: "Candidate",
    settings: "TrainingSettings",
    dataset: "Dataset",
    checkpoint: Path,
    teacher: "Teacher | None",
) -> Validated:
    """Return a candidate's accuracy on the validation part after a training without it, in int8 if that is to ship."""
    from hwnas.training import quantised_scores, scores

    trained = _trained(run, candidate, settings, dataset, checkpoint, teacher, is_whole=False)
    accuracy = scores(trained.network, dataset.validation, dataset).accuracy
    int8 = _int8_setting(run.settings)
    if int8 is None:
        return Validated(accuracy)
    in_int8 = quantised_scores(trained.network, dataset.validation, dataset, int8, calibrated_on=dataset.train)
    return Validated(in_int8.accuracy, accuracy)


def _int8_setting(settings: "SearchSettings") -> "Setting | None":
    """Return a run's setting, as its table was measured, where its files are int8."""
    from hwnas.device import load_device
    from hwnas.latency import as_measured

    if not settings.is_int8:
        return None
    device = load_device(settings.device)
    return as_measured(device, device.setting(settings.setting, threads=settings.threads))


def _trained(
    run: "Run",
    candidate: "Candidate",
    settings: "TrainingSettings",
    dataset: "Dataset",
    checkpoint: Path,
    teacher: "Teacher | None",
    *,
    is_whole: bool,
) -> "Trained":
    """Train a candidate at deployed scale on the whole training set, or without its validation part.

    Patience is by that part, and so leaves it out.
    """
    from hwnas.training import train_network

    architecture, shared = _with_shared(run, candidate) if settings.from_supernet else (candidate.architecture, None)
    with bar(f"training trial {candidate.trial}", 1) as training_bar:
        return train_network(
            architecture,
            dataset.whole_train if is_whole and not settings.patience else dataset.train,
            dataset,
            settings,
            initial=shared,
            teacher=teacher,
            checkpoint=checkpoint,
            on_progress=lambda progress: training_bar.at(progress.step, total=progress.steps),
        )


def _teacher(path: "AnyPath") -> "Teacher":
    """Return a winner in its folder, or the logits in a file; raises InputError and ExportError."""
    from hwnas.artefacts import hash_weights, load_network
    from hwnas.runs import WinnerFolder
    from hwnas.training import KnownLogits, TeacherNetwork

    place = expanded(str(path))
    if place.suffix == ".npz":
        return KnownLogits.read(place)
    folder = WinnerFolder(place)
    if not folder.record.exists():
        raise InputError(
            f"--teacher must be a winner's folder, such as runs/a/winners/0003, or an .npz file; {place} is neither"
        )
    record = folder.read()
    network = load_network(record.architecture, folder)
    data = record.data
    return TeacherNetwork(network, classes=data.classes, mean=data.mean, std=data.std, sha256=hash_weights(folder))


def _resolution(candidate: "Candidate") -> int:
    return candidate.architecture.graph.layers[0].shape[1]


def _with_shared(run: "Run", candidate: "Candidate") -> "tuple[Architecture, Bank]":
    """Return a candidate's architecture as its space makes it, and the run's shared weights, of which it has a slice.

    Raises InputError where the run has none, and where they are of fewer channels; SharedWeightsError where they cannot
    be read, or are another run's.
    """
    from hwnas.searching.estimators import prepared_file, supernet
    from hwnas.training.shared import read_bank

    settings, record = run.settings, run.trials().records[candidate.trial]
    check_shares(settings.estimator)
    if record.scale is None:
        raise InputError(
            f"--from-supernet needs the scale of each winner; an older hwnas has kept none of trial {candidate.trial}. "
            "Leave it out"
        )
    supernet.check_bank(run)
    bank = read_bank(run.folder / prepared_file(settings.estimator))
    architecture: Architecture = plugins.load("spaces", settings.space).architecture(
        record.choices, settings.scales[record.scale]
    )
    try:
        bank.hold(architecture.graph)
    except ValueError:
        raise InputError(
            f"--from-supernet needs shared weights of as many channels as trial {candidate.trial} has; those of "
            f"{run.folder} have fewer, as they were trained with --proxy-filters {settings.proxy_filters:g}. Leave it "
            "out, or search with --proxy-filters 1"
        ) from None
    return architecture, bank


def check_shares(estimator: str) -> None:
    """Raise InputError for --from-supernet in a run whose estimator trains no weights that candidates share."""
    from hwnas.searching.estimators import prepared_file

    if not prepared_file(estimator):
        raise InputError(
            "--from-supernet is for runs whose candidates shared their weights, which they do with --estimator "
            f"supernet; the run's estimator is {estimator}. Leave it out, or search with --estimator supernet"
        )


def _dataset(run: "Run", resolution: int, settings: "TrainingSettings") -> "Dataset":
    """Return the data once all images were looked at; no flips where mirrored images are of another class."""
    from hwnas.training import mirrored_classes

    dataset = run.settings.dataset(resolution)
    dataset.check()
    if dataset.imbalance:
        remark(dataset.imbalance)
    if not (settings.augment and settings.flips_of(dataset)):
        return dataset
    if not (mirrored := mirrored_classes(dataset)):
        return dataset
    listed = "; ".join(map(str, mirrored[:3])) + (f"; and {len(mirrored) - 3} more" if len(mirrored) > 3 else "")
    kept = settings.flips == "on"
    remark(f"{listed}: {'leave' if kept else 'left'} out flips (--flips {'off' if kept else 'on makes them'})")
    return replace(dataset, flips=kept)


def _result(record: "WinnerRecord", folder: "WinnerFolder") -> TrainedWinner:
    from hwnas.runs import LONG_TRAINING

    return TrainedWinner(
        trial=record.trial,
        accuracy_of=LONG_TRAINING,
        test_accuracy=record.test_accuracy,
        balanced_accuracy=record.test_balanced_accuracy,
        mult_adds=record.mult_adds,
        parameters=record.parameters,
        seconds=record.seconds,
        folder=str(folder.path),
        int8_accuracy=record.test_int8_accuracy,
    )
