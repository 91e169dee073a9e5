"""A run's finalists on its page: what each came to in each round, and its latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.runs import FinalistRecord, FinalistsFolder

if TYPE_CHECKING:
    from hwnas.runs import Candidate


@dataclass(frozen=True, slots=True)
class FinalistOnPage:
    """A finalist in one round; `latency_ms` was measured, in the search or before the first round, or predicted."""

    record: FinalistRecord
    latency_ms: float
    measured: bool


def read_finalists(run: Path, candidates: "Sequence[Candidate]") -> list[FinalistOnPage]:
    """Return what finalists came to, round by round, in each the most accurate first."""
    folder, by_trial = FinalistsFolder.of(run), {candidate.trial: candidate for candidate in candidates}
    finalists = []
    for record in folder.records():
        if candidate := by_trial.get(record.trial):
            later = None if candidate.measured else folder.latency(record.trial)
            latency_ms = later.measured_ms if later else candidate.latency_ms
            finalists.append(FinalistOnPage(record, latency_ms, candidate.measured or later is not None))
    return finalists
