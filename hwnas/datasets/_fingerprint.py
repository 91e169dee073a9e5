"""What tells a data set from another one of the same name: its classes, how many images each has, their contents.

It travels with a run, its winners and their artefacts, and is compared wherever one goes on with the data of another.
"""

import unicodedata
from collections.abc import Sequence

from hwnas.support import Record


class PartPrint(Record):
    """Of the training set (the validation part included) or of the test set: images by class, SHA-256 of contents."""

    counts: tuple[int, ...]
    sha256: str


class Fingerprint(Record):
    """What a data set is of; of some the test set is not known before it is read."""

    classes: tuple[str, ...]
    training: PartPrint
    test: PartPrint | None = None

    def changes(self, now: "Fingerprint") -> str:
        """Say what is another in a data set now, but for its test set; nothing where all is the same."""
        return class_changes(self.classes, now.classes) or _changes(self.training, now.training, self.classes)

    def test_changes(self, now: "Fingerprint") -> str:
        """Say what is another in the test set now; nothing where that is not known."""
        if self.test is None or now.test is None:
            return ""
        return _changes(self.test, now.test, self.classes, of=" of the test set")


def class_changes(before: Sequence[str], now: Sequence[str]) -> str:
    """Say in which classes two data sets differ: in their names, in one Unicode form, and in their order."""
    first, second = ([unicodedata.normalize("NFC", name) for name in names] for names in (before, now))
    if first == second:
        return ""
    gone, new = ([name for name in names if name not in other] for names, other in ((first, second), (second, first)))
    if gone or new:
        return f"the classes {_listed(gone)} are gone, {_listed(new)} are new"
    return f"the classes were {_listed(first)}, and are now {_listed(second)}"


def _changes(before: PartPrint, now: PartPrint, classes: Sequence[str], *, of: str = "") -> str:
    if before.counts != now.counts:
        counts = zip(classes, before.counts, now.counts, strict=False)
        changed = [f"{name!r} had {then}, has {count}" for name, then, count in counts if then != count]
        return f"other numbers of images{of}: {', '.join(changed[:5])}"
    return "" if before.sha256 == now.sha256 else f"the images{of} have other names or contents"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5])) or "none"
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
