"""The verbs that kills.py strikes: what is typed, what is there before, and what a verb has finished."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the helpers of the tests

SPACE = "--cells 1 --filters 4"
DATA = "--data npz:images.npz --images 60 --epochs 1 --max-latency-ms 50 --space pnas --strategy random"
COLUMNS = "--choices a,b --accuracy seen,truth --latency ms --caps 3.5"
CONFIG = """\
out = "runs/a"
[device]
device = "pretend"
[profile]
networks = 1
[search]
max_latency_ms = 50
data = "npz:images.npz"
space = "pnas"
cells = [1]
filters = [4]
strategy = "random"
trials = 2
images = 60
epochs = 1
[train]
winners = 1
epochs = 2
batch_size = 64
"""


@dataclass(frozen=True)
class Finished:
    """A thing that a verb has finished: what it must come to, and what of it must not change any more."""

    name: str
    result: object
    kept: tuple[object, ...] = ()

    def goes_on_from(self, earlier: "Finished") -> bool:
        """Say whether this is an earlier one, as it was or with something added."""
        return self.kept[: len(earlier.kept)] == earlier.kept


@dataclass(frozen=True)
class Scene:
    """A verb as it is typed in the folder of a stage; one that is not `is_long` is not struck by KILL.

    What one that `prints` comes to is its standard output.
    """

    words: str
    stage: str
    finished: Callable[[Path], list[Finished]] = lambda place: []
    is_long: bool = False
    prints: bool = False

    def typed(self, place: Path) -> list[str]:
        """Return the words, in which TRIAL is the one that is exported."""
        exported = [path.name for path in place.glob("export/a/[0-9]*")]
        return self.words.replace("TRIAL", "".join(exported)).split()


def tables(place: Path) -> list[Finished]:
    """The entries and networks of all tables, with their rounds."""
    from hwnas.latency.table import LatencyTable

    found = []
    for path in sorted((place / "latency_tables").glob("*/*.json")):
        table = LatencyTable.read(path)
        measured = list(table.entries.items())
        measured += [(json.dumps(network.architecture.to_json()), network.measurement) for network in table.networks]
        is_pretended = path.parent.name == "pretend"  # which is never unsteady
        found += [
            Finished(f"{path.parent.name} {name}", len(one.rounds_ms) if is_pretended else None, one.rounds_ms)
            for name, one in measured
        ]
    return found


def trials(place: Path) -> list[Finished]:
    """The trained trials of all runs: each network once."""
    from hwnas.runs.run import Run

    return [
        Finished(
            f"{path.parent.name} {json.dumps(candidate.architecture.to_json())}",
            candidate.accuracy,
            (candidate.trial, candidate.accuracy, candidate.latency_ms),
        )
        for path in sorted(place.glob("runs/*/settings.json"))
        if (path.parent / "journal.log").exists()
        for candidate in Run.open(path.parent).candidates()
    ]


def winners(place: Path) -> list[Finished]:
    """The trained weights, byte by byte."""
    found = []
    for path in sorted(place.glob("runs/*/winners/*/winner.json")):
        weights = hashlib.sha256((path.parent / "weights.safetensors").read_bytes()).hexdigest()
        seen = json.loads(path.read_text())["images_seen"]
        found.append(Finished(f"{path.parent.parent.parent.name} {path.parent.name}", (weights, seen), (weights,)))
    return found


def artefacts(place: Path) -> list[Finished]:
    """The exported folders, each of which must be whole; of their files those that are the same each time."""
    import hwnas

    found = []
    for folder in sorted(place.glob("export/*/[0-9]*")):
        hwnas.verify(str(folder), device="host")
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("model*"))]
        found.append(Finished(str(folder.relative_to(place)), tuple(hashes), tuple(hashes)))
    return found


def run(place: Path) -> list[Finished]:
    """All of these."""
    return [*tables(place), *trials(place), *winners(place), *artefacts(place)]


def comparison(place: Path) -> list[Finished]:
    """The runs of `bench`, and the comparison once it is there."""
    found = []
    for path in sorted(place.glob("bench/runs/*.json")):
        rows = json.loads(path.read_text())["rows"]
        found.append(Finished(path.name, rows, (path.read_text(),)))
    return found


def content(*patterns: str) -> Callable[[Path], list[Finished]]:
    """Return what reads files as they are."""
    return lambda place: [
        Finished(str(path.relative_to(place)), path.read_bytes())
        for pattern in patterns
        for path in sorted(place.glob(pattern))
    ]


def names(*patterns: str) -> Callable[[Path], list[Finished]]:
    """Return what looks whether files are there, and not empty."""
    return lambda place: [
        Finished(str(path.relative_to(place)), path.stat().st_size > 0)
        for pattern in patterns
        for path in sorted(place.glob(pattern))
    ]


def _search(out: str, more: str, *, device: str = "host", fill: float = 0) -> str:
    """What fills the cap follows from what was measured, which on the host is never the same."""
    return f"search --out runs/{out} --device {device} --fill {fill} {DATA} {SPACE} {more}"


LOADED = (
    *("torch", "torch.optim.sgd", "torchvision", "optuna", "scipy.stats", "scipy.optimize", "matplotlib.figure"),
    *(
        "hwnas.cli.main",
        "onnx",
        "onnxruntime",
        "ai_edge_litert.interpreter",
        "jinja2",
        "rich.progress",
        "pydantic",
        "typer",
    ),
    *("hwnas.verbs.run", "hwnas.searching.loop", "hwnas.searching.evaluation", "hwnas.training.loop"),
    *("hwnas.searching.strategies.enas", "hwnas.searching.strategies._differentiable", "hwnas.training.mixed"),
    *("hwnas.training.fine_tuning", "hwnas.artefacts.writing", "hwnas.pages.report", "hwnas.benching.cases"),
)
OLDER = "latency_tables/pretend/tflite-fp32-1t.json"
PROFILE = f"--setting tflite-fp32-1t --networks 1 --resolution 8 --classes 3 {SPACE}"
SCENES = {
    "profile": Scene(f"profile pretend {PROFILE}", "bare", tables, is_long=True),
    "profile-host": Scene(f"profile host {PROFILE}", "bare", tables, is_long=True),
    "search": Scene(_search("a", "--trials 3"), "profiled", trials, is_long=True),
    "search-2": Scene(_search("b", "--trials 4 --workers 2"), "profiled", trials, is_long=True),
    "search-supernet": Scene(
        _search("c", "--trials 3 --estimator supernet --supernet 12"), "profiled", trials, is_long=True
    ),
    "search-enas": Scene(
        _search("d", "--trials 3 --estimator supernet --supernet 40 --strategy enas"), "profiled", trials, is_long=True
    ),
    "search-speed": Scene(
        _search("e", "--trials 6 --estimator training-speed", device="pretend", fill=0.25),
        "profiled",
        trials,
        is_long=True,
    ),
    **{
        f"search-{strategy}": Scene(
            _search(strategy, f"--trials 2 --estimator training-speed --supernet 60 --strategy {strategy}"),
            "profiled",
            trials,
            is_long=True,
        )
        for strategy in ("darts", "darts-second", "fbnet", "proxyless")
    },
    "train": Scene("train runs/a --winners 1 --epochs 4 --batch-size 32", "searched", winners, is_long=True),
    "train-finalists": Scene(
        "train runs/a --winners best:1 --finalists 2 --epochs 20 --batch-size 32", "searched", winners, is_long=True
    ),
    "export": Scene("export runs/a", "trained", artefacts, is_long=True),
    "run": Scene("run run.toml", "bare", run, is_long=True),
    "bench": Scene(
        f"bench --table table.csv {COLUMNS} --strategies random,nsga2 --seeds 6 --evaluations 8 --jobs 2 --out bench",
        "bare",
        comparison,
        is_long=True,
    ),
    "report": Scene("report runs/a", "exported", names("runs/a/report.html", "runs/a/front.*")),
    "verify": Scene("verify export/a/TRIAL", "exported", prints=True),
    "describe": Scene("describe cell.toml --picture cell.svg", "bare", content("cell.svg")),
    "tables show": Scene("tables show", "profiled", prints=True),
    "tables check": Scene("tables check", "profiled", prints=True),
    "tables merge": Scene(f"tables merge {OLDER} same.json --out merged.json", "profiled", content("merged.json")),
    "tables diff": Scene(f"tables diff {OLDER} same.json", "profiled", prints=True),
    "devices": Scene("devices", "bare", prints=True),
    "devices add": Scene(
        "devices add other --transport local --setting tflite-fp32-1t --no-ask",
        "bare",
        content("devices/other.toml"),
    ),
}
STAGES = {  # the stage before, and the verbs that are called then
    "bare": ("",),
    "profiled": ("bare", "profile", "profile-host"),
    "searched": ("profiled", "search"),
    "trained": ("searched", "train"),
    "exported": ("trained", "export"),
}


def load() -> None:
    """Load all that the verbs load."""
    for name in LOADED:
        import_module(name)


def run_hwnas() -> None:
    """Run the command line here, as its entry does."""
    from hwnas.cli import stop_at_once
    from hwnas.cli.main import main
    from hwnas.support.temporary import remove_open

    stop_at_once()
    try:
        main()
    finally:
        remove_open()  # as at the end of a process, of which a fork does nothing


def copy_table(folder: Path) -> None:
    """Write the pretended device's table a second time, if there is one."""
    if (folder / OLDER).exists():
        shutil.copy(folder / OLDER, folder / "same.json")


def write_bare(folder: Path) -> None:
    """Write tiny images, a pretended device without noise, a table of known results, a cell and a config."""
    from conftest import write_images
    from pretended import write_device

    write_images(folder / "images.npz", train=240, test=30)
    write_device(folder)
    before = Path(__file__).parent.parent / "data" / "before"
    shutil.copy(before / "table.csv", folder)
    shutil.copy(before / "cell.toml", folder)
    (folder / "run.toml").write_text(CONFIG)
