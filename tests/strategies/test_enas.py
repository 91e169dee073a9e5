"""ENAS: shared weights and a policy learn in turns before the first trial, and what the policy draws is tried."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FILTERS, pretend_table

import hwnas
from hwnas.errors import BudgetError
from hwnas.runs.run import Run
from hwnas.searching.estimators import supernet
from hwnas.searching.loop import Searched
from hwnas.searching.strategies import enas
from hwnas.support import plugins
from hwnas.training import Progress, loop, shared

TINY: dict[str, Any] = {
    "max_latency_ms": 2.0,
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": FILTERS,
    "predicted": True,
    "strategy": "enas",
    "estimator": "supernet",
    "supernet": 6.0,
    "images": 32,
    "epochs": 1.0,
}


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enas, "_TURN", 2)


def searched(out: Path, **options: Any) -> Searched:
    return hwnas.search(out=str(out), **{**TINY, "trials": 3, **options})


@pytest.mark.parametrize("space", plugins.names("spaces"))
def test_every_space_is_searched(workplace: Path, space: str) -> None:
    if space != "pnas":
        pretend_table(workplace, space)
    result = searched(workplace / "run", space=space, max_latency_ms=50.0)
    assert result.trained == 3
