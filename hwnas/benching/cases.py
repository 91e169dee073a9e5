"""Strategies beside each other on a table of known results: the runs, resumable, and what they come to."""

import csv
import hashlib
import json
import math
import os
import signal
import statistics
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.benching.table_search import TableRun, search_table
from hwnas.errors import HwnasError, InputError, short
from hwnas.support import MIB, bar, held, read_json, reasons, write_bytes, write_json, write_text

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from pydantic import TypeAdapter

    from hwnas.benching.results import Curves, Results, ResultsCandidates

_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # the numbers of evaluations that are written out
_MOST_BYTES = 256 * MIB  # of a run: a million evaluations have 20
_ASKS = {"median", "p95", "max"}
_AGAIN = "Delete it and type the same command again"
_COLUMNS = "strategy,cap,seed,evaluations,proposals,row,best_seen,regret_seen,regret,hypervolume,ask_ms,ended"


@dataclass(frozen=True, slots=True)
class Settings:
    """What all runs in a folder have in common."""

    table: str
    sha256: str  # of the table's file
    choices: tuple[str, ...]
    accuracy: tuple[str, ...]
    latency: str
    costs: tuple[str, ...]
    evaluations: int
    version: int = 1

    def read(self) -> "Results":
        """Return the table."""
        from hwnas.benching.results import Results

        return Results.read(
            self.table, choices=self.choices, accuracy=self.accuracy, latency=self.latency, costs=self.costs
        )


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """A run that is wanted."""

    strategy: str
    cap: float
    seed: int

    def path(self, out: Path) -> Path:
        """Return where its result is kept."""
        return out / "runs" / f"{self.strategy}_{self.cap!r}_{self.seed}.json"


@dataclass(frozen=True, slots=True)
class Medians:
    """Over the seeds; regrets in percentage points. None where half of the runs had evaluated nothing."""

    regret: float | None
    regret_seen: float | None
    hypervolume: float | None


@dataclass(frozen=True, slots=True)
class Compared:
    """A strategy under a cap: the medians after so many evaluations, or after so many proposals, rejected ones too."""

    strategy: str
    cap: float
    runs: int
    evaluations: dict[str, Medians]
    proposals: dict[str, Medians]
    ask_ms: dict[str, float]
    ended: dict[str, int]  # how many runs ended early, by why


@dataclass(frozen=True, slots=True)
class Cap:
    """What there is under a cap; accuracies in per cent. `floor` is the regret of the network that looks best."""

    cap: float
    candidates: int
    best: float
    best_seen: float
    floor: float


@dataclass(frozen=True, slots=True)
class Benched:
    """A comparison, which is also what summary.json holds."""

    out: str
    left_out: int  # rows of the table
    caps: list[Cap]
    compared: list[Compared]


@lru_cache(maxsize=1)
def results_of(settings: Settings) -> "Results":
    """Return the table of a comparison, whose content must be as when it was begun."""
    return settings.read()


@lru_cache
def candidates_of(settings: Settings, cap: float) -> "ResultsCandidates":
    """Return the networks under a cap."""
    from hwnas.benching.results import ResultsCandidates

    return ResultsCandidates.under(results_of(settings), cap)


def sha256_of(table: str) -> str:
    """Return the hash of a table's file; raises InputError where it cannot be read."""
    try:
        return hashlib.sha256(Path(table).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"--table must be a CSV file that can be read; got {table}: {error.strerror}") from None


def start(out: Path, settings: Settings) -> None:
    """Write what is common to all runs; raises InputError where the folder has runs of something else."""
    path, wanted = out / "settings.json", json.loads(json.dumps(asdict(settings)))
    if not path.exists():
        write_json(path, wanted)
    kept = read_json(path, what="a comparison's settings")
    if not isinstance(kept, dict):
        raise InputError(f"{path} must be a comparison's settings; got {type(kept).__name__}. Take another --out")
    for name in wanted.keys() - {"table"}:  # which may have moved
        if kept.get(name) != wanted[name]:
            raise InputError(
                f"the runs of a folder must be alike; {out} has {name} {short(kept.get(name))}, wanted is "
                f"{wanted[name]!r}. "
                "Take another --out"
            )


def do_all(out: Path, settings: Settings, cases: Sequence[Case], *, jobs: int) -> None:
    """Do the runs that are not done; each is kept as it ends."""
    wanted = [case for case in cases if not case.path(out).exists()]
    jobs = min(jobs, len(wanted))
    ends = _in_processes(out, settings, wanted, jobs=jobs) if jobs > 1 else _here(out, settings, wanted)
    with bar("comparing", len(wanted)) as comparing, closing(ends):  # at once, also where this one is stopped
        for _ in ends:
            comparing.advance()


def _here(out: Path, settings: Settings, cases: Sequence[Case]) -> Generator[None, None, None]:
    for case in cases:
        _do(out, settings, case)
        yield


def _in_processes(out: Path, settings: Settings, cases: Sequence[Case], *, jobs: int) -> Generator[None, None, None]:
    """Do runs in processes of their own, which end at once where this one is stopped."""
    import multiprocessing
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    others = set(multiprocessing.active_children())
    with ExitStack() as stack:
        with held():  # a stop between the two would leave the semaphores
            pool = stack.enter_context(_pool(jobs))
        try:
            with held(), _ctrl_c_blocked():
                runs = [pool.submit(_do, out, settings, case) for case in cases]
            for done in as_completed(runs):
                done.result()
                yield
        except BrokenProcessPool:
            raise HwnasError("a process of the comparison died. Type the same command again to go on") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()


def _pool(jobs: int) -> "ProcessPoolExecutor":
    """Return so many processes; raises InputError where the system lets none be made."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    spawn = multiprocessing.get_context("spawn")  # threads of this process, such as the bar's, do not survive a fork
    try:
        return ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_be_a_worker)
    except OSError as error:  # of their semaphores, which are in /dev/shm: it does not say so
        raise InputError(
            f"several processes must have semaphores of the system; got: {error.strerror or error}. Let /dev/shm be "
            "written, or type the same command again with --jobs 1"
        ) from None


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started now: while Python starts there it would be a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_a_worker() -> None:
    """Take one thread (numpy and torch are not loaded yet), leave Ctrl-C to the parent, and end when that has ended."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is no more: the pool itself would wait for ever."""
    from multiprocessing import parent_process

    if parent := parent_process():
        parent.join()
        os._exit(1)


def _do(out: Path, settings: Settings, case: Case) -> None:
    """Do a run and keep it."""
    candidates = candidates_of(settings, case.cap)
    run = search_table(case.strategy, candidates, evaluations=settings.evaluations, seed=case.seed)
    write_json(case.path(out), {"version": 1, **asdict(run)}, indent=None)


def read_run(path: Path, *, rows: int, evaluations: int) -> TableRun:
    """Read a run of a table of so many `rows` that is done; raises InputError where it is not there, or is none."""
    from pydantic import ValidationError

    kept = read_json(path, what="a run", most_bytes=_MOST_BYTES)
    try:
        run = _reader().validate_python(kept)
    except ValidationError as error:
        raise InputError(f"{path} is not a run as `hwnas bench` writes it: {reasons(error)}. {_AGAIN}") from None
    steps = (0, *run.proposals)
    in_order = all(before < after for before, after in pairwise(steps))
    distinct = len(set(run.rows)) == len(run.rows) == len(run.proposals) <= evaluations
    if not in_order or not distinct or max(run.rows, default=0) >= rows or set(run.ask_ms) != _ASKS:
        raise InputError(f"{path} is not a run of {evaluations} evaluations in a table of {rows} rows. {_AGAIN}")
    return run


@cache
def _reader() -> "TypeAdapter[TableRun]":
    from pydantic import TypeAdapter

    return TypeAdapter(TableRun)


def facts_of(candidates: "ResultsCandidates") -> Cap:
    """Return what is known of a cap before anything is searched."""
    results, inside = candidates.results, candidates.inside
    best, best_seen = float(results.truth[inside].max()), float(results.seen[inside].max())
    return Cap(candidates.cap, len(inside), best, best_seen, candidates.floor)


def compare_all(
    runs: Sequence[tuple[Case, TableRun]], candidates: "Mapping[float, ResultsCandidates]", evaluations: int
) -> list[Compared]:
    """Return how each strategy did under each cap."""
    groups: dict[tuple[float, str], list[TableRun]] = {}
    for case, run in runs:
        groups.setdefault((case.cap, case.strategy), []).append(run)
    return [compare(name, candidates[cap], group, evaluations=evaluations) for (cap, name), group in groups.items()]


def compare(strategy: str, candidates: "ResultsCandidates", runs: Sequence[TableRun], *, evaluations: int) -> Compared:
    """Return the medians of a strategy's runs under a cap."""
    curves = [candidates.curves(run.rows) for run in runs]
    steps = _steps(evaluations)
    return Compared(
        strategy=strategy,
        cap=candidates.cap,
        runs=len(runs),
        evaluations={str(step): _medians(curves, [min(step, len(run.rows)) for run in runs]) for step in steps},
        proposals={str(step): _medians(curves, [bisect_right(run.proposals, step) for run in runs]) for step in steps},
        ask_ms={name: statistics.median(run.ask_ms[name] for run in runs) for name in runs[0].ask_ms},
        ended=dict(Counter(run.ended for run in runs if run.ended)),
    )


def _steps(evaluations: int) -> list[int]:
    return [step for step in _STEPS if step < evaluations] + [evaluations]


def _medians(curves: "Sequence[Curves]", done: Sequence[int]) -> Medians:
    """Return the medians of runs after so many evaluations each."""

    def median(name: str, *, nothing: float) -> float | None:
        values = [getattr(curve, name)[at - 1] if at else nothing for curve, at in zip(curves, done, strict=True)]
        middle = float(statistics.median(values))
        return round(middle, 6) if math.isfinite(middle) else None

    return Medians(
        regret=median("regret", nothing=math.inf),
        regret_seen=median("regret_seen", nothing=math.inf),
        hypervolume=median("hypervolume", nothing=0.0),
    )


def write_comparison(
    benched: Benched,
    runs: Sequence[tuple[Case, TableRun]],
    candidates: "Mapping[float, ResultsCandidates]",
    evaluations: int,
) -> None:
    """Write the comparison: a line for each run and number of evaluations, the medians, the picture."""
    from hwnas.benching.picture import comparison_figure
    from hwnas.pages import png, svg

    out, text = Path(benched.out), StringIO()
    drawn = [(case, run, candidates[case.cap].curves(run.rows)) for case, run in runs if run.rows]
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_COLUMNS.split(","))
    lines.writerows(_line(*one, step) for one in drawn for step in _steps(evaluations))
    write_text(out / "comparison.csv", text.getvalue())
    write_json(out / "summary.json", asdict(benched))
    if drawn:
        figure = comparison_figure((case.cap, case.strategy, curves) for case, _, curves in drawn)
        write_text(out / "comparison.svg", svg(figure))
        write_bytes(out / "comparison.png", png(figure))


def _line(case: Case, run: TableRun, curves: "Curves", step: int) -> list[object]:
    """Return a run after so many evaluations, or as it ended; `row` is the one evaluated last, from 0."""
    at = min(step, len(run.rows)) - 1
    figures = [curves.best_seen[at], curves.regret_seen[at], curves.regret[at], curves.hypervolume[at]]
    known = [case.strategy, case.cap, case.seed, step, run.proposals[at], run.rows[at]]
    return [*known, *(round(float(figure), 6) for figure in figures), run.ask_ms["median"], run.ended]
