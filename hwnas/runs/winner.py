"""A trained winner: winner.json of its folder in a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hwnas.latency import Operators, cost_model, latency_by_operator

if TYPE_CHECKING:
    from hwnas.latency import CostModel
    from hwnas.network import Architecture
    from hwnas.runs.run import Run
    from hwnas.runs.settings import SearchSettings
    from hwnas.runs.trial import Candidate


@dataclass(frozen=True, slots=True)
class Record:
    """What a winner's winner.json says, as far as the page needs it; a share is None where it is not known."""

    version: Literal[1]
    trial: int
    architecture: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    test_accuracy: float | None = None
    seconds: float | None = None
    images_seen: int | None = None
    history: list[dict[str, float | None]] = field(default_factory=list)
    versions: dict[str, str | None] = field(default_factory=dict)
