"""What is known of an artefact: card.json."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Artefact:
    """What a card says of one of its files."""

    bytes: int
    setting: str | None = None
    measured_ms: float | None = None
    max_relative_error: float | None = None
    agreement: float | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What an exported winner's card.json says, as far as the page needs it."""

    version: Literal[1]
    trial: int
    files: dict[str, Artefact]
    weights_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """What a card says of its data."""

    name: str
    seed: int
    resolution: int


@dataclass(frozen=True, slots=True)
class PublishedCard:
    """What a published network's card.json says, as far as the page needs it; `run` is its name."""

    version: Literal[1]
    run: str
    trial: int | None
    device: str
    data: Data
    accuracy: dict[str, float | None]
    mult_adds: int
    parameters: int
    files: dict[str, Artefact]

    def ms(self, setting: str) -> float | None:
        """The measured latency of the file in a setting."""
        return next((file.measured_ms for file in self.files.values() if file.setting == setting), None)
