"""Latency: what was measured of a model, the table of a device's measurements, and what it predicts of a network."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import TableError
from hwnas.files import write_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_VERSION = 1


def lower_quartile(values: Sequence[float]) -> float:
    """Return the value below which a quarter of `values` lies (linear between neighbours)."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")[0]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one model in milliseconds: a tuple for each round, a sample for each timed call."""

    rounds_ms: tuple[tuple[float, ...], ...]
    unstable: bool = False

    @property
    def round_medians_ms(self) -> list[float]:
        """The median sample of each round."""
        return [statistics.median(samples) for samples in self.rounds_ms]

    @property
    def median_ms(self) -> float:
        """The median of all samples."""
        return statistics.median(sample for samples in self.rounds_ms for sample in samples)

    @property
    def ms(self) -> float:
        """The latency that hwnas states: the lower quartile, over the rounds, of the rounds' medians."""
        return lower_quartile(self.round_medians_ms)

    @property
    def spread(self) -> float:
        """How far the rounds disagree: (median - lower quartile) / lower quartile of the rounds' medians."""
        return statistics.median(self.round_medians_ms) / self.ms - 1.0

    def after(self, earlier: "Measurement | None") -> "Measurement":
        """Return this measurement with the rounds of an earlier one before its own."""
        return self if earlier is None else replace(self, rounds_ms=earlier.rounds_ms + self.rounds_ms)


@dataclass(frozen=True, slots=True)
class TimedNetwork:
    """A whole network that was timed on the device: what corrects the sum of its operators."""

    architecture: dict[str, Any]
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted latency; `error` is the share by which nine of ten predictions are wrong at most."""

    ms: float
    error: float

    @property
    def upper_ms(self) -> float:
        """The upper end of the prediction's interval: what filters use."""
        return self.ms * (1.0 + self.error)


@dataclass(frozen=True, slots=True)
class Correction:
    """From the sum of a network's operators to its latency: factor x sum + per_operator_ms x operators + constant_ms.

    `error` is the 0.9 quantile of |measured / predicted - 1|, each network predicted from the others alone;
    `networks` says how many there were.
    """

    factor: float = 1.0
    per_operator_ms: float = 0.0
    constant_ms: float = 0.0
    error: float = 0.5  # of a plain sum, as long as no network was timed
    networks: int = 0

    def ms(self, sum_ms: "Array", operators: "Array") -> "Array":
        """Return the predicted latency of networks with these sums and numbers of operators, elementwise."""
        return self.factor * sum_ms + self.per_operator_ms * operators + self.constant_ms

    def predict(self, sum_ms: float, operators: int) -> Prediction:
        """Return the prediction of one network."""
        return Prediction(self.factor * sum_ms + self.per_operator_ms * operators + self.constant_ms, self.error)


def fit_correction(sum_ms: "Array", operators: "Array", measured_ms: "Array") -> Correction:
    """Fit the correction to timed networks, arrays of shape [networks], by least squares of the relative errors.

    Fewer than eight networks only give a factor.
    """
    import numpy as np

    if not len(sum_ms):
        return Correction()
    factor, per_operator_ms, constant_ms = map(float, _solve(sum_ms, operators, measured_ms))
    others = ~np.eye(len(sum_ms), dtype=bool)
    errors = [
        measured_ms[i] / (_solve(sum_ms[rest], operators[rest], measured_ms[rest]) @ _terms(sum_ms, operators)[i]) - 1.0
        for i, rest in enumerate(others)
        if len(sum_ms) > 1
    ]
    error = float(np.quantile(np.abs(errors), 0.9)) if errors else Correction().error
    return Correction(factor, per_operator_ms, constant_ms, error=error, networks=len(sum_ms))


def _terms(sum_ms: "Array", operators: "Array") -> "Array":
    import numpy as np

    return np.stack([sum_ms, operators, np.ones_like(sum_ms)], axis=1)


def _solve(sum_ms: "Array", operators: "Array", measured_ms: "Array") -> "Array":
    import numpy as np

    if len(sum_ms) < 8:
        return np.array([np.median(measured_ms / sum_ms), 0.0, 0.0])
    terms = _terms(sum_ms, operators) / measured_ms[:, None]
    return np.linalg.lstsq(terms, np.ones_like(sum_ms), rcond=None)[0].astype(np.float64)


@dataclass
class LatencyTable:
    """What was measured on one device in one setting: layers by key, and whole networks.

    The file is JSON, one entry a line, so that people can read and diff it. Raises TableError on reading for a file
    that is truncated, of another version, or holds an entry that is no measurement.
    """

    path: Path
    device: str
    setting: dict[str, Any]
    conditions: dict[str, Any]
    entries: dict[str, Measurement] = field(default_factory=dict)
    networks: list[TimedNetwork] = field(default_factory=list)

    def network(self, architecture: dict[str, Any]) -> Measurement | None:
        """Return what was measured of a whole network, if anything."""
        return next((n.measurement for n in self.networks if n.architecture == architecture), None)

    def set_network(self, architecture: dict[str, Any], measurement: Measurement) -> None:
        """Put a whole network into the table, in the place of the same one if it has it."""
        self.networks = [n for n in self.networks if n.architecture != architecture]
        self.networks.append(TimedNetwork(architecture, measurement))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that have no entry, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self.entries]

    def require(self, keys: Iterable[str], *, command: str) -> None:
        """Raise TableError, with the command that measures them, where entries are missing."""
        if missing := self.missing(keys):
            raise TableError(
                f"{self.path} must have an entry for every operator of the space; it lacks {len(missing)}, "
                f"such as {missing[0]!r}. Measure them: {command}"
            )

    def ms(self, key: str) -> float:
        """Return the latency of one layer in milliseconds.

        Raises TableError where it was not measured.
        """
        try:
            return self.entries[key].ms
        except KeyError:
            raise TableError(f"{self.path} has no entry {key!r}; `hwnas profile {self.device}` measures it") from None

    def save(self) -> None:
        """Write the table atomically."""
        head = {"version": _VERSION, "device": self.device, "setting": self.setting, "conditions": self.conditions}
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        entries = [f"{json.dumps(key)}: {json.dumps(_to_json(m))}" for key, m in sorted(self.entries.items())]
        networks = [json.dumps({"architecture": n.architecture, **_to_json(n.measurement)}) for n in self.networks]
        lines.append('"entries": {\n' + ",\n".join(entries) + "\n}")
        lines.append('"networks": [\n' + ",\n".join(networks) + "\n]")
        write_text(self.path, "{\n" + ",\n".join(lines) + "\n}\n")

    @classmethod
    def read(cls, path: Path) -> "LatencyTable":
        """Read a table from its file."""
        again = "measure it again with `hwnas profile`, or restore the file"
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise TableError(f"{path} must be a latency table in JSON; it is not ({error}); {again}") from None
        if not isinstance(value, dict) or value.get("version") != _VERSION:
            got = value.get("version") if isinstance(value, dict) else type(value).__name__
            raise TableError(f"{path} must be a latency table of version {_VERSION}; got {got!r}; {again}")
        parts = {"device": str, "setting": dict, "conditions": dict, "entries": dict, "networks": list}
        for name, kind in parts.items():
            if not isinstance(value.get(name), kind):
                raise TableError(f"{path}: {name!r} is missing or of a wrong type; {again}")
        entries = {key: _from_json(entry, f"{path}: entry {key!r}") for key, entry in value["entries"].items()}
        networks = [
            TimedNetwork(_architecture(entry, f"{path}: network {i}"), _from_json(entry, f"{path}: network {i}"))
            for i, entry in enumerate(value["networks"])
        ]
        return cls(path, value["device"], value["setting"], value["conditions"], entries, networks)


def _to_json(measurement: Measurement) -> dict[str, Any]:
    return {"rounds_ms": measurement.rounds_ms, "unstable": measurement.unstable}


def _from_json(value: Any, place: str) -> Measurement:
    """Check and read one measurement; `place` names the file and the entry in errors."""
    rule = f"{place} must have rounds_ms, lists of positive numbers of milliseconds"
    rounds = value.get("rounds_ms") if isinstance(value, dict) else None
    if not isinstance(rounds, list) or not rounds or not isinstance(value.get("unstable", False), bool):
        raise TableError(f"{rule}; measure it again: delete the entry and run `hwnas profile`")
    for samples in rounds:
        if not isinstance(samples, list) or not samples:
            raise TableError(f"{rule}; got {samples!r}")
        for sample in samples:
            if type(sample) not in (int, float) or not 0 < sample < math.inf:
                raise TableError(
                    f"{rule}; got {sample!r}. Delete the entry and run `hwnas profile` to measure it again"
                )
    return Measurement(tuple(tuple(map(float, samples)) for samples in rounds), bool(value.get("unstable", False)))


def _architecture(value: Any, place: str) -> dict[str, Any]:
    architecture = value.get("architecture") if isinstance(value, dict) else None
    if not isinstance(architecture, dict):
        raise TableError(f"{place} must have an architecture; delete it and run `hwnas profile` to measure others")
    return architecture
