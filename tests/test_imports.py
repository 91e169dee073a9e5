"""Imports run downwards only, type-only ones included; and importing costs nothing."""

import ast
import os
import re
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import hwnas

PACKAGE = Path(hwnas.__file__).parent
ORDER = (  # a folder imports from itself and from what comes before it; of one level, nothing from another
    ("errors",),
    ("support",),
    ("network",),
    ("spaces", "device", "datasets"),
    ("formats",),
    ("latency", "training"),
    ("runs",),
    ("searching", "artefacts"),
    ("pages",),
    ("benching",),
    ("verbs",),
    ("__init__",),
    ("testing",),
    ("cli",),
    ("__main__",),
)
LEVEL = {folder: level for level, folders in enumerate(ORDER) for folder in folders}


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].partition(".")[0]


def imported(path: Path) -> set[str]:
    """Return the folders that a file imports from, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in (node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level):
        names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("hwnas.")}


def test_imports_run_downwards_only() -> None:
    files = [(folder_of(path), path) for path in PACKAGE.rglob("*.py")]
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for folder, path in files
        for other in imported(path) & LEVEL.keys() - {folder}
        if LEVEL[other] >= LEVEL[folder]
    ]
    assert {folder for folder, _ in files} <= LEVEL.keys()
    assert not upwards


def test_what_is_imported_is_declared() -> None:
    """But for the runtime that boards have in its place, pydantic's other half, and pytest in hwnas.testing."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["npu"]]
    wanted = {re.split(r"[<>=\[]", text)[0] for text in declared}
    installed = packages_distributions()
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        for top in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names:
            names = {name.lower().replace("_", "-") for name in installed.get(top, [top])}
            is_known = top in ("hwnas", "tflite_runtime", "pydantic_core")
            is_known |= top == "pytest" and folder_of(path) == "testing"
            assert top != "ethosu" or path.name == "_vela_worker.py"  # of an extra: in a process of its own alone
            assert is_known or names & wanted, f"{path.relative_to(PACKAGE)} imports {top}"


@pytest.mark.parametrize("face", ["hwnas", *(f"hwnas.{path.parent.name}" for path in PACKAGE.glob("*/__init__.pyi"))])
def test_what_a_face_names_is_there_and_hides_no_module(face: str) -> None:
    package = import_module(face)
    modules = {path.stem for path in Path(str(package.__file__)).parent.iterdir() if path.suffix in ("", ".py")}
    for name in package.__all__:
        assert isinstance(getattr(package, name), type(sys)) == (name in modules), name


def seconds(*arguments: str, bytecode: Path) -> float:
    """Return the shortest of five runs of the interpreter with its bytecode kept, less what an empty run takes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)

    def shortest(*command: str) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True, env=environment)
            times.append(time.perf_counter() - started)
        return min(times)

    return shortest(*arguments) - shortest("-c", "pass")


@pytest.mark.alone
def test_importing_hwnas_and_its_help_take_less_than_half_a_second(tmp_path: Path) -> None:
    """Run with the bytecode that pip writes on installation; in a clone with PYTHONDONTWRITEBYTECODE there is none."""
    assert seconds("-c", "import hwnas", bytecode=tmp_path) < 0.5
    help_ = "import sys; from hwnas.cli.main import main; sys.argv = ['hwnas', '--help']; main()"
    assert seconds("-c", help_, bytecode=tmp_path) < 0.5


def test_importing_hwnas_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'optuna', 'numpy', 'onnx', 'matplotlib'}"
    code = f"import sys, hwnas.cli.main; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
