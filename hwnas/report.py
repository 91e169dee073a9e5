"""`hwnas report`: one self-contained HTML page of a run, and the picture of its front, from the run's folder alone.

Neither the device nor the data set is needed: figures come from the study, the winners' records, the artefacts' cards
and, for the latency by operator, the latency table. What is not there yet is said in its place, with what to type.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from hwnas.options import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwnas.costs import CostModel
    from hwnas.graph import Layer
    from hwnas.networks import Architecture
    from hwnas.runs import Candidate, Run, SearchSettings
    from hwnas.strategies._truth import LevelTruth

_OPERATORS = 12  # that are listed by themselves; the others are one line
_SAME = 0.005  # two predictions that differ by less are the same
_BRANCH = re.compile(r"(cell\d+)\.block(\d+)\.(left|right)\b")
_REDUCTION = re.compile(r"\.path\d|\.(prev_prev|out\d+)concat")  # in a layer's name and kind
_NAMES = {"relu": "ReLU", "mean": "global average pooling", "linear": "classifier", "add": "add", "concat": "concat"}


@dataclass(frozen=True, slots=True)
class Reported:
    """The files that `report` wrote: the page, and its first picture by itself."""

    page: str
    front_png: str
    front_svg: str


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


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """The executed layers of one sort: how many, their milliseconds in the latency table, and their share."""

    name: str
    count: int
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Operators:
    """Where a network's time goes: by sort, the slowest first; the sum, and what the table predicts of the whole."""

    costs: tuple[OperatorCost, ...]
    sum_ms: float
    predicted_ms: float

    @property
    def largest_share(self) -> float:
        """The longest bar's share."""
        return max(cost.share for cost in self.costs)

    def has_changed(self, predicted_ms: float) -> bool:
        """Say whether the table predicted something else when the network was chosen."""
        return abs(self.predicted_ms / predicted_ms - 1) > _SAME


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


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well latency was predicted: the shares of networks within 5 and 10 %, and Spearman's rank correlation."""

    networks: int
    within_5: float
    within_10: float
    spearman: float | None


def report(
    run: RunFolder,
    *,
    export_folder: Annotated[str, typer.Option(help="where `hwnas export` wrote to: its --out")] = "export",
) -> Reported:
    """Write a run's report: one HTML page with its front, its winners and its settings, and the front as a picture.

    Raises InputError where nothing was trained yet, and for a winner's or artefact's file that cannot be read.
    """
    from hwnas import pictures
    from hwnas.files import write_bytes, write_text
    from hwnas.runs import Run

    opened = Run.open(run)
    view = _View(opened, Path(export_folder))
    written = Reported(*(str(opened.folder / name) for name in ("report.html", "front.png", "front.svg")))
    front = view.front_figure()
    write_bytes(Path(written.front_png), pictures.png(front))
    write_text(Path(written.front_svg), pictures.svg(front))
    write_text(Path(written.page), _render(view))
    return written


class _View:
    """Everything that the page shows."""

    def __init__(self, run: "Run", export_folder: Path) -> None:
        from optuna.trial import TrialState

        from hwnas.errors import InputError
        from hwnas.runs import candidate_of, front_of

        self.run, self.settings, self.name = run, run.settings, run.name
        self.study = run.study()
        self.trials = self.study.get_trials(deepcopy=False)
        self.candidates = [candidate_of(trial) for trial in self.trials if trial.state == TrialState.COMPLETE]
        if not self.candidates:
            raise InputError(f"{run.folder} has no trained trial yet. Type: hwnas search --out {run.folder}")
        self.front = front_of(self.candidates)
        self.winners = _read_winners(run, self.candidates, export_folder)
        self.published = _read_published(run.settings, export_folder)
        self.untrained = len(list(run.folder.glob("winners/*/"))) - len(self.winners)

    @property
    def verdict(self) -> str:
        """The result in a sentence or two."""
        cap = f"the cap of {self.settings.max_latency_ms:g} ms"
        best = max(self.front, key=lambda candidate: candidate.accuracy)
        if not self.winners:
            return (
                f"{_count(len(self.candidates), 'candidate')} trained under {cap}; the best has "
                f"{_percent(best.accuracy)} % on the validation part at {best.latency_ms:.3f} ms"
                f"{'' if best.measured else ' (predicted)'}. No winner is trained yet."
            )
        inside = [winner for winner in self.winners if winner.latency_ms <= self.settings.max_latency_ms]
        known = "" if all(w.candidate.measured or w.exported_ms is not None for w in inside) else ", by prediction"
        some = str(len(inside)) if len(inside) == len(self.winners) else f"{len(inside)} of {len(self.winners)}"
        sentence = f"{some} winner{'s' * (len(self.winners) > 1)} under {cap}{known}"
        accuracies = [winner.record.test_accuracy for winner in inside if winner.record.test_accuracy is not None]
        return (
            f"{sentence}; the best has {_percent(max(accuracies))} % on the test set." if accuracies else f"{sentence}."
        )

    @property
    def stopped(self) -> "list[Candidate]":
        """The candidates whose training was stopped before its end."""
        return [candidate for candidate in self.candidates if candidate.stopped_after is not None]

    @property
    def surrogate_truth(self) -> "list[LevelTruth]":
        """How true the surrogate of a progressive search was, level by level."""
        from hwnas.strategies._truth import surrogate_truth

        return surrogate_truth(self.study)

    @property
    def caveat(self) -> str:
        """What must be said with the figures of the run's estimator, if anything."""
        from hwnas import estimators

        return estimators.get(self.settings.estimator).CAVEAT

    @property
    def left_out(self) -> list[tuple[str, int]]:
        """Why trials were not trained, and how many for each reason."""
        from optuna.trial import TrialState

        why = [t.user_attrs.get("left_out", "no reason noted") for t in self.trials if t.state == TrialState.PRUNED]
        counted = Counter(re.sub(r"\btrial \d+", "an earlier trial", str(reason)) for reason in why)
        return counted.most_common()

    @property
    def unfinished(self) -> int:
        """How many trials are running, failed or were cut off."""
        return sum(not trial.state.is_finished() or trial.state.name == "FAIL" for trial in self.trials)

    @property
    def period(self) -> tuple[str, str]:
        """When the first trial began and the last one ended."""
        began = [trial.datetime_start for trial in self.trials if trial.datetime_start]
        ended = [trial.datetime_complete for trial in self.trials if trial.datetime_complete]
        first, last = min(began, default=None), max(ended, default=None)
        return f"{first:%Y-%m-%d %H:%M}" if first else "", f"{last:%Y-%m-%d %H:%M}" if last else ""

    @property
    def timed(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Predicted and measured milliseconds of what was timed: inside the caps, and over one."""
        from optuna.trial import TrialState

        inside: list[tuple[float, float]] = []
        over: list[tuple[float, float]] = []
        for trial in self.trials:
            predicted, measured = (trial.user_attrs.get(name) for name in ("predicted_ms", "measured_ms"))
            if predicted is not None and measured is not None:
                (over if trial.state == TrialState.PRUNED else inside).append((predicted, measured))
        return inside, over

    @property
    def agreement(self) -> Agreement | None:
        """How well the latencies of the timed networks were predicted."""
        pairs = [*self.timed[0], *self.timed[1]]
        return agreement_of(pairs) if pairs else None

    def front_figure(self) -> "Figure":
        """Return the picture of the front."""
        from hwnas import pictures

        winners = {winner.record.trial for winner in self.winners}
        return pictures.front_figure(self.candidates, self.front, winners=winners, cap_ms=self.settings.max_latency_ms)

    @property
    def tested(self) -> list[tuple[str, float, float, bool]]:
        """Names, latencies and test accuracies of exported winners and published networks; whether it is a winner."""
        own = [(f"trial {w.record.trial}", w.exported_ms, w.record.test_accuracy, True) for w in self.winners]
        setting = self.settings.setting
        others = [(f"{c.run}, {c.data.resolution}", c.ms(setting), c.accuracy["test"], False) for c in self.published]
        found = (*own, *others)
        return [(name, ms, share, is_own) for name, ms, share, is_own in found if ms is not None and share is not None]

    def tested_figure(self) -> "Figure":
        """Return the picture of exported winners beside published networks."""
        from hwnas import pictures

        return pictures.tested_figure(self.tested, cap_ms=self.settings.max_latency_ms)

    def agreement_figure(self) -> "Figure":
        """Return the picture of measured over predicted latencies."""
        from hwnas import pictures

        return pictures.agreement_figure(*self.timed)

    def history_figures(self) -> "dict[str, Figure]":
        """Return pictures of the winners' training by epoch: of the loss and of accuracies, where there are some."""
        from hwnas import pictures

        histories = {winner.record.trial: winner.record.history for winner in self.winners}
        entries = [entry for history in histories.values() if len(history) > 1 for entry in history]
        quantities = dict.fromkeys(key for entry in entries for key in entry if "loss" in key or "accuracy" in key)
        return {name: pictures.history_figure(histories, quantity=name) for name in quantities}


def _read_winners(run: "Run", candidates: "Sequence[Candidate]", export_folder: Path) -> list[Winner]:
    """Return the trained winners, the most accurate first."""
    model, why_not = _cost_model(run.settings)
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


def _read_published(settings: "SearchSettings", export_folder: Path) -> list[PublishedCard]:
    """Return the cards of published networks that were exported for the same device and the same data."""
    from hwnas import known

    paths = [path for name in known.NAMES for path in sorted(export_folder.glob(f"{name}/*/card.json"))]
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
    from hwnas.files import read_json

    try:
        return TypeAdapter(kind).validate_python(read_json(path, what=what))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise InputError(f"{path} is not {what}: {place}: {first['msg']}. Delete it and type: {again}") from None


def _architecture(record: Record, path: Path) -> "Architecture":
    """Return a winner's architecture, whose graph can be built."""
    from hwnas.errors import InputError
    from hwnas.networks import Architecture

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


# --- latency by operator, and predicted against measured ---


def _cost_model(settings: "SearchSettings") -> "tuple[CostModel | None, str]":
    """Return the costs by the run's latency table, or why there are none."""
    from hwnas.costs import CostModel
    from hwnas.device import folders
    from hwnas.errors import TableError
    from hwnas.latency import LatencyTable

    device = Path(settings.device).stem  # it may be given as the path of a .toml
    for folder in folders("latency_tables"):
        path = folder / device / f"{settings.setting}.json"
        if path.is_file():
            try:
                return CostModel(LatencyTable.read(path), (), operations=()), ""
            except TableError as error:
                return None, str(error)
    return None, (
        f"there is no latency_tables/{device}/{settings.setting}.json here. "
        f"Type: hwnas profile {settings.device} --setting {settings.setting}"
    )


def latency_by_operator(model: "CostModel", architecture: "Architecture") -> Operators:
    """Return where a network's time goes by its latency table.

    Raises TableError where an entry is missing.
    """
    layers = [layer for layer in model.lower(architecture).layers if layer.kind != "input"]
    strided = _strided_cells(architecture)
    groups: dict[str, list[float]] = defaultdict(list)
    for layer, (_, ms) in zip(layers, model.layer_ms(architecture), strict=True):
        groups[_sort_of(layer, architecture, strided)].append(ms)
    total = sum(map(sum, groups.values()))
    costs = [OperatorCost(name, len(ms), sum(ms), sum(ms) / total) for name, ms in groups.items()]
    costs.sort(key=lambda cost: -cost.ms)
    if len(rest := costs[_OPERATORS:]) > 1:
        sums = sum(c.count for c in rest), sum(c.ms for c in rest), sum(c.share for c in rest)
        costs[_OPERATORS:] = [OperatorCost(f"{len(rest)} other sorts", *sums)]
    return Operators(tuple(costs), total, model.predict(architecture).ms)


def _strided_cells(architecture: "Architecture") -> set[str]:
    """Return the names of the cells of stride 2: their first block, which reads the cell's inputs, is strided."""
    return {
        match[1]
        for layer in architecture.graph.layers
        if (match := _BRANCH.match(layer.name)) and match[2] == "1" and layer.stride != (1, 1)
    }


def _sort_of(layer: "Layer", architecture: "Architecture", strided: set[str]) -> str:
    """Return what an executed layer counts as: its operation's name inside a branch, or what it is for."""
    if layer.kind == "relu":
        return _NAMES["relu"]  # one that the runtime does not fuse
    if match := _BRANCH.match(layer.name):
        name, block, side = match.groups()
        cells = architecture.cells
        cell = cells.get("reduction", cells["normal"]) if name in strided else cells["normal"]
        operation: str = getattr(cell.blocks[int(block) - 1], side)[0]
        return re.sub(r"(\d+)x(\d+)", r"\1×\2", operation).replace("_", " ")
    if layer.name == "stem":
        return "stem"
    if layer.kind == "shift" or _REDUCTION.search(layer.name + layer.kind):
        return "factorised reduction"
    if layer.kind == "conv":
        size = "×".join(map(str, layer.kernel))
        return "squeeze 1×1" if architecture.cells else f"{'depthwise' if layer.depthwise else 'convolution'} {size}"
    return _NAMES.get(layer.kind, layer.kind)


def agreement_of(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """Return how well milliseconds were predicted; `pairs` are (predicted, measured)."""
    import numpy as np

    from hwnas.ranks import spearman

    predicted, measured = np.array(pairs, dtype=float).T
    errors = np.abs(measured / predicted - 1)
    return Agreement(
        networks=len(pairs),
        within_5=float((errors <= 0.05).mean()),
        within_10=float((errors <= 0.10).mean()),
        spearman=spearman(predicted, measured),
    )


# --- the page ---


def _render(view: _View) -> str:
    from importlib.metadata import version

    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from hwnas import network_picture, pictures

    def picture(figure: "Figure", prefix: str, title: str) -> Markup:
        return Markup(pictures.inline_svg(figure, prefix=prefix, title=title))  # text in a figure is escaped

    environment = Environment(
        loader=PackageLoader("hwnas", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent, setting=_setting_text, label=_label)
    return environment.get_template("report.html.jinja").render(
        view=view,
        picture=picture,
        network_figure=network_picture.network_figure,
        colours=pictures.css_variables,
        version=version("hwnas"),
    )


def _number(value: float | None, digits: int = 0, *, per: float = 1) -> str:
    """Write a number with fixed digits and thin spaces between thousands; a dash where it is not known."""
    return "–" if value is None else f"{value / per:,.{digits}f}".replace(",", "\u202f")


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _label(name: str) -> str:
    """Write a setting's name for people: the unit in brackets."""
    return re.sub(r" ms$", " (ms)", name.replace("_", " "))


def _setting_text(value: object) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting_text, value))
    return str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
