"""Finalists: the most accurate candidates of a search are trained further in rounds, and the worse ones dropped.

A search's order is that of a short training, which two seeds agree on by 0.78. Each round trains anew, longer and at
deployed scale, without the validation part, on which it then compares (successive halving; Jamieson and Talwalkar,
2016). What is done is kept in the run's folder `finalists`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import InputError, TrainingError
from hwnas.support import say
from hwnas.support.files import read_json, write_json

if TYPE_CHECKING:
    from hwnas.runs import Candidate, Run
    from hwnas.training import TrainingSettings

_SHARES = (0.1, 1 / 3)  # of the epochs of a winner's training, round by round


def best_finalists(
    run: "Run",
    settings: "TrainingSettings",
    accuracy: "Callable[[Candidate, TrainingSettings, Path], float]",
    *,
    count: int,
    wanted: int,
) -> "list[Candidate]":
    """Return as many as are wanted of the `count` most accurate candidates, the best of the last round first.

    `accuracy` is that on the validation part after a training, which goes on from the checkpoint if it exists.
    """
    left = most_accurate(run, count)
    for number, share in enumerate(_SHARES, start=1):
        if len(left) <= wanted:
            break
        shorter = replace(settings, epochs=settings.epochs * share)
        say(f"round {number} of {len(_SHARES)}: {len(left)} finalists are trained for {shorter.epochs:g} epochs")
        accuracies = {}
        for candidate in left:
            place = run.folder / "finalists" / f"{candidate.trial:04d}-{shorter.epochs:g}.json"
            if (known := _known(place, shorter)) is None:
                checkpoint = place.with_suffix(".safetensors")
                try:
                    known = accuracy(candidate, shorter, checkpoint)
                except TrainingError as error:  # its loss is not finite: the others may learn
                    say(f"finalist trial {candidate.trial} comes last: {error}")
                    known = 0.0
                write_json(place, {"settings": shorter.to_json(), "accuracy": known})
                checkpoint.unlink(missing_ok=True)
            accuracies[candidate.trial] = known
            say(f"finalist trial {candidate.trial}: {known:.4f}, {candidate.architecture.name}")
        left = sorted(left, key=lambda candidate: -accuracies[candidate.trial])
        left = left[: wanted if number == len(_SHARES) else max(wanted, math.ceil(len(left) / 2))]
    return left[:wanted]


def most_accurate(run: "Run", count: int) -> "list[Candidate]":
    """Return the most accurate candidates whose latency is measured, be they on the front or not; raises InputError.

    In a run of predictions those whose latency is predicted.
    """
    known = [one for one in run.candidates() if one.stopped_after is None and (one.measured or run.settings.predicted)]
    if not known:
        raise run.untrained()
    return sorted(known, key=lambda candidate: (-candidate.accuracy, candidate.latency_ms))[:count]


def _known(place: Path, settings: "TrainingSettings") -> float | None:
    """Return the accuracy that was kept of such a training, if it was; what is damaged is done again."""
    if not place.exists():
        return None
    try:
        kept: Any = read_json(place, what="a finalist's accuracy")
        accuracy = float(kept["accuracy"])
        return accuracy if kept["settings"] == settings.to_json() and 0 <= accuracy <= 1 else None
    except (InputError, KeyError, TypeError, ValueError):
        return None
