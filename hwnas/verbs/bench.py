"""`hwnas bench`: compares strategies on a table of known results, where an evaluation is a look-up.

Each run, of a strategy under a cap from a seed, is the loop of `hwnas search` with nothing trained, and a file:

OUT/settings.json                    what all runs have in common
OUT/runs/STRATEGY_CAP_SEED.json      the rows that were evaluated, in their order, and how long the asks took
OUT/comparison.csv  summary.json  comparison.png  comparison.svg
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hwnas.benching import (
    Benched,
    Case,
    Settings,
    candidates_of,
    compare_all,
    do_all,
    facts_of,
    read_run,
    results_of,
    sha256_of,
    start,
    write_comparison,
)
from hwnas.errors import InputError
from hwnas.searching.strategies import derives
from hwnas.support import AnyNames, FilePath, FolderPath, Metavar, Names, NumbersAboveZero, Options, PlugIn, commands
from hwnas.verbs._takes import takes

_COLUMNS = Metavar("COL,...")


class BenchOptions(Options):
    """The options of `hwnas bench`."""

    table: FilePath = Field(description="CSV file of known results, also one packed by gzip: a row a network")
    choices: Annotated[Names, _COLUMNS] = Field(description="its columns of choices, integers or texts")
    accuracy: Annotated[Names, Metavar("SEEN[,TRUTH]")] = Field(
        description="the accuracy that a search sees, and the true one"
    )
    caps: Annotated[NumbersAboveZero, Metavar("CAP,...")] = Field(description="caps on the latency, or on the cost")
    out: FolderPath = Field(description="folder of the comparison; an interrupted one in it goes on")
    latency: str | None = Field(default=None, description="its column of latencies, which the caps are on")
    cost: Annotated[AnyNames, _COLUMNS] | None = Field(
        default=None,
        description="columns of costs that strategies may look at; without --latency the caps are on the first",
    )
    strategies: Annotated[Names, PlugIn("strategies")] = Field(
        default=("random", "nsga2", "progressive"), description="strategies to compare"
    )
    seeds: int = Field(default=20, ge=1, description="runs of each strategy under each cap")
    evaluations: int = Field(default=500, ge=1, description="look-ups of an accuracy in a run")
    jobs: int | None = Field(default=None, ge=1, description="processes, one thread each; without it one a core")


@takes(BenchOptions)
def bench(options: BenchOptions) -> Benched:
    """Compare strategies on a table of known results; a comparison that was stopped goes on from its folder.

    Raises InputError, and BudgetError where no row of the table is under a cap.
    """
    out = Path(options.out)
    common = _settings(options)
    candidates = {cap: candidates_of(common, cap) for cap in dict.fromkeys(options.caps)}
    start(out, common)
    cases = [
        Case(strategy, cap, seed)
        for seed in range(options.seeds)
        for cap in candidates
        for strategy in dict.fromkeys(options.strategies)
    ]
    do_all(out, common, cases, jobs=options.jobs or os.cpu_count() or 1)
    rows = len(results_of(common).parameters)
    runs = [(case, read_run(case.path(out), rows=rows, evaluations=options.evaluations)) for case in cases]
    benched = Benched(
        out=str(out),
        left_out=results_of(common).left_out,
        caps=[facts_of(networks) for networks in candidates.values()],
        compared=compare_all(runs, candidates, options.evaluations),
    )
    write_comparison(benched, runs, candidates, options.evaluations)
    return benched


def _settings(options: BenchOptions) -> Settings:
    """Return what all runs have in common; raises InputError for a third accuracy, and for caps on no column."""
    columns = [*([options.latency] if options.latency else ()), *(options.cost or ())]
    if learning := [name for name in options.strategies if derives(name)]:
        raise InputError(
            f"{learning[0]} learns from images, which a table of results does not have; leave it out of --strategies, "
            f"or search with it: {commands.search()}"
        )
    if len(options.accuracy) > 2:
        raise InputError(f"--accuracy takes one column or two, SEEN,TRUTH; got {','.join(options.accuracy)}")
    if not columns:
        raise InputError("the caps are on a column; got neither --latency nor --cost. Add --latency COL")
    limited, *costs = dict.fromkeys(columns)
    return Settings(
        table=str(options.table),
        sha256=sha256_of(str(options.table)),
        choices=tuple(options.choices),
        accuracy=tuple(options.accuracy),
        latency=limited,
        costs=tuple(costs),
        evaluations=options.evaluations,
    )
