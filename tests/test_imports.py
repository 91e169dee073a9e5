"""Imports run downwards only, and importing costs nothing."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hwnas

PACKAGE = Path(hwnas.__file__).parent
LAYERS = [  # a module may import those of lower layers, and of its own where the layer says so
    {"errors"},
    {"files", "plugins", "progress", "options", "runner"},
    {"ops", "cell", "device", "pareto", "workers", "curves", "ranks"},
    {"graph", "networks", "latency", "slowness", "correction", "budget"},
    {
        "module",
        "spaces",
        "surrogates",
        "pruners",
        "formats",
        "transports",
        "datasets",
        "tables",
        "steadiness",
        "inputs",
    },
    {
        "measure",
        "artefact",
        "inputs",
        "export_texts",
        "costs",
        "known",
        "pretrained",
        "validation",
        "runs",
        "pictures",
        "bench_picture",
        "cell_picture",
        "network_picture",
        "scales",
    },
    {"estimators", "strategies"},
    {
        "results",
        "operator_costs",
        "table_search",
        "proxies",
        "short_training",
        "rewrites",
        "quantised_training",
        "equalisation",
        "published",
    },
    {"export_files", "winners", "trials"},
    {"profile", "search", "train", "export", "report", "describe", "table_verbs", "devices", "verify", "bench"},
    {"pipeline", "listings"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
MAY_IMPORT_EACH_OTHER = [  # the layers whose modules build on one another, in this order
    ["files", "plugins", "progress", "options"],
    ["cell", "ops"],
    ["graph", "networks"],
    ["slowness", "latency"],
    ["costs", "measure"],
    ["inputs", "artefact"],
    ["pictures", "bench_picture", "cell_picture", "network_picture"],
]


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(unit: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if unit in layer)


def imports_of(path: Path) -> set[str]:
    """Return the units of hwnas that a file imports at run time, anywhere in it."""
    tree = ast.parse(path.read_text())
    only_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.name for alias in node.names]
            found |= {f"hwnas.{name}" for name in names} if node.module == "hwnas" else {node.module}
    units = {name.split(".")[1] for name in found if name.startswith("hwnas.")}
    return {unit for unit in units if not unit.startswith("_")} | ({"__init__"} if "hwnas" in found else set())


def test_every_module_has_a_layer() -> None:
    units = {unit_of(path) for path in PACKAGE.rglob("*.py")}
    assert units == set().union(*LAYERS)


def test_imports_run_downwards_only() -> None:
    upwards = []
    for path in PACKAGE.rglob("*.py"):
        unit = unit_of(path)
        for imported in imports_of(path) - {unit}:
            beside = any(
                unit in order and imported in order and order.index(imported) < order.index(unit)
                for order in MAY_IMPORT_EACH_OTHER
            )
            if level(imported) >= level(unit) and not beside:
                upwards.append(f"{path.relative_to(PACKAGE)} imports {imported}")
    assert not upwards


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
    help_ = "import sys; from hwnas.cli import main; sys.argv = ['hwnas', '--help']; main()"
    assert seconds("-c", help_, bytecode=tmp_path) < 0.5


def test_importing_hwnas_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'optuna', 'numpy', 'onnx', 'matplotlib'}"
    code = f"import sys, hwnas.cli; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
