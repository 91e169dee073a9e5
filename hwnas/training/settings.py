"""How a network is trained: the settings, with their measured defaults."""

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from hwnas.errors import InputError, cut

if TYPE_CHECKING:
    from hwnas.datasets import Dataset

PRECISIONS = ("fp32", "bf16", "fp16")
Flips = Literal["auto", "on", "off"]
Optimizer = Literal["sgd", "adamw"]
_MOST_ADAM = 0.05  # learning rate of AdamW: 0.001 is usual, and what suits SGD is far too much
_STEPS_A_PASS = 32
_LEAST_BATCH, _MOST_BATCH = 16, 128
MOST_ALPHA = 100.0  # of mixup and cutmix: beyond that every share is nearly a half
MOST_BRANCHES = 16  # MobileOne-S0 has 4
_ADDED = {  # an older hwnas knew none of them
    *("flips", "from_supernet", "optimizer", "ema", "mixup", "cutmix", "trivial_augment", "reparameterise"),
    *("class_weights", "patience", "teacher_sha256", "temperature", "distillation_weight", "branches"),
}


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a network is trained; the defaults, which were measured, are for the long training of winners.

    `images_per_epoch` is the length of an epoch, without it that of the whole set; shorter epochs take ever new images
    until the set is used up. `flips` go with `augment`, auto if they suit the data; `warm_up` is a share of the steps;
    `cutout` a side in pixels, `path_drop_rate` the rate at the end, `auxiliary_weight` that of an auxiliary head's loss
    (NASNet: 0.4). `ema` is the decay of the average of weights that is kept at the end, `mixup` and `cutmix` are the
    alpha of their shares' distribution, each 0 for none; `reparameterise` trains with branches that are folded away,
    with `branches` convolutions in parallel in place of each. With `class_weights` classes count alike in the loss;
    `patience` is for so many epochs without a better score on the validation part (balanced accuracy with
    `class_weights`, else accuracy), 0 for all, and keeps the best epoch's weights. With a teacher, of which this is the
    hash, `distillation_weight` is its share of the loss. `channels_last` is chosen by the device where it is None.
    `from_supernet` says that a winner began with its slice of the weights that its run's candidates shared. Raises
    InputError for values out of range.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "ignore"}  # what a newer hwnas writes in a record

    epochs: float = 60
    images_per_epoch: int | None = None
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    warm_up: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    clip_gradient_norm: float | None = None
    augment: bool = True
    flips: Flips = "auto"
    cutout: int = 0
    path_drop_rate: float = 0.0
    dropout_rate: float = 0.0
    auxiliary_weight: float = 0.0
    ema: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    trivial_augment: bool = False
    reparameterise: bool = False
    branches: int = 1
    class_weights: bool = False
    patience: int = 0
    teacher_sha256: str | None = None
    temperature: float = 4.0
    distillation_weight: float = 0.5
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    channels_last: bool | None = None
    compile: bool = False
    from_supernet: bool = False

    def __post_init__(self) -> None:
        most_rate, with_adam = (_MOST_ADAM, " with adamw") if self.optimizer == "adamw" else (1000, "")
        rules = {
            "epochs": (0 < self.epochs < math.inf, "above 0"),
            "images_per_epoch": (self.images_per_epoch is None or self.images_per_epoch > 0, "above 0, or left out"),
            "batch_size": (self.batch_size > 1, "at least 2"),
            "learning_rate": (0 < self.learning_rate <= most_rate, f"above 0, and at most {most_rate}{with_adam}"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or above"),
            "clip_gradient_norm": (self.clip_gradient_norm is None or self.clip_gradient_norm > 0, "above 0"),
            "auxiliary_weight": (0 <= self.auxiliary_weight < math.inf, "0 or above"),
            "cutout": (self.cutout >= 0, "0 or above"),
            "branches": (1 <= self.branches <= MOST_BRANCHES, f"from 1 to {MOST_BRANCHES}"),
            "temperature": (0 < self.temperature < math.inf, "above 0"),
            "distillation_weight": (0 < self.distillation_weight <= 1, "above 0 and up to 1"),
            "patience": (self.patience >= 0, "0 or above"),
            "optimizer": (self.optimizer in get_args(Optimizer), "sgd or adamw"),
            "seed": (self.seed >= 0, "0 or above"),
            "flips": (self.flips in get_args(Flips), "auto, on or off"),
            "precision": (self.precision in ("auto", *PRECISIONS), "auto, fp32, bf16 or fp16"),
        }
        for name in ("mixup", "cutmix"):
            rules[name] = (0 <= getattr(self, name) <= MOST_ALPHA, f"from 0 to {MOST_ALPHA}")
        for name in ("warm_up", "momentum", "label_smoothing", "path_drop_rate", "dropout_rate", "ema"):
            rules[name] = (0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name, (holds, rule) in rules.items():
            if not holds:
                raise InputError(f"training: {name} must be {rule}; got {cut(str(getattr(self, name)))}")

    def flips_of(self, dataset: "Dataset") -> bool:
        """Return whether images of a data set are flipped where they are augmented."""
        return {"auto": dataset.flips, "on": True, "off": False}[self.flips]

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values; what an older hwnas did not know only where it differs."""
        as_before = {field.name: field.default for field in fields(self) if field.name in _ADDED}
        return {
            name: value for name, value in asdict(self).items() if name not in as_before or value != as_before[name]
        }


def batch_size_for(images: int | None) -> int:
    """Return how many images a step of a winner's training takes of a set of so many, or of one of unknown size.

    The power of two at which a pass has some 32 steps, from 16 to 128. Of 500 images in five classes of differing
    sizes, seen 60 times, batches of 16 instead of 128 are worth 5 points of balanced accuracy (docs/log.md).
    """
    if images is None:
        return _MOST_BATCH
    nearest: int = 2 ** max(0, round(math.log2(max(images, 1) / _STEPS_A_PASS)))
    return min(max(nearest, _LEAST_BATCH), _MOST_BATCH)


def search_settings(*, epochs: float = 2, images_per_epoch: int | None = 6000, seed: int = 0) -> TrainingSettings:
    """Return settings for the short training of proxies: small steps and no augmentation.

    A random cell, trained on 12,000 images of Fashion-MNIST, came to 84.5 % with batches of 32 and 78.5 % with 128;
    with batches of 64 it came to 82.6 %, and to 78.3 % with augmentation.
    """
    return TrainingSettings(epochs=epochs, images_per_epoch=images_per_epoch, batch_size=32, augment=False, seed=seed)
