"""What each verb does where something is scarce: room on the disk, the right to write, file handles.

    python tests/harm/scarce.py                                  # every verb, every kind: an hour or two; --brief: less
    python tests/harm/scarce.py --verb train --of disk --json    # both may be repeated

Each case begins with the same small workplace in a file system of its own. Its verb is called with little of something,
then what was there before is looked through, and where the verb was refused it is called again with enough: that must
come to what an unhindered call comes to. Root on Linux mounts small file systems and read-only ones, out of sight of
other programs; elsewhere the size of files is bounded, folders lose their permission to be written, and what cannot be
done is left out and said. Cases are the same for the same seed. The exit status is 1 where anything went wrong.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
import scarce_verbs
from scarcities import ANYWHERE, AS_NOBODY, IS_ROOT, KINDS, MOUNTED, Scarce, mount, room_taken, room_written

MOST_S = 60
BAD = ("tracebacks", "no words", "hangs", "lost", "left", "unnamed", "needless", "wrong", "next wrong")
COUNTS = ("cases", "well", "refused", *BAD)


@dataclasses.dataclass
class Ended:
    """How a call ended: its exit status (None: it hung), what it said, and the room that it took at most."""

    status: int | None
    out: str
    error: str
    peak: int = 0

    @property
    def how(self) -> str:
        if self.status is None:
            return "hangs"
        if "Traceback (most recent" in self.error:
            return "tracebacks"
        if self.status == 0:
            return "well"
        return "refused" if re.search(r"^(hwnas: |Error: )", self.error, re.M) and self.status in (1, 2) else "no words"


class Base:
    """A folder with the workplace, a home, a cache and a folder for temporary files, made anew for each case."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder, self.template = folder, template
        self._streams = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  there may be no room later

    @property
    def place(self) -> Path:
        return self.folder / "place"

    @contextlib.contextmanager
    def fresh(self) -> Iterator[None]:
        if IS_ROOT:
            mount("-t", "tmpfs", "-o", f"size={MOUNTED},mode=755", "tmpfs", str(self.folder))
        try:
            shutil.copytree(self.template, self.place)
            for name in ("home", "cache", "tmp"):
                (self.folder / name).mkdir()
            yield
        finally:
            if IS_ROOT:
                subprocess.run(["umount", "-R", "-l", str(self.folder)], check=True)
            else:
                for path in self.folder.iterdir():
                    shutil.rmtree(path)

    def call(self, verb: scarce_verbs.Verb, scarce: Scarce) -> Ended:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HWNAS_", "MPL"))},
            **{"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), "OMP_NUM_THREADS": "1"},
            **{"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(scarce_verbs.REPOSITORY), "TERM": "dumb"},
            **{"HWNAS_TRUST": "1", "PYTHONFAULTHANDLER": "1"},
        }
        if "home" not in scarce.folders:
            environment["XDG_CACHE_HOME"] = str(self.folder / "cache")
        other = ["setpriv", *AS_NOBODY] if scarce.is_other else []
        for stream in self._streams:
            stream.seek(0)
            stream.truncate()
        out, error = self._streams
        out = open(scarce.out, "wb") if scarce.out else out  # noqa: SIM115, PTH123
        started = time.time_ns()
        process = subprocess.Popen(
            [*other, sys.executable, "-m", "hwnas.cli", *verb.arguments],
            **{"cwd": self.place, "env": environment, "stdin": subprocess.DEVNULL, "stdout": out, "stderr": error},
            **{"preexec_fn": scarce.in_child, "start_new_session": True},
        )
        before, peak, end = room_taken(self.folder), 0, time.monotonic() + MOST_S
        while process.poll() is None and time.monotonic() < end:
            peak = max(peak, room_taken(self.folder) - before)
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has left behind
        hung = process.wait() == -signal.SIGKILL
        said, one_cache = [], f"{self.folder}/cache"
        for stream in self._streams:
            stream.seek(0)
            said.append(stream.read().decode(errors="replace").replace(f"{self.folder}/home/.cache", one_cache))
        return Ended(None if hung else process.returncode, *said, max(peak, room_written(self.folder, started)))


@dataclasses.dataclass(frozen=True)
class Usual:
    """What an unhindered call comes to: its result, where two calls agree, its files, and the room that it takes."""

    result: dict[str, Any]
    files: list[str]
    peak: int


def usual(base: Base, verb: scarce_verbs.Verb) -> Usual | None:
    results, files, peak = [], [], 0
    for _ in range(2):
        with base.fresh():
            ended = base.call(verb, Scarce("nothing"))
            if ended.how != "well":
                print(
                    f"{verb.name} is left out, as it fails without any scarcity: {ended.error[-3000:]}", file=sys.stderr
                )
                return None
            results.append(scarce_verbs.leaves(ended.out))
            files, peak = scarce_verbs.file_names(base.place), max(peak, ended.peak)
    one, other = results
    return Usual({name: value for name, value in one.items() if other.get(name, ...) == value}, files, peak)


def faults(base: Base, verb: scarce_verbs.Verb, expected: Usual, scarce: Scarce) -> tuple[list[str], str]:
    """Return how a case ended, with what was bad about it, and the words that tell more."""
    with base.fresh():
        scarce.start()
        try:
            first = base.call(verb, scarce)
        finally:
            scarce.undo()
        hows, words = [first.how], first.error[-1500:] if first.how != "well" else ""
        if first.how == "well":
            if differs := difference(base, expected, first):
                return ["wrong"], differs
            return hows, ""
        if first.how == "refused" and scarce.folders:
            hows += ["needless"] if verb.needs is not None and not set(verb.needs) & set(scarce.folders) else []
            hows += [] if any(names_folder(first.error, base, name) for name in scarce.folders) else ["unnamed"]
        if lost := scarce_verbs.lost(base.place, base.template):
            hows, words = [*hows, "lost"], words + "\nlost: " + "; ".join(lost)
        left = [] if scarce.may_leave else scarce_verbs.leftovers(base.folder)
        second = base.call(verb, Scarce("nothing", is_other=scarce.is_other))
        if left := [*left, *scarce_verbs.leftovers(base.place)]:
            hows, words = [*hows, "left"], words + "\nleft: " + "; ".join(map(str, left))
        differs = second.error[-1500:] if second.how != "well" else difference(base, expected, second)
        if differs or second.how != "well":
            hows, words = [*hows, "next wrong"], words + f"\nnext call: {second.how} {differs}"
        return hows, words


def names_folder(error: str, base: Base, name: str) -> bool:
    """Tell whether an error names a folder, or something in it, in full or as it was typed."""
    in_place = name.removeprefix("place").removeprefix("/")
    of_home = [str(base.folder / "cache")] if name == "home" else []  # as `call` writes that of a home
    paths = [str(base.folder / name), *(ANYWHERE if name == "tmp" else ()), *of_home]
    return any(path in (error.replace(str(base.folder), "") if path in ANYWHERE else error) for path in paths) or bool(
        in_place and re.search(rf"\b{in_place}/", error)
    )


def difference(base: Base, expected: Usual, ended: Ended) -> str:
    """Return in words in what a call differs from an unhindered one; nothing where it does not."""
    found = scarce_verbs.leaves(ended.out)
    values = [name for name, value in expected.result.items() if found.get(name, ...) != value]
    files = sorted(set(expected.files) ^ set(scarce_verbs.file_names(base.place)))
    told = [f"{name}: {found.get(name)!r}, not {expected.result[name]!r}" for name in values[:5]]
    return "; ".join([*told, *files[:5], *scarce_verbs.broken_files(base.place)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verb", action="append", choices=["all", *scarce_verbs.VERBS], help="may be repeated")
    parser.add_argument("--of", action="append", choices=list(KINDS), help="what is scarce; without it each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--brief", action="store_true", help="leave out cases where one with still less ended well")
    parser.add_argument("--show", action="store_true", help="print how each case ends, in full")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if IS_ROOT and not os.environ.get("HWNAS_SCARCE_ALONE"):  # mounts go with this process, and nobody else sees them
        os.execvpe(
            "unshare",
            ["unshare", "--mount", sys.executable, __file__, *sys.argv[1:]],
            {**os.environ, "HWNAS_SCARCE_ALONE": "1"},
        )
    names = list(scarce_verbs.VERBS) if not given.verb or "all" in given.verb else given.verb
    if not IS_ROOT:
        print("not root: files are bounded in place of the disk, and no other user is tried", file=sys.stderr)
    counts: dict[tuple[str, str], Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="scarce-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "base").mkdir()
        template = scarce_verbs.make(Path(folder) / "template", seed=given.seed)
        base = Base(Path(folder) / "base", template)
        for name in names:
            verb = scarce_verbs.VERBS[name]
            expected = usual(base, verb)
            if expected is None:
                continue
            for kind in given.of or KINDS:
                count = counts[name, kind] = Counter()
                well: set[str] = set()
                for scarce in KINDS[kind](base.folder, expected.peak):
                    if given.brief and scarce.within in well:
                        well.add(scarce.words)
                        continue
                    hows, words = faults(base, verb, expected, scarce)
                    count.update(["cases", *hows])
                    well |= {scarce.words} if hows == ["well"] else set()
                    if given.show or set(hows) & set(BAD):
                        print(f"{name}, {scarce.words}: {', '.join(hows)} {words}", file=sys.stderr, flush=True)
                if not given.json:
                    told = ", ".join(f"{count[how]} {how}" for how in COUNTS if count[how])
                    print(f"{name}, {kind}: {told}; {expected.peak >> 10} KiB", flush=True)
    if given.json:
        print(json.dumps([{"verb": verb, "of": kind, **{how: count[how] for how in COUNTS}}
                          for (verb, kind), count in counts.items()]))  # fmt: skip
    sys.exit(any(count[how] for count in counts.values() for how in BAD))


if __name__ == "__main__":
    main()
