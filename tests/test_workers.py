"""Several workers in one study: exactly the trials asked for, none twice, whoever is killed and whenever."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import FILTERS
from optuna.trial import TrialState

from hwnas.errors import BudgetError, HwnasError
from hwnas.runs.run import Run
from hwnas.runs.study import Leases
from hwnas.runs.trial import Candidate
from hwnas.searching import workers
from hwnas.searching.loop import Searched
from hwnas.searching.workers import supervise
from hwnas.verbs.search import search

WORKERS = 4
KILLS = 10


def tiny_search(out: Path, **options: Any) -> Searched:
    """Search without a device and without training."""
    defaults = {"max_latency_ms": 2.0, "data": "npz:images.npz", "cells": (1,), "filters": FILTERS, "trials": 10}
    defaults |= {"space": "pnas", "strategy": "progressive", "estimator": "size", "predicted": True}
    return search(out=str(out), **{**defaults, **options})


def command(out: Path, *, workers: int, trials: int, more: tuple[str, ...] = ()) -> list[str]:
    """Return the command line of `tiny_search` with the strategy random, and it alone."""
    options = {
        "out": str(out),
        "space": "pnas",
        "max-latency-ms": "2",
        "data": "npz:images.npz",
        "cells": "1",
        "filters": ",".join(map(str, FILTERS)),
        "estimator": "size",
        "strategy": "random",
        "fill": "0",
        "trials": str(trials),
        "workers": str(workers),
    }
    typed = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "hwnas.cli", "search", "--predicted", *typed, *more]


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command line; whatever it has become in the end, it is gone then."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as one:
        try:
            yield one
        finally:
            one.kill()


def children(process: int) -> list[int]:
    """Return a process's children, the oldest first."""
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout
    return sorted(map(int, found.split()))


def wait_until(condition: Callable[[], Any], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def networks_of(candidates: list[Candidate]) -> list[str]:
    return sorted(json.dumps(candidate.architecture.to_json()) for candidate in candidates)


def owners(journal: Path) -> dict[int, set[str]]:
    """Return the processes that wrote of each trial."""
    found: dict[int, set[str]] = defaultdict(set)
    for record in map(json.loads, journal.read_text().splitlines()):
        if "trial_id" in record:
            found[record["trial_id"]].add(record["worker_id"])
    return found


@pytest.mark.slow
def test_workers_that_are_killed_ten_times_leave_the_trials_and_the_front_of_a_search_by_one(workplace: Path) -> None:
    drawn, killed = random.Random(0), list[int]()
    run, journal = workplace / "killed", workplace / "killed" / "journal.log"
    with started(command(run, workers=WORKERS, trials=40)) as process:
        for _ in range(KILLS):
            further = size_of(journal) + drawn.randrange(1, 25_000)  # a trial writes 9,000
            wait_until(lambda further=further: size_of(journal) >= further)
            killed.append(next(worker for worker in children(process.pid) if worker not in killed))  # not just starting
            os.kill(killed[-1], signal.SIGKILL if len(killed) % 2 else signal.SIGTERM)
        said = process.communicate(timeout=200)[1]
    assert process.returncode == 0, said
    assert said.count("ended by SIGKILL") == said.count("ended by SIGTERM") == KILLS // 2
    trials = Run.open(run).trials().study.get_trials()
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert any(len(processes) > 1 for processes in owners(journal).values())  # some were killed in a trial
    alone = tiny_search(workplace / "alone", strategy="random", trials=40, fill=0.0)
    candidates = Run.open(run).candidates()
    assert len(candidates) == alone.trained == 40
    assert networks_of(candidates) == networks_of(Run.open(workplace / "alone").candidates())
    assert len(set(networks_of(candidates))) == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "storage", "fill"),
    [("progressive", None, 0.0), ("progressive", None, 0.25), ("tpe", "sqlite:///study.db", 0.25)],
)
def test_workers_share_a_study(workplace: Path, strategy: str, storage: str | None, fill: float) -> None:
    shared = tiny_search(workplace / "shared", strategy=strategy, workers=2, storage=storage, fill=fill)
    assert shared.trained == 10
    candidates = Run.open(workplace / "shared").candidates()
    assert len(set(networks_of(candidates))) == len(candidates) == 10
    if strategy == "progressive" and not fill:  # a level is planned from all trials of the one before
        tiny_search(workplace / "alone", fill=fill)
        assert candidates == Run.open(workplace / "alone").candidates()


@pytest.mark.slow
def test_workers_agree_that_nothing_is_left_to_propose(workplace: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        tiny_search(workplace / "run", max_latency_ms=1e-3)
    smallest = float(str(caught.value).split("ms, ")[1].split(" ms")[0])
    result = tiny_search(workplace / "run", max_latency_ms=smallest * 1.02, workers=2)
    assert result.trained < 10
    assert "no candidate left" in result.ended
    states = [trial.state for trial in Run.open(workplace / "run").trials().study.get_trials()]
    assert states.count(TrialState.FAIL) == 1
    assert TrialState.RUNNING not in states


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_search_that_started_them_and_nothing_is_lost(
    workplace: Path, how: signal.Signals
) -> None:
    run, journal = workplace / "run", workplace / "run" / "journal.log"
    with started(command(run, workers=2, trials=400)) as process:
        wait_until(lambda: size_of(journal) > 20_000)
        workers = children(process.pid)
        process.send_signal(how)
        said = process.communicate(timeout=30)[1]
        assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in said
    wait_until(lambda: all(map(is_gone, workers)), seconds=20)
    trained = len(Run.open(run).candidates())
    assert trained >= 1
    assert tiny_search(run, strategy="random", trials=trained + 3, fill=0.0).trained == trained + 3


def test_what_a_worker_fails_with_is_raised_and_stops_the_others() -> None:
    others = children(os.getpid())  # such as what multiprocessing keeps
    with pytest.raises(HwnasError, match=r"must be a run's folder; it has no settings\.json"):
        supervise({"folder": "nowhere", "since": 0}, count=2, on_look=lambda: None)
    assert set(children(os.getpid())) <= set(others)


def test_workers_are_not_replaced_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_LOOK_EVERY_S", 0.01)  # so that they are killed before they have begun
    killed: set[int] = set()
    others = children(os.getpid())

    def kill() -> None:
        for worker in set(children(os.getpid())) - set(others):
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)

    with pytest.raises(HwnasError, match=r"again and again; got one more that was ended by SIGKILL"):
        supervise({"folder": "nowhere", "since": 0}, count=1, on_look=kill)
    assert len(killed) == 4


def test_a_lease_is_free_again_when_its_owner_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    code = f"""
import time
from hwnas.runs import Leases
with open({str(path)!r}, "a") as file:
    print(Leases(file).take(3), flush=True)
    time.sleep(60)
"""
    with path.open("a") as file, started([sys.executable, "-c", code]) as owner:
        leases = Leases(file)
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        assert not leases.take(3)
        assert leases.take(4)
        owner.kill()
        owner.wait()
        assert leases.take(3)


def test_what_a_killed_worker_left_of_a_record_is_no_harm_to_the_others(workplace: Path) -> None:
    tiny_search(workplace / "run", strategy="random", trials=1)
    run, journal = Run.open(workplace / "run"), workplace / "run" / "journal.log"
    reading, writing = run.trials().study, run.trials().study
    content = journal.read_bytes()
    for cut in (1, 20, 10_000):
        with journal.open("ab") as file:
            file.write((content[: content.index(b"\n")] + b" " * 10_000)[:cut])
        assert len(reading.get_trials()) == len(writing.get_trials())
        writing.set_user_attr(f"after {cut}", cut)
        assert reading.user_attrs[f"after {cut}"] == cut
    assert Run.open(workplace / "run").trials().study.user_attrs == reading.user_attrs
