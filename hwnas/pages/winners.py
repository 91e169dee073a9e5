"""A run's trained winners, and published networks: their records and their artefacts' cards, as they were written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hwnas.artefacts import CARD, Card, folder_name
from hwnas.errors import InputError, TableError
from hwnas.latency import Operators, cost_model, latency_by_operator
from hwnas.pages.classes import ClassOnPage, classes_on_page
from hwnas.runs import SearchSettings, TrialRecord, Trials, WinnerFolder, WinnerRecord, WinnerScores
from hwnas.support import commands

if TYPE_CHECKING:
    from datetime import datetime

    from hwnas.latency import CostModel, TimedNetwork
    from hwnas.network import Architecture
    from hwnas.runs import Candidate, DeviceCap, Run

Prediction = Literal["same", "corrected", "changed"]
_SAME = 0.005  # two predictions that differ by less are the same


@dataclass(frozen=True, slots=True)
class Outcome:
    """A winner's accuracies, shares: in the search, and on the test set after long training.

    `interval` is the latter's of 95 %; None where it is not known how many images the test set has.
    """

    trial: int
    search: float
    test: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class WinnerOnPage:
    """A trained winner: its trial, its record, and its card where it was exported from these weights."""

    candidate: "Candidate"
    record: WinnerRecord
    card: Card | None
    card_folder: str
    unreadable: str  # why the card cannot be read, if there is one
    is_stale: bool  # exported, but from other weights
    operators: Operators | None
    no_operators: str  # why
    prediction: Prediction  # the search's, beside the table's
    setting: str
    exported_on: "Mapping[str, float | None]"  # ms by DEVICE/SETTING, of devices beside the run's first
    scores: WinnerScores | None
    unreadable_scores: str  # why they cannot be read, if there are some
    again: commands.Command  # trains it

    @property
    def architecture(self) -> "Architecture":
        """The network."""
        return self.record.architecture

    @property
    def classes(self) -> list[ClassOnPage]:
        """What is known of how well each class is found."""
        return classes_on_page(self.record.data.classes, self.scores, self.card)

    @property
    def outcome(self) -> Outcome:
        """What the search saw, and what it came to."""
        images, test = self.record.data.test_images, self.record.test_accuracy
        interval = wilson_interval(test, images) if images else None
        return Outcome(self.record.trial, self.candidate.accuracy, test, interval)

    @property
    def exported_ms(self) -> float | None:
        """The measured latency of the exported file in the run's setting."""
        entry = self.card.file_in(self.setting) if self.card else None
        return entry.measured_ms if entry else None

    @property
    def latency_ms(self) -> float:
        """What is known best: the exported file's latency, or the search's."""
        return self.candidate.latency_ms if self.exported_ms is None else self.exported_ms


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the interval of 95 % of a share of so many images (Wilson, 1927; Brown et al., 2001, section 3.1.1)."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def read_winners(
    run: "Run", candidates: "Sequence[Candidate]", trials: Trials, export_folder: Path
) -> list[WinnerOnPage]:
    """Return the trained winners, the most accurate first; `trials` are all of the study.

    Raises InputError for a record that cannot be read, or is of a trial that is no candidate.
    """
    settings = run.settings
    model, why_not = cost_model(settings.device, settings.setting, command=settings.profile_command())
    by_trial = {candidate.trial: candidate for candidate in candidates}
    winners = [
        _read_winner(run, folder, by_trial, trials, export_folder, model, why_not)
        for folder in WinnerFolder.trained_in(run.folder)
    ]
    return sorted(winners, key=lambda winner: -winner.record.test_accuracy)


def _read_winner(
    run: "Run",
    folder: WinnerFolder,
    candidates: "dict[int, Candidate]",
    trials: Trials,
    export_folder: Path,
    model: "CostModel | None",
    why_not: str,
) -> WinnerOnPage:
    record = folder.read()
    if record.trial not in candidates:
        raise InputError(
            f"{folder.record} must be of a trial that this run's search trained; got trial {record.trial}. Move that "
            "folder away"
        )
    candidate, operators = candidates[record.trial], None
    if difference := record.differs_from(candidate):
        raise InputError(
            f"{folder.record} must say what the run's study says of trial {record.trial}; {difference}. Delete "
            f"{folder.path} and type: {folder.again}"
        )
    try:
        if model:
            model.require([record.architecture], command=run.settings.profile_command())
            operators = latency_by_operator(model, record.architecture)
    except TableError as error:
        why_not = str(error)
    prediction = compare_prediction(candidate, operators, model, trials) if model and operators else "same"
    card_folder = export_folder / run.name / folder.path.name
    again = commands.export(run.folder, trial=record.trial, out=export_folder)
    card, unreadable = read_card(card_folder / CARD, again=again)
    is_stale = card is not None and _is_stale(card, record, folder.weights)
    if card and not is_stale and (name := card.differs_from(record)):
        card = None
        unreadable = (
            f"{card_folder / CARD} must say what {folder.record} says; its {name} is another. Delete {card_folder} "
            f"and type: {again}"
        )
    scores, unreadable_scores = read_scores(folder, record)
    return WinnerOnPage(
        candidate=candidate,
        record=record,
        card=None if is_stale else card,
        card_folder=str(card_folder),
        unreadable=unreadable,
        is_stale=is_stale,
        operators=operators,
        no_operators=why_not,
        prediction=prediction,
        setting=run.settings.setting,
        exported_on={
            device.name: _exported_ms(card_folder, record, folder.weights, device) for device in run.settings.further
        },
        scores=scores,
        unreadable_scores=unreadable_scores,
        again=folder.again,
    )


def _exported_ms(own: Path, record: WinnerRecord, weights: Path, device: "DeviceCap") -> float | None:
    """Return the measured latency of the file for a device beside the first, where it was exported from these weights.

    `own` is the folder of the first device's artefact.
    """
    path = own.with_name(folder_name(own.name, device)) / CARD
    card, _ = read_card(path, again=commands.export(trial=record.trial))
    if card is None or _is_stale(card, record, weights):
        return None
    entry = card.file_in(device.setting)
    return entry.measured_ms if entry else None


def read_scores(folder: WinnerFolder, record: WinnerRecord) -> tuple[WinnerScores | None, str]:
    """Return a winner's scores, if there are some, or why they cannot be read."""
    if not folder.scores.exists():
        return None, ""
    try:
        scores = WinnerScores.read(folder.scores, again=folder.again)
    except InputError as error:
        return None, str(error)
    if difference := scores.differs_from(record):
        return None, (
            f"{folder.scores} must say what {folder.record} says; {difference}. Delete it and type: {folder.again}"
        )
    return scores, ""


def compare_prediction(candidate: "Candidate", operators: Operators, model: "CostModel", trials: Trials) -> Prediction:
    """Say whether the search predicted what the table does, or what it does once it is corrected by earlier trials.

    If neither, the table was another one then.
    """
    if _is_same(candidate.predicted_ms, operators.predicted_ms):
        return "same"
    for networks in _timed_by_then(candidate.trial, trials):
        try:
            predicted = model.corrected_by(networks).predict(candidate.architecture)
        except TableError:  # of one of the networks the table lacks an entry now
            continue
        if _is_same(candidate.predicted_ms, predicted.ms):
            return "corrected"
    return "changed"


def _is_same(ms: float, other_ms: float) -> bool:
    return abs(ms / other_ms - 1) <= _SAME


def _timed_by_then(number: int, trials: Trials) -> "Iterator[list[TimedNetwork]]":
    """Yield what may have been measured when a trial began, the likeliest first.

    With several workers earlier trials were not at their end by then, and nobody noted which had been measured.
    """
    earlier, began = trials.records[:number], trials.records[number].began
    running = [record.number for record in earlier if not _was_over(record, began)]
    for count in range(len(running), -1, -1):
        not_yet = set(running[count:])
        yield [network for record in earlier if record.number not in not_yet for network in record.measurements]


def _was_over(trial: TrialRecord, when: "datetime | None") -> bool:
    return trial.ended_at is not None and when is not None and trial.ended_at <= when


def read_card(path: Path, *, again: commands.Command) -> tuple[Card | None, str]:
    """Return a card, if there is one, or why it cannot be read."""
    try:
        return (Card.read(path, again=again) if path.exists() else None), ""
    except InputError as error:
        return None, str(error)


def read_published(settings: "SearchSettings", export_folder: Path) -> tuple[list[Card], list[str]]:
    """Return the cards of published networks that were exported for the same device and the same data.

    Those that cannot be read are left out: why is returned, too.
    """
    from hwnas.network import PUBLISHED

    paths = [path for name in PUBLISHED for path in sorted(export_folder.glob(f"{name}/*/{CARD}"))]
    cards, unreadable = [], []
    for path in paths:
        card, why = read_card(path, again=_export_published(path.parent, settings, export_folder))
        cards += [card] if card else []
        unreadable += [why] if why else []
    same = (None, settings.device, settings.data, settings.seed)  # a run may have such a name: its cards have a trial
    return [card for card in cards if (card.trial, card.device, card.data.name, card.data.seed) == same], unreadable


def _export_published(folder: Path, settings: "SearchSettings", export_folder: Path) -> commands.Command:
    """Return the command that exports a published network for the device and the data of a run."""
    options = {"weights": "WEIGHTS", "data": settings.data, "resolution": folder.name, "seed": settings.seed}
    options |= {"device": settings.device, "setting": settings.setting}
    return commands.export(folder.parent.name, out=export_folder, options=options)


def _is_stale(card: Card, record: WinnerRecord, weights: Path) -> bool:
    """Say whether a card belongs to other weights than the winner's."""
    import hashlib

    if card.trial != record.trial:
        return True
    if card.weights_sha256 is None or not weights.exists():
        return False
    return hashlib.sha256(weights.read_bytes()).hexdigest() != card.weights_sha256
