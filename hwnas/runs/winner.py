"""A trained winner: winner.json of its folder in a run."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    pass


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
