"""Options that are declared once: the signature, the checks, the words of an error."""

import inspect
import os
import pydoc
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field

import hwnas
from hwnas.errors import InputError, UnknownNameError
from hwnas.support import AnyPath, FolderPath, Names, Options, PlugIn, Shares, WholeNumbers, checked
from hwnas.verbs._takes import takes

VERBS = [name for name in hwnas.__all__ if name.islower() and not name.startswith("_")]


class Some(Options):
    run: AnyPath = Field(kw_only=False, description="where")
    cells: WholeNumbers = Field(default=(1, 2), description="cells")
    targets: Shares = Field(default=(1.0,), description="shares of the cap")
    trials: int = Field(default=40, gt=0, le=100, description="how many")
    max_latency_ms: float | None = Field(default=None, gt=0, description="cap")
    strategies: Annotated[Names, PlugIn("strategies")] = Field(default=("random",), description="names")
    out: FolderPath = Field(default="out", description="folder")


@takes(Some)
def some(options: Some) -> Some:
    """Return the options."""
    return options


def test_a_verb_has_the_signature_of_its_options() -> None:
    assert str(inspect.signature(some)).startswith(
        "(run: str | os.PathLike[str], *, cells: collections.abc.Sequence[int] = (1, 2), "
    )
    assert inspect.signature(some).return_annotation is Some
    assert some("a").run == some(run="a").run == "a"
    with pytest.raises(TypeError, match=r"some\(\): missing a required argument: 'run'"):
        some()
    with pytest.raises(TypeError, match=r"some\(\): got an unexpected keyword argument 'trails'"):
        some("a", trails=3)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_is_readable(verb: str) -> None:
    function = getattr(hwnas, verb)
    text = pydoc.plain(pydoc.render_doc(function))
    for noise in ("Annotated", "typer", "FieldInfo", "Validator", "options:"):
        assert noise not in text
    for parameter in inspect.signature(function).parameters.values():
        assert f"{parameter.name}: " in text.partition("Options:")[2]
        assert parameter.annotation is not inspect.Parameter.empty


def test_mypy_checks_what_a_verb_is_called_with(tmp_path: Path) -> None:
    path = tmp_path / "calls.py"
    lines = [
        "import hwnas",
        "from pathlib import Path",
        'hwnas.search(out=Path("a"), max_latency_ms=1, cells=[1], trials=3)',
        'hwnas.train("a", winners="best:2")',
        'hwnas.search(out="a", max_latency_ms=1.0, trials="12")',
        "hwnas.search(max_latency_ms=1.0)",
        'hwnas.search(out="a", max_latency_ms=1.0, trails=12)',
        'hwnas.profile("host", skeleton="large")',
        'reveal_type(hwnas.search(out="a", max_latency_ms=1.0).trained)',
    ]
    path.write_text("\n".join(lines) + "\n")
    root = Path(hwnas.__file__).parent.parent
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml"), str(path)]
    command += ["--cache-dir", str(root / ".mypy_cache")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(root)})
    lines = [line.partition("calls.py:")[2] for line in done.stdout.splitlines() if "calls.py:" in line]
    found = [line for line in lines if "error:" in line or "Revealed" in line]
    assert [line.split(":")[0] for line in found] == ["5", "6", "7", "8", "9"]
    assert 'Argument "trials" to "search" has incompatible type "str"; expected "int"' in found[0]
    assert 'Revealed type is "int"' in found[4].replace("builtins.", "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": "12"}, "--trials must be a whole number; got '12'"),
        ({"trials": 1.5}, "--trials must be a whole number; got 1.5"),
        ({"trials": True}, "--trials must be a whole number; got True"),
        ({"trials": 0}, "--trials must be above 0; got 0"),
        ({"trials": 101}, "--trials must be at most 100; got 101"),
        ({"max_latency_ms": "fast"}, "--max-latency-ms must be a number; got 'fast'"),
        ({"max_latency_ms": float("inf")}, "--max-latency-ms must be a finite number; got inf"),
        ({"cells": 1.5}, "--cells must be whole numbers above 0, such as 8,12,16; got 1.5"),
        ({"cells": "1,,2"}, "--cells must be whole numbers above 0, such as 8,12,16; got '1,,2'"),
        ({"cells": [True]}, r"--cells must be whole numbers above 0, such as 8,12,16; got \[True\]"),
        ({"cells": ()}, r"--cells must be whole numbers above 0, such as 8,12,16; got \(\)"),
        ({"cells": None}, "--cells must be whole numbers above 0, such as 8,12,16; got None"),
        ({"cells": {"a": 1}}, "--cells must be whole numbers"),
        ({"targets": [0.4, 1.4]}, "--targets must be shares above 0 and up to 1, such as 0.4,0.6,1; got"),
        ({"strategies": [3]}, r"--strategies must be names, such as a,b,c; got \[3\]"),
        ({"run": 3}, "^run must be a path; got 3"),
        ({"out": __file__}, "--out must be a folder, or a new one's path, and no file; got"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused_by_its_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        some(**{"run": "a", **values})


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"cells": 2}, (2,)),
        ({"cells": "1, 2"}, (1, 2)),
        ({"cells": [1, 2]}, (1, 2)),
        ({"cells": range(1, 3)}, (1, 2)),
        ({"cells": np.array([1, 2])}, (1, 2)),
        ({"trials": np.int64(3)}, 3),
        ({"max_latency_ms": 2}, 2.0),
        ({"max_latency_ms": np.float32(0.5)}, 0.5),
        ({"run": Path("a/b")}, "a/b"),
        ({"strategies": "random,tpe"}, ("random", "tpe")),
    ],
)
def test_what_means_the_same_is_taken_as_the_same(values: dict[str, Any], kept: object) -> None:
    options = some(**{"run": "a", **values})
    value = getattr(options, next(iter(values)))
    assert value == kept
    assert type(value) is type(kept)
    assert isinstance(options.cells, Sequence)


def test_unknown_plug_ins_list_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown strategy 'magic'; known: .*random"):
        some("a", strategies=["random", "magic"])


def test_errors_say_in_which_section_of_a_file_a_value_is() -> None:
    where = "a.toml: [search]"
    with pytest.raises(InputError, match=r"^a.toml: \[search\] trials must be above 0; got -1$"):
        checked(Some, {"run": "a", "trials": -1}, section=where)
    with pytest.raises(UnknownNameError, match=r"^a.toml: \[search\] strategies: unknown strategy 'magic'; known: "):
        checked(Some, {"run": "a", "strategies": ["magic"]}, section=where)
    with pytest.raises(InputError, match=r"^a.toml: \[search\] has no 'trails'; known: cells, .*trials$"):
        checked(Some, {"run": "a", "trails": 3}, section=where)
    with pytest.raises(InputError, match=r"^a.toml: \[search\] run must be given; got none$"):
        checked(Some, {}, section=where)
