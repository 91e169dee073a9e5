"""TFLite's benchmark_model in the runner's place, for devices without Python: its command, its output, its rounds.

Models take turns as in device/runner.py, a turn being one short run of the tool. The tool prints no single calls, only
statistics of a run's timed calls, in microseconds. So a round has one sample: the mean of its calls or, where the tool
prints it and it is at least 100 us, their median. (The tool's clock counts whole microseconds: a median of 3 us may be
a third wrong, a mean is not. A mean of 0 is kept as half a microsecond.) A round's mean is higher than the median that
the runner would give wherever single calls are slow, so do not compare figures of both; the latency of a model, the
lower quartile of its rounds, discards rounds that were disturbed.
"""

import math
import random
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from hwnas.device.runner import Call, Event, Job, Model, Patience, time_group

MAX_S = 20.0  # the tool ends its warm-up, and its timed calls, at the first call that ends after this
_TURN_S = 0.05  # the tool warms up, and times calls, for at least this long
_FINE_US = 100.0  # medians from here on are kept
_LEAST_MS = 0.0005
_TAIL = 500  # characters of output in an error
_STATISTICS = re.compile(r"^(?:\w+(?: \w+ *)?: )?(count=\d+ .*)$", re.MULTILINE)  # some builds write `INFO: ` first
_TIMINGS = re.compile(r"nference timings in us: (.*)$", re.MULTILINE)
_MEMORY = re.compile(r"emory footprint delta from the start of the tool \(MB\): .*overall=(\d{1,12}(?:\.\d{1,12})?)\b")
_UNKNOWN = re.compile(r"Unconsumed cmdline flags:\s*(.*\S)")  # a warning; then it goes on without them
_FIELD = re.compile(r"(\w+)(?:=|: )([-+.\w]+)")


class ToolError(Exception):
    """The tool failed on one model."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of the tool says."""

    sample_ms: float  # see the module
    load_ms: float
    first_ms: float  # the first inference
    peak_memory_bytes: int | None = None  # of the whole run, beyond what the tool itself takes; None from old versions


def command(tool: str, model: str, job: Job) -> str:
    """Return the shell command of one turn."""
    flags = {
        "graph": model,
        "num_threads": job.threads,
        "use_xnnpack": "true",
        "warmup_runs": 2,
        "warmup_min_secs": _TURN_S,
        "num_runs": job.min_calls,
        "min_secs": _TURN_S,
        "max_secs": MAX_S,
    }
    return shlex.join([tool, *(f"--{name}={value}" for name, value in flags.items())])


def read(status: int, output: str) -> Report:
    """Return what the tool wrote; lines that are not asked for may come between.

    Raises ToolError for a status that is not 0, for flags that it left out, and where a line or a field is missing.
    """
    if status != 0:
        raise ToolError(f"benchmark_model must end with status 0; got {_name(status)}: {_tail(output)}")
    if unknown := _UNKNOWN.search(output):
        raise ToolError(
            f"benchmark_model must know every flag that it is given; it leaves out {unknown[1][:_TAIL]}, so "
            "its figures are of something else. Take a newer one"
        )
    timings = _TIMINGS.search(output)
    try:
        warm_up, timed = map(_fields, _STATISTICS.findall(output))  # of the warm-up, and of the timed calls
        load_us = _fields(timings[1])["Init"] if timings else math.nan
        first_us = warm_up.get("first", warm_up["curr"])  # only `curr` where all calls took as long
        mean_us = timed.get("avg", timed["curr"])
    except (KeyError, ValueError):
        load_us = first_us = mean_us = math.nan
    if not all(map(math.isfinite, (load_us, first_us, mean_us))):
        rule = "benchmark_model must write two lines `count=.. curr=.. avg=..` and `Inference timings in us: Init: ..`"
        raise ToolError(f"{rule}; got {_tail(output)}")
    median_us = timed.get("median", timed.get("p50", 0.0))
    sample_us = median_us if median_us >= _FINE_US else mean_us
    memory = _MEMORY.search(output)
    peak = None if memory is None else round(float(memory[1]) * 2**20)
    return Report(max(sample_us / 1e3, _LEAST_MS), load_us / 1e3, first_us / 1e3, peak)


def time_models(job: Job, turn: Callable[[str], Report], patience: Patience) -> Iterator[Event]:
    """Yield a line per model, group by group; `turn` runs the tool once on a model's path, or raises ToolError."""
    order = random.Random(job.seed)
    for start in range(0, len(job.models), job.group):
        models = [_model(model["name"], model["path"], turn) for model in job.models[start : start + job.group]]
        canary = _model("canary", job.canary, turn).call if job.canary else None
        yield from time_group(
            models, job, order=order, turn=_samples, patience=patience, canary=canary, failures=ToolError
        )


def _model(name: str, path: str, turn: Callable[[str], Report]) -> Model:
    """Return a model of which nothing was measured; a call runs the tool, and notes what is told of loading it."""

    def call() -> Report:
        report = turn(path)
        model.load_ms, model.first_ms = report.load_ms, report.first_ms
        model.peak_memory_bytes = report.peak_memory_bytes
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
