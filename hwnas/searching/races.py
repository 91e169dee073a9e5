"""How several spaces that one study races fared against each other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.spaces.auto import SPACE
from hwnas.support import counted

if TYPE_CHECKING:
    from hwnas.runs import TrialRecord, Trials


@dataclass(frozen=True, slots=True)
class Raced:
    """A space's candidates that were trained to their end, and the most accurate of them."""

    space: str
    candidates: int
    trial: int
    accuracy: float
    latency_ms: float

    def __str__(self) -> str:
        return (
            f"{self.space}: {counted(self.candidates, 'candidate')}, the best {self.accuracy:.4f} at "
            f"{self.latency_ms:.3f} ms (trial {self.trial})"
        )


def raced(trials: "Trials") -> list[Raced]:
    """Return each space's standing, the best first; none where a study has one space."""
    of_space: dict[str, list[tuple[float, float, TrialRecord]]] = {}
    for record in trials.in_state("trained"):
        if SPACE in record.choices and record.values is not None and record.stopped is None:
            accuracy, cost = record.values
            of_space.setdefault(record.choices[SPACE], []).append((accuracy, -cost, record))
    standing = []
    for space, candidates in of_space.items():
        accuracy, _, record = max(candidates, key=lambda one: one[:2])
        standing.append(Raced(space, len(candidates), record.number, accuracy, record.candidate.latency_ms))
    return sorted(standing, key=lambda one: -one.accuracy)
