"""Where kills.py calls verbs: folders of their own, copied from stages, in which processes are started and found."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import scenes
from scenes import SCENES, Scene

from hwnas.errors import HwnasError

HWNAS = [sys.executable, "-m", "hwnas.cli"]
MARK = "HWNAS_KILLS"  # in the environment of all that is started, which tells whose child a process is
PATIENCE_S = 10.0  # for children to end
MOST_S = 240.0  # for a call
TEMPORARY = ("*.tmp", ".*.part", ".*.before")


@dataclass
class Fork:
    """A fork of this process, as a Popen."""

    pid: int
    status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status; raises TimeoutExpired."""
        deadline = time.monotonic() + (timeout or MOST_S)
        while self.status is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("hwnas", timeout or MOST_S)
            else:
                time.sleep(0.002)
        return self.status

    def send_signal(self, number: int) -> None:
        """Send it a signal; it has not been waited for."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[bytes] | Fork


def wait(process: Process) -> int:
    """Wait until a process has ended; return its exit status, which is -9 where it took too long."""
    try:
        return process.wait(MOST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@dataclass(frozen=True)
class Place:
    """A folder to work in, with TMPDIR and cache beside it."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def start(self, scene: Scene) -> subprocess.Popen[bytes]:
        """Start a verb as a terminal does: in a session of its own, with Ctrl-C turned on."""
        with (self.folder / "stdout").open("wb") as stdout, (self.folder / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                [*HWNAS, *scene.typed(self.work)],
                cwd=self.work,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def environment(self) -> dict[str, str]:
        own = {"TMPDIR": str(self.folder / "tmp"), "XDG_CACHE_HOME": str(self.folder / "cache"), MARK: self.mark}
        return {"OMP_NUM_THREADS": "1", "TERM": "dumb", "HWNAS_TRUST": "1", **own}

    @property
    def mark(self) -> str:
        return self.folder.name

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def fork(self, scene: Scene) -> "Fork":
        """Start a verb in a fork of this process, which has loaded what it needs."""
        for name in ("stdout", "stderr"):
            (self.folder / name).write_bytes(b"")
        if child := os.fork():
            with suppress(OSError):  # it has done so itself, or has ended
                os.setpgid(child, child)
            return Fork(child)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        status = 1
        try:
            os.setpgid(0, 0)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.environ.update(self.environment)
            os.chdir(self.work)
            sys.argv, tempfile.tempdir = ["hwnas", *scene.typed(self.work)], None
            scenes.run_hwnas()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def call(self, scene: Scene, *, warm: bool = False) -> bool:
        """Call a verb to its end; return whether it was right."""
        status = wait(self.fork(scene) if warm else self.start(scene))
        self.end_children()
        return status == 0 and "Traceback" not in self.said

    def children(self) -> list[int]:
        """Return the processes that were started here and that have not ended."""
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes():
                    found.append(int(entry.name))  # what has ended and is not waited for has no environment
            except OSError:
                continue
        return found

    def end_children(self) -> int:
        """Wait for children to end; kill those that do not, and return how many there were."""
        deadline = time.monotonic() + PATIENCE_S
        while (left := self.children()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for child in left:
            os.kill(child, signal.SIGKILL)
        return len(left)

    def files(self) -> set[str]:
        """Return all files and folders there are; in the cache ONNX Runtime has a database of its own, too."""
        roots = ("work", "tmp", "cache/hwnas")
        return {str(path.relative_to(self.folder)) for root in roots for path in (self.folder / root).rglob("*")}

    def temporary(self) -> set[str]:
        """Return what should be there during a call alone."""
        matching = {path for pattern in TEMPORARY for path in self.work.rglob(pattern)}
        return {str(path.relative_to(self.folder)) for path in (*matching, *(self.folder / "tmp").iterdir())}

    def finished(self, scene: Scene) -> list[scenes.Finished]:
        """Return what the verb has finished; it is read from a copy, as reading may mend."""
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(self.work, copy, dirs_exist_ok=True)
            if scene.prints:
                return [scenes.Finished("stdout", (self.folder / "stdout").read_text().replace(str(self.folder), ""))]
            try:
                return scene.finished(Path(copy))
            except HwnasError as error:
                return [scenes.Finished(f"something half: {error}", None)]


class Stages:
    """Folders in which the verbs before a verb have been called; each is made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stage(self, name: str) -> Path:
        """Return the folder of a stage."""
        path = self._folder / name
        if not path.exists():
            before, *verbs = scenes.STAGES[name]
            with self._copied(before) as place:
                if not before:
                    scenes.write_bare(place.work)
                for verb in verbs:
                    if not place.call(SCENES[verb]):
                        raise RuntimeError(f"{SCENES[verb].words}: {place.said}")
                scenes.copy_table(place.work)
                shutil.copytree(place.work, path)
        return path

    @contextmanager
    def _copied(self, name: str) -> Iterator[Place]:
        before = self.stage(name) if name else None
        with tempfile.TemporaryDirectory(prefix=f"kills-{uuid.uuid4().hex[:8]}-") as folder:
            for inner in ("work", "tmp", "cache"):
                (Path(folder) / inner).mkdir()
            if before:
                shutil.copytree(before, Path(folder) / "work", dirs_exist_ok=True)
            yield Place(Path(folder))

    def copied(self, scene: Scene) -> Iterator[Place]:
        """Give a copy of the stage that a verb starts from."""
        return self._copied(scene.stage)
