"""hwnas as a library: what it exports, and that threads, event loops and other packages may use it."""

import ast
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from conftest import write_images

import hwnas
from hwnas.support import plugins

ROOT = Path(__file__).parent.parent
TINY: dict[str, Any] = {"space": "mbconv", "cells": (1,), "filters": (4, 6)}

T = TypeVar("T")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with images."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images.npz")
    return tmp_path


# What it exports.


def returned(function: ast.FunctionDef) -> set[str]:
    """Return the names of hwnas's own classes in what a function returns."""
    text = ast.unparse(function.returns) if function.returns else ""
    names = {node.id for node in ast.walk(ast.parse(text.strip("'\""))) if isinstance(node, ast.Name)}
    return names - {"list", "dict", "tuple", "None", "str"}


def test_every_verb_is_a_function_and_what_it_returns_can_be_named() -> None:
    for path in (ROOT / "hwnas" / "verbs").glob("[a-z]*.py"):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        verbs = [function for function in functions if function.name in hwnas.__all__]
        assert path.stem in {verb.name.partition("_")[0] for verb in verbs}
        for verb in verbs:
            assert returned(verb), verb.name
            assert returned(verb) <= set(hwnas.__all__), verb.name


def test_every_error_and_the_version_can_be_named() -> None:
    from hwnas import errors

    theirs = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == "hwnas.errors"
    }
    assert theirs <= set(hwnas.__all__)
    assert hwnas.__version__[0].isdigit()
    for name in hwnas.__all__:
        assert getattr(hwnas, name).__doc__


def test_a_users_script_runs_and_says_nothing_that_it_does_not_print(folder: Path) -> None:
    script = [sys.executable, str(ROOT / "tests" / "user_script.py"), "npz:images.npz", "runs/a"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    said = [line for line in ran.stderr.splitlines() if "XNNPACK delegate" not in line]  # the runtime's own
    assert (ran.returncode, said) == (0, [])
    first, second, third = ran.stdout.splitlines()
    assert " ms, off by " in first
    assert second.startswith("1 ")
    assert "no/such/network.toml" in third


def test_the_wheel_carries_devices_tables_and_zoo_but_not_the_hosts_and_says_that_it_is_typed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = ("devices", "latency_tables", "export/zoo")
    files = subprocess.run(["git", "ls-files", *shipped], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"hwnas/_shipped/{name}" for name in files.splitlines()} <= names
    assert {"hwnas/py.typed", "hwnas/__init__.pyi"} <= names
    kept = subprocess.run(["git", "ls-files", "hwnas"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(kept.splitlines()) <= names
    assert not [name for name in names if "latency_tables/host" in name]


# Threads.


def together(*calls: Callable[[], T]) -> list[T]:
    """Return what calls return that begin at the same time, each in a thread of its own."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    ready = threading.Barrier(len(calls))

    def work(number: int) -> None:
        ready.wait()
        try:
            results[number] = calls[number]()
        except BaseException as error:  # noqa: BLE001  it is raised below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(calls))]


def test_two_threads_search_at_once_and_find_what_they_find_one_after_the_other(folder: Path) -> None:
    options: dict[str, Any] = {**TINY, "device": "pretend", "setting": "tflite-fp32-1t", "estimator": "size"}
    options |= {"data": "npz:images.npz", "max_latency_ms": 0.35, "trials": 6, "strategy": "random"}
    hwnas.profile("pretend", setting="tflite-fp32-1t", **TINY, resolution=(8,), classes=3, networks=4)

    def found(out: str, seed: int) -> list[hwnas.Candidate]:
        return hwnas.search(out=out, seed=seed, **options).front

    alone = [found(f"runs/alone{seed}", seed) for seed in (0, 1)]
    both = together(*(lambda seed=seed: found(f"runs/both{seed}", seed) for seed in (0, 1)))  # type: ignore[misc]
    assert alone[0] != alone[1]
    assert both == alone
    assert all(candidate.measured for candidate in both[0])


def test_a_thread_that_is_not_the_main_one_trains(folder: Path) -> None:
    options: dict[str, Any] = {**TINY, "filters": (4,), "data": "npz:images.npz", "estimator": "size"}
    hwnas.profile("pretend", setting="tflite-fp32-1t", **TINY, resolution=(8,), classes=3, networks=4)
    hwnas.search(out="runs/a", device="pretend", max_latency_ms=10.0, trials=2, strategy="random", **options)
    ((winner,),) = together(lambda: hwnas.train("runs/a", winners=1, epochs=1))
    assert 0 <= winner.test_accuracy <= 1


# Plug-ins of other packages.

SPACE = '''
"""A space of one choice: how wide MobileNetV2's blocks are."""

from hwnas.spaces import mbconv

OPERATIONS = mbconv.OPERATIONS
CHOICES = (2,)
distributions, architecture, cover = mbconv.distributions, mbconv.architecture, mbconv.cover
'''
STRATEGY = '''
"""The first choice of everything, then the second, ..."""

from optuna.samplers import RandomSampler


def sampler(context, *, seed):
    """Return Optuna's random sampler, and say so."""
    from pathlib import Path

    Path("asked").write_text("yes")
    return RandomSampler(seed=seed)
'''
METADATA = "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n"
ENTRY_POINTS = "[hwnas.spaces]\nwide-blocks = theirs.space\n\n[hwnas.strategies]\nfirst_come = theirs.strategy\n"


@pytest.fixture
def theirs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another package, as installed, with a space and a strategy."""
    site = folder / "site"
    (site / "theirs").mkdir(parents=True)
    (site / "theirs-1.0.dist-info").mkdir()
    for name, text in {"__init__": "", "space": SPACE, "strategy": STRATEGY}.items():
        (site / "theirs" / f"{name}.py").write_text(text)
    (site / "theirs-1.0.dist-info" / "METADATA").write_text(METADATA)
    (site / "theirs-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    plugins.forget()
    yield site
    monkeypatch.undo()
    plugins.forget()


def test_a_space_and_a_strategy_of_another_package_are_used_by_their_names(theirs: Path) -> None:
    assert {"wide-blocks", "mbconv"} <= set(plugins.names("spaces"))
    options: dict[str, Any] = {**TINY, "space": "wide-blocks"}
    (profiled,) = hwnas.profile("pretend", setting="tflite-fp32-1t", **options, resolution=(8,), classes=3, networks=4)
    assert profiled.entries
    searched = hwnas.search(
        out="runs/a",
        device="pretend",
        max_latency_ms=10.0,
        data="npz:images.npz",
        estimator="size",
        trials=2,
        strategy="first-come",
        **options,
    )
    assert searched.trained == 2
    assert Path("asked").read_text() == "yes"
    with pytest.raises(hwnas.UnknownNameError, match=r"unknown strategy 'last-come'; known: .*first-come"):
        hwnas.search(out="runs/b", max_latency_ms=1.0, strategy="last-come")
