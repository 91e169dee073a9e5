"""How a model file's logits compare with PyTorch's, and how far off they may be."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwnas.formats import Array

MAX_RELATIVE_ERROR = 1e-4  # of the logits in fp32; what is aimed at is 1e-5
MIN_AGREEMENT = 0.5  # in int8: below it something is broken


@dataclass(frozen=True, slots=True)
class RightByClass:
    """Of each class how many images there are, and how many of them a file and PyTorch find."""

    images: tuple[int, ...]
    right: tuple[int, ...]
    right_in_pytorch: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a file computes beside PyTorch, on the same test images; the share of these whose class it finds."""

    images: int
    max_relative_error: float
    agreement: float
    accuracy: float
    lost: float = 0.0  # of PyTorch's accuracy on them
    by_class: RightByClass = RightByClass((), (), ())


def compare_logits(logits: "Array", wanted: "Array", labels: "NDArray[np.int64]") -> Comparison:
    """Return how a file's logits compare with PyTorch's, both [n, classes], and with the labels."""
    import numpy as np

    classes, wanted_classes = logits.argmax(1), wanted.argmax(1)
    accuracy, wanted_accuracy = (float((chosen == labels).mean()) for chosen in (classes, wanted_classes))
    return Comparison(
        images=len(labels),
        max_relative_error=float(np.abs(logits - wanted).max() / (np.abs(wanted).max() or 1.0)),
        agreement=float((classes == wanted_classes).mean()),
        accuracy=accuracy,
        lost=wanted_accuracy - accuracy,
        by_class=RightByClass(
            *(
                tuple(int((some == place).sum()) for place in range(logits.shape[1]))
                for some in (labels, labels[classes == labels], labels[wanted_classes == labels])
            )
        ),
    )
