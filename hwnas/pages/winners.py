"""A run's trained winners, and published networks: their records and their artefacts' cards, as they were written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hwnas.latency import Operators, cost_model, latency_by_operator

if TYPE_CHECKING:
    from hwnas.latency import CostModel
    from hwnas.network import Architecture
    from hwnas.runs import Candidate, Run, SearchSettings
from hwnas.artefacts import Card, PublishedCard
from hwnas.runs import Record


@dataclass(frozen=True, slots=True)
class Winner:
    """A trained winner: its trial, its record, and its card where it was exported from these weights."""

    candidate: "Candidate"
    record: Record
    architecture: "Architecture"
    card: Card | None
    card_folder: str
    is_stale: bool  # exported, but from other weights
    operators: Operators | None
    no_operators: str  # why
    setting: str

    @property
    def exported_ms(self) -> float | None:
        """The measured latency of the exported file in the run's setting."""
        files = self.card.files.values() if self.card else ()
        return next((file.measured_ms for file in files if file.setting == self.setting), None)

    @property
    def latency_ms(self) -> float:
        """What is known best: the exported file's latency, or the search's."""
        return self.candidate.latency_ms if self.exported_ms is None else self.exported_ms


def read_winners(run: "Run", candidates: "Sequence[Candidate]", export_folder: Path) -> list[Winner]:
    """Return the trained winners, the most accurate first."""
    model, why_not = cost_model(run.settings.device, run.settings.setting)
    by_trial = {candidate.trial: candidate for candidate in candidates}
    cards = export_folder / run.name
    winners = [
        _read_winner(path, by_trial, cards / path.parent.name, model, why_not, run.settings.setting)
        for path in sorted(run.folder.glob("winners/*/winner.json"))
    ]
    return sorted(winners, key=lambda winner: -(winner.record.test_accuracy or 0))


def _read_winner(
    path: Path,
    candidates: "dict[int, Candidate]",
    card_folder: Path,
    model: "CostModel | None",
    why_not: str,
    setting: str,
) -> Winner:
    from hwnas.errors import InputError, TableError

    record = _read(path, Record, what="a winner's record", again="hwnas train")
    if record.trial not in candidates:
        raise InputError(
            f"{path} must be of a trial that this run's search trained; got trial {record.trial}. Move that folder away"
        )
    architecture = _architecture(record, path)
    operators = None
    try:
        operators = latency_by_operator(model, architecture) if model else None
    except TableError as error:
        why_not = str(error)
    card = None
    if (card_path := card_folder / "card.json").exists():
        card = _read(card_path, Card, what="an artefact's card", again="hwnas export")
    is_stale = card is not None and _is_stale(card, record, path.with_name("weights.safetensors"))
    return Winner(
        candidate=candidates[record.trial],
        record=record,
        architecture=architecture,
        card=None if is_stale else card,
        card_folder=str(card_folder),
        is_stale=is_stale,
        operators=operators,
        no_operators=why_not,
        setting=setting,
    )


def read_published(settings: "SearchSettings", export_folder: Path) -> list[PublishedCard]:
    """Return the cards of published networks that were exported for the same device and the same data."""
    from hwnas.network import PUBLISHED

    paths = [path for name in PUBLISHED for path in sorted(export_folder.glob(f"{name}/*/card.json"))]
    cards = [
        _read(path, PublishedCard, what="a published network's card", again=f"hwnas export {path.parent.parent.name}")
        for path in paths
    ]
    same = (None, settings.device, settings.data, settings.seed)  # a run may have such a name: its cards have a trial
    return [card for card in cards if (card.trial, card.device, card.data.name, card.data.seed) == same]


_Read = TypeVar("_Read", Record, Card, PublishedCard)


def _read(path: Path, kind: type[_Read], *, what: str, again: str) -> _Read:
    """Read a versioned JSON file; raises InputError that names it, and the command that writes it again."""
    from pydantic import TypeAdapter, ValidationError

    from hwnas.errors import InputError
    from hwnas.support import read_json

    try:
        return TypeAdapter(kind).validate_python(read_json(path, what=what))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise InputError(f"{path} is not {what}: {place}: {first['msg']}. Delete it and type: {again}") from None


def _architecture(record: Record, path: Path) -> "Architecture":
    """Return a winner's architecture, whose graph can be built."""
    from hwnas.errors import InputError
    from hwnas.network import Architecture

    try:
        architecture = Architecture.from_json(record.architecture)
        _ = architecture.graph
    except InputError as error:
        raise InputError(f"{path}: {error}. Delete it and type: hwnas train") from None
    return architecture


def _is_stale(card: Card, record: Record, weights: Path) -> bool:
    """Say whether a card belongs to other weights than the winner's."""
    import hashlib

    if card.trial != record.trial:
        return True
    if card.weights_sha256 is None or not weights.exists():
        return False
    return hashlib.sha256(weights.read_bytes()).hexdigest() != card.weights_sha256
