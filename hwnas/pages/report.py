"""The page of a run: what it shows, and its HTML."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.latency import how
from hwnas.pages.contest import ContestRecord
from hwnas.pages.finalists import FinalistOnPage, read_finalists
from hwnas.pages.study import OperationWorth, hypervolumes, importances, operation_worths
from hwnas.pages.winners import WinnerOnPage, read_published, read_winners
from hwnas.support import commands, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hwnas.artefacts import Card
    from hwnas.runs import Candidate, Run
    from hwnas.searching import LevelTruth, Raced
    from hwnas.training import Epoch

_MOST_CLASSES = 20  # of which there is a matrix, and a list that is open


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well latency was predicted: the shares of networks within 5 and 10 %, and Spearman's rank correlation."""

    networks: int
    within_5: float
    within_10: float
    spearman: float | None


@dataclass(frozen=True, slots=True)
class DeviceFront:
    """The candidates on one of the run's devices, by their latencies there, and their front."""

    name: str  # DEVICE/SETTING
    cap_ms: float
    candidates: "list[Candidate]"
    front: "list[Candidate]"


class View:
    """Everything that the page shows."""

    def __init__(self, run: "Run", export_folder: Path, contest: ContestRecord | None = None) -> None:
        from hwnas.runs import front_of

        self.run, self.settings, self.name = run, run.settings, run.name
        self.export_folder, self.contest = export_folder, contest
        self.trials = run.trials()
        self.candidates = [record.candidate for record in self.trials.in_state("trained")]
        if not self.candidates:
            raise run.untrained()
        self.front = front_of(self.candidates)
        self.winners = read_winners(run, self.candidates, self.trials, export_folder)
        self.published, self.unreadable_published = read_published(run.settings, export_folder)
        self.untrained = len(list(run.folder.glob("winners/*/"))) - len(self.winners)

    @property
    def train(self) -> commands.Command:
        """The command that trains winners."""
        return commands.train(self.run.folder)

    @property
    def export(self) -> commands.Command:
        """The command that exports them to where the page looks."""
        return commands.export(self.run.folder, out=self.export_folder)

    @property
    def report(self) -> commands.Command:
        """The command that writes the page."""
        return commands.report(self.run.folder, export_folder=self.export_folder)

    @property
    def unreadable(self) -> list[str]:
        """Of each card, and of each winner's scores, that cannot be read: why, and what to type."""
        of_winners = [why for winner in self.winners for why in (winner.unreadable, winner.unreadable_scores) if why]
        return of_winners + self.unreadable_published

    @property
    def verdict(self) -> str:
        """The result in a sentence or two."""
        cap = f"the cap of {self.settings.max_latency_ms:g} ms"
        if self.settings.further:
            cap = f"the caps {', '.join(map(str, self.settings.devices))}"
        best = max(self.front, key=lambda candidate: candidate.accuracy)
        if not self.winners:
            return (
                f"{counted(len(self.candidates), 'candidate')} trained under {cap}; the best has "
                f"{_percent(best.accuracy)} % ({self.accuracy_of}) on {self.seen_on} at {best.latency_ms:.3f} ms"
                f"{'' if best.how == how('') else f' ({best.how})'}. No winner is trained yet."
            )
        inside = [winner for winner in self.winners if not self.over(winner)]
        known = "" if all(w.candidate.measured or w.exported_ms is not None for w in inside) else ", by prediction"
        some = str(len(inside)) if len(inside) == len(self.winners) else f"{len(inside)} of {len(self.winners)}"
        sentence = f"{some} winner{'s' * (len(self.winners) > 1)} under {cap}{known}"
        accuracies = [winner.record.test_accuracy for winner in inside]
        if not accuracies:
            return f"{sentence}."
        return f"{sentence}; the best has {_percent(max(accuracies))} % on the test set, after long training."

    def over(self, winner: "WinnerOnPage") -> list[tuple[str, float]]:
        """Return the devices on which a winner is over the cap, and its latency in ms there, as it is known best."""
        first, *further = self.settings.devices
        known = {first.name: winner.latency_ms}
        for device in further:
            exported_ms = winner.exported_on[device.name]
            known[device.name] = winner.candidate.latencies[device.name].ms if exported_ms is None else exported_ms
        caps_ms = {device.name: device.max_latency_ms for device in self.settings.devices}
        return [(name, ms) for name, ms in known.items() if ms > caps_ms[name]]

    @property
    def fronts(self) -> list[DeviceFront]:
        """The front of each device alone: accuracy against the latency there."""
        from hwnas.runs import front_of

        fronts = []
        for device in self.settings.devices:
            candidates = [c.on(device.name) if c.latencies else c for c in self.candidates]
            fronts.append(DeviceFront(device.name, device.max_latency_ms, candidates, front_of(candidates)))
        return fronts

    @property
    def stopped(self) -> "list[Candidate]":
        """The candidates whose training was stopped before its end."""
        return [candidate for candidate in self.candidates if candidate.stopped_after is not None]

    @property
    def untimed(self) -> int:
        """How many candidates were not timed on the device, though others were: one of those is better in both."""
        return 0 if self.settings.predicted else sum(not candidate.measured for candidate in self.candidates)

    @property
    def how(self) -> str:
        """How latencies came about that are not predicted, in words: `measured`, or `estimated by` some tool."""
        files = (entry for winner in self.winners if winner.card for entry in winner.card.files.values())
        tools = [*(c.estimated_by for c in self.candidates), *(e.placement.estimated_by for e in files if e.placement)]
        return how(next(filter(None, tools), ""))

    @property
    def how_behind(self) -> str:
        """`how` as it stands behind a word, where that is not taken for granted."""
        return "" if self.how == how("") else f", {self.how}"

    @property
    def timing(self) -> str:
        """Which candidates were timed on the device, in a sentence."""
        if self.how_behind:
            return f"Nothing was timed: latencies that are not predicted are {self.how}."
        if self.settings.predicted:
            return "No candidate was timed on the device (--predicted): latencies are predictions."
        if not self.untimed:
            return "Each candidate was timed whole on the device."
        are, theirs = ("was", "its") if self.untimed == 1 else ("were", "their")
        return (
            f"{counted(self.untimed, 'candidate')} {are} not timed on the device, as one that was timed is as accurate "
            f"and no slower; {theirs} latency is a prediction."
        )

    @property
    def finalists(self) -> "list[FinalistOnPage]":
        """What finalists came to, round by round."""
        return read_finalists(self.run.folder, self.candidates)

    @property
    def are_finalists_alike(self) -> bool:
        """Say whether finalists were trained with the same settings, but for the epochs."""
        return len({replace(finalist.record.training, epochs=1.0) for finalist in self.finalists}) <= 1

    @property
    def known_weights(self) -> str:
        """The name of the checkpoint that shared weights began with, if one was taken."""
        return Path(self.settings.weights).name if self.settings.weights is not None else ""

    @property
    def raced(self) -> "list[Raced]":
        """How each space fared, where the run's study races several."""
        from hwnas.searching import raced

        return raced(self.trials)

    @property
    def surrogate_truth(self) -> "list[LevelTruth]":
        """How true the surrogate of a progressive search was, level by level."""
        from hwnas.searching import surrogate_truth

        return surrogate_truth(self.trials)

    @property
    def asked(self) -> list[tuple[str, object]]:
        """The settings, by name; of a storage nothing that is secret."""
        from hwnas.runs import shown_storage

        storage = self.settings.storage
        return [
            (name, shown_storage(storage) if name == "storage" and storage else value) for name, value in self.settings
        ]

    @property
    def accuracy_of(self) -> str:
        """What the accuracies are of that the search saw."""
        from hwnas.searching.estimators import accuracy_of

        return accuracy_of(self.settings)

    @property
    def seen_on(self) -> str:
        """The images that they were taken on."""
        from hwnas.searching.estimators import seen_on

        return seen_on(self.settings.estimator)

    @property
    def caveat(self) -> str:
        """What must be said with the figures of the run's estimator, if anything."""
        from hwnas.searching.estimators import get

        return get(self.settings.estimator).CAVEAT

    @property
    def left_out(self) -> list[tuple[str, int]]:
        """Why trials were not trained to their end, and how many for each reason."""
        why = [record.left_out for record in self.trials.records if record.left_out]
        counted = Counter(re.sub(r"\btrial \d+", "an earlier trial", reason) for reason in why)
        return counted.most_common()

    @property
    def unfinished(self) -> int:
        """How many trials are running, failed or were cut off."""
        settled = ("trained", "left out")
        return sum(record.state not in settled and not record.left_out for record in self.trials.records)

    @property
    def period(self) -> tuple[str, str]:
        """When the first trial began and the last one ended."""
        began = [record.began for record in self.trials.records if record.began]
        ended = [record.ended_at for record in self.trials.records if record.ended_at]
        first, last = min(began, default=None), max(ended, default=None)
        return f"{first:%Y-%m-%d %H:%M}" if first else "", f"{last:%Y-%m-%d %H:%M}" if last else ""

    @property
    def timed(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Predicted and measured milliseconds of what was timed: inside the caps, and over one."""
        inside: list[tuple[float, float]] = []
        over: list[tuple[float, float]] = []
        for record in self.trials.records:
            if record.deployed is not None and record.measured_ms is not None:
                pairs = over if record.over else inside
                pairs.append((record.deployed.predicted_ms, record.measured_ms))
        return inside, over

    @property
    def agreement(self) -> Agreement | None:
        """How well the latencies of the timed networks were predicted."""
        pairs = [*self.timed[0], *self.timed[1]]
        return agreement_of(pairs) if pairs else None

    def front_figure(self, on: DeviceFront | None = None) -> "Figure":
        """Return the picture of a device's front, the first one's where none is named."""
        from hwnas.pages import pictures

        on = on or self.fronts[0]
        winners = {winner.record.trial for winner in self.winners}
        return pictures.front_figure(
            on.candidates,
            on.front,
            winners=winners,
            cap_ms=on.cap_ms,
            accuracy_of=self.accuracy_of,
        )

    def outcome_figure(self) -> "Figure":
        """Return the picture of what the search saw of each winner beside what it came to."""
        from hwnas.pages import pictures

        return pictures.outcome_figure([winner.outcome for winner in self.winners], accuracy_of=self.accuracy_of)

    @property
    def tested(self) -> list[tuple[str, float, float, bool]]:
        """Names, latencies and test accuracies of exported winners and published networks; whether it is a winner."""
        winners = [(f"trial {w.record.trial}", w.exported_ms, w.record.test_accuracy, True) for w in self.winners]
        published = [
            (f"{card.run}, {card.data.resolution}", self.published_ms(card), card.accuracy.test, False)
            for card in self.published
        ]
        return [
            (name, ms, share, is_winner)
            for name, ms, share, is_winner in (*winners, *published)
            if ms is not None and share is not None
        ]

    def published_ms(self, card: "Card") -> float | None:
        """Return the measured latency of a published network in the run's setting."""
        entry = card.file_in(self.settings.setting)
        return entry.measured_ms if entry else None

    def tested_figure(self) -> "Figure":
        """Return the picture of exported winners beside published networks."""
        from hwnas.pages import pictures

        return pictures.tested_figure(self.tested, cap_ms=self.settings.max_latency_ms, how=self.how)

    def agreement_figure(self) -> "Figure":
        """Return the picture of measured, or estimated, over predicted latencies."""
        from hwnas.pages import pictures

        return pictures.agreement_figure(*self.timed, how=self.how)

    def loss_figure(self) -> "Figure | None":
        """Return the picture of the winners' loss by epoch, if one was trained for more than an epoch."""
        return self._history_figure("loss", lambda epoch: epoch.loss)

    def validation_figure(self) -> "Figure | None":
        """Return the picture of the winners' accuracy on the validation images by epoch, where these were left out."""
        label = "accuracy, validation images (%)"
        return self._history_figure(label, lambda epoch: None if epoch.accuracy is None else 100 * epoch.accuracy)

    def _history_figure(self, label: str, value: "Callable[[Epoch], float | None]") -> "Figure | None":
        from hwnas.pages import plain_pictures

        curves = {
            f"trial {winner.record.trial}": [(e.epoch, y) for e in winner.record.history if (y := value(e)) is not None]
            for winner in self.winners
        }
        is_curve = any(len(points) > 1 for points in curves.values())
        return plain_pictures.curves_figure(curves, x_label="epoch", y_label=label) if is_curve else None

    def hypervolume_figure(self) -> "Figure | None":
        """Return the picture of how the front grew, trial by trial; None of a single candidate."""
        from hwnas.pages import plain_pictures

        volumes = hypervolumes(self.candidates, cap=self.settings.budget.max_latency_ms)
        curves = {"front": [(float(trial), 100 * volume) for trial, volume in volumes]}
        is_curve = len(volumes) > 1
        return plain_pictures.curves_figure(curves, x_label="trial", y_label="hypervolume (%)") if is_curve else None

    @property
    def importances(self) -> list[tuple[str, float]]:
        """How much each choice mattered to the accuracy, the most first."""
        return importances(self.trials)

    @property
    def operation_worths(self) -> list[OperationWorth]:
        """What candidates came to by the operations that they contain."""
        return operation_worths(self.candidates)

    @property
    def levels(self) -> list[int]:
        """The numbers of blocks that their cells have."""
        return sorted({blocks for worth in self.operation_worths for blocks in worth.by_blocks})


def agreement_of(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """Return how well milliseconds were predicted; `pairs` are (predicted, measured)."""
    import numpy as np

    from hwnas.runs import spearman

    predicted, measured = np.array(pairs, dtype=float).T
    errors = np.abs(measured / predicted - 1)
    return Agreement(
        networks=len(pairs),
        within_5=float((errors <= 0.05).mean()),
        within_10=float((errors <= 0.10).mean()),
        spearman=spearman(predicted, measured),
    )


# --- the page ---


def render_page(view: View) -> str:
    """Return the page as HTML."""
    from importlib.metadata import version

    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from hwnas.pages import network_picture, pictures, plain_pictures

    def picture(figure: "Figure", prefix: str, title: str) -> Markup:
        return Markup(pictures.inline_svg(figure, prefix=prefix, title=title))  # text in a figure is escaped

    environment = Environment(
        loader=PackageLoader("hwnas.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent, setting=_setting_text, label=_label, count=counted)
    return environment.get_template("report.html.jinja").render(
        view=view,
        picture=picture,
        network_figure=network_picture.network_figure,
        contest_figure=pictures.contest_figure,
        bars_figure=plain_pictures.bars_figure,
        confusion_figure=plain_pictures.confusion_figure,
        most_classes=_MOST_CLASSES,
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
