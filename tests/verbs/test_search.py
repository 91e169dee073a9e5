"""What `search` says before its first trial, and what the verbs after it take."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import FILTERS, pretend_table, write_images
from pretended import ScriptedDevice, write_device
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.device import Job
from hwnas.device.runner import Event
from hwnas.device.transports import pretend
from hwnas.errors import BudgetError, InputError, TableError
from hwnas.latency import Due, LatencyTable, profiling
from hwnas.latency.profiling import Profiled, Task
from hwnas.latency.steadiness import Steadiness
from hwnas.network.scale import ladder
from hwnas.runs.front import front_of
from hwnas.runs.run import Run
from hwnas.runs.settings import SearchOptions
from hwnas.searching import loop
from hwnas.support import each_option
from hwnas.verbs.search import search

TINY: dict[str, Any] = {
    "space": "pnas",
    "max_latency_ms": 2.0,
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": FILTERS,
    "trials": 12,
    "predicted": True,
    "strategy": "random",
    "estimator": "size",
}


def test_paths_and_lone_numbers_are_taken_by_every_verb_on_the_way(workplace: Path) -> None:
    searched = search(out=workplace / "run", **{**TINY, "cells": 1, "trials": 2})
    assert searched.trained == 2
    assert Run.open(workplace / "run").settings.cells == (1,)
    hwnas.report(workplace / "run", export_folder=workplace / "export")
    with pytest.raises(InputError, match="has no trained winner to export"):
        hwnas.export(workplace / "run", out=workplace / "export")


def advice_of(error: pytest.ExceptionInfo[TableError]) -> list[str]:
    return str(error.value).partition("hwnas profile ")[2].split()


@pytest.mark.parametrize("threads", [None, 3])
@pytest.mark.parametrize("there_is_a_table", [True, False])
def test_the_advice_without_a_table_and_with_one_that_lacks_entries_is_the_same_and_right(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, there_is_a_table: bool, threads: int | None
) -> None:
    if there_is_a_table:
        path = pretend_table(workplace).path
        path.rename(path.with_name(f"tflite-fp32-{threads or 1}t.json"))
        if threads:
            text = path.with_name("tflite-fp32-3t.json").read_text()
            path.with_name("tflite-fp32-3t.json").write_text(text.replace('"threads": 1', '"threads": 3'))
    else:
        (workplace / "latency_tables" / "host" / "tflite-fp32-1t.json").unlink()
    with pytest.raises(TableError) as error:
        search(out="run", **{**TINY, "space": "mbconv", "filters": (4, 6), "threads": threads})
    tasks: list[Task] = []

    def profile_setting(device: Any, setting: Any, task: Task, *_: Any) -> Profiled:
        assert setting.name == f"tflite-fp32-{threads or 1}t"
        tasks.append(task)
        steady = Steadiness(None, 0.0)
        return Profiled(device.name, setting.name, "", 1, 1, 0, 0, 0.0, None, 0.0, steady, None, 0.0)

    monkeypatch.setattr("hwnas.verbs.profile.profile_setting", profile_setting)
    advice = advice_of(error)
    assert CliRunner().invoke(app, ["profile", *advice, "--json"]).exit_code == 0
    (task,) = tasks
    assert task.space == "mbconv"
    assert task.scales == ladder((1,), (4, 6), (8,), classes=3, channels=1)


PROFILED: dict[str, Any] = {**TINY, "device": "pretend", "space": "mbconv", "filters": (4,), "predicted": False}
TABLE = Path("latency_tables/pretend/tflite-fp32-1t.json")


@pytest.fixture
def timed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of all models that are timed on a pretended device which nobody has profiled yet."""
    write_device(workplace)
    names: list[str] = []
    original = pretend.Transport.time

    def time(transport: pretend.Transport, job: Job) -> Iterator[Event]:
        names.extend(model["name"] for model in job.models)
        yield from original(transport, job)

    monkeypatch.setattr(pretend.Transport, "time", time)
    return names


def test_a_search_measures_what_the_table_lacks_and_says_so_and_no_more(
    timed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(out="a", **{**PROFILED, "trials": 2})
    assert all(candidate.measured for candidate in found.front)
    said = capsys.readouterr().err
    assert "device pretend has no latency table in setting tflite-fp32-1t yet: what is missing is measured" in said
    assert re.search(r"to measure: \d+ operators in 6 rounds and 32 whole networks in 10, .* s at least", said)
    assert "nine of ten predicted within" in said
    table = LatencyTable.read(TABLE)
    assert (len(table.networks), len(table.sessions)) == (32, 1)
    assert "profile" not in json.loads(Path("a/settings.json").read_text())

    search(out="a", **{**PROFILED, "trials": 3, "profile": False})
    search(out="b", **{**PROFILED, "trials": 1})
    said = capsys.readouterr().err
    assert "missing" not in said
    assert "profiling" not in said
    assert len(LatencyTable.read(TABLE).sessions) == 1

    timed.clear()
    search(out="c", **{**PROFILED, "trials": 1, "filters": (4, 6)})
    assert f"{TABLE} has not every operator of this search" in capsys.readouterr().err
    assert timed
    assert not table.entries.keys() & set(timed)


@pytest.mark.parametrize("killed_at", [0.2, 0.5, 0.95])
def test_a_search_that_is_stopped_while_it_profiles_goes_on_with_that(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, killed_at: float
) -> None:
    """Where every operator has its first rounds, the table lacks no entry and yet is not done."""
    search(out="whole", **{**PROFILED, "trials": 1})
    whole = LatencyTable.read(TABLE)
    rounds = sum(len(entry.rounds_ms) for entry in whole.entries.values())
    rounds += sum(len(network.measurement.rounds_ms) for network in whole.networks)
    TABLE.unlink()
    add, left = profiling._add, int(killed_at * rounds / 2)

    def stop(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        add(*arguments)

    monkeypatch.setattr(profiling, "_add", stop)
    with pytest.raises(KeyboardInterrupt):
        search(out="a", **{**PROFILED, "trials": 1})
    assert not Path("a").exists()
    begun = LatencyTable.read(TABLE)
    assert begun.sessions[-1].unfinished
    search(out="a", **{**PROFILED, "trials": 1})
    after = LatencyTable.read(TABLE)
    assert not any(session.unfinished for session in after.sessions)
    assert after.entries.keys() == whole.entries.keys()
    assert {len(entry.rounds_ms) for entry in after.entries.values()} == {6}
    assert sorted(len(network.measurement.rounds_ms) for network in after.networks) == [10] * 32
    for name, entry in begun.entries.items():
        assert after.entries[name].rounds_ms[: len(entry.rounds_ms)] == entry.rounds_ms


def test_a_stopped_profile_goes_on_with_as_many_networks_as_it_was_asked_for(
    timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"space": "mbconv", "cells": 1, "filters": 4, "resolution": 8, "classes": 3}
    measure_chunk = profiling._measure_chunk

    def stop(*arguments: Any) -> None:
        measure_chunk(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(profiling, "_measure_chunk", stop)
        with pytest.raises(KeyboardInterrupt):
            hwnas.profile("pretend", **asked, networks=3, seed=5)
    assert not LatencyTable.read(TABLE).unfinished("mbconv", ladder((1,), (4,), (28,), classes=3, channels=1))
    search(out="a", **{**PROFILED, "trials": 1})
    assert len(LatencyTable.read(TABLE).networks) == 3
    assert LatencyTable.read(TABLE).sessions[-1].seed == 5


def test_without_profile_a_search_is_refused_as_one_of_predictions_is(timed: list[str]) -> None:
    for options in ({"profile": False}, {"predicted": True}):
        with pytest.raises(
            TableError, match=r"must be profiled in setting tflite-fp32-1t first.* Type: hwnas profile "
        ):
            search(out="a", **{**PROFILED, **options})
    search(out="a", **{**PROFILED, "trials": 1})
    timed.clear()
    for options in ({"profile": False}, {"predicted": True}):
        with pytest.raises(TableError, match=r"it lacks \d+, .*Measure them: hwnas profile pretend .*--filters 4,6 "):
            search(out="b", **{**PROFILED, **options, "filters": (4, 6)})
    assert not timed


def test_a_device_that_cannot_be_asked_is_named_with_what_to_type_once_it_can(
    timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = ScriptedDevice(monkeypatch)
    device.broken = "no power"
    words = r"must be profiled in setting tflite-fp32-1t first; .* Type: hwnas profile pretend .*no power"
    with pytest.raises(TableError, match=words):
        search(out="a", **PROFILED)


def test_a_plan_says_what_would_be_done_and_does_nothing(
    timed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        ScriptedDevice(patch).broken = "no power"  # it is not asked
        plan = search(out="a", **PROFILED, plan=True).plan
    assert plan is not None
    assert plan.lacking.endswith("has no latency table in setting tflite-fp32-1t yet")
    assert (plan.goes_on, plan.trials, plan.epochs, plan.images) == (False, 12, 2.0, 6000)
    assert not timed
    assert not Path("a").exists()
    assert not TABLE.exists()
    assert plan.to_measure.networks == 32
    search(out="a", **PROFILED)
    again = search(out="a", **PROFILED, plan=True).plan
    assert again == replace(plan, goes_on=True, lacking="", to_measure=Due(), trained=12)
    with pytest.raises(BudgetError):
        search(out="b", **{**PROFILED, "max_latency_ms": 1e-6}, plan=True)
    with pytest.raises(TableError, match="hwnas profile"):
        search(out="b", **{**PROFILED, "filters": (4, 6), "profile": False}, plan=True)
    wider = {**PROFILED, "filters": (4, 6), "trials": 1}
    more = search(out="b", **wider, plan=True).plan
    assert more is not None
    capsys.readouterr()
    search(out="b", **wider)  # the device's rewrites are chosen by now: the plan knew what there is to measure
    assert f"to measure: {more.to_measure}" in capsys.readouterr().err


def test_a_plan_is_printed_in_words_and_as_json(timed: list[str]) -> None:
    options = "--max-latency-ms 2 --data npz:images.npz --device pretend --space mbconv --cells 1 --filters 4"
    typed = ["search", *options.split(), "--estimator", "size", "--out", "a", "--plan"]
    said = CliRunner().invoke(app, typed)
    assert said.exit_code == 0
    assert "a: a new run; nothing was measured or written" in said.output
    assert re.search(r"to measure first: \d+ operators in 6 rounds and 32 whole networks .* s at least", said.output)
    assert "then 40 candidates in all, by the estimator size\n" in said.output
    said = CliRunner().invoke(app, [*typed[:-5], "--estimator", "training", "--epochs", "2", "--out", "a", "--plan"])
    assert "then 40 candidates in all, by the estimator training, 2 epochs of 6,000 images each\n" in said.output
    plan = json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout.splitlines()[-1])["plan"]
    assert plan["to_measure"]["networks"] == 32
    assert plan["to_measure"]["least_s"] > 0


def test_what_is_missing_is_measured_before_workers_start(timed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(loop, "supervise", lambda *_, count, **__: seen.append(len(LatencyTable.read(TABLE).networks)))
    search(out="a", **PROFILED, workers=2)
    assert seen == [32]


def test_the_best_winners_are_the_most_accurate_of_the_front(workplace: Path) -> None:
    search(out="run", **TINY)
    run = Run.open("run")
    front = front_of(run.candidates())
    assert len(front) > 3
    assert run.choose("best:2") == [front[-1], front[-2]]
    assert run.choose(2)[1] == front[len(front) - 1 - len(front) // 2]
    assert run.choose("best:99") == front[::-1]


def test_train_takes_the_best_winners_that_are_asked_for(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search(out="run", **TINY)
    asked: list[Any] = []
    monkeypatch.setattr("hwnas.runs.run.Run.choose", lambda run, *_, **options: asked.append((*_, options)) or [])
    hwnas.train("run", winners="best:3")
    hwnas.train("run", winners=3)
    assert CliRunner().invoke(app, ["train", "run", "--winners", "best:1"]).exit_code == 0
    assert asked == [
        ("best:3", {"trial": None}),
        (3, {"trial": None}),
        ("best:1", {"trial": None}),
    ]


def test_other_data_by_another_name_are_said_to_be_so_though_the_run_s_own_are_untouched(workplace: Path) -> None:
    search(out="run", **{**TINY, "trials": 1})
    write_images(workplace / "b.npz", channels=3)
    with pytest.raises(InputError, match=r"begun with data = 'npz:images.npz'; got 'npz:b.npz'"):
        search(out="run", **{**TINY, "data": "npz:b.npz"})
    write_images(workplace / "images.npz", train=90)
    with pytest.raises(InputError, match=r"npz:images.npz must be as it was when the search was begun"):
        search(out="run", **TINY)


def test_what_figures_are_is_said_once_the_search_begins(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BudgetError):
        search(out="run", **{**TINY, "max_latency_ms": 1e-6})
    assert "stand in for accuracies" not in capsys.readouterr().err
    search(out="run", **{**TINY, "trials": 1})
    assert "stand in for accuracies" in capsys.readouterr().err


def test_help_says_which_arrays_a_data_set_of_arrays_has() -> None:
    (said,) = (option.description for option in each_option(SearchOptions) if option.name == "data")
    for name in ("x_train", "x_test", "y_train", "y_test", "uint8", "integers"):
        assert name in said
