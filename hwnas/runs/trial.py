"""What a trial of the study says."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.latency import Budget
from hwnas.training import Curve, Look
from hwnas.errors import InputError
from hwnas.support import locked, read_json, write_bytes, write_json
from hwnas.latency import TimedNetwork
from hwnas.network import Architecture, Scale, ladder

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from hwnas.datasets import Dataset


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained trial: its network at deployed scale, the accuracy of its proxy, its latency.

    `latency_ms` was measured on the device, unless `measured` is false: then it is the prediction. Where training was
    `stopped_after` so many epochs, the accuracy is what it would have come to, give or take its `spread`.
    """

    trial: int
    architecture: Architecture
    target: float
    accuracy: float
    latency_ms: float
    measured: bool
    predicted_ms: float
    predicted_error: float
    mult_adds: int
    parameters: int
    stopped_after: float | None = None
    spread: float | None = None


def candidate_of(trial: "FrozenTrial") -> Candidate:
    """Return what a finished trial says of its candidate."""
    attributes = trial.user_attrs
    stopped = attributes.get("stopped", {})
    return Candidate(
        trial=trial.number,
        architecture=Architecture.from_json(attributes["architecture"]),
        target=trial.params["target"],
        accuracy=trial.values[0],
        latency_ms=trial.values[1],
        measured=attributes["measured_ms"] is not None,
        predicted_ms=attributes["predicted_ms"],
        predicted_error=attributes["predicted_error"],
        mult_adds=attributes["mult_adds"],
        parameters=attributes["parameters"],
        stopped_after=stopped.get("epoch"),
        spread=stopped.get("spread"),
    )


def curve_of(trial: "FrozenTrial") -> Curve:
    """Return the learning curve of a trial that was looked at, whether it is finished or not."""
    attributes = trial.user_attrs
    measured = attributes.get("measured_ms")
    return Curve(
        number=trial.number,
        target=trial.params["target"],
        latency_ms=attributes["predicted_ms"] if measured is None else measured,
        looks=tuple(Look(**look) for look in attributes["looks"]),
        accuracy=trial.values[0] if trial.values is not None and "stopped" not in attributes else None,
    )


def timed_networks(trials: "Iterable[FrozenTrial]") -> list[TimedNetwork]:
    """Return the whole networks that trials measured, their attribute "timed".

    Raises TableError for what is no measurement.
    """
    return [
        TimedNetwork.from_json(entry, f"trial {trial.number} of the study")
        for trial in trials
        for entry in trial.user_attrs.get("timed", [])
    ]
