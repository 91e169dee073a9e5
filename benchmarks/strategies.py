"""Which strategy finds the most accurate network under a cap in the fewest evaluations, on tables of real networks?

The tables are NAS-Bench-201 (CIFAR-10; the search sees the validation accuracy at 12 epochs, the truth is the test
accuracy at 200; Pixel 3, Raspberry Pi 4 and Samsung A50) and NAS-Bench-Macro (sees one training, the truth is the mean
of three; the cap is on Mult-Adds, `flops`). Caps are quantiles of the connected networks. An evaluation is a look-up;
proposals over the cap or known are free, up to 1,000 an ask (`counted`: the same with those that came to the study).
Strategies that take over 50 ms an ask, and the peers SMAC3 and pymoo (with --peers, in an environment made in the
folder), have fewer seeds, caps and evaluations. Each run is kept in --folder; called again, it goes on, or states what
is complete (--run-nothing).

    python benchmarks/strategies.py [--quick] [--data F] [--folder F] [--jobs N] [--strategies A,B] [--slow A] [--peers]
                                    [--run-nothing]

The last line is one JSON object: {"TABLE/LATENCY/CAP": {"STRATEGY": {"50": {"regret", "regret_seen", "hypervolume",
"counted"}}}}, medians; `cells`: the cap, the number of networks under it, the regret of the one that looks best (the
`floor`); `ask_ms`; `speedups_over_random`, and of --ours `speedup_over_random`: the evaluations that random takes to
the seen regret of the strategy, by those of the strategy, median over the cells and over 50, 100, 200 and 500.
"""

import argparse
import csv
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

import hwnas
from hwnas.benching.cases import Case, compare, read_run
from hwnas.benching.results import Results, ResultsCandidates
from hwnas.support import plugins

QUANTILES = {"p10": 0.10, "p25": 0.25, "p50": 0.50, "p75": 0.75}
STATED = ("50", "100", "200", "500")
SLOW = ("tpe", "gp")  # over 50 ms an ask
PEERS = ("smac", "pymoo")
_NODES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # the edges of a NAS-Bench-201 cell, in its text's order


@dataclass(frozen=True, slots=True)
class Table:
    """A prepared table and the column that caps are on."""

    name: str
    path: Path
    choices: tuple[str, ...]
    latency: str

    @property
    def label(self) -> str:
        return f"{self.name}/{self.latency}"

    def read(self) -> Results:
        return Results.read(self.path, choices=self.choices, accuracy=["seen", "truth"], latency=self.latency)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run on each of some tables."""

    strategies: tuple[str, ...]
    peers: tuple[str, ...]
    caps: tuple[str, ...]
    seeds: int
    evaluations: int


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        peers = PEERS if options.peers else ()
        fast, slow = names(options.strategies), names(options.slow)
        if options.quick:
            tables, fast = [made_up(folder)], fast or ("random", "nsga2")
            plans = {"fast": (Plan(fast, peers, ("p25", "p50"), 3, 60), tables)}
        else:
            tables = [*nasbench201(options.data, folder), macro(options.data, folder)]
            known = tuple(name for name in plugins.names("strategies") if name not in SLOW)
            few = [table for table in tables if table.latency in ("pixel3", "flops")]
            plans = {
                "fast": (Plan(fast or known, (), tuple(QUANTILES), options.seeds, options.evaluations), tables),
                "slow": (Plan(slow, peers, ("p25", "p50"), 5, 100), few),
            }
        found: dict[str, Any] = {"cells": {}, "ask_ms": {}}
        curves: dict[str, Curves] = {}
        for name, (plan, wanted) in plans.items():
            for table in wanted:
                out = folder / name / table.name / table.latency
                done = complete(plan, table, out) if options.run_nothing else plan
                one_table(table, done, folder, out, options.jobs, found, curves)
    ran = dict.fromkeys(name for one in curves.values() for name in one.medians)
    speedups = {name: speedup(curves, name) for name in ran}
    found |= {"speedups_over_random": speedups, "speedup_over_random": speedups.get(options.ours)}
    found["to_random_500"] = {cell: one.to_random(500) for cell, one in curves.items() if "random" in one.medians}
    print(json.dumps(found))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small made-up table: under a minute")
    parser.add_argument("--data", type=Path, default=Path("shared/data"), help="with nasbench201/ and nas_bench_macro/")
    parser.add_argument("--folder", type=Path, default=Path("runs/strategies"))
    parser.add_argument("--strategies", default="", help="under 50 ms an ask; without it: all but the slow ones")
    parser.add_argument("--slow", default=",".join(SLOW), help="strategies with 5 seeds and 100 evaluations")
    parser.add_argument("--ours", default="progressive", help="whose speed-up over random is stated")
    parser.add_argument("--peers", action="store_true", help="install SMAC3 and pymoo, and run them as well")
    parser.add_argument("--run-nothing", action="store_true", help="state what the folder has of each table")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def complete(plan: Plan, table: Table, out: Path) -> Plan:
    """Return a plan without what was not run to its end on a table."""
    latency = table.read().latency
    caps = [float(np.quantile(latency, QUANTILES[name])) for name in plan.caps]

    def ran(strategy: str) -> bool:
        return all(Case(strategy, cap, seed).path(out).exists() for cap in caps for seed in range(plan.seeds))

    return replace(plan, strategies=tuple(filter(ran, plan.strategies)), peers=tuple(filter(ran, plan.peers)))


def one_table(
    table: Table,
    plan: Plan,
    folder: Path,
    out: Path,
    jobs: int,
    found: dict[str, Any],
    curves: "dict[str, Curves]",
) -> None:
    """Run a plan on a table, and add its figures and the medians of its seen regret."""
    results = table.read()
    caps = {name: float(np.quantile(results.latency, QUANTILES[name])) for name in plan.caps}
    if plan.strategies:
        hwnas.bench(
            table=str(table.path),
            choices=table.choices,
            accuracy=("seen", "truth"),
            latency=table.latency,
            caps=tuple(caps.values()),
            strategies=plan.strategies,
            seeds=plan.seeds,
            evaluations=plan.evaluations,
            out=str(out),
            jobs=jobs,
        )
    if plan.peers:
        run_peers(table, plan, list(caps.values()), folder / "peers", out, jobs)
    for name, cap in caps.items():
        candidates = ResultsCandidates.under(results, cap)
        cell = f"{table.label}/{name}"
        found["cells"][cell] = {"cap": cap, "candidates": len(candidates.inside), "floor": round(candidates.floor, 4)}
        for strategy in (*plan.strategies, *plan.peers):
            runs = [read_run(Case(strategy, cap, seed).path(out)) for seed in range(plan.seeds)]
            compared = compare(strategy, candidates, runs, evaluations=plan.evaluations)
            found.setdefault(cell, {})[strategy] = {
                at: {**asdict(medians), "counted": asdict(compared.proposals[at])}
                for at, medians in compared.evaluations.items()
                if at in (*STATED, str(plan.evaluations))
            }
            found["ask_ms"].setdefault(strategy, {})[cell] = compared.ask_ms
            regrets = [candidates.curves(run.rows).regret_seen for run in runs]
            longest = max(map(len, regrets))
            padded = [np.pad(regret, (0, longest - len(regret)), mode="edge") for regret in regrets]
            seen = candidates.results.seen[candidates.inside]
            one = curves.setdefault(cell, Curves(seen.max() - seen, {}))
            one.medians[strategy] = np.median(padded, axis=0)


@dataclass(frozen=True, slots=True)
class Curves:
    """The seen regrets of all networks under a cap; of each strategy the median over seeds after each evaluation."""

    regrets: np.ndarray
    medians: dict[str, np.ndarray]

    def uniform(self, level: float) -> int:
        """Return after how many uniform draws without replacement a regret of `level` is as likely as not."""
        hits, left, misses = int((self.regrets <= level).sum()), len(self.regrets), 1.0
        draws = 0
        while misses > 0.5:
            misses *= (left - draws - hits) / (left - draws)
            draws += 1
        return draws

    def to_random(self, evaluations: int) -> dict[str, int | None]:
        """Return after how many evaluations each strategy is where random is after so many."""
        random = self.medians["random"]
        level = random[min(evaluations, len(random)) - 1] + 1e-9
        return {name: first_at(curve, level) for name, curve in self.medians.items()}


def speedup(curves: dict[str, Curves], strategy: str) -> float:
    """Return how many times fewer evaluations than uniform draws, median over the cells and what is stated."""
    ratios = []
    for one in curves.values():
        curve = one.medians.get(strategy, np.zeros(0))
        for at in map(int, STATED):
            if at <= len(curve):
                level = curve[at - 1] + 1e-9
                ratios.append(one.uniform(level) / (first_at(curve, level) or at))
    return round(float(np.median(ratios)), 3)


def first_at(regret: np.ndarray, level: float) -> int | None:
    """Return after how many evaluations a regret is at most `level`, None where it never is."""
    return int(np.argmax(regret <= level)) + 1 if (regret <= level).any() else None


def run_peers(table: Table, plan: Plan, caps: list[float], environment: Path, out: Path, jobs: int) -> None:
    """Run the peers in an environment of their own: a process for each run that is not there yet."""
    wanted = [
        case
        for seed in range(plan.seeds)
        for cap in caps
        for peer in plan.peers
        if not (case := Case(peer, cap, seed)).path(out).exists()
    ]
    if wanted:
        python = install_peers(environment)
    running: list[subprocess.Popen[bytes]] = []
    for case in wanted:
        script = [str(python), str(Path(__file__).with_name("strategies_peers.py")), case.strategy, str(table.path)]
        script += [",".join(table.choices), table.latency, repr(case.cap), str(case.seed), str(plan.evaluations)]
        running.append(subprocess.Popen([*script, str(case.path(out))]))
        print(f"{case.strategy} under {case.cap:g} of {table.label}, seed {case.seed}", file=sys.stderr)
        if len(running) == jobs:
            finish(running)
    finish(running)


def finish(running: list[subprocess.Popen[bytes]]) -> None:
    while running:
        if status := running.pop().wait():
            raise SystemExit(f"a peer ended with the status {status}")


def install_peers(environment: Path) -> Path:
    python = environment / "bin" / "python"
    if not (environment / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "smac>=2.4,<3", "pymoo>=0.6.1"], check=True)
        (environment / ".installed").touch()
    return python


def nasbench201(data: Path, folder: Path) -> list[Table]:
    """Write the connected cells with a column for each edge; return a table for each device."""
    devices = {"pixel3": "lat_ms_pixel3", "raspi4": "lat_ms_raspi4", "samsung-a50": "lat_ms_samsung_a50"}
    edges = tuple(f"edge{start}{end}" for start, end in _NODES)
    path = folder / "nasbench201.csv"
    with gzip.open(data / "nasbench201" / "nb201_acc_latency.csv.gz", "rt", newline="") as file:
        rows = [
            [*operations, row["c10_val_12ep"], row["c10_test_200ep"], *(row[column] for column in devices.values())]
            for row in csv.DictReader(file)
            if is_connected(operations := re.findall(r"(\w+)~", row["arch_str"]))
        ]
    write(path, [*edges, "seen", "truth", *devices], rows)
    return [Table("nasbench201", path, edges, device) for device in devices]


def is_connected(operations: list[str]) -> bool:
    """Say whether a path leads from a cell's input to its output."""
    reached = {0}
    for (start, end), operation in zip(_NODES, operations, strict=True):
        if start in reached and operation != "none":
            reached.add(end)
    return 3 in reached


def macro(data: Path, folder: Path) -> Table:
    content = json.loads((data / "nas_bench_macro" / "nas-bench-macro_cifar10.json").read_text())
    layers = tuple(f"layer{at}" for at in range(8))
    rows = [[*text, row["test_acc"][0], row["mean_acc"], row["flops"]] for text, row in sorted(content.items())]
    path = folder / "macro.csv"
    write(path, [*layers, "seen", "truth", "flops"], rows)
    return Table("macro", path, layers, "flops")


def made_up(folder: Path) -> Table:
    """Write 4^5 networks whose choices add accuracy and latency, with some noise in what is seen."""
    random = np.random.default_rng(0)
    codes = np.stack(np.meshgrid(*[np.arange(4)] * 5, indexing="ij"), -1).reshape(-1, 5)
    gains, times = random.uniform(0, 4, (5, 4)), random.uniform(0.2, 1.0, (5, 4))
    truth = 70 + gains[np.arange(5), codes].sum(axis=1) + random.normal(0, 0.5, len(codes))
    seen, ms = truth - 10 + random.normal(0, 1, len(codes)), times[np.arange(5), codes].sum(axis=1)
    columns = tuple(f"layer{at}" for at in range(5))
    path = folder / "made_up.csv"
    write(path, [*columns, "seen", "truth", "ms"], np.column_stack([codes.astype(object), seen, truth, ms]).tolist())
    return Table("made_up", path, columns, "ms")


def write(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    if path.exists():  # its content is in each comparison's settings
        return
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


if __name__ == "__main__":
    main()
