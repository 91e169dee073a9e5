"""Temporary folders and files: gone at the end, and those of killed processes with the next call."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwnas.support import raised, temporary_folder
from hwnas.support.files import write_text

FOLDER = """
from hwnas.support import temporary_folder
with temporary_folder() as folder:
    (folder / "model").write_text("much")
    print(folder, flush=True)
    input()
"""
IN_A_THREAD = """
import threading, time
from hwnas.support import temporary_folder
made = threading.Event()
def work():
    with temporary_folder() as folder:
        (folder / "model").write_text("much")
        print(folder, flush=True)
        made.set()
        time.sleep(60)
threading.Thread(target=work, daemon=True).start()
made.wait()
"""
FILE = """
from pathlib import Path
from hwnas.support import write_atomically
def write(temporary):
    temporary.write_text("half")
    print(temporary, flush=True)
    input()
write_atomically(Path("a.json"), write)
"""


@contextmanager
def working(code: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start a process that writes something temporary; give it, and the path of that."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_gone_in_the_end_also_where_that_is_an_error(place: Path) -> None:
    def fail() -> None:
        with temporary_folder() as folder:
            (folder / "model").write_text("")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(place.iterdir())


def test_a_folder_of_a_killed_process_goes_with_the_next_one_and_no_other(place: Path) -> None:
    (place / "hwnas-keeper1").mkdir()  # as a board's is named
    with working(FOLDER, place) as (process, folder), working(FOLDER, place) as (_, other):
        with temporary_folder():
            assert (folder / "model").exists()
        process.kill()
        process.wait()
        assert folder.exists()
        with temporary_folder():
            assert not folder.exists()
        assert (other / "model").exists()
        assert (place / "hwnas-keeper1").exists()


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked"])
def test_a_folder_that_another_process_takes_for_one_that_was_left_is_made_again(
    when: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    taken: list[Path] = []

    def taken_by_another(path: Path, flags: int, **more: int | None) -> int:
        if taken:
            return opened(path, flags, **more)
        taken.append(path)
        if when == "before it is opened":
            path.rmdir()
            return opened(path, flags)
        lock = opened(path, flags)
        path.rmdir()
        return lock

    monkeypatch.setattr("hwnas.support.temporary.os.open", taken_by_another)
    with temporary_folder() as folder:
        (folder / "model").write_text("whole")
        assert [folder] != taken
    assert not list(place.iterdir())


def test_a_folder_of_a_thread_is_gone_when_its_process_ends(place: Path) -> None:
    with working(IN_A_THREAD, place) as (process, _):
        assert process.wait(30) == 0
    assert not list(place.iterdir())


def test_a_file_of_a_killed_process_goes_with_the_next_one_that_is_written(place: Path) -> None:
    beside = place / ".a.json.notes.tmp"
    beside.touch()
    with working(FILE, place) as (process, half):
        write_text(place / "a.json", "first")
        assert (place / half).exists()
        process.kill()
        process.wait()
        write_text(place / "a.json", "second")
    assert {path.name for path in place.iterdir()} == {"a.json", beside.name}
    assert (place / "a.json").read_text() == "second"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_file_half_written(
    number: signal.Signals, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: os.kill(os.getpid(), number))
    with raised(), pytest.raises(KeyboardInterrupt):
        write_text(place / "a.txt", "whole")
    assert [path.name for path in place.iterdir()] == ["a.txt"]
