"""Strikes hwnas at random moments, calls it again, and counts what was lost, doubled or left behind.

    python tests/harm/kills.py --verb train --signal KILL --moments 25 --seed 0
    python tests/harm/kills.py --verb all --stages /tmp/stages    # KILL 25 times, INT and TERM 10 times each

KILL and TERM go to the process, INT to its group, as from a terminal. Of the moments of INT and TERM two in ten lie in
the first 50 ms. Each verb works in a folder of its own, with a TMPDIR and a cache of its own. After each strike the
same command is called again, and what it comes to is held against a call that nobody struck: see `Outcome`. The exit
status is 1 where anything but 0 was counted. `early` alone may be above 0: tracebacks of Python's own start, before the
first line of hwnas. With --warm all calls are forks of this process, which has loaded what hwnas needs: they take half
the time, and all moments lie in the work itself. The folders of stages are made once, and may be used again as long as
hwnas is the same.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import scenes
from scenes import SCENES, Scene

HWNAS = [sys.executable, "-m", "hwnas.cli"]
MARK = "HWNAS_KILLS"  # in the environment of all that is started, which tells whose child a process is
MOMENTS = {"KILL": 25, "INT": 10, "TERM": 10}
EARLY_S = 0.05
START_S = 0.3  # by then Python has come to the first line of hwnas, also on a busy machine
PATIENCE_S = 10.0  # for children to end
MOST_S = 240.0  # for a call
TEMPORARY = ("*.tmp", ".*.part", ".*.before")


@dataclass
class Outcome:
    """How many moments there were, and at how many the process was still running; all else should be 0."""

    verb: str
    signal: str
    moments: int = 0
    struck: int = 0
    early: int = 0
    lost: int = 0  # finished things that are gone, changed, or not those of a call that nobody struck
    doubled: int = 0  # finished things that are there twice, or beyond those asked for
    tracebacks: int = 0
    status: int = 0  # other exit statuses than 128 + the signal's number; the signal itself is one, too
    children: int = 0
    files: int = 0  # temporary ones after the strike (not KILL), and any others than those of an unstruck call
    failed: int = 0  # next calls that failed, or that waited for ever

    @property
    def faults(self) -> int:
        """How much went wrong."""
        return sum(getattr(self, name) for name in COUNTED)


COUNTED = ("lost", "doubled", "tracebacks", "status", "children", "files", "failed")


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
            return scene.finished(Path(copy))


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


@dataclass(frozen=True)
class Whole:
    """A call that nobody struck: how long it took, and what it left."""

    seconds: float
    files: set[str]
    finished: dict[str, object]


def whole_call(stages: Stages, scene: Scene, *, warm: bool) -> Whole:
    """Call a verb to its end."""
    with stages.copied(scene) as place:
        started = time.monotonic()
        if not place.call(scene, warm=warm):
            raise RuntimeError(f"{scene.words}: {place.said}")
        seconds = time.monotonic() - started
        return Whole(seconds, place.files(), {one.name: one.result for one in place.finished(scene)})


def strike(outcome: Outcome, stages: Stages, scene: Scene, whole: Whole, moment_s: float, *, warm: bool) -> list[str]:
    """Strike a verb at a moment, call it again and count; return in words what was wrong."""
    faults, wrong = outcome.faults, []
    with stages.copied(scene) as place:
        process: Process = place.fork(scene) if warm else place.start(scene)
        try:
            process.wait(moment_s)
        except subprocess.TimeoutExpired:
            outcome.struck += 1
            if outcome.signal == "INT":
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.send_signal(signal.Signals[f"SIG{outcome.signal}"])
        count_end(outcome, place, process, is_start=moment_s < START_S)
        if outcome.signal != "KILL":
            outcome.files += len(place.temporary() - whole.files)  # ONNX Runtime leaves a file in TMPDIR each time
        wrong += [place.said] if outcome.faults > faults else []
        kept = [] if scene.prints else place.finished(scene)
        failed = not place.call(scene, warm=warm)
        outcome.failed += failed
        wrong += [place.said] if failed else []
        now = place.finished(scene)
        names, results = Counter(one.name for one in now), {one.name: one for one in now}
        lost = [one.name for one in kept if one.name not in names or not results[one.name].goes_on_from(one)]
        lost += [name for name, result in whole.finished.items() if name not in names or results[name].result != result]
        more = [name for name, number in names.items() if number > 1 or name not in whole.finished]
        left = place.files() - whole.files
        outcome.lost, outcome.doubled = outcome.lost + len(set(lost)), outcome.doubled + len(more)
        outcome.files += len(left)
    outcome.moments += 1
    wrong += [f"lost {lost}"] * bool(lost) + [f"doubled {more}"] * bool(more) + [f"left {sorted(left)}"] * bool(left)
    return wrong


def count_end(outcome: Outcome, place: Place, process: Process, *, is_start: bool) -> None:
    """Wait until a process that was struck has ended, and count what is wrong at once."""
    number = signal.Signals[f"SIG{outcome.signal}"].value
    status = wait(process)
    outcome.children += place.end_children()
    if outcome.signal == "KILL":
        return
    is_traceback = "Traceback" in place.said or "KeyboardInterrupt" in place.said
    is_early = is_traceback and is_start and f"{os.sep}hwnas{os.sep}" not in place.said
    outcome.early += is_early
    outcome.tracebacks += is_traceback and not is_early
    outcome.status += status not in (0, -number, 128 + number) and not is_early


def moments_of(which: str, count: int, seconds: float, seed: str, *, warm: bool) -> list[float]:
    """Return random moments within a call."""
    drawn = random.Random(seed)
    early = 0 if which == "KILL" or warm else count // 5
    return [drawn.uniform(0, EARLY_S if number < early else seconds) for number in range(count)]


def show(outcomes: list[Outcome]) -> None:
    """Print a row for each verb and signal."""
    columns = list(asdict(outcomes[0]))
    rows = [columns, *([str(value) for value in asdict(outcome).values()] for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    for row in rows:
        print("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", action="append", choices=["all", *SCENES], help="may be repeated; without it all")
    parser.add_argument("--signal", action="append", choices=list(MOMENTS), help="may be repeated; without it each")
    parser.add_argument("--moments", type=int, help="without it 25 of KILL, 10 of each other")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", type=Path, help="folder that keeps the stages")
    parser.add_argument("--warm", action="store_true", help="load what hwnas needs once, and fork for each call")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    verbs = list(SCENES) if not given.verb or "all" in given.verb else given.verb
    outcomes = []
    if given.warm:
        scenes.load()
    with tempfile.TemporaryDirectory() as own:
        stages = Stages(given.stages or Path(own))
        for verb in verbs:
            signals = given.signal or [name for name in MOMENTS if name != "KILL" or SCENES[verb].is_long]
            whole = whole_call(stages, SCENES[verb], warm=given.warm)
            for name in signals:
                outcomes.append(outcome := Outcome(verb, name))
                count, seed = given.moments or MOMENTS[name], f"{given.seed} {verb}"
                for moment_s in moments_of(name, count, whole.seconds, seed, warm=given.warm):
                    for words in strike(outcome, stages, SCENES[verb], whole, moment_s, warm=given.warm):
                        print(f"{verb} {name} at {moment_s:.3f} s: {words}", file=sys.stderr, flush=True)
                print(outcome, file=sys.stderr, flush=True)
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        show(outcomes)
    sys.exit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()
