"""No device at all: a formula says how long a model's file takes. To try hwnas without a board, and for tests.

`time` does a runner's job, as for a device without Python, by a clock that is as pretended as the rest: nothing waits.
A file's latency is that of its operators (see `Formula`), so it grows with the network's work, and a latency table
that was measured on such a device predicts its networks. The same job gives the same figures. The
formula, with noise and slow minutes, is the section [formula] of devices/NAME.toml.
"""

import hashlib
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from hwnas.device.device import Device, Formula
from hwnas.device.runner import Event, Job, Model, Patience, failure, time_group
from hwnas.device.transports._model_work import Work, check_runtime, read_work
from hwnas.errors import DeviceError, InputError

NAME = "pretended"  # what stands in tables and cards for the processor
_SAMPLES = 5  # a round's
_DISK_NS_A_BYTE = 1.0  # to load a file
_FIRST = 2.0  # times what an inference takes: the first one


def starts(device: Device) -> str:
    """Return nothing."""
    return ""


class Transport:
    """See hwnas.device.transports.Transport. It runs no Python but has `time`: hwnas.latency.lines.TimesModels."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def put(self, path: Path) -> str:
        """Return the file's absolute path."""
        if not path.is_file():
            raise InputError(f"what is brought to device {self._device.name} must be a file; got {path}")
        return str(path.absolute())

    def run(self, arguments: Sequence[str]) -> Generator[str, None, None]:
        """Raise DeviceError: there is no Python."""
        raise DeviceError(f"Python must not be asked for on {self._device.name}, which is pretended; got {arguments}")
        yield ""

    def time(self, job: Job) -> Generator[Event, None, None]:
        """Do the job by the formula; yield the events of device/runner.py's lines."""
        clock = _Clock(self._device.formula)
        patience = Patience(job, clock=clock.now_ns, sleep=clock.sleep)
        try:
            check_runtime(job.runtime)
            yield {"conditions": self._conditions(job)}
            yield from _timed(job, self._device.formula, clock, patience)
        except InputError as error:  # of the runtime, or of the canary
            yield {"error": str(error)}
            return
        yield {"end": len(job.models), "conditions": self._conditions(job), "pace": patience.pace}

    def close(self) -> None:
        """Do nothing: nothing was lent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _conditions(self, job: Job) -> Event:
        """Return the fields of hwnas.latency.Conditions; another formula is another fingerprint."""
        formula = hashlib.sha256(self._device.formula.model_dump_json().encode()).hexdigest()
        return {
            "cpu": NAME,
            "cores": job.threads,
            "arch": NAME,
            "runtime": job.runtime,
            "runtime_version": f"{NAME} {formula[:8]}",  # in which tables of another formula differ
            "threads": job.threads,
            "pinned": None,
            "governor": None,
            "frequency_mhz": [],
            "load": None,
            "others_busy": None,
            "temperature_c": None,
            "python": "",
            "numpy": "",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


class _Clock:
    """Nanoseconds that pass only when something is pretended to take them; it knows slow minutes from others."""

    def __init__(self, formula: Formula) -> None:
        self._formula, self._now_ns = formula, 0.0

    def now_ns(self) -> int:
        return round(self._now_ns)

    def sleep(self, seconds: float) -> None:
        self._now_ns += seconds * 1e9

    def takes(self, ns: float) -> float:
        """Let so much work be done; return how long it took."""
        stretch_ns = self._formula.slow_every_s * 1e9
        is_slow = stretch_ns > 0 and self._now_ns // stretch_ns % 2 == 1
        ns *= self._formula.slow_factor if is_slow else 1.0
        self._now_ns += ns
        return ns


def _timed(job: Job, formula: Formula, clock: _Clock, patience: Patience) -> Iterator[Event]:
    """Yield a line per model, group by group."""
    chance, order = random.Random(job.seed), random.Random(job.seed)

    def turn(call: Callable[[], object]) -> list[float]:
        noisy = (cast(float, call()) * chance.lognormvariate(0.0, formula.noise) for _ in range(_SAMPLES))
        return [clock.takes(ns) / 1e6 for ns in noisy]

    canary = _model("canary", job.canary, job, formula).call if job.canary else None
    for start in range(0, len(job.models), job.group):
        loaded = []
        for model in job.models[start : start + job.group]:
            try:
                loaded.append(_model(model["name"], model["path"], job, formula))
            except InputError as error:
                yield failure(model["name"], error)
        yield from time_group(loaded, job, order=order, turn=turn, patience=patience, canary=canary)


def _model(name: str, path: str, job: Job, formula: Formula) -> Model:
    """Return a model of which nothing was measured; a call returns the nanoseconds that it takes."""
    works = read_work(Path(path), job.runtime)
    ns = latency_ns(works, formula, threads=job.threads)
    size = Path(path).stat().st_size
    return Model(
        name,
        lambda: ns,
        load_ms=_DISK_NS_A_BYTE * size / 1e6,
        first_ms=_FIRST * ns / 1e6,
        peak_memory_bytes=size + max((work.bytes for work in works), default=0),
    )


def latency_ns(works: Sequence[Work], formula: Formula, *, threads: int = 1) -> float:
    """Return how long a file's operators take."""
    rates = {
        "convolution": formula.convolution_ns,
        "depthwise": formula.depthwise_ns,
        "linear": formula.linear_ns,
        "other": 0.0,
    }

    def of(work: Work) -> float:
        computing = work.mult_adds * rates[work.kind] * (formula.integer_share if work.integer else 1.0)
        return formula.operator_us * 1e3 + (computing + work.bytes * formula.byte_ns) / threads

    return max(1.0, sum(map(of, works)))
