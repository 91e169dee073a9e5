"""Comparisons of strategies on a table: what is written, what ends a run, that stopping changes nothing."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.samplers import BaseSampler

from hwnas.benching import cases
from hwnas.benching.cases import Benched
from hwnas.benching.results import Results, ResultsCandidates
from hwnas.benching.table_search import search_table
from hwnas.errors import BudgetError, InputError, UnknownNameError
from hwnas.searching.strategies import ExhaustedError
from hwnas.support import plugins, raised
from hwnas.verbs.bench import bench

OPTUNAS = ["tpe", "nsga2"]


def write_table(path: Path, *, columns: int = 3, choices: int = 4, holes: int = 5) -> Path:
    """Write a table of choices**columns rows less some, in which the sum of the choices is accurate and slow."""
    random = np.random.default_rng(0)
    rows = np.stack(np.meshgrid(*[np.arange(choices)] * columns, indexing="ij"), -1).reshape(-1, columns)[holes:]
    names = [f"c{at}" for at in range(columns)]
    lines = [",".join([*names, "seen", "truth", "ms"])]
    for row in rows:
        truth, ms = 50 + 4 * row.sum(), 1 + row[0] + 0.1 * row.sum()
        lines.append(",".join(map(str, [*row, truth + random.normal(), truth, ms])))
    path.write_text("\n".join(lines) + "\n")
    return path


def compared(folder: Path, **options: Any) -> Benched:
    table = write_table(folder / "table.csv")
    defaults = {"choices": ["c0", "c1", "c2"], "accuracy": ["seen", "truth"], "latency": "ms", "caps": [2.5]}
    more = {"strategies": ["random"], "seeds": 2, "evaluations": 12, "jobs": 1, "out": str(folder / "out")}
    return bench(**{"table": str(table), **defaults, **more, **options})


def candidates_of(path: Path, cap: float) -> ResultsCandidates:
    return ResultsCandidates.under(Results.read(path, choices=["c0", "c1", "c2"], accuracy=["seen"], latency="ms"), cap)


def files_of(folder: Path) -> dict[str, list[int]]:
    return {path.name: json.loads(path.read_text())["rows"] for path in sorted((folder / "runs").iterdir())}


def test_a_comparison_has_a_line_for_each_strategy_seed_cap_and_number_of_evaluations(tmp_path: Path) -> None:
    result = compared(tmp_path, strategies=["random", "nsga2"], caps=[2.5, 3.0])
    lines = (tmp_path / "out" / "comparison.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 2 * 2
    assert [(one.strategy, one.cap, one.runs) for one in result.compared] == [
        (name, cap, 2) for cap in (2.5, 3.0) for name in ("random", "nsga2")
    ]
    for one in result.compared:
        assert set(one.evaluations) == {"10", "12"}
        assert (one.evaluations["12"].regret_seen or 0) <= (one.evaluations["10"].regret_seen or 0)
        assert not one.ended
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["caps"][0]["candidates"] == result.caps[0].candidates
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5_000
    assert "random" in (tmp_path / "out" / "comparison.svg").read_text()


@pytest.mark.parametrize("strategy", ["random", *OPTUNAS])
def test_a_run_evaluates_no_network_twice_or_over_the_cap_and_is_the_same_again(tmp_path: Path, strategy: str) -> None:
    candidates = candidates_of(write_table(tmp_path / "table.csv"), 2.5)
    run = search_table(strategy, candidates, evaluations=12, seed=3)
    assert len(set(run.rows)) == 12
    assert set(run.rows) <= set(candidates.inside.tolist())
    assert list(run.proposals) == sorted(run.proposals)
    assert run.proposals[-1] >= 12
    assert search_table(strategy, candidates, evaluations=12, seed=3).rows == run.rows
    assert search_table(strategy, candidates, evaluations=12, seed=4).rows != run.rows


@pytest.mark.parametrize("strategy", ["random", *OPTUNAS])
def test_a_run_ends_when_everything_under_the_cap_is_evaluated(tmp_path: Path, strategy: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("c0,c1,c2,seen,ms\n" + "".join(f"{at},a,{at % 2},50,{at + 1}\n" for at in range(6)))
    for cap, count in ((3.0, 3), (1.0, 1)):
        run = search_table(strategy, candidates_of(path, cap), evaluations=100, seed=0)
        assert len(run.rows) == count
        assert run.ended == f"all {count} networks under the cap are evaluated"


class Stubborn(BaseSampler):
    """Proposes the same for ever."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return param_distribution.choices[-1 if param_name == "c2" else 0]


class Exhausted(Stubborn):
    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        raise ExhaustedError("nothing is left")


@pytest.mark.parametrize(("sampler", "rows", "why"), [(Stubborn, 0, "1000 proposals"), (Exhausted, 0, "nothing is")])
def test_a_strategy_that_has_nothing_new_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: Any, rows: int, why: str
) -> None:
    monkeypatch.setattr(plugins, "load", lambda *_: SimpleNamespace(sampler=lambda context, *, seed: sampler()))
    path = write_table(tmp_path / "table.csv")  # the first rows, which Stubborn proposes, are holes
    run = search_table("any", candidates_of(path, 2.5), evaluations=5, seed=0)
    assert len(run.rows) == rows
    assert run.ended.startswith(why)
    assert compared(tmp_path).compared[0].evaluations["12"].regret is None


def test_a_comparison_goes_on_with_the_runs_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(tmp_path)
    before = files_of(tmp_path / "out")
    (tmp_path / "out" / "runs" / "random_2.5_1.json").unlink()
    first = (tmp_path / "out" / "runs" / "random_2.5_0.json").stat().st_mtime_ns
    compared(tmp_path, seeds=3)
    after = files_of(tmp_path / "out")
    assert (tmp_path / "out" / "runs" / "random_2.5_0.json").stat().st_mtime_ns == first
    assert len(after) == 3
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    compared(tmp_path)
    one = files_of(tmp_path / "out")
    compared(tmp_path, out=str(tmp_path / "two"), jobs=2)
    assert files_of(tmp_path / "two") == one
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_comparison_that_is_interrupted_or_killed_leaves_whole_runs_and_goes_on(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table.csv", columns=5)
    options = ["--choices", "c0,c1,c2,c3,c4", "--accuracy", "seen", "--latency", "ms", "--caps", "4"]
    command = [sys.executable, "-m", "hwnas.cli", "bench", "--table", str(table), *options, "--strategies", "nsga2"]
    command += ["--seeds", "50", "--evaluations", "60", "--jobs", "2", "--out", str(tmp_path / "out")]
    runs = tmp_path / "out" / "runs"
    for number, (sent, status) in enumerate([(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        wanted = len(list(runs.glob("[!.]*"))) + 2 if number else 2
        deadline = time.monotonic() + 120
        while len(list(runs.glob("[!.]*"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, sent)
        _, said = process.communicate(timeout=60)
        assert process.returncode == status
        assert "Traceback" not in said
        assert len(files_of(tmp_path / "out")) >= wanted


def processes_of(folder: Path) -> list[int]:
    """Return the processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_of_a_comparison_end_with_the_one_that_started_them(number: signal.Signals, tmp_path: Path) -> None:
    """A kill reaches that one alone."""
    table = write_table(tmp_path / "table.csv", columns=5)
    options = ["--choices", "c0,c1,c2,c3,c4", "--accuracy", "seen", "--latency", "ms", "--caps", "4"]
    command = [sys.executable, "-m", "hwnas.cli", "bench", "--table", str(table), *options, "--strategies", "nsga2"]
    command += ["--seeds", "50", "--evaluations", "60", "--jobs", "2", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out" / "runs").glob("[!.]*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes_of(tmp_path)) >= 3
    process.send_signal(number)
    _, said = process.communicate(timeout=60)  # once all have closed it
    assert "Traceback" not in said
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"latency": None}, InputError, "neither --latency nor --cost"),
        ({"accuracy": ["seen", "truth", "ms"]}, InputError, "one column or two"),
        ({"seeds": 0}, InputError, "--seeds must be 1 or more; got 0"),
        ({"evaluations": -1}, InputError, "--evaluations must be 1 or more"),
        ({"jobs": 0}, InputError, "--jobs must be 1 or more"),
        ({"strategies": ["best"]}, UnknownNameError, "unknown strategy 'best'"),
        ({"caps": [0.1]}, BudgetError, "leaves none"),
        ({"table": "absent.csv"}, InputError, "that can be read; got absent.csv"),
        ({"choices": ["c9"]}, InputError, "no column 'c9'"),
    ],
)
def test_what_cannot_be_compared_says_why_and_writes_nothing(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compared(tmp_path, **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_runs_is_refused(tmp_path: Path) -> None:
    compared(tmp_path)
    with pytest.raises(InputError, match=r"has evaluations 12, wanted is 13\. Take another --out"):
        compared(tmp_path, evaluations=13)


def test_without_a_latency_the_caps_are_on_the_first_cost(tmp_path: Path) -> None:
    on_cost = compared(tmp_path, latency=None, cost=["ms", "truth"], out=str(tmp_path / "cost"))
    assert on_cost.caps == compared(tmp_path).caps


def test_where_there_are_no_semaphores_it_says_how_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")  # as of a container's /dev/shm

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", refused)
    with pytest.raises(InputError, match=r"got: Read-only file system\. Let /dev/shm be written, .* --jobs 1"):
        compared(tmp_path, jobs=2, seeds=2)
    assert compared(tmp_path, jobs=1, seeds=2)


def test_a_stop_while_processes_are_being_made_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they have of the system, semaphores, is given back."""
    ended: list[bool] = []

    class Pool:
        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: object) -> None:
            ended.append(True)

    def made(jobs: int) -> Pool:
        os.kill(os.getpid(), signal.SIGINT)
        return Pool()

    monkeypatch.setattr(cases, "_pool", made)
    with raised(), pytest.raises(KeyboardInterrupt):
        list(cases._in_processes(tmp_path, None, [], jobs=2))  # type: ignore[arg-type]
    assert ended == [True]
