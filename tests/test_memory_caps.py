"""Caps on memory, from the draw of a candidate to the export: what is over one is neither trained nor exported."""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from conftest import FILTERS
from winners import trained_run

import hwnas
from hwnas.device import Setting
from hwnas.errors import BudgetError, ExportError, InputError
from hwnas.formats import Memory
from hwnas.latency import Budget, CellCosts, MemoryModel
from hwnas.network import ladder
from hwnas.runs import Run
from hwnas.searching.candidates import SpaceCandidates
from hwnas.spaces import pnas, random_parameters
from hwnas.support import commands
from hwnas.testing import pretend_table

TINY: dict[str, Any] = {
    "space": "pnas",
    "max_latency_ms": 5.0,
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": FILTERS,
    "predicted": True,
    "estimator": "size",
    "surrogate": "mlp",
    "trials": 6,
    "fill": 0.4,
}
SCALES = ladder((1,), FILTERS, (8,), classes=3, channels=1)


def memories(count: int = 12) -> list[list[Memory]]:
    """Return the memory of random networks at each scale."""
    model = MemoryModel(Setting(runtime="tflite"), lambda _: {})
    chosen = random_parameters(pnas, count, seed=0)
    return [[model.of(pnas.architecture(parameters, scale)) for scale in SCALES] for parameters in chosen]


def middle_caps() -> dict[str, float]:
    """Return caps that about half of random networks are inside at the smallest scale, and few at the largest."""
    smallest = [at_scales[0].in_kib for at_scales in memories()]
    return {f"max_{name}": median(one[name] or 0.0 for one in smallest) for name in smallest[0]}


@pytest.mark.parametrize("strategy", ["random", "evolution", "progressive", "tpe"])
def test_a_search_trains_what_is_inside_the_caps_and_says_what_that_takes(workplace: Path, strategy: str) -> None:
    caps = middle_caps()
    found = hwnas.search(out="runs/a", strategy=strategy, **TINY, **caps)
    trials = Run.open("runs/a").trials().refresh()
    assert found.trained == TINY["trials"]
    for record in trials.in_state("trained"):
        assert record.deployed is not None
        known = MemoryModel(Setting(runtime="tflite"), lambda _: {}).of(record.deployed.architecture)
        assert record.deployed.arena_bytes == known.arena_bytes
        assert record.deployed.arena_bytes <= 1024 * caps["max_activation_kib"]
        assert known.file_bytes < record.deployed.file_bytes <= 1024 * caps["max_file_kib"]  # that has metadata
    assert found.left_out <= TINY["trials"]
    for record in trials.in_state("left out"):
        assert record.over or "the same network" in record.left_out
    page = Path(hwnas.report("runs/a").page).read_text()
    assert f"{found.front[0].file_bytes / 1024:.1f}" in page
    assert "KiB for the file" in page


def test_what_fits_has_a_scale_and_excess_is_0_where_it_fits(tmp_path: Path) -> None:
    costs = CellCosts(pretend_table(tmp_path), SCALES, operations=pnas.OPERATIONS)
    memory = MemoryModel(Setting(runtime="tflite"), lambda _: {})
    candidates = SpaceCandidates(pnas, costs, Budget(5.0, **middle_caps()), (1.0,), memory)
    chosen = [{**parameters, "target": 1.0} for parameters in random_parameters(pnas, 12, seed=0)]
    fits = candidates.fits(chosen).tolist()
    assert 0 < sum(fits) < len(fits)
    assert [candidates.excess(one) == 0 for one in chosen] == fits
    assert [bool(candidates.fitting_targets(one)) for one in chosen] == fits
    for one, is_inside in zip(chosen, fits, strict=True):
        found = candidates.largest(one)
        places = candidates.costs_with_memory(one).fits(candidates.budget, target_ms=5.0)[0]
        assert (found is not None) == is_inside == places.any()
        if found is not None:
            assert found[0] == max((scale for scale, fit in zip(SCALES, places, strict=True) if fit), key=SCALES.index)


def test_caps_that_nothing_fits_are_named_before_the_search(workplace: Path) -> None:
    with pytest.raises(BudgetError, match=r"the smallest file has \d.* KiB, .* Raise --max-file-kib \(got 1\), or"):
        hwnas.search(out="runs/a", **TINY, max_file_kib=1.0)
    with pytest.raises(BudgetError, match=r"arena of activations \d.* Raise --max-activation-kib \(got 0.5\), or"):
        hwnas.search(out="runs/a", **TINY, max_activation_kib=0.5, max_file_kib=1e6)
    assert not Path("runs/a").exists()


def test_a_cap_on_activations_is_refused_where_the_arena_is_not_known(workplace: Path) -> None:
    with pytest.raises(InputError, match=r"--max-activation-kib is of TFLite's arena; got it for .* onnx-fp32-1t"):
        hwnas.search(out="runs/a", **TINY, device="pretend", setting="onnx-fp32-1t", max_activation_kib=10.0)


def test_the_command_that_goes_on_has_the_caps(workplace: Path) -> None:
    hwnas.search(out="runs/a", **{**TINY, "trials": 1}, max_file_kib=500.0, max_activation_kib=100.0)
    settings = Run.open("runs/a").settings
    command = str(settings.search_command("runs/a"))
    assert "--max-file-kib 500" in command
    assert "--max-activation-kib 100" in command
    assert isinstance(settings.raised_command(["file_kib"]), commands.Command)
    assert "--max-file-kib KIB" in str(settings.raised_command(["file_kib"]))


@pytest.mark.parametrize(("cap", "what"), [("max_file_kib", "it has"), ("max_activation_kib", "the arena of")])
def test_a_file_over_a_cap_is_refused_unless_it_is_allowed(tmp_path: Path, cap: str, what: str) -> None:
    run, export = trained_run(tmp_path), str(tmp_path / "export")
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**settings, cap: 2.0}))
    files = ("model.tflite", "model.onnx")
    option = f"--{cap.replace('_', '-')}"
    with pytest.raises(ExportError, match=rf"model.tflite must be inside {option} \(got 2\); {what} .* KiB. Export"):
        hwnas.export(str(run), out=export, files=files)
    assert not list(Path(export).rglob("model.tflite"))
    (kept,) = hwnas.export(str(run), out=export, files=files, allow_over_cap=True)
    entry = kept.card.files["model.tflite"]
    assert entry.arena_bytes is not None
    assert entry.arena_bytes > 2048
    assert kept.card.files["model.onnx"].arena_bytes is None
    assert getattr(kept.card, cap) == 2.0
    assert f"{entry.arena_bytes / 1024:.1f} KiB of activations" in Path(kept.folder, "README.md").read_text()


def test_the_file_that_is_exported_has_the_size_that_the_search_says(workplace: Path) -> None:
    found = hwnas.search(out="runs/a", **{**TINY, "trials": 2}, strategy="random", max_file_kib=500.0)
    (candidate, *_) = found.front
    hwnas.train("runs/a", trial=candidate.trial, epochs=1, augment=False, batch_size=8)
    (exported,) = hwnas.export("runs/a", trial=candidate.trial, files=["model.tflite"])
    entry = exported.card.files["model.tflite"]
    assert (entry.bytes, entry.arena_bytes) == (candidate.file_bytes, candidate.arena_bytes)


def test_the_largest_scale_inside_a_cap_on_memory_is_described(tmp_path: Path) -> None:
    path = tmp_path / "cell.toml"
    path.write_text(
        '[scale]\nskeleton = "cifar"\ncells = 1\nfilters = 4\nresolution = 16\nclasses = 3\n'
        '[normal]\nblocks = [[["separable_3x3", 0], ["max_pool_3x3", 1]]]\n'
    )
    options = {"cells": (1, 2), "filters": (4, 8, 12, 16, 20)}
    free = hwnas.describe(str(path), max_parameters=1e9, **options)
    cap = free.file_bytes_fp32 / 2 / 1024
    found = hwnas.describe(str(path), max_file_kib=cap, **options)
    assert found.largest.mult_adds < free.largest.mult_adds
    assert found.file_bytes_fp32 <= 1024 * cap
    narrow = hwnas.describe(str(path), max_activation_kib=free.arena_bytes_fp32 / 2 / 1024, **options)
    assert narrow.arena_bytes_fp32 <= free.arena_bytes_fp32 / 2 < free.arena_bytes_fp32
