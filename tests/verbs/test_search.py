"""What `search` says before its first trial, and what the verbs after it take."""

from pathlib import Path
from typing import Any

import pytest
from conftest import FILTERS, pretend_table, write_images
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.errors import BudgetError, InputError, TableError
from hwnas.latency.profiling import Profiled, Task
from hwnas.latency.steadiness import Steadiness
from hwnas.network.scale import ladder
from hwnas.runs.front import front_of
from hwnas.runs.run import Run
from hwnas.runs.settings import SearchOptions
from hwnas.support import each_option
from hwnas.verbs.search import search

TINY: dict[str, Any] = {
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
