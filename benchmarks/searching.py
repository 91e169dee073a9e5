"""What a trial of `hwnas search` costs apart from its training, from 100 to 10,000 trials, beside an older commit.

The space is `pnas` with a pretended latency table; the estimator is `size` and latencies are predicted, so nothing is
trained and no device is asked: what is left is choosing, predicting and keeping. A case is a process of its own, with
its journal in --folder; with --before, the working tree of an older commit, each is followed by the same one there.
Means are over the whole search but for its start: until the first trial is told, which takes whatever is imported then.
What a trial costs in a study of N is the mean of the last ones; on a machine that does other things, the processor's
time says more. Of two workers the peak is of the larger process, and neither that time nor fsync is counted. A case
that takes longer than --limit-s, or more memory than --most-gib, is ended and says how far it came (`ended`). What was
measured is kept in --out; called again, the rest is.

    python benchmarks/searching.py [--quick] [--before PATH | --only-before PATH] [--strategies A,B] [--trials N,M]
                                   [--workers 1,2] [--folder F] [--out F] [--limit-s S] [--most-gib G]
                                   [--cells N,M] [--filters F,G]

The last line is one JSON object: {"STRATEGY/TRIALS[/WORKERS]": {"ms_a_trial", "ms_at_end", "cpu_ms_a_trial",
"cpu_ms_at_end", "longest_ms", "start_s", "result_s", "fsyncs_a_trial", "fsync_ms_a_trial", "trained", "left_out",
"seconds", "peak_mib", "journal_bytes_a_trial", "ended", "commit", "before_ms_a_trial", ...}}; null: not known.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

STRATEGIES = "random,evolution,progressive"
CAP_MS = 2.0  # every cell fits it at the smallest scale, most of them at 0.4 of it
LAST = 100  # trials, and a quarter of all at most, of which `ms_at_end` is the mean
NETWORKS = 32  # that were timed: as many as `hwnas profile` times
MARK_EVERY_S = 1.0  # a case keeps how far it has come
OURS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """A search: all that a process needs to know of it."""

    strategy: str
    trials: int
    workers: int
    cells: tuple[int, ...]
    filters: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.strategy}/{self.trials}" + (f"/{self.workers}" if self.workers > 1 else "")


@dataclass(slots=True)
class Course:
    """How a search went: how many were trained when.

    A mark is that number, the seconds since `began`, a time of the system's clock, and the processor's seconds.
    """

    path: Path
    every: int  # of the marks, such are kept
    began: float = 0.0
    marks: list[tuple[int, float, float]] = field(default_factory=list)
    longest_s: float = 0.0  # from one to the next, the start left out
    further: dict[str, Any] = field(default_factory=dict)
    _kept: float = 0.0

    def begin(self) -> None:
        self.began = time.monotonic()
        self.mark(0)

    def mark(self, trained: int) -> None:
        now = time.monotonic() - self.began
        if self.marks and trained == self.marks[-1][0]:
            return
        if len(self.marks) > 1:
            self.longest_s = max(self.longest_s, now - self.marks[-1][1])
        self.marks.append((trained, now, time.process_time()))
        if now - self._kept > MARK_EVERY_S or not trained:
            self._kept = now
            self.keep()

    def keep(self) -> None:
        """Write it down; of the marks only few, with the first ones and the latest."""
        few = {mark[0] // self.every: mark for mark in reversed(self.marks)}
        marks = sorted({*few.values(), *self.marks[:2], self.marks[-1]})
        content = {"began": self.began, "marks": marks, "longest_s": self.longest_s, **self.further}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(content))
        temporary.replace(self.path)


def main() -> None:
    options = arguments()
    if options.case:
        search(Case(**json.loads(options.case)), Path(options.out), most_gib=options.most_gib)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder.absolute()
        out = (options.out or folder / "searching.json").absolute()
        known = read(out)
        sources = {"before_": options.only_before} if options.only_before else {"": OURS, "before_": options.before}
        for case in cases(options):
            for side, source in sources.items():
                record = known.setdefault(case.name, {})
                if source is None or has(record, side, case):
                    continue
                pretend(folder, case.cells, case.filters)
                found = measure(case, source, folder, limit_s=options.limit_s, most_gib=options.most_gib)
                record |= {f"{side}{name}": value for name, value in found.items()} | {"scales": scales(case)}
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(known, indent=1) + "\n")
                print(f"{side}{case.name}: {json.dumps(found)}", file=sys.stderr)
    print(table(known))
    print(json.dumps(known))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 and 40 trials, one worker: about a minute")
    parser.add_argument("--before", type=existing, help="the working tree of an older commit, measured beside ours")
    parser.add_argument("--only-before", type=existing, help="the same, without ours")
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--trials", default="100,1000,3000,10000")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--folder", type=Path, default=Path("runs/searching"))
    parser.add_argument("--out", type=Path, help="JSON; without it: searching.json in the folder")
    parser.add_argument("--limit-s", type=float, default=600.0, help="seconds a case, its imports included")
    parser.add_argument("--most-gib", type=float, default=12.0, help="address space of a process of a case")
    parser.add_argument("--cells", default="1", help="N of the scales; those of `hwnas search` are 1,2")
    parser.add_argument("--filters", default="4,6", help="F; those of `hwnas search` are 4,6,8,12,16,20,24,28,32")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.trials, options.workers = "20,40", "1"
    return options


def existing(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "hwnas" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"it must be a working tree of hwnas; got {text}")
    return path


def whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def cases(options: argparse.Namespace) -> list[Case]:
    """Return what is asked for, the short ones first."""
    cells, filters = whole_numbers(options.cells), whole_numbers(options.filters)
    return [
        Case(strategy, trials, workers, cells, filters)
        for trials in whole_numbers(options.trials)
        for workers in whole_numbers(options.workers)
        for strategy in options.strategies.split(",")
    ]


def read(out: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    return known


def scales(case: Case) -> str:
    return f"N={case.cells} F={case.filters}"


def has(record: dict[str, Any], side: str, case: Case) -> bool:
    """Say whether a case was measured; it must have been at these scales."""
    if record and record["scales"] != scales(case):
        raise SystemExit(f"{case.name} was measured at {record['scales']}; take another --out for {scales(case)}")
    return f"{side}ms_a_trial" in record


def pretend(folder: Path, cells: tuple[int, ...], filters: tuple[int, ...]) -> None:
    """Write tiny images and a latency table of the host, by formula, unless they are there."""
    from hwnas import formats
    from hwnas.device import Setting
    from hwnas.latency import LatencyTable, Measurement, TimedNetwork
    from hwnas.latency.conditions import Conditions
    from hwnas.latency.profiling import random_networks
    from hwnas.network import executed, ladder, layer_mult_adds
    from hwnas.spaces import pnas

    made_for, known = f"{cells} {filters}\n", folder / "scales.txt"
    if known.exists() and known.read_text() == made_for:
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    images = {name: random.integers(0, 255, (60, 8, 8)).astype(np.uint8) for name in ("x_train", "x_test")}
    np.savez(folder / "images.npz", **images, y_train=np.arange(60) % 3, y_test=np.arange(60) % 3)
    path = folder / "latency_tables" / "host" / "tflite-fp32-1t.json"
    table = LatencyTable(path, "host", Setting(runtime="tflite"), Conditions())
    lower = formats.get("tflite").lower
    rungs = ladder(cells, filters, (8,), classes=3, channels=1)
    for graph in (lower(architecture.graph) for rung in rungs for architecture in pnas.cover(rung)):
        for name, layer, shapes in executed(graph):
            ms = (0.002 + layer_mult_adds(layer, shapes) / 1e6) * (0.5 + chance(name))
            table.entries[name] = Measurement(((ms,),))
    for network in random_networks("pnas", rungs, NETWORKS, seed=0):
        alone = sum(table.ms(name) for name, _, _ in executed(lower(network.graph)))
        ms = 0.01 + 1.1 * alone * (0.95 + 0.1 * chance(network.choice))
        table.networks.append(TimedNetwork(network, Measurement(((ms,),))))
    table.save()
    known.write_text(made_for)


def chance(text: str) -> float:
    """Return a share that depends on a text alone."""
    return zlib.crc32(text.encode()) / 2**32


def measure(case: Case, source: Path, folder: Path, *, limit_s: float, most_gib: float) -> dict[str, Any]:
    """Search in a process that imports hwnas from `source`; return the figures."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="case-") as temporary:
        course = Path(temporary) / "course.json"
        script = [sys.executable, str(Path(__file__).resolve()), "--case", json.dumps(asdict(case))]
        script += ["--out", str(course), "--most-gib", str(most_gib)]
        environment = {**os.environ, "PYTHONPATH": str(source)}
        with (folder / "log.txt").open("w") as log:
            process = subprocess.Popen(
                script, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            ended, usage = finish(process, limit_s)
        now = time.monotonic()
        if ended == "failed":
            ended = f"failed: {(folder / 'log.txt').read_text().splitlines()[-1]}"
        went = json.loads(course.read_text()) if course.exists() else {}
        if not went:
            raise SystemExit(f"{case.name} did not begin; {ended}")
        found = figures(went, until=went.get("seconds", now - went["began"]), alone=case.workers == 1)
        kept = [path for path in Path(temporary, "run").rglob("*") if path.is_file() and path.name != "settings.json"]
        stored = sum(path.stat().st_size for path in kept)
        return found | {
            "peak_mib": round(usage.ru_maxrss / 1024),
            "journal_bytes_a_trial": round(stored / max(1, found["trained"])),
            "ended": ended or went["ended"],
            "commit": commit(source),
        }


def finish(process: "subprocess.Popen[bytes]", limit_s: float) -> tuple[str, resource.struct_rusage]:
    """Wait for a process, no longer than that, with what it started; return why it ended early, and what it used."""
    deadline, ended = time.monotonic() + limit_s, ""
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            process.returncode = os.waitstatus_to_exitcode(status)
            return ended or ("failed" if process.returncode else ""), usage
        if not ended and time.monotonic() > deadline:
            ended = "over the limit"
            os.killpg(process.pid, signal.SIGKILL)  # workers end when it does
        time.sleep(0.05)


def figures(went: dict[str, Any], *, until: float, alone: bool) -> dict[str, Any]:
    """Return what a search's course comes to, `until` so many seconds after it began, in one process or several."""
    marks = went["marks"]
    latest, latest_s, latest_cpu_s = marks[-1]
    trained = went.get("trained", latest)
    first, first_s, first_cpu_s = marks[min(1, len(marks) - 1)]
    least = max(first, trained - min(LAST, trained // 4))
    before, before_s, before_cpu_s = max(mark for mark in marks if mark[0] <= least)
    fsyncs = went.get("fsyncs")
    return {
        "ms_a_trial": each(until - first_s, trained - first),
        "ms_at_end": each(until - before_s, trained - before),
        "cpu_ms_a_trial": each(latest_cpu_s - first_cpu_s, latest - first) if alone else None,
        "cpu_ms_at_end": each(latest_cpu_s - before_cpu_s, latest - before) if alone else None,
        "longest_ms": round(1e3 * max(went["longest_s"], until - latest_s)),
        "start_s": round(first_s, 2),
        "result_s": went.get("result_s"),
        "fsyncs_a_trial": None if fsyncs is None else round(fsyncs / max(1, trained), 1),
        "fsync_ms_a_trial": None if fsyncs is None else round(1e3 * went["fsync_s"] / max(1, trained), 2),
        "trained": trained,
        "left_out": went.get("left_out"),
        "seconds": round(until, 1),
    }


def each(seconds: float, trials: int) -> float | None:
    return round(1e3 * seconds / trials, 2) if trials else None


def commit(source: Path) -> str:
    """Return which commit a working tree is of, and whether it was changed since."""
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def search_class() -> Any:
    """Return the class whose `run(workers, on_trained)` is timed: where it is now, or where it was before."""
    try:
        from hwnas.searching import Search
    except ModuleNotFoundError:
        from hwnas.trials import Search
    return Search


def search(case: Case, path: Path, *, most_gib: float) -> None:
    """Be the process of a case: search in the folder beside `path`, and keep there how it goes."""
    resource.setrlimit(resource.RLIMIT_AS, (int(most_gib * 2**30),) * 2)  # workers inherit it
    course = Course(path, every=max(1, case.trials // 100))
    count_fsyncs(course, counts=case.workers == 1)
    import hwnas

    source = Path(os.environ["PYTHONPATH"])
    if source not in Path(hwnas.__file__).parents:
        raise SystemExit(f"hwnas must be imported from {source}; it is {hwnas.__file__}")
    time_search(search_class(), course)
    result = hwnas.search(
        out=str(path.parent / "run"),
        max_latency_ms=CAP_MS,
        data="npz:images.npz",
        cells=case.cells,
        filters=case.filters,
        strategy=case.strategy,
        estimator="size",
        predicted=True,
        trials=case.trials,
        workers=case.workers,
    )
    seconds = course.further["seconds"]
    course.further |= {
        "result_s": round(time.monotonic() - course.began - seconds, 3),
        "trained": result.trained,
        "left_out": result.left_out,
        "ended": result.ended,
    }
    course.keep()


def count_fsyncs(course: Course, *, counts: bool) -> None:
    """Count this process's calls of fsync and fdatasync from now on, and how long they take."""
    if not counts:
        return
    course.further |= {"fsyncs": 0, "fsync_s": 0.0}

    def counted(original: Callable[[Any], None]) -> Callable[[Any], None]:
        def sync(file: Any) -> None:
            began = time.perf_counter()
            original(file)
            course.further["fsyncs"] += 1
            course.further["fsync_s"] += time.perf_counter() - began

        return sync

    os.fsync, os.fdatasync = counted(os.fsync), counted(os.fdatasync)


def time_search(searching: Any, course: Course) -> None:
    """Let every search mark its course."""
    run = searching.run

    def timed(self: Any, workers: int, on_trained: Callable[[int], None]) -> None:
        def mark(trained: int) -> None:
            course.mark(trained)
            on_trained(trained)

        course.begin()
        run(self, workers, mark)
        course.further["seconds"] = time.monotonic() - course.began
        course.keep()

    searching.run = timed


COLUMNS = {  # of the printed table, by the figure's name
    "ms_a_trial": "ms a trial",
    "ms_at_end": "at the end",
    "cpu_ms_a_trial": "cpu ms",
    "cpu_ms_at_end": "at the end",
    "longest_ms": "longest ms",
    "peak_mib": "peak MiB",
    "journal_bytes_a_trial": "bytes",
    "fsyncs_a_trial": "fsyncs",
    "fsync_ms_a_trial": "their ms",
    "trained": "trained",
}


def table(known: dict[str, Any]) -> str:
    """Return the figures as lines, those of before below ours."""
    width = 2 + max((len(name) for name in known), default=0)
    lines = [" " * (width + 8) + "".join(f"{title:>12}" for title in COLUMNS.values())]
    for name, record in known.items():
        for side, label in (("", "now"), ("before_", "before")):
            if f"{side}ms_a_trial" in record:
                values = ["-" if (value := record.get(f"{side}{key}")) is None else f"{value:,}" for key in COLUMNS]
                ended = record[f"{side}ended"]
                lines.append(f"{name:{width}}{label:8}" + "".join(f"{value:>12}" for value in values) + f"  {ended}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
