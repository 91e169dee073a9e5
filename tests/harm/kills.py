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
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import scenes
from places import Place, Process, Stages, wait
from scenes import SCENES, Scene

import hwnas

MOMENTS = {"KILL": 25, "INT": 10, "TERM": 10}
EARLY_S = 0.05
START_S = 0.3  # by then Python has come to the first line of hwnas, also on a busy machine


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
class Whole:
    """A call that nobody struck: what it left, and how long it took; less where a later one has ended before that."""

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
        started = time.monotonic()
        process: Process = place.fork(scene) if warm else place.start(scene)
        try:
            process.wait(moment_s)
            whole.seconds = min(whole.seconds, time.monotonic() - started)
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
    is_early = is_traceback and is_start and str(Path(hwnas.__file__).parent) not in place.said
    outcome.early += is_early
    outcome.tracebacks += is_traceback and not is_early
    outcome.status += status not in (0, -number, 128 + number) and not is_early


def strike_often(
    outcome: Outcome, stages: Stages, scene: Scene, whole: Whole, count: int, *, seed: str, warm: bool
) -> None:
    """Strike a verb at so many random moments; those at which it had ended are drawn again, for as many times."""
    drawn = random.Random(seed)
    early = 0 if outcome.signal == "KILL" or warm else count // 5
    while outcome.struck < count and outcome.moments < 2 * count:
        moment_s = drawn.uniform(0, EARLY_S if outcome.moments < early else whole.seconds)
        for words in strike(outcome, stages, scene, whole, moment_s, warm=warm):
            print(f"{outcome.verb} {outcome.signal} at {moment_s:.3f} s: {words}", file=sys.stderr, flush=True)
    print(outcome, file=sys.stderr, flush=True)


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
                strike_often(outcome, stages, SCENES[verb], whole, count, seed=seed, warm=given.warm)
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        show(outcomes)
    sys.exit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()
