"""`hwnas bench`: compares strategies on a table of known results, where an evaluation is a look-up.

Each run, of a strategy under a cap from a seed, is the loop of `hwnas search` with nothing trained, and a file:

OUT/settings.json                    what all runs have in common
OUT/runs/STRATEGY_CAP_SEED.json      the rows that were evaluated, in their order, and how long the asks took
OUT/comparison.csv  summary.json  comparison.png  comparison.svg
"""

import csv
import hashlib
import json
import math
import os
import signal
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas import plugins
from hwnas.errors import HwnasError, InputError
from hwnas.files import read_json, write_bytes, write_json, write_text
from hwnas.options import names
from hwnas.progress import bar
from hwnas.table_search import TableRun, search_table

if TYPE_CHECKING:
    from hwnas.results import Curves, Results, ResultsCandidates

_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # the numbers of evaluations that are written out
_COLUMNS = "strategy,cap,seed,evaluations,proposals,row,best_seen,regret_seen,regret,hypervolume,ask_ms,ended"


def caps_of(text: str | Sequence[float]) -> tuple[float, ...]:
    """Read `3.3,6.4`; raises InputError for anything but numbers above 0."""
    try:
        found = tuple(float(part) for part in (text.split(",") if isinstance(text, str) else text))
    except ValueError:
        found = ()
    if not found or not all(0 < cap < float("inf") for cap in found):
        raise InputError(f"--caps takes numbers above 0, such as 3.3,6.4; got {text!r}")
    return found


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
        from hwnas.results import Results

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


def bench(
    *,
    table: Annotated[str, typer.Option(help="CSV file of known results, also one packed by gzip: a row a network")],
    choices: Annotated[
        Sequence[str], typer.Option(parser=names, metavar="COL,...", help="its columns of choices, integers or texts")
    ],
    accuracy: Annotated[
        Sequence[str],
        typer.Option(parser=names, metavar="SEEN[,TRUTH]", help="the accuracy that a search sees, and the true one"),
    ],
    caps: Annotated[
        Sequence[float], typer.Option(parser=caps_of, metavar="CAP,...", help="caps on the latency, or on the cost")
    ],
    out: Annotated[str, typer.Option(help="folder of the comparison; an interrupted one in it goes on")],
    latency: Annotated[str | None, typer.Option(help="its column of latencies, which the caps are on")] = None,
    cost: Annotated[
        Sequence[str] | None,
        typer.Option(
            parser=names,
            metavar="COL,...",
            help="columns of costs that strategies may look at; without --latency the caps are on the first",
        ),
    ] = None,
    strategies: Annotated[
        Sequence[str], typer.Option(parser=names, metavar="NAME,...", help="strategies to compare")
    ] = ("random", "nsga2", "progressive"),
    seeds: Annotated[int, typer.Option(help="runs of each strategy under each cap")] = 20,
    evaluations: Annotated[int, typer.Option(help="look-ups of an accuracy in a run")] = 500,
    jobs: Annotated[int | None, typer.Option(help="processes, one thread each", show_default="the cores")] = None,
) -> Benched:
    """Compare strategies on a table of known results; a comparison that was stopped goes on from its folder.

    Raises InputError, and BudgetError where no row of the table is under a cap.
    """
    counts = {"seeds": seeds, "evaluations": evaluations, "jobs": 1 if jobs is None else jobs}
    _check(accuracy, strategies, counts)
    if not latency and not cost:
        raise InputError("the caps are on a column; got neither --latency nor --cost. Add --latency COL")
    limited, *costs = dict.fromkeys([*([latency] if latency else []), *(cost or [])])
    common = Settings(table, _sha256(table), tuple(choices), tuple(accuracy), limited, tuple(costs), evaluations)
    candidates = {cap: _candidates(common, cap) for cap in dict.fromkeys(caps)}
    _start(Path(out), common)
    cases = [Case(name, cap, seed) for seed in range(seeds) for cap in candidates for name in dict.fromkeys(strategies)]
    _do_all(Path(out), common, cases, jobs=jobs or os.cpu_count() or 1)
    runs = [(case, read_run(case.path(Path(out)))) for case in cases]
    benched = Benched(
        out=out,
        left_out=_results(common).left_out,
        caps=[_facts(one) for one in candidates.values()],
        compared=_compare_all(runs, candidates, evaluations),
    )
    _write(benched, runs, candidates, evaluations)
    return benched


def _check(accuracy: Sequence[str], strategies: Sequence[str], counts: Mapping[str, int]) -> None:
    """Raise InputError for options that cannot be used."""
    if len(accuracy) > 2:
        raise InputError(f"--accuracy takes one column or two, SEEN,TRUTH; got {','.join(accuracy)}")
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"--{name} must be 1 or more; got {value}")
    for strategy in strategies:
        plugins.load("strategies", strategy)


@lru_cache(maxsize=1)
def _results(settings: Settings) -> "Results":
    from hwnas.results import Results

    return Results.read(
        settings.table,
        choices=settings.choices,
        accuracy=settings.accuracy,
        latency=settings.latency,
        costs=settings.costs,
    )


@lru_cache
def _candidates(settings: Settings, cap: float) -> "ResultsCandidates":
    from hwnas.results import ResultsCandidates

    return ResultsCandidates.under(_results(settings), cap)


def _sha256(table: str) -> str:
    try:
        return hashlib.sha256(Path(table).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"--table must be a CSV file that can be read; got {table}: {error.strerror}") from None


def _start(out: Path, settings: Settings) -> None:
    """Write what is common to all runs; raises InputError where the folder has runs of something else."""
    path, wanted = out / "settings.json", json.loads(json.dumps(asdict(settings)))
    if not path.exists():
        write_json(path, wanted)
    kept = read_json(path, what="a comparison's settings")
    for name in wanted.keys() - {"table"}:  # which may have moved
        if kept.get(name) != wanted[name]:
            raise InputError(
                f"the runs of a folder must be alike; {out} has {name} {kept.get(name)!r}, wanted is {wanted[name]!r}. "
                "Take another --out"
            )


def _do_all(out: Path, settings: Settings, cases: Sequence[Case], *, jobs: int) -> None:
    """Do the runs that are not done; each is kept as it ends."""
    wanted = [case for case in cases if not case.path(out).exists()]
    jobs = min(jobs, len(wanted))
    with bar("comparing", len(wanted)) as comparing:
        for _ in _in_processes(out, settings, wanted, jobs=jobs) if jobs > 1 else _here(out, settings, wanted):
            comparing.advance()


def _here(out: Path, settings: Settings, cases: Sequence[Case]) -> Iterator[None]:
    for case in cases:
        _do(out, settings, case)
        yield


def _in_processes(out: Path, settings: Settings, cases: Sequence[Case], *, jobs: int) -> Iterator[None]:
    """Do runs in processes of their own, which end at once where this one is stopped."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")  # threads of this process, such as the bar's, do not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_be_a_worker) as pool:
        try:
            for done in as_completed([pool.submit(_do, out, settings, case) for case in cases]):
                done.result()
                yield
        except BrokenProcessPool:
            raise HwnasError("a process of the comparison died. Type the same command again to go on") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()


def _be_a_worker() -> None:
    """Take one thread (numpy and torch are not loaded yet) and leave Ctrl-C to the parent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(out: Path, settings: Settings, case: Case) -> None:
    """Do a run and keep it."""
    candidates = _candidates(settings, case.cap)
    run = search_table(case.strategy, candidates, evaluations=settings.evaluations, seed=case.seed)
    write_json(case.path(out), {"version": 1, **asdict(run)}, indent=None)


def read_run(path: Path) -> TableRun:
    """Read a run that is done; raises InputError where it is not there."""
    kept = read_json(path, what="a run")
    return TableRun(tuple(kept["rows"]), tuple(kept["proposals"]), kept["ended"], kept["ask_ms"])


def _facts(candidates: "ResultsCandidates") -> Cap:
    results, inside = candidates.results, candidates.inside
    best, best_seen = float(results.truth[inside].max()), float(results.seen[inside].max())
    return Cap(candidates.cap, len(inside), best, best_seen, candidates.floor)


def _compare_all(
    runs: Sequence[tuple[Case, TableRun]], candidates: "Mapping[float, ResultsCandidates]", evaluations: int
) -> list[Compared]:
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


def _write(
    benched: Benched,
    runs: Sequence[tuple[Case, TableRun]],
    candidates: "Mapping[float, ResultsCandidates]",
    evaluations: int,
) -> None:
    """Write the comparison: a line for each run and number of evaluations, the medians, the picture."""
    from hwnas.bench_picture import comparison_figure
    from hwnas.pictures import png, svg

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
