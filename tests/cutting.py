"""Searches that learn before the first trial on tiny data, and trainings that are cut off."""

from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

import pytest
from conftest import FILTERS

from hwnas.training import Progress, loop

PREDICTED: dict[str, Any] = {
    "space": "pnas",
    "max_latency_ms": 2.0,
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": FILTERS,
    "predicted": True,
}


def cut_off(
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    *,
    at: Collection[int],
    look: Callable[[Any], None] = lambda training: None,
) -> None:
    """Let trainings of a module be cut off after these steps, each in a checkpoint; `look` sees one after each step."""

    def run(training: Any, *, on_progress: Any, **options: Any) -> None:
        def stop(progress: Progress) -> None:
            on_progress(progress)
            look(training)
            if progress.step in at:
                raise KeyboardInterrupt

        loop.run_training(training, on_progress=stop, save_every_s=0.0, **options)

    monkeypatch.setattr(module, "run_training", run)
