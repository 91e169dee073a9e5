"""Finalists: the most accurate candidates of a search are trained further in rounds, and the worse ones dropped.

A search's order is that of a short training, which two seeds agree on by 0.78. Each round trains anew, longer and at
deployed scale, without the validation part, on which it then compares (successive halving; Jamieson and Talwalkar,
2016), in int8 where that is what ships. What is done is kept in the run's folder `finalists`.

Where a search measured those alone that could be on its front, a finalist that was only predicted is measured first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from hwnas.errors import DivergedError, HwnasError
from hwnas.latency import how
from hwnas.support import counted, say

if TYPE_CHECKING:
    from hwnas.runs import Candidate, FinalistLatency, FinalistRecord, FinalistsFolder, Run
    from hwnas.training import TrainingSettings


_SHARES = (0.1, 1 / 3)  # of the epochs of a winner's training, round by round


class Validated(NamedTuple):
    """Accuracies on the validation part, shares: the one that counts, and where that is in int8 the network's own."""

    accuracy: float
    fp32_accuracy: float | None = None


def finalists_of(run: "Run", count: int) -> "list[Candidate]":
    """Return the `count` most accurate candidates inside the cap, be they on the front or not; say so if it is fewer.

    Those that the search only predicted are measured, unless all of the run is predicted. Where they cannot be, they
    take part by their prediction. Raises InputError where there is no candidate.
    """
    trained = [candidate for candidate in run.candidates() if candidate.stopped_after is None]
    if not trained:
        raise run.untrained()
    timings = [_Timing(run, place) for place in range(len(run.settings.devices))]
    chosen: list[Candidate] = []
    for candidate in sorted(trained, key=lambda candidate: (-candidate.accuracy, candidate.cost)):
        if len(chosen) < count and all(timing.is_inside(candidate) for timing in timings):
            chosen.append(candidate)
    if len(chosen) < count:
        over = sum(timing.over for timing in timings)
        but = f", but for {over} over the cap" if over else ""
        say(f"finalists: {len(chosen)} and not {count}: all that the search trained to the end{but}")
    return chosen


class _Timing:
    """Measures finalists that a search only predicted, on the device at a place of the run's.

    `over` counts those that are over the cap.
    """

    def __init__(self, run: "Run", place: int) -> None:
        from hwnas.runs import FinalistsFolder
        from hwnas.searching import Stopwatch

        self._settings, self._folder = run.settings.by_device[place], FinalistsFolder.of(run.folder)
        self._further = run.settings.devices[place].name if place else ""
        self._stopwatch = Stopwatch(self._settings)
        self._is_away = run.settings.predicted
        self.over = 0

    def is_inside(self, candidate: "Candidate") -> bool:
        """Say whether a candidate is inside the cap: as measured, or as predicted where that cannot be."""
        if candidate.measured or not (latency := self._latency(candidate)):
            return True
        is_over = latency.upper_ms > self._settings.max_latency_ms
        self.over += is_over
        verdict = f"over the cap of {self._settings.max_latency_ms:g} ms, no finalist" if is_over else "inside the cap"
        way = how(latency.estimated_by)
        on = f" on {self._further}" if self._further else ""
        say(f"trial {candidate.trial} was only predicted; {way}{on}: {latency.measured_ms:.3f} ms, {verdict}")
        return not is_over

    def _latency(self, candidate: "Candidate") -> "FinalistLatency | None":
        from hwnas.runs import FinalistLatency

        if (known := self._folder.latency(candidate.trial, self._further)) or self._is_away:
            return known
        try:
            measured_ms, upper_ms, estimated_by = self._stopwatch.time(candidate.architecture)
        except HwnasError as error:
            self._is_away = True  # others are not tried: each would wait for it anew
            say(
                "finalists that were only predicted cannot be measured now; they take part by their predictions, and "
                f"`hwnas export` measures the winners: {error}"
            )
            return None
        latency = FinalistLatency(
            version=FinalistLatency.VERSION,
            trial=candidate.trial,
            measured_ms=measured_ms,
            upper_ms=upper_ms,
            estimated_by=estimated_by,
        )
        latency.write(self._folder.latency_path(candidate.trial, self._further))
        return latency


def best_finalists(
    run: "Run",
    finalists: "Sequence[Candidate]",
    settings: "TrainingSettings",
    validated: "Callable[[Candidate, TrainingSettings, Path], Validated]",
    *,
    wanted: int,
) -> "list[Candidate]":
    """Return as many as are wanted of the finalists, the best of the last round first.

    `validated` is of a training, which goes on from the checkpoint if it exists.
    """
    from hwnas.runs import FinalistsFolder

    folder, left = FinalistsFolder.of(run.folder), list(finalists)
    precision: Literal["fp32", "int8"] = "int8" if run.settings.is_int8 else "fp32"
    if len(left) <= wanted:
        say(f"finalists: no more than the winners that are wanted, {wanted}; all of them are")
    for number, share in enumerate(_SHARES, start=1):
        if len(left) <= wanted:
            break
        shorter = replace(settings, epochs=settings.epochs * share)
        epochs = counted(shorter.epochs, "epoch")
        say(f"round {number} of {len(_SHARES)}: {counted(len(left), 'finalist')} trained for {epochs}")
        accuracies = {}
        for candidate in left:
            record = _record(folder, candidate, shorter, validated, precision=precision)
            accuracies[candidate.trial] = record.accuracy
            in_int8 = "" if record.fp32_accuracy is None else f" in int8 ({record.fp32_accuracy:.4f} in fp32)"
            say(
                f"finalist trial {candidate.trial}: {record.accuracy:.4f} of the validation images right{in_int8} "
                f"after {epochs} at deployed scale, {candidate.architecture.name}"
            )
        left = sorted(left, key=lambda candidate: -accuracies[candidate.trial])
        left = left[: wanted if number == len(_SHARES) else max(wanted, math.ceil(len(left) / 2))]
    return left[:wanted]


def _record(
    folder: "FinalistsFolder",
    candidate: "Candidate",
    shorter: "TrainingSettings",
    validated: "Callable[[Candidate, TrainingSettings, Path], Validated]",
    *,
    precision: Literal["fp32", "int8"],
) -> "FinalistRecord":
    """Return what a finalist came to in a round, as it was kept, or after its training."""
    from hwnas.runs import FinalistRecord

    known = folder.accuracy(candidate.trial, shorter.epochs)
    if known is not None and (known.training, known.precision) == (shorter, precision):
        return known
    place = folder.accuracy_path(candidate.trial, shorter.epochs)
    checkpoint = place.with_suffix(".safetensors")
    try:
        accuracies = validated(candidate, shorter, checkpoint)
    except DivergedError as error:  # the others may learn
        say(f"finalist trial {candidate.trial} comes last: {error}")
        accuracies = Validated(0.0)
    record = FinalistRecord(
        version=FinalistRecord.VERSION,
        trial=candidate.trial,
        training=shorter,
        precision=precision,
        **accuracies._asdict(),
    )
    record.write(place)
    checkpoint.unlink(missing_ok=True)
    return record
