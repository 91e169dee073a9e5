"""`hwnas bench`: compares strategies on a table of known results, where an evaluation is a look-up.

Each run, of a strategy under a cap from a seed, is the loop of `hwnas search` with nothing trained, and a file:

OUT/settings.json                    what all runs have in common
OUT/runs/STRATEGY_CAP_SEED.json      the rows that were evaluated, in their order, and how long the asks took
OUT/comparison.csv  summary.json  comparison.png  comparison.svg
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.errors import InputError
from hwnas.verbs._options import names

if TYPE_CHECKING:
    pass
from hwnas.benching import (
    Benched,
    Case,
    Settings,
    candidates_of,
    caps_of,
    check_options,
    compare_all,
    do_all,
    facts_of,
    read_run,
    results_of,
    sha256_of,
    start,
    write_comparison,
)


def bench(
    *,
    table: Annotated[str, typer.Option(help="CSV file of known results, also one packed by gzip: a row a network")],
    choices: Annotated[
        Sequence[str], typer.Option(parser=names, metavar="COL,...", help="its columns of choices, integers or texts")
    ],
    accuracy: Annotated[
        Sequence[str],
        typer.Option(parser=names, metavar="SEEN[,TRUTH]", help="the accuracy that a search sees, and the true one"),
    ],
    caps: Annotated[
        Sequence[float], typer.Option(parser=caps_of, metavar="CAP,...", help="caps on the latency, or on the cost")
    ],
    out: Annotated[str, typer.Option(help="folder of the comparison; an interrupted one in it goes on")],
    latency: Annotated[str | None, typer.Option(help="its column of latencies, which the caps are on")] = None,
    cost: Annotated[
        Sequence[str] | None,
        typer.Option(
            parser=names,
            metavar="COL,...",
            help="columns of costs that strategies may look at; without --latency the caps are on the first",
        ),
    ] = None,
    strategies: Annotated[
        Sequence[str], typer.Option(parser=names, metavar="NAME,...", help="strategies to compare")
    ] = ("random", "nsga2", "progressive"),
    seeds: Annotated[int, typer.Option(help="runs of each strategy under each cap")] = 20,
    evaluations: Annotated[int, typer.Option(help="look-ups of an accuracy in a run")] = 500,
    jobs: Annotated[int | None, typer.Option(help="processes, one thread each", show_default="the cores")] = None,
) -> Benched:
    """Compare strategies on a table of known results; a comparison that was stopped goes on from its folder.

    Raises InputError, and BudgetError where no row of the table is under a cap.
    """
    counts = {"seeds": seeds, "evaluations": evaluations, "jobs": 1 if jobs is None else jobs}
    check_options(accuracy, strategies, counts)
    if not latency and not cost:
        raise InputError("the caps are on a column; got neither --latency nor --cost. Add --latency COL")
    limited, *costs = dict.fromkeys([*([latency] if latency else []), *(cost or [])])
    common = Settings(table, sha256_of(table), tuple(choices), tuple(accuracy), limited, tuple(costs), evaluations)
    candidates = {cap: candidates_of(common, cap) for cap in dict.fromkeys(caps)}
    start(Path(out), common)
    cases = [Case(name, cap, seed) for seed in range(seeds) for cap in candidates for name in dict.fromkeys(strategies)]
    do_all(Path(out), common, cases, jobs=jobs or os.cpu_count() or 1)
    runs = [(case, read_run(case.path(Path(out)))) for case in cases]
    benched = Benched(
        out=out,
        left_out=results_of(common).left_out,
        caps=[facts_of(one) for one in candidates.values()],
        compared=compare_all(runs, candidates, evaluations),
    )
    write_comparison(benched, runs, candidates, evaluations)
    return benched
