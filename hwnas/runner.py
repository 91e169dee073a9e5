"""The one file that goes to a device and times models there: `python runner.py JOB.json [--no-watch]`.

It needs Python 3.9, numpy and the runtime, not hwnas: hence one file, however long. The job file is a `Job` as JSON;
what comes back on standard output is one JSON object a line:

    {"conditions": {...}}                                first: the machine, the runtime, the load, the clock, the heat
    {"name": "a", "rounds_ms": [[...], ...], "canary_ms": [...], "attempts": 1, "unstable": false, "load_ms": 3.1,
     "first_ms": 0.4}
    {"name": "b", "error": "ValueError: ..."}            a model that cannot be loaded or run; the others go on
    {"end": 2, "conditions": {...}}                      last: without it the run was cut short
    {"error": "..."}                                     the whole run is impossible; exit status 3

A model's line comes as soon as it is final. Models are taken in groups; in each round every model of a group has its
turn, in an order drawn anew, so that drift does not land on one of them. A turn first discards calls, until two calls
and `warmup_ms` are over, then times at least `min_calls` calls and `min_ms`. Each sample is one call, in ms. A
model whose rounds disagree by more than `max_spread` is measured again together with the group's other such models,
`attempts` times in all; the attempt with the smallest spread is kept.

A job may name a canary: one more model, which has a turn before and after every few turns of the others. Its median in
a round says how fast the device was in that round: `canary_ms` has one figure for each round. Rounds are compared, for
the spread, as multiples of it.

The process ends when its standard input closes, so that none is left behind when the client dies; `--no-watch` is for
runs without a client (`nohup`), whose standard input is closed from the start.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1
MAX_CALLS = 2000  # in a turn, discarded and timed each: a bound should the clock stand still
KEPT = 25  # samples a turn at most
FLOOR_MS = 0.001  # rounds that differ by less never count as disagreeing
IMPOSSIBLE = 3  # exit status
ORPHANED = 4  # exit status: standard input was closed

Call = Callable[[], object]
Load = Callable[[str], Call]
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
    cores: list[int] | None = None  # to run on; None: chosen here
    group: int = 32  # models loaded at a time
    rounds: int = 6
    min_calls: int = 5
    min_ms: float = 2.0
    warmup_ms: float = 2.0
    max_spread: float = 0.1
    attempts: int = 3
    seed: int = 0
    canary: str | None = None  # a model's path
    canary_every: int = 8  # turns
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
        keys = ("name", "rounds_ms", "canary_ms", "attempts", "unstable", "load_ms", "first_ms")
        return {key: getattr(self, key) for key in keys}


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


def time_turn(call: Call, job: Job, clock: Clock) -> list[float]:
    """Return one model's samples of one round, in ms: discards the warm-up's calls, then times."""
    warm = clock() + job.warmup_ms * 1e6
    for discarded in range(MAX_CALLS):
        if discarded >= 2 and clock() >= warm:
            break
        call()
    samples: list[int] = []
    total = 0
    while len(samples) < job.min_calls or (total < job.min_ms * 1e6 and len(samples) < MAX_CALLS):
        start = clock()
        call()
        samples.append(max(1, clock() - start))
        total += samples[-1]
    return thin([round(sample / 1e6, 6) for sample in samples])


def time_rounds(
    models: list[Model],
    job: Job,
    *,
    order: random.Random,
    turn: Turn,
    canary: Call | None = None,
    failures: type[Exception] = Exception,  # the runtimes' errors have no other base in common
) -> Iterator[Event]:
    """Offer each model one attempt: `job.rounds` interleaved rounds. Yields the lines of models that fail."""
    taken: dict[str, list[list[float]]] = {model.name: [] for model in models}
    canary_ms: list[float] = []
    for _ in range(job.rounds):
        turns = [model for model in models if model.name in taken]
        order.shuffle(turns)
        canaries: list[float] = []
        for index, model in enumerate(turns):
            if canary and index % job.canary_every == 0:
                canaries += turn(canary)
            try:
                taken[model.name].append(turn(model.call))
            except failures as error:
                del taken[model.name]
                yield failure(model.name, error)
        if canary:
            canary_ms.append(statistics.median(canaries + turn(canary)))
    for model in models:
        if model.name in taken:
            model.offer(taken[model.name], canary_ms, job.max_spread)


def time_group(
    loaded: list[Model],
    job: Job,
    *,
    order: random.Random,
    turn: Turn,
    canary: Call | None = None,
    failures: type[Exception] = Exception,
) -> Iterator[Event]:
    """Yield the line of each model of a group as soon as it is final."""
    left = loaded
    for attempt in range(1, job.attempts + 1):
        yield from time_rounds(left, job, order=order, turn=turn, canary=canary, failures=failures)
        left = [model for model in left if model.attempts == attempt]  # without those that failed
        last = attempt == job.attempts
        yield from (model.event() for model in left if last or not model.unstable)
        left = [model for model in left if model.unstable]


def load_group(models: list[dict[str, str]], loaded: list[Model], *, load: Load, clock: Clock) -> Iterator[Event]:
    """Fill `loaded`. Yields the lines of models that cannot be loaded or run."""
    for model in models:
        print("loading", model["name"], file=sys.stderr)  # the last words, should the runtime crash on it
        try:
            start = clock()
            call = load(model["path"])
            ready = clock()
            call()
            done = clock()
        except Exception as error:  # noqa: BLE001  see time_rounds
            yield failure(model["name"], error)
        else:
            loaded.append(Model(model["name"], call, (ready - start) / 1e6, (done - ready) / 1e6))


def time_models(job: Job, load: Load, *, clock: Clock = time.perf_counter_ns) -> Iterator[Event]:
    """Yield a line per model, group by group; `load` makes a model's file a call without arguments."""
    order = random.Random(job.seed)
    canary = load(job.canary) if job.canary else None
    for start in range(0, len(job.models), job.group):
        loaded: list[Model] = []
        yield from load_group(job.models[start : start + job.group], loaded, load=load, clock=clock)
        yield from time_group(loaded, job, order=order, turn=lambda call: time_turn(call, job, clock), canary=canary)
        loaded.clear()
        gc.collect()  # which is off while models are timed


def failure(name: str, error: Exception) -> Event:
    """Return the line of a model that cannot be loaded or run."""
    return {"name": name, "error": f"{type(error).__name__}: {error}"[:1000]}


# Runtimes: each makes a model's file a call that runs it once and does nothing else.


@dataclass(frozen=True)
class Runtime:
    """A runtime that is installed here: which package it is, and how a model is loaded with it."""

    package: str  # and version
    load: Load


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


def tflite_call(interpreter: Any, seed: int) -> Call:
    """Allocate, fill the inputs once (TFLite never writes over them) and return the call: invoke alone."""
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        shape = tuple(int(size) for size in detail["shape"])  # a dynamic batch is already 1 here
        interpreter.set_tensor(detail["index"], random_input(shape, detail["dtype"], seed))
    invoke: Call = interpreter.invoke
    return invoke


def find_tflite(job: Job) -> Runtime:
    """Find LiteRT or its predecessor. Raises RunnerError if neither can be imported."""
    import importlib

    tried = []
    for package in ("ai_edge_litert", "tflite_runtime"):
        try:
            interpreter = importlib.import_module(f"{package}.interpreter").Interpreter
        except (ImportError, AttributeError, OSError) as error:
            tried.append(f"{package} ({error})")
            continue

        def load(path: str, create: Any = interpreter) -> Call:
            return tflite_call(create(model_path=path, num_threads=job.threads), job.seed)

        return Runtime(package_version(package), load)
    raise RunnerError(f"runtime tflite needs ai_edge_litert or tflite_runtime; neither can be imported: {tried}")


def onnx_input(info: Any, seed: int) -> Any:
    """Return a random array for one of a session's inputs."""
    names = {"tensor(float)": "float32", "tensor(double)": "float64"}
    dtype = names.get(info.type, info.type[len("tensor(") : -1])
    shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in info.shape)
    return random_input(shape, dtype, seed)


def onnx_call(session: Any, ort: Any, seed: int) -> Call:
    """Bind inputs and outputs once and return the call.

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
    return lambda: session.run_with_iobinding(binding)


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
    try:
        import onnxruntime as ort
    except (ImportError, AttributeError, OSError) as error:
        raise RunnerError(f"runtime onnx needs onnxruntime, which cannot be imported: {error}") from None

    def load(path: str) -> Call:
        options = onnx_options(ort, job.threads)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return onnx_call(session, ort, job.seed)

    return Runtime(package_version("onnxruntime"), load)


def find_runtime(job: Job) -> Runtime:
    """Import the job's runtime. Raises RunnerError where it cannot be imported, and for an unknown one."""
    finders = {"tflite": find_tflite, "onnx": find_onnx}
    if job.runtime not in finders:
        raise RunnerError(f"runtime must be one of {', '.join(sorted(finders))}; got {job.runtime!r}")
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


def cpu_number(core: int, name: str) -> float:
    """Return a number from /sys/devices/system/cpu/cpuN, 0 where it is not told."""
    text = read_text(f"/sys/devices/system/cpu/cpu{core}/{name}")
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
        siblings = read_text(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list") or str(core)
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
    texts = [read_text(str(path)) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(text) / 1e3 for text in texts if text.isdigit()]
    return max((value for value in degrees if 0 < value < 150), default=None)


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

    cores = pinned or list(range(os.cpu_count() or 1))
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "arch": platform.machine(),
        "runtime": job.runtime,
        "runtime_version": runtime.package,
        "threads": job.threads,
        "pinned": pinned,
        "governor": read_text(f"/sys/devices/system/cpu/cpu{cores[0]}/cpufreq/scaling_governor") or None,
        "frequency_mhz": frequencies_mhz(cores),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "others_busy": others.share(),
        "temperature_c": temperature_c(),
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
    gc.disable()
    for event in time_models(job, runtime.load):
        emit(event)
    emit({"end": len(job.models), "conditions": conditions(job, runtime, pinned=pinned, others=others)})
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
