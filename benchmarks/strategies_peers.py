"""One run of a public optimiser on a table, for strategies.py: the loop of hwnas/table_search.py, without hwnas.

It runs in the peers' own environment. SMAC3 (random forest, expected improvement) sees the accuracy alone, and what is
over the cap or known as bad as the worst seen. pymoo is its NSGA-II on both objectives, with the cap as a constraint.
Either way what is over the cap or known costs no evaluation.

    python strategies_peers.py PEER TABLE CHOICES LATENCY CAP SEED EVALUATIONS OUT
"""

import csv
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MOST_PROPOSALS = 1000


class Table:
    """The networks of a table: their choices as numbers, what they are seen to reach, and their cost."""

    def __init__(self, path: Path, names: list[str], latency: str, cap: float) -> None:
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        self.choices = [sorted({line[name] for line in lines}) for name in names]
        codes = [tuple(of.index(line[name]) for name, of in zip(names, self.choices, strict=True)) for line in lines]
        self.rows = {code: row for row, code in enumerate(codes)}
        self.seen = np.array([float(line["seen"]) for line in lines])
        self.cost = np.array([float(line[latency]) for line in lines])
        self.cap = cap

    def new(self, code: tuple[int, ...], known: dict[int, int]) -> int | None:
        """Return the row of a network that is under the cap and not known."""
        row = self.rows.get(code)
        return row if row is not None and self.cost[row] <= self.cap and row not in known else None


def smac(table: Table, known: dict[int, int], seed: int, folder: str) -> Iterator[tuple[int, ...]]:
    """Yield proposals; what the loop made of the last one is in `known`."""
    from ConfigSpace import Categorical, ConfigurationSpace
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.runhistory import TrialValue

    space = ConfigurationSpace(seed=seed)
    space.add([Categorical(f"x{at}", [str(i) for i in range(len(of))]) for at, of in enumerate(table.choices)])
    scenario = Scenario(space, n_trials=100_000, deterministic=True, seed=seed, output_directory=Path(folder))
    facade = HyperparameterOptimizationFacade
    optimiser = facade(
        scenario,
        target_function=lambda config, seed=0: 0.0,
        initial_design=facade.get_initial_design(scenario, n_configs=25),  # as SMAC3 would for 100 evaluations
        overwrite=True,
        logging_level=40,
    )
    worst = 0.0
    while True:
        try:
            info = optimiser.ask()
        except StopIteration:  # it has been through the space
            return
        code = tuple(int(info.config[f"x{at}"]) for at in range(len(table.choices)))
        before = len(known)
        yield code
        if len(known) > before:
            cost = -float(table.seen[table.rows[code]])
            worst = max(worst, cost) if before else cost
        optimiser.tell(info, TrialValue(cost=cost if len(known) > before else worst), save=False)


def pymoo(table: Table, known: dict[int, int], seed: int, folder: str) -> Iterator[tuple[int, ...]]:
    """Yield proposals, generation after generation of 20; the constraint is the cap."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.operators.crossover.ux import UX
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.problems.static import StaticProblem

    last = np.array([len(of) - 1 for of in table.choices])
    problem = Problem(n_var=len(last), n_obj=2, n_ieq_constr=1, xl=np.zeros(len(last)), xu=last, vtype=int)
    operators: dict[str, Any] = {"sampling": IntegerRandomSampling(), "crossover": UX(), "mutation": integers()}
    algorithm = NSGA2(pop_size=20, eliminate_duplicates=False, **operators)
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    while True:
        population = algorithm.ask()
        codes = [tuple(int(value) for value in code) for code in population.get("X")]
        yield from codes
        rows = np.array([table.rows.get(code, -1) for code in codes])
        absent = rows < 0
        accuracy, cost = (np.where(absent, bad, of[rows]) for of, bad in ((table.seen, 0.0), (table.cost, 1e9)))
        figures = {"F": np.column_stack([-accuracy, cost]), "G": (cost / table.cap - 1)[:, None]}
        Evaluator().eval(StaticProblem(problem, **figures), population)
        algorithm.tell(infills=population)


def integers() -> Any:
    """Return a mutation that draws each choice anew with a probability of one over their number."""
    from pymoo.core.mutation import Mutation

    class Anew(Mutation):
        def _do(self, problem: Any, X: Any, *, random_state: Any = None, **_: Any) -> Any:  # noqa: N803
            random = random_state or np.random.default_rng()
            drawn = random.integers(problem.xl.astype(int), problem.xu.astype(int) + 1, X.shape)
            return np.where(random.random(X.shape) < 1 / X.shape[1], drawn, X)

    return Anew()


def run(peer: str, table: Table, seed: int, evaluations: int) -> dict[str, Any]:
    """Do one run; return what hwnas keeps of its own."""
    known: dict[int, int] = {}
    seconds, ended, proposals, in_a_row, spent = [], "", 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        asks = {"smac": smac, "pymoo": pymoo}[peer](table, known, seed, folder)
        while len(known) < evaluations and not ended:
            started = time.perf_counter()
            code = next(asks, None)
            spent += time.perf_counter() - started
            proposals, in_a_row = proposals + 1, in_a_row + 1
            if code is None or in_a_row > MOST_PROPOSALS:
                ended = "nothing more is proposed" if code is None else f"{MOST_PROPOSALS} proposals in a row"
            elif (row := table.new(code, known)) is not None:
                known[row], in_a_row = proposals, 0
                seconds.append(spent)
                spent = 0.0
    ms = 1e3 * np.array(seconds)
    ask_ms = {"median": np.median(ms), "p95": np.quantile(ms, 0.95), "max": ms.max()}
    rounded = {name: round(float(value), 3) for name, value in ask_ms.items()}
    return {"version": 1, "rows": list(known), "proposals": list(known.values()), "ended": ended, "ask_ms": rounded}


def main() -> None:
    peer, path, names, latency, cap, seed, evaluations, out = sys.argv[1:]
    table = Table(Path(path), names.split(","), latency, float(cap))
    result = run(peer, table, int(seed), int(evaluations))
    kept = Path(out)
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(kept)


if __name__ == "__main__":
    main()
