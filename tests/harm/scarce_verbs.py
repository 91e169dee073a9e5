"""The small workplace that verbs are harmed in: a run, a winner, an artefact, tables; and how each verb is typed.

Everything is pretended but `verify` and `devices`, which start this machine's runtime.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
BEFORE = REPOSITORY / "tests/data/before"
ALL = """\
out = "runs/all"
[device]
device = "pretend"
setting = "tflite-fp32-1t"
[profile]
networks = 4
[search]
max_latency_ms = 5.0
data = "npz:images.npz"
images = 60
trials = 2
epochs = 1
cells = [1]
filters = [4]
estimator = "size"
strategy = "random"
[train]
winners = 1
epochs = 1
batch_size = 32
[export]
files = ["model.onnx"]
"""
SPACE = "--cells 1 --resolution 8"
SEARCH = "search --device pretend --setting tflite-fp32-1t --max-latency-ms 5 --strategy random --cells 1 --filters 4"
TRAINED = f"{SEARCH} --data npz:images.npz --images 60 --epochs 1 --out runs/a"
PROFILE = f"profile pretend --setting tflite-fp32-1t --classes 3 {SPACE}"
BENCH = "bench --table table.csv --choices a,b --accuracy seen,truth --latency ms --caps 3.5 --strategies random"
TABLE = "latency_tables/pretend/tflite-fp32-1t.json"
# of a call that went on where another had ended, and of one on a busy machine
SAYS_OTHERWISE = {"measured_now", "waited_s", "predicted_ms", "predicted_error"}


@dataclass(frozen=True)
class Verb:
    """A verb, as it is typed; `needs` are the folders that it has to write, where that is known."""

    name: str
    typed: str
    needs: tuple[str, ...] | None = None

    @property
    def arguments(self) -> list[str]:
        return self.typed.split() + ([] if "--help" in self.typed else ["--json"])


VERBS = {
    verb.name: verb
    for verb in (
        Verb("help", "--help", ()),
        Verb("profile", f"{PROFILE} --filters 4,6 --networks 4", ("place", "place/latency_tables", "tmp")),
        Verb("profile-host", f"profile host --setting tflite-fp32-1t --classes 3 {SPACE} --filters 4 --networks 0"),
        Verb("search", f"{SEARCH} --data folder:photos --estimator size --trials 3 --out runs/new"),
        Verb("search-on", f"{TRAINED} --trials 3"),
        Verb(
            "search-workers", f"{SEARCH} --data npz:images.npz --estimator size --trials 3 --workers 2 --out runs/new"
        ),
        Verb("train", "train runs/a --trial 1 --epochs 2 --batch-size 32", ("place", "place/runs")),
        Verb("export", "export runs/a"),
        Verb("report", "report runs/a", ("place", "place/runs")),
        Verb("run", "run all.toml"),
        Verb("init", "init new.toml --data npz:images.npz --max-latency-ms 2", ("place",)),
        Verb("bench", f"{BENCH} --evaluations 5 --seeds 2 --jobs 2 --out new", ("place", "tmp")),
        Verb("describe", "describe cell.toml", ()),
        Verb("describe-artefact", "describe export/a/0000", ()),
        Verb("describe-svg", "describe cell.toml --picture cell.svg", ("place",)),
        Verb("describe-png", "describe cell.toml --picture cell.png", ("place",)),
        Verb("verify", "verify export/a/0000 --device host", ("place", "home", "tmp")),
        Verb("zoo", "zoo", ()),
        Verb("zoo-copy", "zoo fashion-mnist-mobile-0.6 --out copied", ("place",)),
        Verb("tables-show", "tables show", ()),
        Verb("tables-check", "tables check", ("place", "home", "tmp")),
        Verb("tables-merge", f"tables merge {TABLE} same.json --out same.json", ("place",)),
        Verb("tables-diff", f"tables diff {TABLE} same.json", ()),
        Verb("devices", "devices", ("place", "home", "tmp")),
        Verb("devices-add", "devices add other --transport local --setting tflite-fp32-1t --no-ask"),
        Verb("devices-setup", "devices setup"),
    )
}


def make(place: Path, *, seed: int) -> Path:
    """Make the workplace; return its folder."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from conftest import write_images
    from PIL import Image

    place.mkdir()
    write_images(place / "images.npz", train=150, test=60)
    for number in range(60):
        path = place / "photos" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 + 60 * (number % 3) + number).save(path)
    for name in ("cell.toml", "table.csv"):
        shutil.copy(BEFORE / name, place / name)
    (place / "devices").mkdir()
    (place / "all.toml").write_text(ALL)
    hwnas(place, f"{PROFILE} --filters 4 --networks 4 --seed {seed}")
    hwnas(place, f"{TRAINED} --trials 2 --seed {seed}")
    hwnas(place, "train runs/a --trial 0 --epochs 1 --batch-size 32")
    hwnas(place, "export runs/a --files model.onnx")
    shutil.copy(place / TABLE, place / "same.json")
    return place


def hwnas(place: Path, typed: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "HWNAS_TRUST": "1"}
    environment["XDG_CACHE_HOME"] = str(place.parent / "cache")
    done = subprocess.run(
        [sys.executable, "-m", "hwnas.cli", *typed.split()], cwd=place, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"hwnas {typed}: {done.stderr}")


def leaves(out: str) -> dict[str, Any]:
    """Return a result's values by where they are; of what is no JSON the text itself."""
    try:
        return dict(_leaves("", json.loads(out)))
    except ValueError:
        return {"text": out}


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            if name not in SAYS_OTHERWISE:
                yield from _leaves(f"{where}.{name}", part)
    elif isinstance(value, list):
        yield f"{where}#", len(value)
        for index, part in enumerate(value):
            yield from _leaves(f"{where}[{index}]", part)
    else:
        yield where, value


def file_names(place: Path) -> list[str]:
    """Return the files of a workplace but hidden ones, which are locks, and torn lines that were set aside."""
    paths = (path for path in place.rglob("*") if path.is_file() and path.name[0] != "." and ".torn-" not in path.name)
    return [str(path.relative_to(place)) for path in paths]


def leftovers(base: Path) -> list[Path]:
    """Return what only a call that was killed may leave; matplotlib, torch and ONNX Runtime leave folders of theirs."""
    temporary = [*base.glob("tmp/*"), *base.rglob("*.tmp"), *base.rglob(".*.part")]
    return [path for path in temporary if not path.name.startswith(("matplotlib", "torchinductor", ".ses"))]


def lost(place: Path, template: Path) -> list[str]:
    """Return in words what was there before, and is gone or has lost something."""
    found = [f"{name} is gone" for name in file_names(template) if not (place / name).exists()]
    grown = [name for name in file_names(template) if name.endswith("journal.log") and (place / name).exists()]
    found += [f"{name} was cut" for name in grown if not _begins_with(place / name, (template / name).read_bytes())]
    for name in (TABLE, "same.json"):
        if (place / name).exists() and not broken(place / name):
            entries = [json.loads((folder / name).read_text())["entries"] for folder in (template, place)]
            found += [f"{name} lacks entries"] if entries[0].keys() - entries[1].keys() else []
    return found + broken_files(place)


def broken_files(place: Path) -> list[str]:
    return [f"{name}: {words}" for name in file_names(place) if (words := broken(place / name))]


def broken(path: Path) -> str:
    """Return in words why a file is not whole; nothing where it is, or where that cannot be told."""
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".toml":
            tomllib.loads(content.decode())
        elif path.suffix == ".safetensors":
            _check_tensors(content)
        elif path.suffix in _ENDS and not content.rstrip().endswith(_ENDS[path.suffix]):
            return "its end is missing"
        if path.name == "card.json":
            return _torn_artefact(path.parent, json.loads(content))
    except (ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


_ENDS = {".html": b"</html>", ".svg": b"</svg>", ".png": b"IEND\xaeB`\x82", ".csv": b""}


def _check_tensors(content: bytes) -> None:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
    if len(content) != 8 + length + end:
        raise ValueError("the tensors are cut")


def _torn_artefact(folder: Path, card: dict[str, Any]) -> str:
    for name, file in card["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != file["sha256"]:
            return f"{name} is not what the card says"
    return ""


def _begins_with(path: Path, before: bytes) -> bool:
    return path.read_bytes().startswith(before)
