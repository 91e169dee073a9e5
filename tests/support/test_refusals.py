"""What the system refuses, in words: with the file's whole name, and what to do about it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from hwnas.device import Device, Setting
from hwnas.device.transports import local
from hwnas.errors import DeviceError, InputError
from hwnas.runs.study import Journal
from hwnas.support import system_errors_in_words
from hwnas.training import checkpoint

WORKER = """\
import sys, types
loop = types.ModuleType("loop")
def work():
    raise OSError(28, "No space left on device", "journal.log")
loop.work = work
sys.modules["hwnas.searching.loop"] = loop
from hwnas.searching.workers import main
main("{}")
"""


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Make room, and type"),
        (errno.EDQUOT, "Make room, and type"),
        (errno.EROFS, "Give permission to write there, or name another folder, and type"),
        (errno.EACCES, "Give permission to write there, or name another folder, and type"),
        (errno.EMFILE, "Let more files be open at once, as by `ulimit -n 1024`, and type"),
        (errno.ENOMEM, "End other programs, and type"),
        (errno.EIO, "Make room or give permission, and type"),
    ],
)
def test_each_refusal_comes_with_what_helps(number: int, remedy: str, tmp_path: Path) -> None:
    reason = os.strerror(number)
    with pytest.raises(InputError) as caught, system_errors_in_words():
        raise OSError(number, reason, os.path.relpath(tmp_path / "a.txt"))  # as a relative path says not where
    assert str(caught.value) == (
        f"the system refused a file: {tmp_path / 'a.txt'}: {reason}. {remedy} the same command again"
    )


def test_a_worker_says_it_in_words_too() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WORKER], **pipes, text=True) as worker:
        said, error = worker.stdout.read(), worker.stderr.read()  # stdin stays open: a worker ends with it
    assert worker.returncode == 1
    assert said == (
        f"the system refused a file: {Path.cwd() / 'journal.log'}: No space left on device. Make room, and type the "
        "same command again"
    )
    assert not error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["tables", "show"], ["devices", "--no-reach", "--json"]])
def test_what_is_printed_onto_a_full_disk_is_refused_in_words(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hwnas.cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "hwnas: the system refused a file: No space left on device. Make room, and type the same command again"
    ]


def test_a_reader_who_has_enough_is_no_fault() -> None:
    arguments, pipes = [sys.executable, "-m", "hwnas.cli", "--help"], {"stdout": subprocess.PIPE}
    with subprocess.Popen(arguments, **pipes, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_checkpoint_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        checkpoint.write_tensors(tmp_path / "a.safetensors", {})
    assert (caught.value.errno, caught.value.strerror) == (28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.safetensors")


def test_no_half_of_a_record_stays_in_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.log"
    journal = Journal(path)
    journal.append_logs([{"number": 0}])

    class HalfFull:
        """A file of a disk with room for a record and a half."""

        def __init__(self, file: object) -> None:
            self._file, self._room = file, 20

        def __enter__(self) -> "HalfFull":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def write(self, content: bytes) -> int:
            if not self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self._file.write(content[: self._room])
            self._room -= written
            return written

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "open",
            lambda self, mode="r", **rest: (
                HalfFull(opened(self, mode, **rest)) if mode == "ab" else opened(self, mode, **rest)
            ),
        )
        with pytest.raises(OSError, match="No space left on device") as caught:
            journal.append_logs([{"number": 1}, {"number": 2}])
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b'{"number":0}\n{"number":1}\n'
    journal.append_logs([{"number": 3}])
    assert [record["number"] for record in Journal(path).read_logs(0)] == [0, 1, 3]
    assert [child.name for child in tmp_path.glob("*torn*")] == []


def test_too_few_files_are_no_fault_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("subprocess.Popen", start)
    transport = local.Transport(Device(name="host", transport="local", settings=(Setting(runtime="tflite"),)))
    number = errno.EMFILE
    with pytest.raises(OSError, match="Too many open files"):
        list(transport.run(["-V"]))
    number = errno.ENOENT
    with pytest.raises(DeviceError, match="`python` of device host must be an interpreter"):
        list(transport.run(["-V"]))
