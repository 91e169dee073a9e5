"""The device `pretend` in a folder: by a formula of a test's own, without noise, watched while it times."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from hwnas import formats
from hwnas.device import Job, Setting, load_device
from hwnas.device.device import Formula
from hwnas.device.runner import Event
from hwnas.device.transports import pretend
from hwnas.device.transports._model_work import read_work
from hwnas.latency import LatencyTable, Measurement, read_conditions
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


def write_device(folder: Path, formula: Formula, *, runtimes: tuple[str, ...] = ("tflite",)) -> Path:
    """Write devices/pretend.toml."""
    lines = [f'name = "{NAME}"', 'transport = "pretend"']
    for runtime in runtimes:
        lines += ["[[settings]]", f'runtime = "{runtime}"']
    lines += ["[formula]", *(f"{field} = {json.dumps(value)}" for field, value in formula.model_dump().items())]
    path = folder / "devices" / f"{NAME}.toml"
    path.parent.mkdir(exist_ok=True)
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
        conditions = read_conditions(load_device(str(folder / "devices" / f"{NAME}.toml")), TFLITE)
        self.table = LatencyTable(path, NAME, TFLITE, conditions)
        for name, ms in operators_ms("pnas", (1,), filters, (8,)).items():
            self.table.entries[name] = Measurement(((ms,),))
        self.table.save()
        self._watch(monkeypatch)

    def change(self, *, factor: float, noise: float = 0.0) -> None:
        """Make the device slower or noisy; its table fits it as before."""
        self.factor = factor
        path = self._write(scaled(FORMULA, factor).model_copy(update={"noise": noise}))
        self.table.conditions = read_conditions(load_device(str(path)), TFLITE)
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
