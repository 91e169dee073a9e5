"""Times models on a device: brings them and hwnas/runner.py there, runs it, reads what comes back.

Where a device has no Python, its transport does the runner's job itself (see TimesModels).
The verbs profile, search and export measure with this and nothing else.
"""

import base64
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from hwnas import formats
from hwnas.device import Device, Setting, runner
from hwnas.device.transports import Transport, check_times, open_transport
from hwnas.errors import DeviceError, InputError
from hwnas.latency.measurement import Measurement, OtherCosts
from hwnas.latency.table import LatencyTable
from hwnas.network import Architecture, Builder, Graph
from hwnas.support import files, plugins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_ATTEMPTS = 3
_REFERENCES = 8  # networks that tell how slow the device is
_LONE_ROUNDS = 12  # of a network that caps are held against
_Line = TypeVar("_Line")
_COMPARABLE = ("cpu", "cores", "arch", "runtime", "runtime_version", "threads")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What measurements depend on, as the runner found it on the device."""

    cpu: str
    cores: int  # of the machine
    arch: str
    runtime: str
    runtime_version: str  # with the package's name: `ai-edge-litert 2.3.0`
    threads: int
    pinned: tuple[int, ...] | None  # cores that the runner kept to
    governor: str | None
    frequency_mhz: tuple[float, ...]  # of the pinned cores
    load: float | None  # the last minute's average
    others_busy: float | None  # share of all cores' time that other processes took since the runner's start
    temperature_c: float | None  # the hottest sensor's
    python: str  # empty where the device has none
    numpy: str
    date: str  # UTC
    throttle_count: int | None = None  # these three: hwnas/runner.py's `throttling`
    clock_limit: float | None = None
    firmware_flags: int | None = None

    @property
    def fingerprint(self) -> dict[str, str | int]:
        """What must agree for two measurements to be comparable."""
        return {name: getattr(self, name) for name in _COMPARABLE}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Conditions":
        """Return what `dataclasses.asdict`, or the runner, wrote.

        Raises DeviceError for missing and unknown fields.
        """
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        try:
            return cls(**tuples)
        except TypeError as error:
            raise DeviceError(f"conditions must have the fields of Conditions; got others: {error}") from None


@dataclass(frozen=True, slots=True)
class Computed:
    """What one model computes: its outputs' arrays, and the instructions of one inference where the device counts.

    `runtime` is what computed it, with its version, as in `Conditions.runtime_version`.
    """

    name: str
    outputs: "tuple[Array, ...]"
    instructions: int | None
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Timed:
    """One model's measurement."""

    name: str
    measurement: Measurement
    other: OtherCosts


def time_models(
    device: Device,
    setting: Setting,
    models: Mapping[str, Path],
    *,
    rounds: int = 6,
    group: int = 32,
    max_spread: float = 0.1,
    attempts: int = _ATTEMPTS,
    max_wait: float = runner.Job.max_wait,
    seed: int = 0,
    pace: dict[str, float] | None = None,
    on_conditions: Callable[[Conditions], None] | None = None,
    on_wait: Callable[[float, str], None] | None = None,
) -> Iterator[Timed]:
    """Time model files (by name) on a device; yields each as soon as it is final.

    `rounds`, `group`, `max_spread`, `attempts` and `max_wait` are explained in hwnas/runner.py. `pace` is the runner's
    too: calls that share a dict, empty at first, know of one another how fast the device was. `on_conditions` is called
    with the conditions before the first model and again after the last one, `on_wait` with the seconds of each pause
    that the device is given, before it, and the reason.

    Raises InputError for a missing file and for a device whose time means nothing; DeviceError where the runner cannot
    run, stops before its end line or writes something else than its lines; and DeviceError for models that cannot be
    loaded or run, after all others came.
    """
    if min(rounds, group, attempts) < 1:
        raise InputError(f"rounds, group and attempts must be at least 1; got {rounds}, {group} and {attempts}")
    if not 0.0 <= max_wait <= 1.0:
        raise InputError(f"max_wait must be a share of the time, from 0 to 1; got {max_wait:g}")
    if models:
        check_times(device)
    with open_transport(device) as transport, tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        known = setting.runtime in plugins.names("formats")  # if not, the runner refuses it
        job = runner.Job(
            runtime=setting.runtime,
            canary=transport.put(_write_canary(setting.runtime, Path(folder))) if models and known else None,
            models=[{"name": name, "path": transport.put(path)} for name, path in models.items()],
            threads=setting.threads,
            group=group,
            rounds=rounds,
            max_spread=max_spread,
            attempts=attempts,
            seed=seed,
            max_wait=max_wait,
            pace=pace or {},
        )
        where = f"{device.name}, {setting.name}"
        with closing(_lines(transport, job, Path(folder))) as lines:
            heard = _Heard(on_conditions, on_wait, pace if pace is not None else {})
            sizes = {name: path.stat().st_size for name, path in models.items()}
            yield from _read(lines, len(models), where=where, heard=heard, parse=lambda event: _timed(event, sizes))


def compute_models(
    device: Device, setting: Setting, models: Mapping[str, Path], *, seed: int = 0
) -> dict[str, Computed]:
    """Run model files (by name) on a device, each on the inputs that the seed makes; return what they compute.

    Raises InputError for a missing file and for a device without Python, and DeviceError as `time_models`.
    """
    with open_transport(device) as transport, tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        if isinstance(transport, TimesModels):
            raise InputError(f"outputs come from a device with Python; {device.name} ({device.transport}) has none")
        job = runner.Job(
            runtime=setting.runtime,
            models=[{"name": name, "path": transport.put(path)} for name, path in models.items()],
            threads=setting.threads,
            seed=seed,
            outputs=True,
        )
        where = f"{device.name}, {setting.name}"
        with closing(_lines(transport, job, Path(folder))) as lines:
            told: list[Conditions] = []
            read = _read(lines, len(models), where=where, heard=_Heard(told.append, None, {}), parse=_computed)
            return {one.name: dataclasses.replace(one, runtime=told[0].runtime_version) for one in read}


def read_conditions(device: Device, setting: Setting) -> Conditions:
    """Return the conditions of a device in a setting, in the time that the runner takes to start.

    Raises DeviceError where the runner cannot run there.
    """
    found: list[Conditions] = []
    for _ in time_models(device, setting, {}, on_conditions=found.append):
        pass
    return found[0]


def write_models(graphs: Mapping[str, Graph], setting: Setting, folder: Path, *, seed: int = 0) -> dict[str, Path]:
    """Write lowered graphs with random weights as files for a setting; return the files by the graphs' names.

    Raises ExportError for a precision that the runtime's format does not write.
    """
    written = formats.get(setting.runtime, precision=setting.precision)
    models = {name: folder / f"{index}{written.SUFFIX}" for index, name in enumerate(graphs)}
    for name, graph in graphs.items():
        ranges = formats.made_up_ranges(graph) if setting.precision == "int8" else None
        weights = formats.random_weights(graph, seed=seed)
        file = written.write(graph, weights, ranges=ranges, precision=setting.precision, without=setting.without)
        models[name].write_bytes(file)
    return models


def _write_canary(runtime: str, folder: Path) -> Path:
    """Write the model that tells how fast a device is at the time: the same for all tables of a runtime, under 1 ms.

    It is in fp32 for int8 as well.
    """
    b = Builder((24, 32, 32))
    value = 0
    for name in ("first", "second", "third"):
        value = b.window("conv", value, name=f"{name}.depthwise", kernel=(3, 3), groups=24)
        value = b.relu(b.window("conv", value, name=name, filters=24))
    value = b.window("conv", b.add(value, 0, name="sum"), name="full", filters=32, kernel=(3, 3), stride=(2, 2))
    graph = b.finish(b.linear(b.mean(value, name="mean"), 10, name="classifier"))
    return write_models({"canary": formats.get(runtime).lower(graph)}, Setting(runtime=runtime), folder)["canary"]


def time_network(
    graph: Graph, device: Device, setting: Setting, *, table: LatencyTable | None = None, seed: int = 0
) -> Measurement:
    """Write a network with random weights as it would be exported, and time it whole: see `time_beside`."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        lowered = formats.get(setting.runtime).lower(graph, without=setting.without)
        models = write_models({"network": lowered}, setting, Path(folder), seed=seed)
        (timed,) = time_beside(table, device, setting, models, seed=seed)
    return timed.measurement


def time_beside(
    table: LatencyTable | None, device: Device, setting: Setting, models: Mapping[str, Path], *, seed: int = 0
) -> list[Timed]:
    """Time a few model files that caps are held against, beside networks whose latency the table of the setting knows.

    How much slower those are than in the table says how slow the device is in each round, better than a canary: the
    canaries of what is returned are as if the table's had told it. A table with few networks leaves that to the canary.
    """
    references = _references(table) if table else {}
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        written = formats.get(setting.runtime)
        lowered = {
            name: written.lower(network.graph, without=setting.without) for name, (network, _) in references.items()
        }
        files = {**models, **write_models(lowered, setting, Path(folder), seed=seed)}
        timings = time_models(
            device,
            setting,
            files,
            rounds=_LONE_ROUNDS,
            group=len(files),
            attempts=1 if references else _ATTEMPTS,  # once: so that all have the same rounds
            seed=seed,
        )
        timed = {one.name: one for one in timings}
    if not references or table is None or table.canary_ms is None:
        return list(timed.values())
    ratios = [
        [ms / known_ms for ms in timed[name].measurement.round_medians_ms] for name, (_, known_ms) in references.items()
    ]
    canary_ms = tuple(table.canary_ms * statistics.median(one_round) for one_round in zip(*ratios, strict=True))
    told = [timed[name] for name in models]
    return [
        dataclasses.replace(one, measurement=dataclasses.replace(one.measurement, canary_ms=canary_ms)) for one in told
    ]


def _references(table: LatencyTable) -> "dict[str, tuple[Architecture, float]]":
    """Return networks by their JSON, with their latencies in ms: some of the faster half of those of the table."""
    steady = [
        network for network in table.networks if network.measurement.canary_ms and not network.measurement.unstable
    ]
    if len(steady) < 2 * _REFERENCES:
        return {}
    by_name = {json.dumps(network.architecture.to_json()): network for network in steady}
    known = sorted((table.stated_ms(network.measurement), name) for name, network in by_name.items())
    chosen = known[: len(known) // 2][:: len(known) // 2 // _REFERENCES][:_REFERENCES]
    return {name: (by_name[name].architecture, ms) for ms, name in chosen}


@runtime_checkable
class TimesModels(Protocol):
    """What a transport to a device without Python has besides: it does a runner's job itself."""

    def time(self, job: runner.Job) -> Generator[runner.Event, None, None]:
        """Do a job whose models' paths are the device's; yield the objects that would be the runner's lines.

        Raises DeviceError where the device cannot go on.
        """
        ...


class _CutError(Exception):
    """The runner's lines have come to an end; only its end line, after which nobody reads on, is a good one."""


def _lines(transport: Transport, job: runner.Job, folder: Path) -> Generator[str | runner.Event, None, None]:
    """Have the job done, by the runner or the transport; what is begun ends with this generator.

    Raises _CutError at the end of the lines, saying why.
    """
    try:
        with closing(_begin(transport, job, folder)) as lines:
            yield from lines
    except DeviceError as error:
        raise _CutError(str(error)) from None
    raise _CutError("its output just ends")


def _begin(transport: Transport, job: runner.Job, folder: Path) -> Generator[str | runner.Event, None, None]:
    """Return the lines of the runner, or what a transport that times models says in their place."""
    if isinstance(transport, TimesModels):
        return transport.time(job)
    path = folder / "job.json"
    files.write_json(path, dataclasses.asdict(job))
    return transport.run([transport.put(Path(runner.__file__)), transport.put(path)])


@dataclass(frozen=True, slots=True)
class _Heard:
    """Who is told what the runner says beside the models' lines."""

    on_conditions: Callable[[Conditions], None] | None
    on_wait: Callable[[float, str], None] | None
    pace: dict[str, float]

    def __call__(self, event: runner.Event) -> None:
        """Pass on what a line says beside a model's measurement."""
        if "conditions" in event and self.on_conditions is not None:
            self.on_conditions(Conditions.from_json(event["conditions"]))
        if "waiting" in event and self.on_wait is not None:
            self.on_wait(event["waiting"], event["reason"])
        self.pace.update(event.get("pace", {}))


def _read(
    lines: Iterator[str | runner.Event],
    expected: int,
    *,
    where: str,
    heard: _Heard,
    parse: Callable[[runner.Event], _Line],
) -> Iterator[_Line]:
    """Turn the runner's lines, up to the end line, into what they say; `parse` does so with a model's."""
    arrived = 0
    failed: dict[str, str] = {}
    try:
        for event in map(_event, lines):
            heard(event)
            if "end" in event:
                break
            if "name" in event and "error" in event:
                failed[event["name"]] = event["error"]
            elif "name" in event:
                yield parse(event)
                arrived += 1
            elif "error" in event:
                raise DeviceError(f"nothing can be timed on {where}: {event['error']}")
    except _CutError as cut:
        got = f"{arrived} of {expected} models had arrived"
        raise DeviceError(f"timing stopped before its end line on {where}; {got}{_list(failed)}. {cut}") from None
    if arrived + len(failed) < expected:
        raise DeviceError(f"the runner must write a line for each of {expected} models; got {arrived + len(failed)}")
    if failed:
        raise DeviceError(f"every model must load and run on {where}; got {len(failed)} that did not{_list(failed)}")


def _event(line: str | runner.Event) -> runner.Event:
    """Return a line of the runner's; raises DeviceError for another."""
    if isinstance(line, dict):
        return line
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        event = None
    if not isinstance(event, dict) or not event.keys() & {"conditions", "name", "error", "waiting", "end"}:
        raise DeviceError(f"the runner must write lines as hwnas/runner.py says; got {line[:200]!r}")
    return event


def _timed(event: dict[str, Any], sizes: Mapping[str, int]) -> Timed:
    """Return what a model's line says; raises DeviceError for one that lacks something, or is of another model."""
    try:
        rounds_ms = tuple(tuple(float(sample) for sample in samples) for samples in event["rounds_ms"])
        canary_ms = tuple(map(float, event.get("canary_ms", ())))
        measurement = Measurement(rounds_ms, unstable=bool(event["unstable"]), canary_ms=canary_ms)
        other = OtherCosts(
            file_bytes=sizes[event["name"]],
            peak_memory_bytes=event.get("peak_memory_bytes"),
            load_ms=float(event["load_ms"]),
            first_ms=float(event["first_ms"]),
        )
        return Timed(event["name"], measurement, other)
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(f"a model's line must be as hwnas/runner.py says; {error!r} in {str(event)[:200]}") from None


def _computed(event: runner.Event) -> Computed:
    """Return what a model's line says; raises DeviceError for one that lacks something."""
    import numpy as np

    def array(fields: runner.Event) -> "Array":
        kind = np.dtype(fields["dtype"]).newbyteorder("<")
        return np.frombuffer(base64.b64decode(fields["base64"]), kind).reshape(fields["shape"])

    try:
        return Computed(event["name"], tuple(map(array, event["outputs"])), event["instructions"])
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(f"a model's line must be as hwnas/runner.py says; {error!r} in {str(event)[:200]}") from None


def _list(failed: dict[str, str]) -> str:
    """Return the failed models and their errors, a line each."""
    return "".join(f"\n  {name}: {error}" for name, error in failed.items())
