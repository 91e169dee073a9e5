"""TFLite's benchmark_model in the runner's place, for devices without Python: its command, its output, its rounds.

Models take turns as in device/runner.py, a turn being one short run of the tool. The tool prints no single calls, only
statistics of a run's timed calls, in microseconds. So a round has one sample: the mean of its calls or, where the tool
prints it and it is at least 100 us, their median. (The tool's clock counts whole microseconds: a median of 3 us may be
a third wrong, a mean is not. A mean of 0 is kept as half a microsecond.) A round's mean is higher than the median that
the runner would give wherever single calls are slow, so do not compare figures of both; the latency of a model, the
lower quartile of its rounds, discards rounds that were disturbed.

The tool falls back to the CPU in silence: with a delegate that takes no operator, or a flag that it does not know, it
times the model all the same. So what it says of its delegate is read, too, and a model that ran elsewhere is refused.
"""

import math
import random
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import cast

from hwnas.device.runner import Call, Event, Job, Model, Patience, time_group

MAX_S = 20.0  # the tool ends its warm-up, and its timed calls, at the first call that ends after this
_TURN_S = 0.05  # the tool warms up, and times calls, for at least this long
_FINE_US = 100.0  # medians from here on are kept
_LEAST_MS = 0.0005
_TAIL = 500  # characters of output in an error
_STATISTICS = re.compile(r"^(?:\w+(?: \w+ *)?: )?(count=\d+ .*)$", re.MULTILINE)  # some builds write `INFO: ` first
_TIMINGS = re.compile(r"nference timings in (\w+): (.*)$", re.MULTILINE)
_MEMORY = re.compile(r"emory footprint delta from the start of the tool \(MB\): .*overall=(\d{1,12}(?:\.\d{1,12})?)\b")
_UNKNOWN = re.compile(r"Unconsumed cmdline flags:\s*(.*\S)")  # a warning; then it goes on without them
_FIELD = re.compile(r"(\w+)(?:=|: )([-+.\w]+)")
_LOADED = re.compile(r"Loaded model (.*\S)")
_DELEGATES = {"cpu": "XNNPACK", "gpu": "GPU", "npu": "NNAPI"}  # by processor, as the tool names them
_APPLIED = re.compile(r"Explicitly applied (\w+) delegate, and the model graph will be (completely|partially) executed")
_IDLE = re.compile(r"Though (\w+) delegate is explicitly applied, the model graph will not be executed")
_FAILED = re.compile(r"Failed to apply (?:the )?(\w+) delegate|(?<!\w)(\w+) acceleration is unsupported")
_REPLACED = re.compile(
    r"Replacing (\d{1,9}) out of (\d{1,9}) node\(s\) with delegate \(TfLite([A-Za-z]+)Delegate\w*\) node, "
    r"yielding (\d{1,9}) partitions"
)
_ACCELERATORS = re.compile(r"NNAPI accelerators available: \[(.*)\]")
_REFERENCE = "nnapi-reference"  # an NNAPI accelerator that computes on the CPU
_ECHO = re.compile(
    r"(?:^|: )(Num threads|Use gpu|Use NNAPI|NNAPI accelerator name|Use xnnpack): \[(.{0,100})\]$", re.MULTILINE
)
_ECHOED = {  # flags by what the tool calls them when it has consumed them
    "Num threads": "num_threads",
    "Use gpu": "use_gpu",
    "Use NNAPI": "use_nnapi",
    "NNAPI accelerator name": "nnapi_accelerator_name",
    "Use xnnpack": "use_xnnpack",
}


class ToolError(Exception):
    """The tool failed on one model."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of the tool says."""

    sample_ms: float  # see the module
    load_ms: float
    first_ms: float  # the first inference
    peak_memory_bytes: int | None = None  # of the whole run, beyond what the tool itself takes; None from old versions
    placement: Event | None = None  # fields of hwnas.latency.Placement; None where the tool tells of no delegate


def command(tool: str, model: str, job: Job, *, nnapi_accelerator: str = "") -> str:
    """Return the shell command of one turn; what the accelerator does not take, XNNPACK does."""
    npu = {"use_nnapi": "true", "nnapi_accelerator_name": nnapi_accelerator, "disable_nnapi_cpu": "true"}
    delegates = {"cpu": {}, "gpu": {"use_gpu": "true"}, "npu": npu}
    flags = {
        "graph": model,
        "num_threads": job.threads,
        **delegates[job.accelerator],  # it must come first, for operators to be left
        "use_xnnpack": "true",
        "warmup_runs": 2,
        "warmup_min_secs": _TURN_S,
        "num_runs": job.min_calls,
        "min_secs": _TURN_S,
        "max_secs": MAX_S,
    }
    return shlex.join([tool, *(f"--{name}={value}" for name, value in flags.items())])


def read(status: int, output: str, *, processor: str = "cpu") -> Report:
    """Return what the tool wrote of one model on this processor; lines that are not asked for may come between.

    Raises ToolError for a status that is not 0, for flags that it left out, for output that is not of one whole run in
    microseconds, and where the model did not run on the processor or, but for the CPU, nothing proves that it did.
    """
    if status != 0:
        raise ToolError(f"benchmark_model must end with status 0; got {_name(status)}: {_tail(output)}")
    if unknown := _UNKNOWN.search(output):
        raise ToolError(
            f"benchmark_model must know every flag that it is given; it leaves out {unknown[1][:_TAIL]}, so "
            "its figures are of something else. Take a newer one, or one that is built with that delegate"
        )
    warm_up, timed, timings = _parts(output)
    try:
        load_us = timings["Init"]
        first_us = warm_up.get("first", warm_up["curr"])  # only `curr` where all calls took as long
        mean_us = timed.get("avg", timed["curr"])
    except KeyError:
        load_us = first_us = mean_us = math.nan
    if not all(0 <= us < math.inf for us in (load_us, first_us, mean_us)):
        raise _no_output(output)
    median_us = timed.get("median", timed.get("p50", 0.0))
    sample_us = median_us if median_us >= _FINE_US else mean_us
    memory = _MEMORY.search(output)
    peak = None if memory is None else round(float(memory[1]) * 2**20)
    sample_ms = max(sample_us / 1e3, _LEAST_MS)
    return Report(sample_ms, load_us / 1e3, first_us / 1e3, peak, _placement(output, processor))


def _parts(output: str) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return the statistics of the warm-up and of the timed calls, and the timings, by their labels.

    Raises ToolError, in words, where the output is not of one whole run of one model in microseconds.
    """
    statistics, timings = _STATISTICS.findall(output), _TIMINGS.findall(output)
    loaded = set(_LOADED.findall(output))
    if len(statistics) > 2 or len(timings) > 1 or len(loaded) > 1:
        raise ToolError(
            f"benchmark_model must time one model a run; got {max(len(timings), len(loaded), 2)} in one output. "
            f"Run it alone: {_tail(output)}"
        )
    if timings and timings[0][0] != "us":
        raise ToolError(f"benchmark_model must tell times in us; got {timings[0][0]}. Take TFLite's own tool")
    if len(statistics) == 1 and not timings:
        raise ToolError(f"benchmark_model must time calls after its warm-up; it ended with that: {_tail(output)}")
    if len(statistics) == 2 and not timings:
        raise ToolError(
            f"benchmark_model must write `Inference timings in us: Init: ..` at its end; its output is cut short: "
            f"{_tail(output)}"
        )
    try:
        warm_up, timed = map(_fields, statistics)
        return warm_up, timed, _fields(timings[0][1])
    except (IndexError, ValueError):
        raise _no_output(output) from None


def _no_output(output: str) -> ToolError:
    """Return the error for what is broken, or is no output of the tool."""
    rule = "benchmark_model must write two lines `count=.. curr=.. avg=..` and `Inference timings in us: Init: ..`"
    return ToolError(f"{rule}, as TFLite's does; got {_tail(output)}")


def _placement(output: str, processor: str) -> Event | None:
    """Return what the output says of where the model ran; of the CPU the tool may say nothing, which is None.

    Raises ToolError where it ran elsewhere. What XNNPACK leaves to TFLite's own kernels is on the CPU all the same.
    """
    delegate, applied, idle = _DELEGATES[processor], dict(_APPLIED.findall(output)), set(_IDLE.findall(output))
    _check_processor(output, processor, applied=applied.keys() - idle)
    taken = [(int(n), int(of), int(p)) for n, of, name, p in _REPLACED.findall(output) if name.upper() == delegate]
    operators, of, partitions = taken[0] if len(taken) == 1 else (None, None, None)
    if delegate in idle:
        operators, partitions = 0, 1
    elif delegate not in applied and operators is None:
        return None
    whole = applied[delegate] == "completely" if delegate in applied else operators == of
    if whole and operators != of:
        raise ToolError(f"{delegate} must take all operators, as the tool says; it took {operators} of {of}")
    flags = [f"{_ECHOED[name]}={value}" for name, value in _ECHO.findall(output) if value not in ("", "0")]
    placement = {"processor": processor, "delegate": delegate, "whole": whole, "operators": operators, "of": of}
    return {**placement, "partitions": 1 if whole else partitions, "flags": flags}


def _check_processor(output: str, processor: str, *, applied: AbstractSet[str]) -> None:
    """Raise ToolError where another delegate was applied than the processor's, or its own was asked for in vain."""
    delegate, failed = _DELEGATES[processor], set(chain.from_iterable(_FAILED.findall(output)))
    if others := applied - {delegate, "XNNPACK"}:
        raise ToolError(f"the model must run on the {processor}; the delegate {min(others)} was applied")
    if delegate in failed or (processor != "cpu" and delegate not in applied):
        raise ToolError(
            f"the model must run on the {processor}, by the delegate {delegate}; it was not applied, so the figures "
            f"are of something else. Name another setting, or see what the tool says: {_tail(output)}"
        )
    listed = _ACCELERATORS.search(output)
    if processor == "npu" and listed and listed[1].strip() in ("", _REFERENCE):
        raise ToolError(
            f"the model must run on the npu; NNAPI has no accelerator there but {_REFERENCE}, which is the CPU. "
            "Name another setting"
        )


def time_models(job: Job, turn: Callable[[str], Report], patience: Patience) -> Iterator[Event]:
    """Yield a line per model, group by group; `turn` runs the tool once on a model's path, or raises ToolError."""
    order = random.Random(job.seed)
    canary = _model("canary", job.canary, turn) if job.canary else None
    call = canary.call if canary else None
    for start in range(0, len(job.models), job.group):
        models = [_model(model["name"], model["path"], turn) for model in job.models[start : start + job.group]]
        yield from time_group(
            models, job, order=order, turn=_samples, patience=patience, canary=call, failures=ToolError
        )
    if canary and canary.placement:
        yield {"canary": canary.placement}


def _model(name: str, path: str, turn: Callable[[str], Report]) -> Model:
    """Return a model of which nothing was measured; a call runs the tool, and notes what is told of loading it."""

    def call() -> Report:
        report = turn(path)
        if model.placement not in (None, report.placement):
            raise ToolError(f"a model must run alike in all rounds; got {report.placement} after {model.placement}")
        model.load_ms, model.first_ms = report.load_ms, report.first_ms
        model.peak_memory_bytes, model.placement = report.peak_memory_bytes, report.placement
        return report

    model = Model(name, call, load_ms=0.0, first_ms=0.0)
    return model


def _samples(call: Call) -> list[float]:
    return [cast(Report, call()).sample_ms]


def _fields(line: str) -> dict[str, float]:
    """Return a line's numbers by their labels. Raises ValueError where a label has none."""
    return {label: float(value) for label, value in _FIELD.findall(line)}


def _name(status: int) -> str:
    """Return a shell's exit status as words: 128 and more is a signal."""
    try:
        return f"{status} ({signal.Signals(status - 128).name})"
    except ValueError:
        return str(status)


def _tail(output: str) -> str:
    return output.strip()[-_TAIL:] or "nothing"
