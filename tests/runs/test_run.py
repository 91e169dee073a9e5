"""A run's folder: its identity, its settings, its lock."""

import json
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.errors import InputError
from hwnas.runs.run import Run

FILTERS = (4, 6)


def search(out: Path, **options: Any) -> hwnas.Searched:
    defaults: dict[str, Any] = {
        "max_latency_ms": 1.0,
        "data": "npz:images.npz",
        "cells": (1,),
        "filters": FILTERS,
        "space": "pnas",
        "estimator": "size",
        "strategy": "random",
        "predicted": True,
        "trials": 2,
    }
    return hwnas.search(out=str(out), **{**defaults, **options})


def test_runs_of_one_name_in_one_storage_are_two_studies(workplace: Path) -> None:
    storage = f"sqlite:///{workplace}/study.db"
    one = search(workplace / "one" / "a", storage=storage)
    other = search(workplace / "other" / "a", storage=storage, max_latency_ms=0.5)
    assert (one.trained, other.trained) == (2, 2)
    assert all(candidate.latency_ms <= 0.5 for candidate in other.front)
    assert len(Run.open(workplace / "one" / "a").trials()) == 2 + one.left_out


def test_a_run_in_a_storage_keeps_its_study_when_its_folder_is_renamed(workplace: Path) -> None:
    storage = f"sqlite:///{workplace}/study.db"
    front = search(workplace / "a", storage=storage).front
    (workplace / "a").rename(workplace / "b")
    assert search(workplace / "b", storage=storage).front == front


def test_a_run_of_before_there_were_identities_keeps_the_study_of_its_folders_name(workplace: Path) -> None:
    storage = f"sqlite:///{workplace}/study.db"
    search(workplace / "a", storage=storage)
    (workplace / "a" / "run.json").unlink()
    assert Run.open(workplace / "a").trials().study.study_name == "a"


def test_a_second_search_that_is_refused_changes_nothing(workplace: Path) -> None:
    search(workplace / "a")
    before = (workplace / "a" / "settings.json").read_bytes()
    with Run.open(workplace / "a").locked(), pytest.raises(InputError, match="is in use by another hwnas"):
        search(workplace / "a", trials=7)
    assert (workplace / "a" / "settings.json").read_bytes() == before


@pytest.mark.parametrize("file", ["settings.json", "run.json"])
def test_a_run_of_a_newer_hwnas_is_refused(workplace: Path, file: str) -> None:
    search(workplace / "a")
    path = workplace / "a" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(InputError, match=rf"{file}.* must be of version 1 or older; got 99, which a newer hwnas wrote"):
        Run.open(workplace / "a").trials()
