"""Changes of meaning: what one record says is held against whatever else says the same thing.

500 of them, seeded: the order of classes, a unit, a hash, a scale, a figure. None is accepted silently where another
record contradicts it.
"""

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import hwnas
from hwnas.artefacts.card import Card
from hwnas.artefacts.files import read_check, sha256
from hwnas.errors import HwnasError, InputError
from hwnas.latency.table import LatencyTable
from hwnas.runs.run import Run

BEFORE = Path(__file__).parent.parent / "data" / "before"
ARTEFACT, WINNER = Path("export/a/0000"), Path("runs/a/winners/0000")
TABLE = Path("latency_tables/host/tflite-fp32-1t.json")
CASES = 500


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a copy of the records of before."""
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")


def numbers(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where a record's numbers are."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [place] if isinstance(value, (int, float)) and not isinstance(value, bool) else []
    return found + [inner for name, part in parts for inner in numbers(part, (*place, name))]


def changed(record: Any, place: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """Return a record with another value in one place."""
    copy = json.loads(json.dumps(record))
    inner = copy
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = change(inner[place[-1]])
    return copy


def other_number(random: Random) -> Callable[[Any], Any]:
    """Return a change that is not small: another unit, another figure."""
    factor = random.choice([1000, 1e-3, 2, 0.5, 1.01])
    return lambda value: value + 1 if isinstance(value, int) else value * factor if value else 0.5


def shuffled(random: Random) -> Callable[[list[Any]], list[Any]]:
    """Return a change of a list's order."""

    def shuffle(values: list[Any]) -> list[Any]:
        order = list(values)
        while order == values:
            random.shuffle(order)
        return order

    return shuffle


def other_hash(random: Random) -> Callable[[str], str]:
    """Return a change of one digit."""

    def change(digits: str) -> str:
        at = random.randrange(len(digits))
        return digits[:at] + ("0" if digits[at] != "0" else "1") + digits[at + 1 :]

    return change


def is_contradicted(place: tuple[Any, ...]) -> bool:
    """Whether a number of a card is stated elsewhere, or can be worked out: not what was measured once."""
    measured = ("measured_ms", "first_inference_ms", "load_ms", "peak_memory_bytes", "agreement", "max_relative_error")
    of_once = ("cap_ms", "trial", "version", "images", "test_images", "accuracy", "opset", "batch", "rewrites")
    how = ("calibration", "fine_tuning", "rewrites")
    if place[0] == "files":
        return place[2] not in (*measured, *of_once, *how)
    return place[0] not in of_once or place == ("accuracy", "test") or place == ("accuracy", "search")


def changes_of_card(random: Random, card: Any) -> Any:
    """Return a card that says another thing."""
    file = random.choice(list(card["files"]))
    figures = [place for place in numbers(card) if is_contradicted(place)]
    match random.randrange(4):
        case 0:
            return changed(card, ("data", "classes"), shuffled(random))
        case 1:
            hashes = [("check", "sha256"), ("files", file, "sha256"), ("weights_sha256",)]
            return changed(card, random.choice(hashes), other_hash(random))
    return changed(card, random.choice(figures), other_number(random))


def says_so(folder: Path) -> bool:
    """Say whether an artefact is refused by verify's checks, or on its run's page."""
    from hwnas.pages import View

    try:
        read_check(folder, Card.read(folder / "card.json", again="hwnas export RUN"))
        view = View(Run.open("runs/a"), Path("export"))
    except HwnasError:
        return True
    (winner,) = view.winners
    return winner.card is None


@pytest.mark.usefixtures("before")
def test_no_change_of_a_card_is_accepted_where_another_record_contradicts_it() -> None:
    path, random = ARTEFACT / "card.json", Random(0)
    card = json.loads(path.read_text())
    assert not says_so(ARTEFACT)
    accepted = []
    for number in range(CASES // 2):
        value = changes_of_card(random, card)
        path.write_text(json.dumps(value))
        if not says_so(ARTEFACT):
            accepted.append((number, [place for place in numbers(card) if at(card, place) != at(value, place)]))
    assert not accepted


@pytest.mark.usefixtures("before")
def test_a_file_that_is_another_runtimes_and_a_name_that_no_disk_takes_are_refused() -> None:
    path = ARTEFACT / "card.json"
    card = json.loads(path.read_text())
    onnx = next(name for name in card["files"] if name.endswith(".onnx"))
    path.write_text(json.dumps(changed(card, ("files", onnx, "runtime"), lambda _: "tflite")))
    assert says_so(ARTEFACT)
    path.write_text(json.dumps(changed(card, ("files",), lambda files: {onnx * 100: files[onnx]})))
    assert says_so(ARTEFACT)


@pytest.mark.usefixtures("before")
def test_what_numpy_says_of_an_archive_is_quoted_in_part() -> None:
    with zipfile.ZipFile(ARTEFACT / "check.npz", "w") as archive:
        archive.writestr("pixels.npy", b"x" * 9000)
    content = bytearray((ARTEFACT / "check.npz").read_bytes())
    struct.pack_into("<H", content, 26, 5000)  # the length of the name in the entry's own header
    (ARTEFACT / "check.npz").write_bytes(content)
    path = ARTEFACT / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(changed(card, ("check", "sha256"), lambda _: sha256(ARTEFACT / "check.npz"))))
    with pytest.raises(InputError) as error:
        read_check(ARTEFACT, Card.read(path, again="hwnas export RUN"))
    assert len(str(error.value)) < 1000


def at(record: Any, place: tuple[Any, ...]) -> Any:
    for name in place:
        record = record[name]
    return record


@pytest.mark.usefixtures("before")
def test_no_change_of_a_winners_record_is_accepted_where_another_record_contradicts_it() -> None:
    path, random = WINNER / "winner.json", Random(1)
    winner = json.loads(path.read_text())
    once = ("seconds", "images_seen", "history", "version")  # said nowhere else
    figures = [place for place in numbers(winner) if place[0] not in once]
    accepted = []
    for number in range(CASES // 4):
        change: Any = (random.choice(figures), other_number(random))
        if number % 5 == 0:
            change = (("data", "classes"), shuffled(random))
        path.write_text(json.dumps(changed(winner, *change)))
        if not says_so(ARTEFACT):
            accepted.append(change[0])
    assert not accepted


def is_refused() -> bool:
    """Say whether the changed table is refused where a whole one is used."""
    from hwnas.device import load_device
    from hwnas.latency import open_table
    from hwnas.support import commands

    machine = load_device("host")
    try:
        open_table(machine, machine.setting("tflite-fp32-1t"), command=lambda: commands.profile("host"))
        hwnas.tables_merge(str(TABLE), "whole.json", out="merged.json")
    except HwnasError:
        return True
    Path("merged.json").unlink()
    return False


@pytest.mark.usefixtures("before")
def test_no_change_of_a_latency_tables_head_is_accepted_where_another_record_contradicts_it() -> None:
    """What it says of itself is held against its place, the device and the format; a sample is known to nobody else."""
    random, table = Random(2), json.loads(TABLE.read_text())
    shutil.copy(TABLE, "whole.json")
    units: list[Callable[[Any], Any]] = [lambda unit: "us", lambda unit: "s", lambda unit: 1]
    for _ in range(CASES // 4):
        place, change = random.choice(
            [
                (("unit",), random.choice(units)),
                (("device",), lambda device: "other"),
                (("version",), lambda version: version + 1),
                (("setting", "threads"), lambda threads: threads + 1),
                (("setting", "precision"), lambda precision: "int8"),
                (("setting", "runtime"), lambda runtime: "onnx"),
                (("conditions", "cpu"), lambda cpu: f"{cpu} other"),
                (("conditions", "cores"), lambda cores: cores + 1),
                (("conditions", "runtime_version"), lambda version: f"{version}.9"),
                (("conditions", "threads"), lambda threads: threads + 1),
            ]
        )
        TABLE.write_text(json.dumps(changed(table, place, change)))
        assert is_refused(), place
    TABLE.write_text(json.dumps(table))
    assert LatencyTable.read(TABLE).device == "host"
