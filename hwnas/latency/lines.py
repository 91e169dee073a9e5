"""Has a job done on a device, by hwnas/device/runner.py or by the transport itself, and reads the lines that come back.

Where a device has no Python, its transport does the runner's job itself (see TimesModels). said.py reads each line.
"""

import base64
import dataclasses
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from hwnas.device import Accelerator, runner
from hwnas.device.transports import Transport
from hwnas.errors import DeviceError
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement, OtherCosts
from hwnas.latency.said import (
    CanaryLine,
    ComputedLine,
    ConditionsLine,
    EndLine,
    FailedLine,
    ImpossibleLine,
    Line,
    Output,
    TimedLine,
    WaitingLine,
    read_line,
)
from hwnas.support import files, remark

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_Result = TypeVar("_Result", "Timed", "Computed")
_QUOTED = 200  # characters of a line in an error
_LINES = 100_000  # of a job beside its models': more pauses than a device is given in a month


@dataclass(frozen=True, slots=True)
class Computed:
    """What one model computes: its outputs' arrays, and the instructions of one inference where the device counts.

    `runtime` is what computed it, with its version, as in `Conditions.runtime_version`; `arena_bytes` are those of the
    smallest arena that TensorFlow Lite Micro runs it in.
    """

    name: str
    outputs: "tuple[Array, ...]"
    instructions: int | None
    runtime: str = ""
    arena_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Timed:
    """One model's measurement; where the device tells that, the latency of each layer by the tensor that it writes."""

    name: str
    measurement: Measurement
    other: OtherCosts
    layers_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)


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
    where: str = ""

    def __call__(self, line: Line) -> None:
        """Pass on what a line says beside a model's measurement."""
        if isinstance(line, ConditionsLine | EndLine) and line.conditions and self.on_conditions is not None:
            self.on_conditions(line.conditions)
        if isinstance(line, WaitingLine) and self.on_wait is not None:
            self.on_wait(line.waiting, line.reason)
        if isinstance(line, EndLine):
            self.pace.update(line.pace)
        if isinstance(line, CanaryLine) and not line.canary.whole:
            remark(
                f"{self.where}: a network of plain operators ran {line.canary}. Its runtime has slow kernels for the "
                "others: see whether another build of it takes them all"
            )


def results_of(
    lines: Iterator[str | runner.Event],
    names: Collection[str],
    *,
    where: str,
    heard: Heard,
    parse: Callable[[Line], _Result],
) -> Iterator[_Result]:
    """Turn the runner's lines, up to the end line, into what they say of these models; `parse` reads a model's.

    Raises DeviceError, which names the device, for any other line, and where lines are missing.
    """
    left, failed, told = set(names), dict[str, str](), False
    try:
        for line in _bounded(lines, _LINES + len(names), where):
            heard(line)
            told |= isinstance(line, ConditionsLine | EndLine) and line.conditions is not None
            if isinstance(line, EndLine):
                break
            if isinstance(line, ImpossibleLine):
                raise DeviceError(f"nothing can be timed on {where}: {line.error}")
            if isinstance(line, TimedLine | ComputedLine | FailedLine):
                _strike(line.name, left, where)
            if isinstance(line, FailedLine):
                failed[line.name] = line.error
            elif isinstance(line, TimedLine | ComputedLine):
                yield parse(line)
    except _CutError as cut:
        got = f"{len(names) - len(left) - len(failed)} of {len(names)} models had arrived"
        raise DeviceError(f"timing stopped before its end line on {where}; {got}{_list(failed)}. {cut}") from None
    if left:
        raise DeviceError(
            f"the runner must write a line for each of {len(names)} models; got {len(names) - len(left)} on {where}"
        )
    if failed:
        raise DeviceError(f"every model must load and run on {where}; got {len(failed)} that did not{_list(failed)}")
    if not told:
        raise DeviceError(f"the runner must tell its conditions; got none from {where}")


def _bounded(lines: Iterator[str | runner.Event], most: int, where: str) -> Iterator[Line]:
    """Yield what so many lines say; raises DeviceError where there are more."""
    for number, line in enumerate(lines):
        if number >= most:
            raise DeviceError(f"a job must have at most {most} lines; got more on {where}")
        yield read_line(line, where=where)


def _strike(name: str, left: set[str], where: str) -> None:
    """Take a model off those that are still to come; raises DeviceError for one that is not among them."""
    if name not in left:
        raise DeviceError(f"a model's line must be of one that was asked for, once; got {name[:_QUOTED]!r} on {where}")
    left.remove(name)


def timed_of(line: Line, sizes: Mapping[str, int], where: str, *, accelerator: Accelerator = "cpu") -> Timed:
    """Return what a model's line says; raises DeviceError for one that lacks something.

    It does, too, where the model ran elsewhere than on the accelerator: where that is not the CPU, the line must tell.
    """
    if not isinstance(line, TimedLine) or len(line.canary_ms) not in (0, len(line.rounds_ms)):
        raise DeviceError(
            f"a model's line must have its rounds, and each its canary; got {str(line)[:_QUOTED]} on {where}"
        )
    if (line.placement.processor if line.placement else "cpu") != accelerator:
        raise DeviceError(
            f"{line.name} must run on the {accelerator}, and the device must say so; got "
            f"{line.placement or 'nothing of where it ran'} on {where}. Name another setting"
        )
    measurement = Measurement(
        line.rounds_ms, unstable=line.unstable, canary_ms=line.canary_ms, placement=line.placement
    )
    other = OtherCosts(
        file_bytes=sizes[line.name],
        peak_memory_bytes=line.peak_memory_bytes,
        load_ms=line.load_ms,
        first_ms=line.first_ms,
    )
    return Timed(line.name, measurement, other, line.layers_ms)


def computed_of(line: Line, where: str) -> Computed:
    """Return what a model's line says; raises DeviceError for one that lacks something."""
    if not isinstance(line, ComputedLine):
        raise DeviceError(f"a model's line must have its outputs; got {str(line)[:_QUOTED]} on {where}")
    try:
        outputs = tuple(map(_array, line.outputs))
        return Computed(line.name, outputs, line.instructions, arena_bytes=line.arena_bytes)
    except ValueError as error:  # of the bytes, or of their number
        raise DeviceError(f"an output's bytes must fill its shape; {error} in {line.name} on {where}") from None


def _array(output: Output) -> "Array":
    import numpy as np

    kind = np.dtype(output.dtype).newbyteorder("<")
    return np.frombuffer(base64.b64decode(output.base64, validate=True), kind).reshape(output.shape)


def _list(failed: dict[str, str]) -> str:
    """Return the failed models and their errors, a line each."""
    return "".join(f"\n  {name}: {error}" for name, error in failed.items())
