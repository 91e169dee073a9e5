"""Has Vela compile model files, one after the other, in a process of its own: `python _vela_worker.py JOB.json`.

Vela's compiled part may end the process. The job has Vela's `arguments` and the `models`, {"name": ...,
"path": ...}; Vela's files go into the job's folder, and are removed. What comes back on standard output is one JSON
object a line:

    {"name": "a", "ms": 0.8, "sram_bytes": 81920, "layers": [["stem", "NPU", 25396], ...], "clock_hz": 5e8}
                                             of each of Vela's operators: the tensor that it writes, where, its cycles
    {"name": "b", "error": "RuntimeError: ..."}    a model that Vela does not take; the others go on
    {"error": "..."}                               Vela does not take the arguments
"""

import contextlib
import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ethosu.vela import vela
from ethosu.vela.errors import CliOptionError, ConfigOptionError

_KIB = 1024


def main(job: Path) -> None:
    """Do a job."""
    wanted = json.loads(job.read_text(encoding="utf-8"))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)  # what Vela's compiled part writes to standard output is no line
        for line in _lines(wanted["models"], wanted["arguments"], job.parent / "vela"):
            print(json.dumps(line), file=lines, flush=True)


def _lines(models: list[dict[str, str]], arguments: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    for model in models:
        print("compiling", model["name"], file=sys.stderr)  # the last words, should Vela crash on it
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = vela.main([model["path"], *arguments, "--verbose-performance", "--output-dir", str(folder)])
            if status != 0:
                raise RuntimeError(f"status {status}: {said.getvalue()[-500:]}")
            yield {"name": model["name"], **_estimate(folder)}
        except (CliOptionError, ConfigOptionError) as error:
            yield {"error": str(error.data)}
            return
        except SystemExit:
            yield {"error": said.getvalue().strip().rpartition("\n")[2]}
            return
        except Exception as error:  # noqa: BLE001  whatever Vela raises on a file, the others go on
            yield {"name": model["name"], "error": f"{type(error).__name__}: {error}"}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _estimate(folder: Path) -> dict[str, Any]:
    """Return what Vela's files say of one model."""
    (summary,) = _rows(folder, "*_summary_*.csv")
    layers = [[row["Name"], row["Target"], int(row["Op Cycles"])] for row in _rows(folder, "*_per-layer.csv")]
    return {
        "ms": float(summary["inference_time"]) * 1e3,
        "sram_bytes": round(float(summary["sram_memory_used"]) * _KIB),
        "layers": layers,
        "clock_hz": float(summary["core_clock"]),
    }


def _rows(folder: Path, pattern: str) -> list[dict[str, str]]:
    (path,) = folder.glob(pattern)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
