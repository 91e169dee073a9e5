"""What a trained winner says of the test images: scores.json in its folder, worked out once, at the training's end.

So the report shows which classes a network confuses, and its worst images, without the data and without torch.
"""

import base64
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, model_validator

from hwnas.errors import short
from hwnas.runs.winner import Share, WinnerRecord
from hwnas.support import FileRecord, Record

if TYPE_CHECKING:
    from torch import Tensor

    from hwnas.datasets import Dataset

_WORST = 12  # images that are kept
_SIDE = 64  # pixels, of their pictures at most
_SAME_ACCURACY = 0.005  # on another accelerator a few images come out otherwise

Png = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=100_000)]  # in Base64


class Answers(Record):
    """How many images of the class `right` are said to be of the class `said`, places in the list of classes."""

    right: NonNegativeInt
    said: NonNegativeInt
    images: Annotated[int, Field(gt=0, le=10**9)]


class WorstImage(Record):
    """A test image that the network is sure to know, and does not: its place, and the share that it gives `said`."""

    image: NonNegativeInt
    right: NonNegativeInt
    said: NonNegativeInt
    confidence: Share
    png: Png


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How many test images a class has, and how many of them the network finds."""

    name: str
    images: int
    right: int

    @property
    def recall(self) -> float | None:
        """The share of them that it finds; None of a class without images."""
        return self.right / self.images if self.images else None


class WinnerScores(FileRecord):
    """What scores.json says: all answers that came up, and the wrong ones of which the network was surest."""

    WHAT: ClassVar[str] = "a winner's scores"

    trial: int
    classes: tuple[str, ...]
    answers: tuple[Answers, ...]
    worst: tuple[WorstImage, ...]

    @model_validator(mode="after")
    def _is_of_its_classes(self) -> Self:
        places = [max(one.right, one.said) for one in self.answers] + [max(one.right, one.said) for one in self.worst]
        if not self.answers or max(places) >= len(self.classes):
            raise ValueError(f"answers must be of its {len(self.classes)} classes, and there must be some")
        return self

    @classmethod
    def of(cls, trial: int, logits: "Tensor", dataset: "Dataset") -> Self:
        """Return the scores of logits, float32 [n, classes], of all test images of a data set."""
        labels, said = dataset.test.labels, logits.argmax(1)
        confidence = logits.nan_to_num().softmax(1).gather(1, said[:, None])[:, 0]
        wrong = (said != labels).nonzero().flatten()
        worst = wrong[confidence[wrong].argsort(descending=True, stable=True)[:_WORST]]
        pictures = map(_png, dataset.test.read(worst)) if len(worst) else ()
        rows = zip(*(values.tolist() for values in (worst, labels[worst], said[worst], confidence[worst])), strict=True)
        counts = Counter(zip(labels.tolist(), said.tolist(), strict=True))
        return cls(
            version=cls.VERSION,
            trial=trial,
            classes=dataset.classes,
            answers=tuple(Answers(right=a, said=b, images=images) for (a, b), images in sorted(counts.items())),
            worst=tuple(
                WorstImage(image=image, right=right, said=guess, confidence=min(share, 1.0), png=picture)
                for (image, right, guess, share), picture in zip(rows, pictures, strict=True)
            ),
        )

    @property
    def images(self) -> int:
        """How many test images there are."""
        return sum(one.images for one in self.answers)

    @property
    def by_class(self) -> list[ClassScore]:
        """How well each class is found."""
        images, right = Counter[int](), Counter[int]()
        for one in self.answers:
            images[one.right] += one.images
            right[one.right] += one.images if one.said == one.right else 0
        return [ClassScore(name, images[place], right[place]) for place, name in enumerate(self.classes)]

    @property
    def confusions(self) -> list[Answers]:
        """The wrong answers, the most frequent first."""
        return sorted((one for one in self.answers if one.said != one.right), key=lambda one: -one.images)

    def differs_from(self, record: WinnerRecord) -> str:
        """Return the first thing that its winner's record says otherwise, in words; nothing where none is."""
        accuracy = sum(score.right for score in self.by_class) / self.images
        stated = {
            "trial": (self.trial, record.trial, self.trial == record.trial),
            "classes": (self.classes, record.data.classes, self.classes == record.data.classes),
            "accuracy": (accuracy, record.test_accuracy, abs(accuracy - record.test_accuracy) <= _SAME_ACCURACY),
        }
        other = ((name, mine, theirs) for name, (mine, theirs, is_same) in stated.items() if not is_same)
        return next((f"{name} is {short(mine)} here and {short(theirs)} there" for name, mine, theirs in other), "")


def _png(pixels: "Tensor") -> str:
    """Return a picture of an image, uint8 [channels, height, width]: in colour of three channels, else of the first."""
    from PIL import Image

    is_colour = len(pixels) == 3
    array = pixels.permute(1, 2, 0).contiguous().numpy() if is_colour else pixels[0].contiguous().numpy()
    picture, content = Image.fromarray(array), io.BytesIO()
    picture.thumbnail((_SIDE, _SIDE))
    picture.save(content, format="PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()
