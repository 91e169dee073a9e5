"""The fuzzer: damages what hwnas reads, and says where it ends in anything but its own errors in words.

    python tests/fuzz/fuzz.py --cases 20000 --kind card     # of one kind, or without --kind of each
    python tests/fuzz/fuzz.py --kind card --first 4711 --cases 1 --show

Cases are the same for the same seed, whatever was run before. They are read in a child process that may take 1 GiB in
all and 10 seconds a case; where it dies, another one goes on behind the case.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

MOST_S = 10
MOST_BYTES = 2**30
MOST_WORDS = 4000  # characters of an error
SEED = 0


@dataclass
class Outcome:
    """What became of a kind's cases: how many ended how, and of the faults the first lines that tell them."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def words(self) -> str:
        """The counts, and the most common faults by where they are."""
        counted = ", ".join(f"{count} {how}" for how, count in sorted(self.counts.items()))
        places = [(fault.partition("|")[2].rpartition(" at ")[2], fault) for fault in self.faults]
        first = dict(reversed(places))
        common = Counter(place for place, _ in places).most_common(40)
        listed = "".join(f"\n  {number} x {first[place]}" for place, number in common)
        return f"{counted}; {self.peak_bytes / 2**20:.0f} MiB; {self.seconds:.1f} s{listed}"


def run(kinds: Sequence[str], *, cases: int, seed: int = SEED, first: int = 0) -> dict[str, Outcome]:
    """Read so many cases of each kind, in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        asked = json.dumps([kinds, cases, seed, first, folder])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"}
        done = subprocess.run([sys.executable, __file__, "--child", asked], env=environment, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode(errors="replace")[-3000:])
        return {kind: _outcome_of(Path(folder) / f"{kind}.told") for kind in kinds}


def _outcome_of(told: Path) -> Outcome:
    outcome = Outcome()
    for line in told.read_text().splitlines():
        how, case, fault, seconds, peak = json.loads(line)
        outcome.counts[how] += 1
        outcome.faults += [f"{case}|{how}: {fault}"] if fault else []
        outcome.seconds, outcome.peak_bytes = outcome.seconds + seconds, max(outcome.peak_bytes, peak)
    return outcome


def _read_kinds(kinds: Sequence[str], cases: int, seed: int, first: int, folder: Path) -> None:
    """Read the cases of each kind in a fork of this process, and behind a case that it dies of in another one."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import inputs

    inputs.load_modules()
    for kind in kinds:
        end = first + max(1, cases // inputs.SLOWER.get(kind, 1))
        told, begin = folder / f"{kind}.told", first
        told.touch()
        while begin < end:
            child = os.fork()
            if not child:
                _read_cases_or_die(kind, range(begin, end), seed, folder)
            _, status = os.waitpid(child, 0)
            done = len(told.read_text().splitlines())
            if status == 0:
                break
            if os.WIFEXITED(status):  # the fuzzer failed, or the whole one was not read
                raise RuntimeError(f"{kind}: the child ended with {status}")
            case = first + done
            how = "hangs" if os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM) else "deaths"
            with told.open("a") as file:
                file.write(json.dumps([how, case, f"status {status}", 0, 0]) + "\n")
            begin = case + 1


def _read_cases_or_die(name: str, cases: range, seed: int, folder: Path) -> None:
    """Read cases and end this process; with 1 where the fuzzer itself fails."""
    try:
        _read_cases(name, cases, seed, folder)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _read_cases(name: str, cases: range, seed: int, folder: Path) -> None:
    """Read cases, telling what becomes of each."""
    import inputs

    kind = inputs.kind(name, folder)
    kind.read(kind.whole)  # and what is imported for it
    _limit_memory()
    with (folder / f"{name}.told").open("a", buffering=1) as told:
        for case in cases:
            content = kind.damage(Random(f"{seed} {name} {case}"))
            started = time.monotonic()
            _limit_time(MOST_S)
            how, fault = _outcome(kind, content)
            _limit_time(0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            told.write(json.dumps([how, case, fault, time.monotonic() - started, peak]) + "\n")


def _outcome(kind: "inputs.Kind", content: Any) -> tuple[str, str]:  # type: ignore[name-defined]  # noqa: F821
    from hwnas.errors import HwnasError

    try:
        kind.read(content)
    except HwnasError as error:
        return ("refused", "") if len(str(error)) < MOST_WORDS else ("endless errors", str(error)[:90])
    except BaseException as error:  # noqa: BLE001
        return "tracebacks", _where(error)
    return "read", ""


def _where(error: BaseException) -> str:
    """Return an error and the last lines of hwnas that led to it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/hwnas/" in frame.filename]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:-4:-1])
    return f"{type(error).__name__}: {str(error)[:90]!r} at {places}"


def _limit_time(seconds: float) -> None:
    """Let this process compute for so long, and wait six times as long, as others may keep the processor busy."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 6 * seconds)


def _limit_memory() -> None:
    """Let this process grow to `MOST_BYTES`."""
    pages, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
    size = os.sysconf("SC_PAGE_SIZE")
    most = pages * size + MOST_BYTES - resident * size
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", help="may be repeated; without it each")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--show", action="store_true", help="print the case itself and its traceback")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kinds, cases, seed, first, folder = json.loads(given.child)
        return _read_kinds(kinds, cases, seed, first, Path(folder))
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import inputs

    kinds = given.kind or list(inputs.KINDS)
    if given.show:
        return _show(kinds[0], given.first, given.seed)
    for kind in kinds:
        outcome = run([kind], cases=given.cases, seed=given.seed, first=given.first)[kind]
        print(f"{kind}: {outcome.words}", flush=True)
    return None


def _show(name: str, case: int, seed: int) -> None:
    import inputs

    with tempfile.TemporaryDirectory() as folder:
        kind = inputs.kind(name, Path(folder))
        content = kind.damage(Random(f"{seed} {name} {case}"))
        print(content[:3000])
        kind.read(content)


if __name__ == "__main__":
    main()
