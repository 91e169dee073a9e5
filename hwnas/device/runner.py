"""The one file that goes to a device and times models there: `python runner.py JOB.json [--no-watch]`.

It needs Python 3.9, numpy and the runtime, not hwnas: hence one file, however long. The job file is a `Job` as JSON;
what comes back on standard output is one JSON object a line:

    {"conditions": {...}}                                first: the machine, the runtime, the load, the clock, the heat
    {"name": "a", "rounds_ms": [[...], ...], "canary_ms": [...], "attempts": 1, "unstable": false, "load_ms": 3.1,
     "first_ms": 0.4, "peak_memory_bytes": 81920, "placement": {...}}
    {"name": "b", "error": "ValueError: ..."}            a model that cannot be loaded or run; the others go on
    {"canary": {...}}                                    where the canary ran, as a model's `placement`
    {"waiting": 2.0, "reason": "..."}                    the device has slowed down and is left alone, so many seconds
    {"end": 2, "conditions": {...}, "pace": {...}}       last: without it the run was cut short
    {"error": "..."}                                     the whole run is impossible; exit status 3

A model's line comes as soon as it is final. Models are taken in groups; in each round every model of a group has its
turn, in an order drawn anew, so that drift does not land on one of them. A turn first discards calls, until one call
and `warmup_ms` are over, then times at least `min_calls` calls and `min_ms`. Each sample is one call, in ms; of a call
in one thread whose core was given to another program for a while, that while is no part. A model whose rounds disagree
by more than `max_spread` is measured again together with the group's other such models, `attempts` times in all; the
attempt with the smallest spread is kept.

A job may name a canary: one more model, which has a turn before and after every few turns of the others. Its median in
a round says how fast the device was in that round: `canary_ms` has one figure for each round. Rounds are compared, for
the spread, as multiples of it.

After a round in which the device was throttled, or whose canary took `max_slowdown` longer than the fastest round's,
the device is given a rest and the round is measured again, as far as `max_wait` allows. Jobs that follow one another
hand on how fast the device was and how long it may still be waited for: `pace` of an end line goes into the next job.

A job may ask for `outputs` in place of times. Then each model is run on the inputs that the seed makes, which are the
same on every device, and its line is

    {"name": "a", "outputs": [{"dtype": "float32", "shape": [1, 10], "base64": "..."}], "instructions": 4823121,
     "arena_bytes": 98304}

where `instructions` are those that one inference executes, and `arena_bytes` the smallest arena that TensorFlow Lite
Micro runs the model in; null where nothing counts them, and in other runtimes.

The process ends when its standard input closes, so that none is left behind when the client dies; `--no-watch` is for
runs without a client (`nohup`), whose standard input is closed from the start.
"""

from __future__ import annotations

import base64
import gc
import json
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

VERSION = 1
MAX_CALLS = 2000  # in a turn, discarded and timed each: a bound should the clock stand still
KEPT = 25  # samples a turn at most
FLOOR_MS = 0.001  # rounds that differ by less never count as disagreeing
FIRST_PAUSE_S = 1.0  # each further one that follows at once is twice as long
LEAST_PAUSE_S = 0.5  # no device cools in less
FIRMWARE_FLAGS = ("under-voltage", "a capped clock", "throttling", "a soft temperature limit")  # of a Raspberry Pi
COUNTED = 3  # inferences whose instructions are counted
PRACTICE = 12  # calls after which Python has nothing left to adapt
MARK = 0x68776E6173  # an offset in a file that nobody else gives the kernel advice on
MICRO_BYTES = 1 << 25  # of the first arena that a model for microcontrollers gets: more than any of these has
MICRO_STEP = 16  # bytes: arenas are aligned so
LACKING = "Didn't find op for builtin opcode "  # before the name of an operator, in TensorFlow Lite Micro's words
IMPOSSIBLE = 3  # exit status
ORPHANED = 4  # exit status: standard input was closed

Call = Callable[[], object]
Clock = Callable[[], int]
Turn = Callable[[Call], "list[float]"]  # a model's samples of one round, in ms
Event = dict[str, Any]


class RunnerError(Exception):
    """The whole run is impossible; the text goes to the client."""


@dataclass(frozen=True)
class Job:
    """What to time and how; `models` are {"name": ..., "path": ...}. Its defaults are hwnas's defaults."""

    runtime: str
    models: list[dict[str, str]]
    threads: int = 1
    accelerator: str = "cpu"  # that models must run on; benchmark_model alone has others
    kernels: str = ""  # of tflite: the fastest, or its "reference" ones, or "micro": TensorFlow Lite Micro's
    cores: list[int] | None = None  # to run on; None: chosen here
    group: int = 32  # models loaded at a time
    rounds: int = 6
    min_calls: int = 3
    min_ms: float = 2.0
    warmup_ms: float = 2.0
    max_spread: float = 0.1
    attempts: int = 3
    seed: int = 0
    outputs: bool = False  # what each model computes, in place of times
    canary: str | None = None  # a model's path
    canary_every: int = 8  # turns
    max_slowdown: float = 0.25  # of a round's canary, as a share; beyond it the device is given a rest
    max_wait: float = 0.1  # waits and rounds measured again, as a share of the rounds that are kept; 0: none
    pause_s: float = 30.0  # a pause at most
    pace: dict[str, float] = field(default_factory=dict)  # of the job before on the same device
    version: int = VERSION


def read_job(path: str) -> Job:
    """Read a job file; raises RunnerError for one that is missing, broken or of another version."""
    try:
        job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunnerError(f"the job must be a JSON file with a job's fields; {path}: {error}") from None
    if job.version != VERSION:
        raise RunnerError(f"the job's version must be {VERSION}; got {job.version}")
    return job


# Rounds: what is timed, in which order, and when it is good enough.


@dataclass
class Model:
    """A loaded model and what has been measured of it so far."""

    name: str
    call: Call
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None = None  # None where nothing tells
    placement: Event | None = None  # where it ran, the fields of hwnas.latency.Placement; None where nothing tells
    rounds_ms: list[list[float]] = field(default_factory=list)  # of the attempt with the smallest spread
    canary_ms: list[float] = field(default_factory=list)  # in the same rounds; empty without a canary
    attempts: int = 0
    unstable: bool = True

    def offer(self, rounds_ms: list[list[float]], canary_ms: list[float], max_spread: float) -> None:
        """Count an attempt, and keep it if its rounds agree better than those of the one kept."""
        self.attempts += 1
        steady = steadied(rounds_ms, canary_ms)
        if not self.rounds_ms or spread(steady) < spread(steadied(self.rounds_ms, self.canary_ms)):
            self.rounds_ms, self.canary_ms = rounds_ms, canary_ms
        self.unstable = not agree(steadied(self.rounds_ms, self.canary_ms), max_spread)

    def event(self) -> Event:
        """Return the model's line."""
        keys = ("name", "rounds_ms", "canary_ms", "attempts", "unstable", "load_ms", "first_ms", "peak_memory_bytes")
        return {key: getattr(self, key) for key in (*keys, "placement")}


def steadied(rounds_ms: list[list[float]], canary_ms: list[float]) -> list[list[float]]:
    """Return the rounds as if the device had been as fast in each as in the one with the fastest canary."""
    if not canary_ms:
        return rounds_ms
    fastest = min(canary_ms)
    return [[sample * fastest / canary for sample in samples] for samples, canary in zip(rounds_ms, canary_ms)]  # noqa: B905  Python 3.9


def quartile_and_median(rounds_ms: list[list[float]]) -> tuple[float, float]:
    """Return the lower quartile and the median of the rounds' medians."""
    medians = [statistics.median(samples) for samples in rounds_ms]
    if len(medians) == 1:
        return medians[0], medians[0]
    quartiles = statistics.quantiles(medians, n=4, method="inclusive")
    return quartiles[0], quartiles[1]


def spread(rounds_ms: list[list[float]]) -> float:
    """Return what hwnas.latency.Measurement.spread would: (median - lower quartile) / lower quartile."""
    low, median = quartile_and_median(rounds_ms)
    return median / low - 1.0


def agree(rounds_ms: list[list[float]], max_spread: float) -> bool:
    """Tell whether the rounds agree; differences under a microsecond never count."""
    low, median = quartile_and_median(rounds_ms)
    return median - low < FLOOR_MS or median <= low * (1.0 + max_spread)


def thin(samples: list[float], kept: int = KEPT) -> list[float]:
    """Return at most `kept` of the samples, evenly spaced by rank so that the distribution stays, in their order."""
    if len(samples) <= kept:
        return samples
    ranked = sorted(range(len(samples)), key=samples.__getitem__)
    return [samples[index] for index in sorted(ranked[(2 * i + 1) * len(ranked) // (2 * kept)] for i in range(kept))]


def core_clock(threads: int) -> Clock | None:
    """Return the clock that runs while this thread has a core; None where it says nothing of a call, or not finely."""
    if threads > 1 or time.get_clock_info("thread_time").resolution > 1e-6:
        return None
    return time.thread_time_ns


def time_turn(call: Call, job: Job, clock: Clock, core: Clock | None = None) -> list[float]:
    """Return one model's samples of one round, in ms: discards the warm-up's calls, then times.

    Calls longer than a time slice lose their core in nearly each one beside other programs, short ones in few: by the
    clock alone long models would be slowed down more than the canary.
    """
    warm = clock() + job.warmup_ms * 1e6
    for discarded in range(MAX_CALLS):
        if discarded >= 1 and clock() >= warm:
            break
        call()
    samples: list[int] = []
    total = 0
    while len(samples) < job.min_calls or (total < job.min_ms * 1e6 and len(samples) < MAX_CALLS):
        had = core() if core else 0
        start = clock()
        call()
        took = max(1, clock() - start)
        samples.append(max(1, min(took, core() - had)) if core else took)  # the core's clock is read around the other's
        total += took
    return thin([round(sample / 1e6, 6) for sample in samples])


@dataclass(frozen=True)
class Round:
    """What one round of turns took: samples in ms by model, without those that failed, and the canary's median."""

    taken: dict[str, list[float]]
    canary_ms: float | None
    seconds: float


def time_round(
    models: list[Model],
    job: Job,
    *,
    order: random.Random,
    turn: Turn,
    patience: Patience,
    canary: Call | None = None,
    failures: type[Exception] = Exception,  # the runtimes' errors have no other base in common
) -> Generator[Event, None, Round]:
    """Give every model a turn; returns the round. Yields the lines of models that fail."""
    start = patience.clock()
    turns = list(models)
    order.shuffle(turns)
    taken: dict[str, list[float]] = {}
    canaries: list[float] = []
    for index, model in enumerate(turns):
        if canary and index % job.canary_every == 0:
            canaries += turn(canary)
        try:
            taken[model.name] = turn(model.call)
        except failures as error:
            yield failure(model.name, error)
    canary_ms = statistics.median(canaries + turn(canary)) if canary else None
    return Round(taken, canary_ms, (patience.clock() - start) / 1e9)


def time_rounds(
    models: list[Model],
    job: Job,
    *,
    order: random.Random,
    turn: Turn,
    patience: Patience,
    canary: Call | None = None,
    failures: type[Exception] = Exception,
) -> Iterator[Event]:
    """Offer each model one attempt: `job.rounds` interleaved rounds. Yields waits and the lines of models that fail."""
    left = models
    rounds: list[Round] = []
    while len(rounds) < job.rounds:  # ends: patience does
        latest = yield from time_round(
            left, job, order=order, turn=turn, patience=patience, canary=canary, failures=failures
        )
        left = [model for model in left if model.name in latest.taken]
        if (yield from patience.keeps(latest, lambda: statistics.median(turn(canary)) if canary else None)):
            rounds.append(latest)
    canary_ms = [each.canary_ms for each in rounds if each.canary_ms is not None]
    for model in left:
        model.offer([each.taken[model.name] for each in rounds], canary_ms, job.max_spread)


def time_group(
    loaded: list[Model],
    job: Job,
    *,
    order: random.Random,
    turn: Turn,
    patience: Patience,
    canary: Call | None = None,
    failures: type[Exception] = Exception,
) -> Iterator[Event]:
    """Yield the line of each model of a group as soon as it is final."""
    left = loaded
    for attempt in range(1, job.attempts + 1):
        yield from time_rounds(left, job, order=order, turn=turn, patience=patience, canary=canary, failures=failures)
        left = [model for model in left if model.attempts == attempt]  # without those that failed
        last = attempt == job.attempts
        yield from (model.event() for model in left if last or not model.unstable)
        left = [model for model in left if model.unstable]


def load_group(models: list[dict[str, str]], loaded: list[Model], *, load: Load, clock: Clock) -> Iterator[Event]:
    """Fill `loaded`. Yields the lines of models that cannot be loaded or run."""
    for model in models:
        print("loading", model["name"], file=sys.stderr)  # the last words, should the runtime crash on it
        try:
            memory = PeakMemory()
            start = clock()
            opened = load(model["path"])
            ready = clock()
            opened.call()
            done = clock()
            peak_bytes = memory.peak_bytes()
            placement = opened.placement()
        except Exception as error:  # noqa: BLE001  see time_rounds
            yield failure(model["name"], error)
        else:
            times_ms = ((ready - start) / 1e6, (done - ready) / 1e6)
            loaded.append(Model(model["name"], opened.call, *times_ms, peak_bytes, placement))


def time_models(job: Job, load: Load, patience: Patience, core: Clock | None = None) -> Iterator[Event]:
    """Yield a line per model, group by group; `load` opens a model's file."""
    order = random.Random(job.seed)
    opened = load(job.canary) if job.canary else None
    canary = opened.call if opened else None
    if opened and (placement := opened.placement()):
        yield {"canary": placement}
    clock = patience.clock

    def turn(call: Call) -> list[float]:
        return time_turn(call, job, clock, core)

    for start in range(0, len(job.models), job.group):
        loaded: list[Model] = []
        yield from load_group(job.models[start : start + job.group], loaded, load=load, clock=clock)
        yield from time_group(loaded, job, order=order, turn=turn, patience=patience, canary=canary)
        loaded.clear()
        gc.collect()  # which is off while models are timed


def failure(name: str, error: Exception) -> Event:
    """Return the line of a model that cannot be loaded or run."""
    return {"name": name, "error": f"{type(error).__name__}: {error}"[:1000]}


# Waiting: a device that has slowed down is given time to cool, or to end what else it does.


class Patience:
    """Decides after each round whether to wait and measure it again.

    What that costs, waits and rounds that are not kept, is at most `job.max_wait` of the time of those that are.
    """

    def __init__(
        self,
        job: Job,
        *,
        clock: Clock = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
        throttling: Callable[[], Event] = dict,  # what the system tells, see `throttled`
    ) -> None:
        self.job, self.clock, self.sleep, self.throttling = job, clock, sleep, throttling
        self.fastest_ms = job.pace.get("canary_ms", math.inf)
        self.left_s = job.pace.get("left_s", 0.0)
        self.seen = throttling()

    @property
    def pace(self) -> dict[str, float]:
        """What the next job on the same device should know."""
        fastest = {"canary_ms": self.fastest_ms} if self.fastest_ms < math.inf else {}
        return {**fastest, "left_s": self.left_s}

    def keeps(self, latest: Round, canary: Callable[[], float | None]) -> Generator[Event, None, bool]:
        """Return whether a round is good enough; where not, wait first. `canary` times the canary again, in ms."""
        reason = self.reason(latest.canary_ms)
        pause_s = FIRST_PAUSE_S
        waited = False
        while reason and (seconds := min(pause_s, self.job.pause_s, self.left_s - latest.seconds)) >= LEAST_PAUSE_S:
            yield {"waiting": round(seconds, 3), "reason": reason}
            start = self.clock()
            self.sleep(seconds)
            reason = self.reason(canary())
            self.left_s -= (self.clock() - start) / 1e9
            pause_s *= 2.0
            waited = True
        self.left_s += -latest.seconds if waited else self.job.max_wait * latest.seconds
        return not waited

    def reason(self, canary_ms: float | None) -> str:
        """Return why the device is slow now, in words; empty where it is not."""
        now = self.throttling()
        happened = throttled(self.seen, now)
        # a limit counts for as long as it is lower than at the start, all else once
        self.seen = {**now, "clock_limit": self.seen.get("clock_limit")}
        if happened or canary_ms is None:
            return happened
        self.fastest_ms = min(self.fastest_ms, canary_ms)
        slowdown = canary_ms / self.fastest_ms - 1.0
        return f"the device is slower by {slowdown:.0%} than it was" if slowdown > self.job.max_slowdown else ""


def throttled(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> str:
    """Return in words what the system did, between two times, to cool or spare the device; empty for nothing.

    Both have the fields that `throttling` returns, or some of them.
    """
    said = []
    if (times := (later.get("throttle_count") or 0) - (earlier.get("throttle_count") or 0)) > 0:
        said.append(f"the kernel throttled its cores {times} times")
    if (later.get("clock_limit") or 1.0) < (earlier.get("clock_limit") or 1.0):
        said.append(f"its clock is limited to {later['clock_limit']:.0%}")
    flags, known = later.get("firmware_flags") or 0, earlier.get("firmware_flags") or 0
    new = flags | (flags & ~known) >> 16  # what is, and what has been since
    said += [f"its firmware tells of {words}" for bit, words in enumerate(FIRMWARE_FLAGS) if new >> bit & 1]
    return "; ".join(said)


# Outputs: what models compute, and how many instructions that takes.


def compute_models(job: Job, opened: Callable[[str], Opened]) -> Iterator[Event]:
    """Yield a line per model: what it computes, and how many instructions that takes."""
    for model in job.models:
        print("loading", model["name"], file=sys.stderr)  # see load_group
        try:
            loaded = opened(model["path"])
            loaded.call()
            outputs = [encoded(array) for array in loaded.outputs()]
            counted = {"instructions": count_instructions(loaded.call), "arena_bytes": loaded.arena_bytes}
            yield {"name": model["name"], "outputs": outputs, **counted}
        except Exception as error:  # noqa: BLE001  see time_round
            yield failure(model["name"], error)


def encoded(array: Any) -> Event:
    """Return an array as JSON can hold it, its bytes little-endian."""
    data = base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": data}


def count_instructions(call: Call) -> int | None:
    """Return how many instructions a call executes; None where nothing counts them."""
    if not hasattr(os, "posix_fadvise"):
        return None
    with tempfile.TemporaryFile(buffering=0) as marks:
        own = min(executed(marks, gc.isenabled) for _ in range(PRACTICE))  # for which there is next to nothing to do
        counts = [executed(marks, call) for _ in range(COUNTED if own else 0)]
    return min(count - own for count in counts) if counts else None


def executed(marks: IO[bytes], call: Call) -> int:
    """Return how many instructions are executed from before a call until after it; 0 where nothing counts them.

    An emulator's counter (device/transports/_qemu_count.c) writes into a file, whenever the kernel is given advice on
    its byte MARK, how many instructions there have been so far. To all others that advice means nothing.
    """
    marks.seek(0)
    marks.truncate()
    os.posix_fadvise(marks.fileno(), MARK, 0, os.POSIX_FADV_NORMAL)
    call()
    os.posix_fadvise(marks.fileno(), MARK, 0, os.POSIX_FADV_NORMAL)
    marks.seek(0)
    before, after = map(int, marks.read().split() or (0, 0))
    return after - before


# Runtimes: each makes a model's file a call that runs it once and does nothing else.


@dataclass(frozen=True)
class Opened:
    """A loaded model: `call` runs it once and does nothing else, `outputs` returns the arrays that it has computed.

    `placement` returns where it runs, as the fields of hwnas.latency.Placement; None where the runtime does not tell.
    """

    call: Call
    outputs: Callable[[], list[Any]] = list
    placement: Callable[[], Event | None] = lambda: None
    arena_bytes: int | None = None  # the smallest that it runs in; only for microcontrollers


Load = Callable[[str], Opened]


@dataclass(frozen=True)
class Runtime:
    """A runtime that is installed here: which package it is, and how a model is loaded with it."""

    package: str  # and version
    open: Callable[[str], Opened]


def random_input(shape: tuple[int, ...], dtype: Any, seed: int) -> Any:
    """Return a normal array for float types, one over the whole range for 8-bit integers.

    Raises TypeError for others.
    """
    import numpy as np

    kind = np.dtype(dtype)
    generator = np.random.default_rng(seed)
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    if kind.kind in "iu" and kind.itemsize == 1:
        limits = np.iinfo(kind)
        return generator.integers(limits.min, limits.max, size=shape, dtype=kind, endpoint=True)
    raise TypeError(f"a model's inputs must be float, int8 or uint8; got {kind}")


def tflite_opened(interpreter: Any, seed: int) -> Opened:
    """Allocate, fill the inputs once (TFLite never writes over them) and return the call: invoke alone."""
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        shape = tuple(int(size) for size in detail["shape"])  # a dynamic batch is already 1 here
        interpreter.set_tensor(detail["index"], random_input(shape, detail["dtype"], seed))

    def outputs() -> list[Any]:
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]

    return Opened(interpreter.invoke, outputs, lambda: tflite_placement(interpreter))


def tflite_placement(interpreter: Any) -> Event | None:
    """Return which operators XNNPACK took, the only delegate that an interpreter has by itself.

    The interpreter lists all operators, and after them a node for each piece that the delegate computes.
    """
    try:
        nodes = [(node["op_name"], {*node["inputs"]}, {*node["outputs"]}) for node in interpreter._get_ops_details()]
    except (AttributeError, KeyError, TypeError):  # it is private, and not in every version
        return None
    operators = [(inputs, outputs) for name, inputs, outputs in nodes if name != "DELEGATE"]
    taken: set[int] = set()
    for name, inputs, outputs in nodes:
        if name == "DELEGATE":
            taken |= between(operators, inputs, outputs)
    return {
        "processor": "cpu",
        "delegate": "XNNPACK",
        "whole": len(taken) == len(operators),
        "operators": len(taken),
        "of": len(operators),
        "partitions": count_partitions(operators, taken),
        "flags": [],
    }


Operators = list[tuple[set[int], set[int]]]  # the tensors that each reads and writes, in the order of execution


def between(operators: Operators, inputs: set[int], outputs: set[int]) -> set[int]:
    """Return the places of the operators that compute these outputs from these inputs."""
    wanted, places = set(outputs), set()
    for place in reversed(range(len(operators))):
        reads, writes = operators[place]
        if writes & wanted:
            places.add(place)
            wanted |= reads - inputs
    return places


def count_partitions(operators: Operators, taken: set[int]) -> int:
    """Return the pieces that a graph falls into of which one kind of operator is taken, as TFLite cuts it.

    Each piece is as large as it can be: all operators of a kind whose inputs are there.
    """
    left, count = list(range(len(operators))), 0
    while left:
        missing = set().union(*(operators[place][1] for place in left))
        first = next(place for place in left if not operators[place][0] & missing)
        rest = []
        for place in left:
            reads, writes = operators[place]
            if (place in taken) == (first in taken) and not reads & missing:
                missing -= writes
            else:
                rest.append(place)
        left, count = rest, count + 1
    return count


def find_tflite(job: Job) -> Runtime:
    """Find LiteRT or its predecessor. Raises RunnerError if neither can be imported."""
    import importlib

    tried = []
    for package in ("ai_edge_litert", "tflite_runtime"):
        try:
            module = importlib.import_module(f"{package}.interpreter")
            create = module.Interpreter
        except (ImportError, AttributeError, OSError) as error:
            tried.append(f"{package} ({error})")
            continue
        options = {"num_threads": job.threads}
        if job.kernels == "reference":
            options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_REF

        def opened(path: str, create: Any = create, options: Any = options) -> Opened:
            return tflite_opened(create(model_path=path, **options), job.seed)

        return Runtime(package_version(package), opened)
    raise RunnerError(f"runtime tflite needs ai_edge_litert or tflite_runtime; neither can be imported: {tried}")


def find_micro(job: Job) -> Runtime:
    """Find TensorFlow Lite Micro. Raises RunnerError if it cannot be imported."""
    import importlib

    try:
        runtime = importlib.import_module("tflite_micro").runtime
    except (ImportError, AttributeError, OSError) as error:
        raise RunnerError(
            f"TensorFlow Lite Micro is tflite_micro, which cannot be imported: {error}. "
            "Type: pip install 'hwnas[micro]'"
        ) from None
    return Runtime(package_version("tflite_micro"), lambda path: micro_opened(runtime, path, job.seed))


def micro_opened(runtime: Any, path: str, seed: int) -> Opened:
    """Load a model, find the smallest arena that it runs in, and return the call: inputs set anew, and invoke.

    Its planner lays outputs over inputs. Raises ValueError, in words, for a model that it refuses.
    """
    data = Path(path).read_bytes()
    graph = runtime.convert_bytearray_to_object(data).subgraphs[0]
    interpreter = micro_interpreter(runtime, data)
    details = [interpreter.get_input_details(place) for place in range(len(graph.inputs))]
    inputs = [random_input(tuple(detail["shape"].tolist()), detail["dtype"], seed) for detail in details]

    def call() -> None:
        for place, array in enumerate(inputs):
            interpreter.set_input(array, place)
        interpreter.invoke()

    def outputs() -> list[Any]:
        return [interpreter.get_output(place) for place in range(len(graph.outputs))]

    return Opened(call, outputs, arena_bytes=smallest_arena(runtime, data, interpreter))


def micro_interpreter(runtime: Any, data: bytes) -> Any:
    """Return the interpreter of a model in a large arena. Raises ValueError, in words, for a model that it refuses."""
    with native_words() as words:
        try:
            return runtime.Interpreter.from_bytes(data, arena_size=MICRO_BYTES)
        except RuntimeError as error:
            refusal = str(error)
    if missing := missing_operators(runtime, data):
        raise ValueError(f"TensorFlow Lite Micro lacks the operators {', '.join(missing)}")
    raise ValueError(f"TensorFlow Lite Micro, which takes fp32 and int8, refuses it: {'; '.join([*words, refusal])}")


def missing_operators(runtime: Any, data: bytes) -> list[str]:
    """Return the operators of a model that TensorFlow Lite Micro lacks.

    It names the first one alone: that is taken for another one, RELU, until none is named.
    """
    import flatbuffers

    schema = runtime.schema_fb
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = runtime.convert_bytearray_to_object(data)
    missing: list[str] = []
    for _ in model.operatorCodes:
        builder = flatbuffers.Builder(len(data))
        builder.Finish(model.Pack(builder), b"TFL3")
        with native_words() as words, suppress(RuntimeError):
            runtime.Interpreter.from_bytes(bytes(builder.Output()), arena_size=MICRO_BYTES)
        named = [word.removeprefix(LACKING).strip("'") for word in words if word.startswith(LACKING)]
        if not named:
            break
        missing += named
        for code in model.operatorCodes:
            if names[runtime.get_builtin_code_from_operator_code(code)] in named:
                code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    return missing


def smallest_arena(runtime: Any, data: bytes, interpreter: Any) -> int:
    """Return the bytes of the smallest arena that a model is loaded in.

    What its planner says that it uses does not do: preparing an operator takes some more, for a while.
    """
    with native_words() as words:
        interpreter.print_allocations()
    used = next(int(line.split()[-2]) for line in words if "Arena allocation total" in line)
    small, step = used // MICRO_STEP - 1, 1  # in steps
    while small + step < MICRO_BYTES // MICRO_STEP and not fits(runtime, data, small + step):
        small, step = small + step, 2 * step
    large = small + step
    while large - small > 1:
        middle = (small + large) // 2
        small, large = (small, middle) if fits(runtime, data, middle) else (middle, large)
    return large * MICRO_STEP


def fits(runtime: Any, data: bytes, steps: int) -> bool:
    """Tell whether a model is loaded in an arena of so many steps.

    A process of its own tries: what does not fit may end it.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        runtime.Interpreter.from_bytes(data, arena_size=steps * MICRO_STEP)
        status = 0
    finally:
        os._exit(status)


@contextmanager
def native_words() -> Iterator[list[str]]:
    """Fill a list with the lines that are written to standard error meanwhile, where C++ says what is wrong."""
    words: list[str] = []
    before = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield words
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            words += filter(None, kept.read().decode(errors="replace").splitlines())


def onnx_input(info: Any, seed: int) -> Any:
    """Return a random array for one of a session's inputs."""
    names = {"tensor(float)": "float32", "tensor(double)": "float64"}
    dtype = names.get(info.type, info.type[len("tensor(") : -1])
    shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in info.shape)
    return random_input(shape, dtype, seed)


def onnx_opened(session: Any, ort: Any, seed: int) -> Opened:
    """Bind inputs and outputs once.

    `session.run` would convert each array at each call, which takes as long again as a tiny model (7 us against 3.5 us)
    and is no part of it; TFLite's invoke copies nothing either. The input lies in memory that the runtime allocated,
    whose alignment is the same in every process.
    """
    binding = session.io_binding()
    for info in session.get_inputs():
        array = onnx_input(info, seed)
        value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, "cpu")
        value.update_inplace(array)
        binding.bind_ortvalue_input(info.name, value)
    for info in session.get_outputs():
        binding.bind_output(info.name, "cpu")

    def placement() -> Event | None:
        """Return that all ran on the CPU, where nothing else may run."""
        is_cpu = session.get_providers() == ["CPUExecutionProvider"]
        return {"processor": "cpu", "delegate": "", "whole": True} if is_cpu else None

    return Opened(lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu, placement)


def onnx_options(ort: Any, threads: int) -> Any:
    """Return the session options: `threads` threads, operators one after another."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # the group's other sessions must not keep spinning beside the one that is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def find_onnx(job: Job) -> Runtime:
    """Find ONNX Runtime. Raises RunnerError if it cannot be imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its import would write into the user's cache, and send
    try:
        import onnxruntime as ort
    except (ImportError, AttributeError, OSError) as error:
        raise RunnerError(f"runtime onnx needs onnxruntime, which cannot be imported: {error}") from None

    def opened(path: str) -> Opened:
        options = onnx_options(ort, job.threads)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx_opened(session, ort, job.seed)

    return Runtime(package_version("onnxruntime"), opened)


def find_runtime(job: Job) -> Runtime:
    """Import the job's runtime. Raises RunnerError where it cannot be imported, and for an unknown one."""
    finders = {"tflite": find_micro} if job.kernels == "micro" else {"tflite": find_tflite, "onnx": find_onnx}
    if job.runtime not in finders:
        raise RunnerError(f"runtime must be one of {', '.join(sorted(finders))}; got {job.runtime!r}")
    if job.accelerator != "cpu":
        raise RunnerError(
            f"the accelerator must be cpu, as a runtime in Python is asked for nothing else; got {job.accelerator}. "
            "Name a setting for the CPU, or a phone (transport adb)"
        )
    try:
        import numpy  # noqa: F401  inputs are made with it; litert would name its own absence otherwise
    except ImportError as error:
        raise RunnerError(f"timing models needs numpy, which cannot be imported: {error}") from None
    return finders[job.runtime](job)


def package_version(module: str) -> str:
    """Return a package's name and version, as in `ai-edge-litert 2.3.0`."""
    from importlib import metadata

    name = module.replace("_", "-")
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:  # built from source, without metadata
        return f"{name} {getattr(sys.modules[module], '__version__', 'unknown')}"


# Cores: the fastest ones, and the same in every run.


def read_text(path: str) -> str:
    """Return a file of the kernel's, stripped; empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def read_texts(folder: str, pattern: str) -> list[str]:
    """Return the kernel's files in a folder that match a pattern; none where they cannot be listed."""
    try:
        return [read_text(str(path)) for path in Path(folder).glob(pattern)]
    except OSError:  # too many open files
        return []


def cpu_text(core: int, name: str) -> str:
    """Return a file from /sys/devices/system/cpu/cpuN; empty where there is none."""
    return read_text(f"/sys/devices/system/cpu/cpu{core}/{name}")


def cpu_number(core: int, name: str) -> float:
    """Return a number from /sys/devices/system/cpu/cpuN, 0 where it is not told."""
    text = cpu_text(core, name)
    return float(text) if text.isdigit() else 0.0


def choose_cores(allowed: set[int], threads: int) -> list[int]:
    """Return `threads` of the allowed cores: fast ones first, no two threads of one core, high numbers.

    Low numbers serve the interrupts.
    """
    ranked = sorted(
        allowed,
        key=lambda core: (cpu_number(core, "cpu_capacity"), cpu_number(core, "cpufreq/cpuinfo_max_freq"), core),
        reverse=True,
    )
    seen: set[str] = set()
    first: list[int] = []
    second: list[int] = []
    for core in ranked:
        siblings = cpu_text(core, "topology/thread_siblings_list") or str(core)
        (second if siblings in seen else first).append(core)
        seen.add(siblings)
    return sorted((first + second)[:threads])


def pin(job: Job) -> list[int] | None:
    """Keep this process on the job's cores, or on chosen ones; returns them, None where the system cannot.

    Raises RunnerError where the job names cores that it may not use.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, job.cores or choose_cores(allowed, job.threads))
    except OSError as error:
        if job.cores:
            raise RunnerError(f"cores must be some of {sorted(allowed)}; got {job.cores}: {error}") from None
        return None
    return sorted(os.sched_getaffinity(0))


# Conditions: what a measurement depends on.


def cpu_name() -> str:
    """Return the processor's name: what distinguishes it from others that might carry the same table."""
    lines = [line.partition(":") for line in read_text("/proc/cpuinfo").splitlines()]
    pairs = [(key.strip(), value.strip()) for key, _, value in lines]
    last = dict(pairs)
    if "model name" in last and "cpu family" in last:  # x86; a virtual machine's name alone may say little
        return f"{last['model name']} ({last['cpu family']}-{last.get('model')}-{last.get('stepping')})"
    board = read_text("/proc/device-tree/model") or last.get("Hardware", "")
    implementer = last.get("CPU implementer", "")
    parts = sorted({f"{implementer}/{value}" for key, value in pairs if key == "CPU part"})
    return " ".join(filter(None, [board, *parts])) or platform.processor() or platform.machine()


def all_cores() -> list[int]:
    """Return the machine's cores."""
    return list(range(os.cpu_count() or 1))


def frequencies_mhz(cores: list[int]) -> list[float]:
    """Return the cores' present frequencies; empty where the system does not tell."""
    found = [cpu_number(core, "cpufreq/scaling_cur_freq") / 1e3 for core in cores]
    if not any(found):
        lines = read_text("/proc/cpuinfo").splitlines()
        listed = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        found = [listed[core] for core in cores if core < len(listed)]
    return [round(value, 1) for value in found if value]


def temperature_c() -> float | None:
    """Return the hottest sensor's temperature; None where the system does not tell."""
    texts = read_texts("/sys/class/thermal", "thermal_zone*/temp")
    degrees = [int(text) / 1e3 for text in texts if text.isdigit()]
    return max((value for value in degrees if 0 < value < 150), default=None)


def throttling(cores: list[int]) -> Event:
    """Return what the system tells of throttling; None for each thing that it does not tell.

    `throttle_count` is how often the kernel throttled the cores since boot (Intel), `clock_limit` the highest clock
    that it allows them now as a share of what they can, `firmware_flags` a Raspberry Pi's: bits 0 to 3 are
    FIRMWARE_FLAGS now, bits 16 to 19 the same since boot.
    """
    counts = [cpu_text(core, "thermal_throttle/core_throttle_count") for core in cores]
    limits = [
        cpu_number(core, "cpufreq/scaling_max_freq") / most
        for core in cores
        if (most := cpu_number(core, "cpufreq/cpuinfo_max_freq"))
    ]
    return {
        "throttle_count": sum(int(text) for text in counts if text.isdigit()) if any(counts) else None,
        "clock_limit": min((round(limit, 3) for limit in limits if limit), default=None),
        "firmware_flags": firmware_flags(),
    }


def firmware_flags() -> int | None:
    """Return a Raspberry Pi's flags, from the kernel or, where that has not got them, from `vcgencmd`."""
    told = "".join(read_texts("/sys/devices/platform", "soc*/*firmware/get_throttled"))
    command = shutil.which("vcgencmd")
    try:
        if not told and command:
            asked = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=5, check=True)
            told = asked.stdout.partition("=")[2]
        return int(told, 16)
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: there is nothing
        return None


class PeakMemory:
    """How much more memory this process takes, at its peak, than when this was made; Linux only."""

    def __init__(self) -> None:
        give_back_memory()
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is the present size from now on
            self.start = memory_bytes("VmRSS")
        except OSError:
            self.start = None

    def peak_bytes(self) -> int | None:
        """Return the peak so far; None where the system does not tell."""
        peak = memory_bytes("VmHWM")
        return None if self.start is None or peak is None else max(0, peak - self.start)


def give_back_memory() -> None:
    """Return freed memory to the system, in which a model would else be loaded without a trace; glibc only."""
    if sys.platform != "linux":
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def memory_bytes(name: str) -> int | None:
    """Return a size of this process that /proc/self/status has in KiB."""
    for line in read_text("/proc/self/status").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def busy_s() -> float | None:
    """Return the seconds for which the machine's cores have worked; None where the system does not tell."""
    numbers = read_text("/proc/stat").partition("\n")[0].split()[1:]
    if len(numbers) < 8:
        return None
    user, nice, kernel, _, _, irq, softirq, steal = map(int, numbers[:8])
    return (user + nice + kernel + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Others:
    """How much of the machine other processes take: even on other cores they slow a model by a fifth or more."""

    def __init__(self) -> None:
        self.start = (time.perf_counter(), busy_s(), time.process_time())

    def share(self) -> float | None:
        """Return the share of all cores' time that others took since the start; None where the system does not tell."""
        wall, busy, own = self.start
        now = busy_s()
        if now is None or busy is None:
            return None
        total = (time.perf_counter() - wall) * (os.cpu_count() or 1)
        return round(min(1.0, max(0.0, now - busy - (time.process_time() - own)) / total), 2)


def conditions(job: Job, runtime: Runtime, *, pinned: list[int] | None, others: Others) -> Event:
    """Return what the measurements depend on, as it is now."""
    import numpy

    cores = pinned or all_cores()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
        "runtime": job.runtime,
        "runtime_version": runtime.package,
        "threads": job.threads,
        "pinned": pinned,
        "governor": cpu_text(cores[0], "cpufreq/scaling_governor") or None,
        "frequency_mhz": frequencies_mhz(cores),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "others_busy": others.share(),
        "temperature_c": temperature_c(),
        **throttling(cores),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


# The process.


def watch(descriptor: int = 0) -> None:
    """End the process when standard input closes."""
    try:
        while os.read(descriptor, 4096):
            pass
    finally:
        os._exit(ORPHANED)


def run(path: str, emit: Callable[[Event], None]) -> int:
    """Do the job of a file; returns the exit status."""
    others = Others()
    try:
        job = read_job(path)
        pinned = pin(job)  # before the runtime starts its threads, which inherit it
        runtime = find_runtime(job)
    except RunnerError as error:
        emit({"error": str(error)})
        return IMPOSSIBLE
    emit({"conditions": conditions(job, runtime, pinned=pinned, others=others)})
    patience = Patience(job, throttling=lambda: throttling(pinned or all_cores()))
    gc.disable()
    timed = time_models(job, runtime.open, patience, core_clock(job.threads))
    for event in compute_models(job, runtime.open) if job.outputs else timed:
        emit(event)
    now = conditions(job, runtime, pinned=pinned, others=others)
    emit({"end": len(job.models), "conditions": now, "pace": patience.pace})
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit status."""
    paths = [argument for argument in arguments if argument != "--no-watch"]
    if len(paths) != 1:
        print("usage: runner.py JOB.json [--no-watch]", file=sys.stderr)
        return 2
    if "--no-watch" not in arguments:
        threading.Thread(target=watch, daemon=True).start()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy only makes inputs here
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on it would send in the background, while we time
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints must not come between the lines

    def emit(event: Event) -> None:
        print(json.dumps(event, separators=(",", ":")), file=lines, flush=True)

    return run(paths[0], emit)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a runtime that crashes on its way out cannot spoil what it has done
