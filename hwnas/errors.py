"""The errors that hwnas raises for its users; the command line prints their text and no traceback.

    HwnasError
    ├── InputError            an option, a file or a name that the user gave
    │   ├── UnknownNameError  no plug-in, device, ... of that name; lists the known ones
    │   └── DataError         a data set that cannot be used
    ├── BudgetError           nothing in the space fits the caps
    ├── TableError            a latency table that is broken, or lacks an entry
    ├── DeviceError           the device cannot be reached, or failed in a run
    ├── TrainingError         a checkpoint that does not fit
    │   └── DivergedError     a loss that is not finite
    ├── SharedWeightsError    a run's shared weights cannot be read, or are another run's
    └── ExportError           an artefact that does not compute what it should, or is over its cap

A message says the rule, what was got, and the next command to type.
"""

import unicodedata
from collections.abc import Iterable, Sequence

_QUOTED = 100  # characters of a value in an error


def short(value: object) -> str:
    """Return a value as Python writes it, cut where it is long."""
    try:
        return cut(repr(value))
    except (RecursionError, ValueError):  # ValueError: a number of more digits than Python writes
        return f"a {type(value).__name__}"


def quoted(error: Exception) -> str:
    """Return what another library says of its input, cut where it is long: it may quote all of it."""
    return cut(str(error) or type(error).__name__, 3 * _QUOTED)


def cut(words: str, most: int = _QUOTED) -> str:
    """Return words, cut where they are long."""
    return words if len(words) <= most else f"{words[:most]}..."


def printable(text: str) -> str:
    """Return text that others wrote as it may be printed: what steers a terminal, or hides text, is U+FFFD."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_hidden(one) else one for one in text)


def _is_hidden(one: str) -> bool:
    """Tell control characters but tabs and line ends, marks of direction and the like, and halves of pairs."""
    return one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")


class HwnasError(Exception):
    """Base of all errors meant for the user."""


class InputError(HwnasError):
    """An option, a file or a name that the user gave cannot be used."""


class UnknownNameError(InputError):
    """There is nothing of that name; the message lists what there is."""

    def __init__(self, noun: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"unknown {noun} {cut(name)!r}; known: {listed}{'. ' + hint if hint else ''}")


class DataError(InputError):
    """A data set is missing, broken or unfit."""


class BudgetError(HwnasError):
    """Nothing in the space fits the caps."""


class TableError(HwnasError):
    """A latency table is broken, does not fit this device, or lacks an entry."""


class DeviceError(HwnasError):
    """The device cannot be reached or failed in a run; what it said, which may be anything, is made printable."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class TrainingError(HwnasError):
    """Training cannot go on."""


class DivergedError(TrainingError):
    """A training's loss or weights are not finite: it cannot go on, and another network's may."""


class SharedWeightsError(HwnasError):
    """A run's shared weights cannot be read, or are another run's: no candidate is at fault, and a search ends."""


class ExportError(HwnasError):
    """An artefact does not compute what it should, or is over its cap; `exported` are those that were not refused."""

    def __init__(self, message: str, *, exported: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.exported = list(exported)
