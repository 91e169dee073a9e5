"""How well a winner finds each class, and what an exported file of reduced precision changes of that."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.artefacts import Card
    from hwnas.runs import WinnerScores


@dataclass(frozen=True, slots=True)
class FileRecall:
    """The share of a class's images that an exported file finds, and how much more that is than PyTorch finds."""

    recall: float | None
    change: float | None


@dataclass(frozen=True, slots=True)
class ClassOnPage:
    """A class: its test images, the share of them that the network finds, and by the name of an exported file its own.

    `images` and `recall` are None where the winner has no scores.
    """

    name: str
    images: int | None
    recall: float | None
    files: dict[str, FileRecall]


def classes_on_page(classes: tuple[str, ...], scores: "WinnerScores | None", card: "Card | None") -> list[ClassOnPage]:
    """Return the classes of which anything is known; none where nothing is."""
    compared = {name: entry.by_class for name, entry in (card.files.items() if card else ()) if entry.by_class}
    if not scores and not compared:
        return []
    by_class = scores.by_class if scores else [None] * len(classes)
    return [
        ClassOnPage(
            name,
            score.images if score else None,
            score.recall if score else None,
            {
                file: _recall(entry.images[place], entry.right[place], entry.right_in_pytorch[place])
                for file, entry in compared.items()
            },
        )
        for place, (name, score) in enumerate(zip(classes, by_class, strict=True))
    ]


def _recall(images: int, right: int, right_in_pytorch: int) -> FileRecall:
    return FileRecall(right / images, (right - right_in_pytorch) / images) if images else FileRecall(None, None)
