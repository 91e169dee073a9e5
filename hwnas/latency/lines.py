"""Has a job done on a device, by hwnas/device/runner.py or by the transport itself, and reads the lines that come back.

Where a device has no Python, its transport does the runner's job itself (see TimesModels).
"""

import base64
import dataclasses
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from hwnas.device import runner
from hwnas.device.transports import Transport
from hwnas.errors import DeviceError
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement, OtherCosts
from hwnas.support import files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_Line = TypeVar("_Line")


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


def lines_of(transport: Transport, job: runner.Job, folder: Path) -> Generator[str | runner.Event, None, None]:
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
class Heard:
    """Who is told what the runner says beside the models' lines."""

    on_conditions: Callable[[Conditions], None] | None
    on_wait: Callable[[float, str], None] | None
    pace: dict[str, float]

    def __call__(self, event: runner.Event) -> None:
        """Pass on what a line says beside a model's measurement."""
        if "conditions" in event and self.on_conditions is not None:
            self.on_conditions(Conditions.of_runner(event["conditions"]))
        if "waiting" in event and self.on_wait is not None:
            self.on_wait(event["waiting"], event["reason"])
        self.pace.update(event.get("pace", {}))


def results_of(
    lines: Iterator[str | runner.Event],
    expected: int,
    *,
    where: str,
    heard: Heard,
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


def timed_of(event: dict[str, Any], sizes: Mapping[str, int]) -> Timed:
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


def computed_of(event: runner.Event) -> Computed:
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
