"""Every command that hwnas tells people to type works: what it prints and raises is brought about, read and run.

Files that tell commands by themselves, such as README.md, are read for verbs and options that there are not.
"""

import ast
import dataclasses
import html
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import pretend_table, write_images
from networks import network
from pretended import FORMULA, scaled, write_device
from typer.testing import CliRunner

import hwnas
from hwnas.artefacts.exporting import Wanted
from hwnas.artefacts.files import sha256
from hwnas.cli.main import app
from hwnas.device.transports import _qemu_sysroot
from hwnas.errors import HwnasError
from hwnas.latency import profiling
from hwnas.latency.measure import read_conditions
from hwnas.latency.measurement import Measurement
from hwnas.latency.profiling import Profiled, Task, profile_setting
from hwnas.latency.steadiness import Steadiness
from hwnas.latency.table import LatencyTable
from hwnas.network.graph import executed
from hwnas.network.scale import ladder
from hwnas.support import commands
from hwnas.training.loop import Trained

PACKAGE = Path(hwnas.__file__).parent
TOLD = re.compile(r"(?P<before>`|[Tt]ype:? |: |then |^)?hwnas (?P<words>[^`\n]*?)(?=`|\n|$|\. |; |hwnas )")
OPTION = re.compile(r"--[a-z][a-z-]*")
HOLE = "NAME"  # in the place of what a formatted text takes in


def strings(path: Path) -> Iterator[str]:
    """Yield the texts of a Python file that people may see: no docstrings; or the whole of another file."""
    if path.suffix != ".py":
        yield re.sub(r"{{.*?}}", HOLE, path.read_text())
        return
    tree = ast.parse(path.read_text())
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(node.body[0].value) for node in scopes if isinstance(node.body[0], ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            yield node.value


def told(path: Path) -> list[tuple[str, list[str]]]:
    """Return the commands in a file: what stands before each, and its words after `hwnas`."""
    return [
        (match["before"] or "", match["words"].split())
        for text in strings(path)
        for match in TOLD.finditer(text)
        if match["words"].strip()
    ]


def complaint(before: str, words: list[str]) -> str:
    """Return what is wrong with a command; nothing for a good one, and for what is none but a sentence on hwnas."""
    command: Any = typer.main.get_command(app)
    verb = [word.strip(".,)") for word in words]
    if verb[0] not in command.commands:
        is_command = before and not verb[0][0].isupper() and not verb[0].startswith("-")
        return f"there is no verb {verb[0]}" if is_command and before != ": " else ""
    while verb and verb[0] in getattr(command, "commands", {}):
        command = command.commands[verb.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = set(OPTION.findall(" ".join(verb))) - known - {"--help"}
    return f"{command.name} has no {', '.join(sorted(unknown))}" if unknown else ""


FILES = [
    *(path for suffix in ("py", "jinja", "toml") for path in sorted(PACKAGE.rglob(f"*.{suffix}"))),
    *sorted((PACKAGE.parent / "devices").glob("*.toml")),
    *(PACKAGE.parent / name for name in ("README.md", "AGENTS.md", "SKILL.md")),
    *(PACKAGE.parent / name / "README.md" for name in ("export/zoo", "latency_tables")),
    *sorted((PACKAGE.parent / "export" / "zoo").glob("*.toml")),
    *sorted((PACKAGE.parent / "docs").glob("*.md")),
    PACKAGE.parent / "demo.toml",
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_the_command_line_takes_every_command_that_a_file_tells(path: Path) -> None:
    assert [
        f"hwnas {' '.join(words)}: {wrong}" for before, words in told(path) if (wrong := complaint(before, words))
    ] == []


def test_commands_are_found_in_texts_and_wrong_ones_are_told(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        '"""Not `hwnas nothing`."""\n'
        'a = f"it must be there; got {name}. Type: hwnas profile {name} --fresh --setting {name}"\n'
        'b = "Type: hwnas train RUN --fresh. See `hwnas tables show --jsn` or `hwnas trian RUN`; hwnas writes files"\n'
    )
    assert [complaint(*command) for command in told(path)] == [
        "",
        "train has no --fresh",
        "show has no --jsn",
        "there is no verb trian",
        "",
    ]


def test_there_are_such_commands() -> None:
    assert len(told(PACKAGE.parent / "README.md")) > 10
    assert len(told(PACKAGE.parent / "docs" / "index.md")) > 5


def test_no_command_is_spelled_but_in_commands() -> None:
    """With an option, a name or what a formatted text takes in: a bare verb, as in `hwnas search`, is only its name."""
    verbs = "|".join(getattr(typer.main.get_command(app), "commands", ()))
    spelled = re.compile(rf"\bhwnas ({verbs}) (--[a-z]|[A-Z]{{2}}|{HOLE}\b|add|setup)")
    files = [path for path in FILES if path.suffix in (".py", ".jinja") and path.name != "commands.py"]
    assert [f"{path}: {text}" for path in files for text in strings(path) if spelled.search(text)] == []


# What is printed and raised is brought about in a folder with a pretended device and a run on it, and then typed.

BUILDERS = {
    name
    for name, function in inspect.getmembers(commands, inspect.isfunction)
    if function.__module__ == commands.__name__ and not name.startswith("_")
}
IN_TEXT = re.compile(r"(?:\bhwnas|\S*python\S* -m pip) [a-z][^\n<]*?(?=\.? ?$|\. |, then |; |<)", re.MULTILINE)

SPACE = "--space enas-micro --cells 1 --filters 4"
PROFILE = f"profile pretend {SPACE} --resolution 8 --classes 3 --networks 2"
FEW = "--strategy random --estimator size --trials 2"
OWN = f"--device pretend --data npz:images.npz {SPACE} {FEW}"
MEASURED = f"search --max-latency-ms 2 {OWN}"
SEARCH = f"{MEASURED} --predicted"
FILE = """out = "runs/new"
[device]
device = "pretend"
[search]
max_latency_ms = 2
data = "npz:images.npz"
space = "enas-micro"
cells = 1
filters = 4
strategy = "random"
estimator = "size"
trials = 2
[train]
winners = 1
[export]
files = ["model.tflite"]
"""
DESCRIBE = "describe runs/a/winners/0000 --device pretend --max-latency-ms 5 --cells 1 --filters 4"
VERIFY = "verify export/a/0000 --device host"
RUN, WINNER, ARTEFACT = Path("runs/a"), Path("runs/a/winners/0000"), Path("export/a/0000")
TABLE = Path("latency_tables/pretend/tflite-fp32-1t.json")
VALUES = {"MS": "2", "DATA": "npz:images.npz", "RUN": "runs/a", "NAME": "pi", "WEIGHTS": "random"}
VALUES["export/RUN/TRIAL"] = str(ARTEFACT)


def nothing() -> None:
    """Leave all as it is."""


@dataclass(frozen=True)
class Situation:
    """What is typed after something was spoilt, and the builder of the command that is told then.

    Before that one is typed the reader does by hand what he is told to do (`mend`), puts `values` in the place of words
    in capitals and adds `options` of his own. Where it `resolves` the complaint, what was typed first works then.
    """

    typed: str
    advice: str
    spoil: Callable[[], object] = nothing
    mend: Callable[[], object] = nothing
    values: dict[str, str] = field(default_factory=dict)
    options: str = ""
    resolves: bool = True

    def __str__(self) -> str:
        what = "" if self.spoil is nothing else f", {getattr(self.spoil, '__name__', 'spoilt')}"
        return f"{self.typed.replace(OWN, '...')}{what}: {self.advice}"


@dataclass(frozen=True)
class Answer:
    """What a command answers: its exit status, and what it printed, raised, or wrote on a run's page."""

    status: int
    text: str

    def commands(self, builder: str) -> list[list[str]]:
        """Return the words of each command in it that a builder has made."""
        found = (shlex.split(match[0]) for match in IN_TEXT.finditer(self.text))
        return [words for words in found if builder_of(words) == builder]


def builder_of(words: list[str]) -> str:
    """Return the name of the builder that makes such a command; nothing for what is no command."""
    if words[0] != "hwnas":
        return f"pip_{words[3]}"
    two = "_".join(words[1:3])
    return next((name for name in (two, words[1]) if name in BUILDERS), "")


def answer(*words: str) -> Answer:
    """Type a command."""
    if words[0] != "hwnas":
        done = subprocess.run(words, capture_output=True, text=True)
        return Answer(done.returncode, done.stdout + done.stderr)
    result = CliRunner().invoke(app, words[1:])
    if result.exception is not None and not isinstance(result.exception, HwnasError | SystemExit):
        raise result.exception
    page = RUN / "report.html"
    is_written = words[1] == "report" and result.exit_code == 0
    read = html.unescape(page.read_text().partition("<body")[2]) if is_written else ""
    return Answer(result.exit_code, f"{result.output}\n{result.exception}\n{read}")


# What would take long is done in small.


def small_profile(device: Any, setting: Any, task: Task, *flags: bool) -> Profiled:
    """Measure a few operators where a whole space is asked for; of this machine none."""
    if device.transport == "local":
        path = pretend_table(Path.cwd()).path
        return Profiled(device.name, setting.name, str(path), 1, 1, 0, 0, 0, 0, 0, Steadiness(None, 0), None, 0)
    if len(task.scales) > 2:
        scales = ladder((1,), (4,), (8,), classes=3, channels=1)
        task = dataclasses.replace(task, space="enas-micro", scales=scales, networks=2)
    return profile_setting(device, setting, task, *flags)


def made_up(device: Any, table: LatencyTable, task: Task, unstable: bool) -> int:
    """Fill a table without measuring: an operator takes what its name says, a network what its operators do."""
    graphs, networks = profiling._wanted(table, task)
    if unstable:
        profiling._forget_unstable(table, graphs, networks)
    table.sessions.append(task.session(read_conditions(device, table.setting)))
    new = table.missing(graphs.keys() - networks.keys())
    for name in new:
        table.entries[name] = Measurement(((0.001 + len(name) / 1e5,),))
    for name, architecture in networks.items():
        ms = sum(0.001 + len(key) / 1e5 for key, _, _ in executed(graphs[name]))
        table.set_network(architecture, Measurement(((ms,),)))
    table.save()
    return len(new)


ASKED = Wanted.of


def one_file(files: Any, **others: Any) -> Wanted:
    """Want the usual file alone where others are wanted, too."""
    return ASKED(files[:1], **others)


def not_trained(architecture: Any, images: Any, *_: Any, **options: Any) -> Trained:
    """Return a network with random weights."""
    return Trained(network(architecture.graph).eval(), 1.0, len(images.labels), [])


def make_sysroot(part: Path) -> dict[str, Callable[[], None]]:
    """Return the one step that makes an Arm's Python of this one, unless there is no network."""

    def step() -> None:
        if Path("no-network").exists():
            subprocess.run(["false"], check=True, capture_output=True, text=True)
        (part / "apt").mkdir(exist_ok=True)
        write_python(part / "python", "")

    return {"making it": step}


def write_python(path: Path, before: str) -> Path:
    """Write a Python that does something before it is this one."""
    path.write_text(f'#!/bin/sh\n{before}\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path.absolute()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder in which all went well: a device was profiled, a network searched, trained and exported."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("hwnas.training.train_network", not_trained)
        patch.setattr("hwnas.latency.profiling._measure", made_up)
        write_images(folder / "images.npz", test=90)
        write_device(folder)
        shutil.copy(PACKAGE.parent / "devices" / "host.toml", "devices")
        for typed in (
            PROFILE,
            f"{SEARCH} --out runs/a",
            "train runs/a --trial 0",
            "export runs/a --files model.tflite",
        ):
            assert answer("hwnas", *typed.split()).status == 0, typed
        yield folder


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a copy of that folder, where nothing is known but what is in it, and nothing takes long."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("hwnas.device.device._SHIPPED", ())
    monkeypatch.setattr("hwnas.verbs.profile.profile_setting", small_profile)
    monkeypatch.setattr("hwnas.training.train_network", not_trained)
    monkeypatch.setattr("hwnas.latency.profiling._measure", made_up)
    monkeypatch.setattr(Wanted, "of", one_file)
    monkeypatch.setattr("hwnas.pages.network_picture.network_figure", lambda architecture: None)
    monkeypatch.setattr("hwnas.pages.pictures.png", lambda figure: b"")
    monkeypatch.setattr("hwnas.pages.pictures.svg", lambda figure: "")
    monkeypatch.setattr("hwnas.pages.pictures.inline_svg", lambda figure, **_: "")
    monkeypatch.setattr(_qemu_sysroot, "_steps", make_sysroot)
    monkeypatch.setattr(_qemu_sysroot.Sysroot, "_need_tools", nothing_missing)
    return tmp_path / "home"


def nothing_missing(sysroot: object) -> None:
    """Find every tool."""


# What is spoilt, and mended by hand.


def change(path: Path, **changes: Any) -> Callable[[], None]:
    """Return what changes fields of a JSON file."""

    def spoil() -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    spoil.__name__ = f"{path.name} with {', '.join(map(str, changes))}"
    return spoil


def remove(*paths: Path) -> Callable[[], None]:
    """Return what removes files and folders."""

    def spoil() -> None:
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    spoil.__name__ = f"no {' and '.join(path.name for path in paths)}"
    return spoil


def write(path: Path, content: str) -> Callable[[], None]:
    """Return what writes a file."""

    def spoil() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    spoil.__name__ = f"another {path.name}"
    return spoil


def replace(path: Path, pattern: str, text: str) -> Callable[[], None]:
    """Return what writes something else in a file."""

    def spoil() -> None:
        written, count = re.subn(pattern, text, path.read_text())
        assert count
        path.write_text(written)

    spoil.__name__ = f"{path.name} with {text}"
    return spoil


def in_table(change_table: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Return what changes the latency table."""

    def spoil() -> None:
        table = json.loads(TABLE.read_text())
        change_table(table)
        TABLE.write_text(json.dumps(table))

    spoil.__name__ = change_table.__name__
    return spoil


def unstable_entry(table: dict[str, Any]) -> None:
    next(iter(table["entries"].values()))["unstable"] = True


def broken_entry(table: dict[str, Any]) -> None:
    next(iter(table["entries"].values()))["rounds_ms"] = []


def no_such_entry(table: dict[str, Any]) -> None:
    del table["entries"][next(iter(table["entries"]))]


def broken_network(table: dict[str, Any]) -> None:
    table["networks"][0]["held_out"] = "no"


def unreadable_network(table: dict[str, Any]) -> None:
    table["networks"][0]["architecture"] = {"kind": "magic"}


def no_such_network(table: dict[str, Any]) -> None:
    del table["networks"][0]


def another_device() -> None:
    write_device(Path(), scaled(FORMULA, 2.0))


def unlike_tables() -> None:
    shutil.copy(TABLE, "other.json")
    replace(Path("other.json"), '"threads": 1', '"threads": 2')()


def file_that_cannot_be_loaded() -> None:
    (ARTEFACT / "model.tflite").write_bytes(b"no model")
    digest = sha256(ARTEFACT / "model.tflite")
    replace(ARTEFACT / "card.json", r'"sha256": "[0-9a-f]+"(?=,\s+"tensors")', f'"sha256": "{digest}"')()


def artefact_elsewhere() -> None:
    Path("export").rename("other")
    change(Path("other/a/0000/card.json"), weights_sha256="0" * 64)()


def emulated_device() -> None:
    shutil.rmtree("devices")
    Path("devices").mkdir()
    shutil.copy(PACKAGE.parent / "devices" / "arm64-qemu.toml", "devices")


def emulated_device_that_is_set_up() -> None:
    emulated_device()
    assert answer("hwnas", "devices", "setup", "arm64-qemu").status == 0


def emulated_device_without_a_network() -> None:
    emulated_device()
    Path("no-network").touch()


def only_device(name: str, python: Path) -> None:
    shutil.rmtree("devices")
    hwnas.devices_add(name, setting="tflite-fp32-1t", python=python, ask=False)


def python_without_numpy() -> None:
    until = 'case "$*" in "-m pip install numpy") exec touch numpy;; esac'
    without = f'[ -e numpy ] || exec "{sys.executable}" -I -S "$@"'
    only_device("bare", write_python(Path("a-python"), f"{until}\n{without}"))


def package_of_the_same_name() -> None:
    """Let a package be installed that has a folder `hwnas`, as slimnet 0.2 has."""
    write(Path("site/namesake-1.0.dist-info/METADATA"), "Metadata-Version: 2.1\nName: namesake\nVersion: 1.0\n")()
    write(Path("site/namesake-1.0.dist-info/top_level.txt"), "hwnas\n")()
    sys.path.append(str(Path("site").absolute()))


def no_package_of_the_same_name() -> None:
    sys.path.remove(str(Path("site").absolute()))


def python_that_is_gone() -> None:
    only_device("gone", Path("a-python").absolute())


def device_that_is_slow_to_answer() -> None:
    remove(Path("devices/host.toml"))()
    Path("slow").touch()


NO_TABLE, NO_HOST = remove(Path("latency_tables")), remove(Path("devices/host.toml"))
NO_TRIALS = remove(RUN / "journal.log", RUN / "winners")
JOURNAL_OF_A_NEWER_HWNAS = replace(RUN / "journal.log", 'format":2', 'format":99')
IN_NEW = {"RUN": "runs/new"}
PUBLISHED = Path("export/mobilenet-v2/32/card.json")
NEW_DEVICE = "devices add pi --transport pretend --setting tflite-fp32-1t"

SITUATIONS = [
    # of latency tables
    Situation(f"{SEARCH} --out runs/b", "profile", NO_TABLE),
    Situation(f"{MEASURED} --no-profile --out runs/b", "profile", NO_TABLE),
    Situation(f"{MEASURED} --out runs/b", "profile", another_device),
    Situation(f"{SEARCH} --out runs/b --filters 4,6", "profile"),
    Situation(PROFILE, "profile", another_device),
    Situation(DESCRIBE, "profile", NO_TABLE),
    Situation(f"{DESCRIBE},6", "profile"),
    Situation("report runs/a", "profile", NO_TABLE),
    Situation("report runs/a", "profile", in_table(no_such_entry)),
    Situation("devices", "profile", lambda: (NO_TABLE(), NO_HOST())),
    Situation("devices", "profile", lambda: (another_device(), NO_HOST())),
    Situation("tables show pretend", "profile", NO_TABLE),
    Situation("tables show pretend", "profile", in_table(unstable_entry)),
    Situation("tables show", "profile", NO_TABLE),
    Situation("tables check", "profile", NO_TABLE),
    Situation("tables check pretend", "profile", write(TABLE, "{")),
    Situation("tables check pretend", "profile", in_table(broken_entry), in_table(no_such_entry)),
    Situation("tables check pretend", "profile", in_table(broken_network), in_table(no_such_network)),
    Situation("tables check pretend", "profile", in_table(unreadable_network), in_table(no_such_network)),
    Situation("tables check pretend", "devices", NO_HOST, resolves=False),
    Situation(f"tables merge {TABLE} other.json --out merged.json", "tables_diff", unlike_tables, resolves=False),
    Situation(PROFILE, "search", values=IN_NEW, options=FEW, resolves=False),
    # of runs
    Situation("train runs/new", "search", options=OWN),
    Situation("train runs/a", "search", NO_TRIALS),
    Situation("report runs/a", "search", NO_TRIALS),
    Situation("report runs/a", "search", write(RUN / "run.json", "{"), remove(RUN / "run.json")),
    Situation(f"{SEARCH} --out runs/a --seed 1 --trials 3", "search", resolves=False),
    Situation("report runs/a", "search", change(RUN / "settings.json", version=99), nothing, IN_NEW, OWN, False),
    Situation("report runs/a", "search", change(RUN / "settings.json", trials=0), nothing, IN_NEW, OWN, False),
    Situation("report runs/a", "search", JOURNAL_OF_A_NEWER_HWNAS, nothing, IN_NEW, OWN, False),
    Situation(f"{SEARCH} --out runs/a", "train", resolves=False),
    Situation("export runs/a", "train", remove(RUN / "winners")),
    Situation("export runs/a --trial 1", "train"),
    Situation("report runs/a", "train", remove(RUN / "winners")),
    Situation("export runs/a", "train", change(WINNER / "winner.json", seconds=None), remove(WINNER / "winner.json")),
    Situation("describe runs/a/winners/0000", "train", write(WINNER / "winner.json", "{"), remove(WINNER)),
    Situation("export runs/a", "train", write(WINNER / "weights.safetensors", ""), remove(WINNER)),
    Situation("train runs/a", "export", resolves=False),
    Situation("train runs/a", "report", resolves=False),
    Situation("run a.toml --trials 2", "run", write(Path("a.toml"), FILE), resolves=False),
    # of artefacts
    Situation("report runs/a", "report", resolves=False),
    Situation("report runs/a", "export", remove(Path("export"))),
    Situation("report runs/a", "export", change(ARTEFACT / "card.json", weights_sha256="0" * 64)),
    Situation("report runs/a --export-folder other", "export", artefact_elsewhere),
    Situation("report runs/a", "export", change(ARTEFACT / "card.json", version=99), remove(ARTEFACT / "card.json")),
    Situation("report runs/a", "export", write(PUBLISHED, "{}"), remove(PUBLISHED), options="--files model.tflite"),
    Situation(VERIFY, "export", write(ARTEFACT / "model.tflite", "")),
    Situation(VERIFY, "export", remove(ARTEFACT / "check.npz")),
    Situation(VERIFY, "export", change(ARTEFACT / "card.json", check=None)),
    Situation(VERIFY, "export", write(ARTEFACT / "card.json", "{"), remove(ARTEFACT / "card.json")),
    Situation(VERIFY, "export", file_that_cannot_be_loaded, remove(ARTEFACT / "model.tflite")),
    Situation("describe export/a/0000", "export", change(ARTEFACT / "card.json", files=None), remove(ARTEFACT)),
    Situation("export runs/a --files model.tflite", "verify", resolves=False),
    Situation("verify export/a/0000", "verify", resolves=False),
    Situation("zoo --out mine", "zoo", resolves=False),
    # of networks
    Situation("describe mobilenet-v2 --max-mult-adds 1e9", "describe", resolves=False),
    Situation(
        "describe mobilenet-v2 --max-mult-adds 1e9",
        "search",
        values={**IN_NEW, "NAME": "enas-micro"},
        options=OWN,
        resolves=False,
    ),
    # of devices
    Situation("devices", "devices_add", remove(Path("devices")), resolves=False),
    Situation("devices add", "devices_add", resolves=False),
    Situation("devices add pi", "devices_add", resolves=False),
    Situation(NEW_DEVICE, "devices", NO_HOST, resolves=False),
    Situation(NEW_DEVICE, "profile", resolves=False),
    Situation("devices add arm --transport qemu --setting tflite-fp32-1t", "devices_setup", resolves=False),
    Situation("devices", "devices", python_that_is_gone, lambda: write_python(Path("a-python"), "")),
    Situation("devices --patience-s 0.2", "devices", device_that_is_slow_to_answer, resolves=False),
    Situation("devices", "pip_install", python_without_numpy),
    # of the beginning
    Situation("doctor", "doctor", values={"folder:PATH": "npz:images.npz"}, resolves=False),
    Situation("doctor", "pip_uninstall", package_of_the_same_name, no_package_of_the_same_name),
    Situation("init --data npz:images.npz", "init", resolves=False),
    Situation("devices --no-reach", "verify", emulated_device_that_is_set_up, resolves=False),
    Situation("devices setup", "verify", emulated_device, resolves=False),
    Situation("devices setup", "devices_setup", emulated_device_without_a_network, remove(Path("no-network"))),
    Situation("profile arm64-qemu", "verify", emulated_device_that_is_set_up, resolves=False),
    Situation("verify export/a/0000 --device arm64-qemu", "devices_setup", emulated_device),
]


def slow_conditions(device: Any, setting: Any) -> Any:
    """Read the conditions of a device, after a while where it is slow."""
    if Path("slow").exists():
        time.sleep(0.5)
    return read_conditions(device, setting)


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_what_is_told_works_when_it_is_typed(situation: Situation, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.latency.read_conditions", slow_conditions)
    situation.spoil()
    typed = ["hwnas", *situation.typed.split()]
    told = answer(*typed)
    assert told.commands(situation.advice), told.text
    advice = told.commands(situation.advice)[0]
    situation.mend()
    values = {**VALUES, **situation.values}
    done = answer(*(values.get(word, word) for word in advice), *situation.options.split())
    assert done.status == 0, done.text
    if situation.resolves:
        after = answer(*typed)
        assert after.status == 0, after.text
        assert advice not in after.commands(situation.advice)


def test_every_command_is_told_in_some_situation() -> None:
    assert {situation.advice for situation in SITUATIONS} == BUILDERS


def test_what_an_artefact_says_of_itself_works_in_its_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (advice,) = re.findall(r"`(hwnas [^`]*)`", (ARTEFACT / "README.md").read_text())
    monkeypatch.setenv("HWNAS_ROOT", str(home))  # which knows this machine
    monkeypatch.chdir(ARTEFACT)
    assert answer(*shlex.split(advice)).status == 0


def test_a_run_goes_on_with_all_that_it_was_asked_for(home: Path) -> None:
    """Whatever an option is: the command has it, or it is the default."""
    options = "--targets 0.5,1 --max-mult-adds 1e9 --max-parameters 123456789.5 --inherit --seed 7 --images 50"
    options += " --proxy-filters 0.333333333333 --resolution 8 --threads 1 --skeleton cifar --predicted"
    assert answer("hwnas", *f"{SEARCH} --out runs/all {options}".split()).status == 0
    asked = json.loads(Path("runs/all/settings.json").read_text())
    Path("runs/all/journal.log").unlink()
    (advice,) = answer("hwnas", "train", "runs/all").commands("search")
    shutil.rmtree("runs/all")
    assert answer(*advice).status == 0
    assert json.loads(Path("runs/all/settings.json").read_text()) == asked
