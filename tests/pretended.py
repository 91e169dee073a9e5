"""The device `pretend` in a folder: by a formula of a test's own, without noise, watched while it times."""

import dataclasses
import hashlib
import json
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from hwnas import formats
from hwnas.device import Job, Setting, read_device
from hwnas.device.device import Formula
from hwnas.device.runner import Event
from hwnas.device.transports import pretend
from hwnas.device.transports._model_work import read_work
from hwnas.latency import Conditions, LatencyTable, Measurement, read_conditions
from hwnas.latency.measure import write_models
from hwnas.network import Graph, executed, ladder, one_layer
from hwnas.support import plugins

NAME = "pretend"
TFLITE = Setting(runtime="tflite")
# so that an operator of tests' networks takes some microseconds, the more the more it has to do
FORMULA = Formula(operator_us=2.0, convolution_ns=0.5, depthwise_ns=1.0, linear_ns=0.5, byte_ns=0.2, noise=0.0)


def scaled(formula: Formula, factor: float) -> Formula:
    """Return the formula of a device that takes `factor` times as long for everything."""
    times = ("operator_us", "convolution_ns", "depthwise_ns", "linear_ns", "byte_ns")
    return formula.model_copy(update={name: factor * getattr(formula, name) for name in times})


def write_device(folder: Path, formula: Formula = FORMULA, *, name: str = NAME) -> Path:
    """Write the file of a pretended device, of one setting, into a folder's devices/."""
    lines = [f'name = "{name}"', 'transport = "pretend"', "[[settings]]", f'runtime = "{TFLITE.runtime}"']
    lines += ["[formula]", *(f"{field} = {json.dumps(value)}" for field, value in formula.model_dump().items())]
    path = folder / "devices" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@cache
def operators_ms(
    space: str, cells: tuple[int, ...], filters: tuple[int, ...], resolutions: tuple[int, ...]
) -> dict[str, float]:
    """Return what every operator of a space takes by the formula, as `profile` would find it."""
    lower = formats.get("tflite").lower
    graphs: dict[str, Graph] = {}
    for scale in ladder(cells, filters, resolutions, classes=3, channels=1):
        for architecture in plugins.load("spaces", space).cover(scale):
            for name, layer, shapes in executed(lower(architecture.graph)):
                if name not in graphs:
                    graphs[name] = one_layer(layer, shapes)
    with tempfile.TemporaryDirectory() as folder:
        files = write_models(graphs, TFLITE, Path(folder))
        works = {name: read_work(path, "tflite") for name, path in files.items()}
    return {name: pretend.latency_ns(work, FORMULA) / 1e6 for name, work in works.items()}


class PretendedDevice:
    """Takes `factor` times what its table says of a network's operators; tells what it times, and when.

    `before` is called before every job that has models.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, filters: tuple[int, ...], factor: float = 1.0
    ) -> None:
        self.timed: list[str] = []  # a network's or operator's file, by its hash
        self.before: Callable[[], None] = lambda: None
        self._folder = folder
        path = folder / "latency_tables" / NAME / f"{TFLITE.name}.json"
        self._write(scaled(FORMULA, factor))
        self.factor = factor
        conditions = read_conditions(read_device(folder / "devices" / f"{NAME}.toml"), TFLITE)
        self.table = LatencyTable(path, NAME, TFLITE, conditions)
        for name, ms in operators_ms("pnas", (1,), filters, (8,)).items():
            self.table.entries[name] = Measurement(((ms,),))
        self.table.save()
        self._watch(monkeypatch)

    def change(self, *, factor: float, noise: float = 0.0) -> None:
        """Make the device slower or noisy; its table fits it as before."""
        self.factor = factor
        path = self._write(scaled(FORMULA, factor).model_copy(update={"noise": noise}))
        self.table.conditions = read_conditions(read_device(path), TFLITE)
        self.table.save()

    def ms(self, graph: Graph) -> float:
        """Return what a network takes."""
        lowered = formats.get("tflite").lower(graph)
        return self.factor * sum(self.table.ms(name) for name, _, _ in executed(lowered))

    def _write(self, formula: Formula) -> Path:
        return write_device(self._folder, formula)

    def _watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = pretend.Transport.time

        def time(transport: pretend.Transport, job: Job) -> Iterator[Event]:
            if job.models:
                self.before()
            self.timed += [hashlib.sha256(Path(model["path"]).read_bytes()).hexdigest() for model in job.models]
            yield from original(transport, job)

        monkeypatch.setattr(pretend.Transport, "time", time)


ABACUS = Conditions(
    cpu="abacus", cores=2, arch="wood", runtime="tflite", runtime_version="ai-edge-litert 2.3.0", threads=1
)
_ALL = {**dict.fromkeys(Conditions.model_fields), "frequency_mhz": [], "python": "", "numpy": "", "date": ""}


def conditions_line(conditions: Conditions) -> Event:
    """Return conditions as the runner writes them."""
    return {**_ALL, **conditions.to_json()}


def interpreter(folder: Path, script: str) -> str:
    """Write a shell script that stands in the place of a device's Python; return its path."""
    path = folder / "its-python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def says(*events: Event) -> str:
    """Return the script of a Python whose runner writes these lines."""
    return "\n".join(f"echo {shlex.quote(json.dumps(event))}" for event in events)


class ScriptedDevice:
    """Stands in the place of what pretended devices do: says, job by job, what a test's script has.

    A model takes what `takes` says of its name: a sample a round, in ms.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.takes: Callable[[str], Sequence[float]] = lambda name: (1.0, 1.0)
        self.canary_ms: Sequence[float] = ()  # a figure a round
        self.conditions = [ABACUS]  # before and after each job of models in turn, the last one for ever
        self.waits: list[tuple[float, str]] = []  # of each job
        self.broken = ""  # why nothing can be timed
        self.jobs: list[Job] = []  # those that had models
        self.files: dict[str, bytes] = {}  # every model, by its path
        monkeypatch.setattr(pretend.Transport, "time", lambda transport, job: self._time(job))

    @property
    def timed(self) -> list[str]:
        """The names of all models, in order."""
        return [model["name"] for job in self.jobs for model in job.models]

    def _time(self, job: Job) -> Iterator[Event]:
        if self.broken:
            yield {"error": self.broken}
            return
        if not job.models:
            yield {"conditions": conditions_line(self.conditions[-1])}
            yield {"end": 0}
            return
        self.jobs.append(dataclasses.replace(job, pace=dict(job.pace)))  # the caller goes on with its dict
        yield {"conditions": self._told(job)}
        yield from ({"waiting": seconds, "reason": reason} for seconds, reason in self.waits)
        for model in job.models:
            self.files[model["path"]] = Path(model["path"]).read_bytes()
            rounds_ms = [[ms] for ms in self.takes(model["name"])]
            line = {"name": model["name"], "rounds_ms": rounds_ms, "unstable": False, "load_ms": 3.0, "first_ms": 4.0}
            yield {**line, "canary_ms": list(self.canary_ms), "peak_memory_bytes": 2000}
        yield {"end": len(job.models), "conditions": self._told(job), "pace": {"left_s": float(len(self.jobs))}}

    def _told(self, job: Job) -> Event:
        return conditions_line(self.next_conditions(job))

    def next_conditions(self, job: Job) -> Conditions:
        """Return the conditions before, or after, a job of models."""
        return self.conditions.pop(0) if len(self.conditions) > 1 else self.conditions[0]
