"""The loop of `hwnas search` with nothing trained: a strategy on a table of known results, for `hwnas bench`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, NonNegativeInt

from hwnas.searching.strategies import Context, ExhaustedError, make_sampler

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from hwnas.benching.results import ResultsCandidates

_MOST_PROPOSALS = 1000  # in a row without one that is new and under the cap: then the run ends


@dataclass(frozen=True, slots=True)
class TableRun:
    """A run: the rows that it evaluated, after how many proposals each, why it ended, its asks in milliseconds."""

    rows: tuple[NonNegativeInt, ...]
    proposals: tuple[NonNegativeInt, ...]
    ended: str  # why, where it was before the wanted number of evaluations
    ask_ms: dict[str, NonNegativeFloat]  # median, p95, max; of an evaluation, with rejected proposals before it


def search_table(strategy: str, candidates: "ResultsCandidates", *, evaluations: int, seed: int) -> TableRun:
    """Search the networks under a cap: an evaluation is a look-up; what is over the cap or known costs none.

    Raises UnknownNameError, and what the strategy raises.
    """
    loop = _Loop(strategy, candidates, Context(candidates, evaluations), seed=seed)
    seconds = []
    while len(loop.rows) < evaluations and not loop.ended:
        started = time.perf_counter()
        loop.evaluate_one()
        seconds.append(time.perf_counter() - started)
    return TableRun(tuple(loop.rows), tuple(loop.rows.values()), loop.ended, _spread_ms(seconds))


def _spread_ms(seconds: Sequence[float]) -> dict[str, float]:
    import numpy as np

    ms = 1e3 * np.array(seconds)
    spread = {"median": np.median(ms), "p95": np.quantile(ms, 0.95), "max": ms.max()}
    return {name: round(float(value), 3) for name, value in spread.items()}


class _Loop:
    """The study of a run, as `hwnas search` has it."""

    def __init__(self, strategy: str, candidates: "ResultsCandidates", context: Context, *, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.rows: dict[int, int] = {}  # what is evaluated: the number of proposals until then
        self.ended = ""
        self._strategy, self._seed = strategy, seed
        self._candidates, self._context = candidates, context
        self._distributions: dict[str, BaseDistribution] = {**candidates.distributions()}
        self._study = optuna.create_study(directions=["maximize", "minimize"])
        self._proposals = 0

    def evaluate_one(self) -> None:
        """Ask until a proposal is new and under the cap, and tell its figures; or note why there is none."""
        last = self._proposals + _MOST_PROPOSALS
        try:
            while self._proposals < last:
                if self._tell(self._ask()):
                    return self._end_with_the_last()
        except ExhaustedError as error:
            self.ended = str(error)
        else:
            self.ended = f"{_MOST_PROPOSALS} proposals in a row were over the cap or known"

    def _end_with_the_last(self) -> None:
        if len(self.rows) == len(self._candidates.inside) < self._context.trials:
            self.ended = f"all {len(self.rows)} networks under the cap are evaluated"

    def _ask(self) -> "optuna.Trial":
        self._study.sampler = sampler = self._sampler()
        try:
            return self._study.ask(self._distributions)
        finally:
            self._proposals += 1 + getattr(sampler, "rejected", 0)

    def _sampler(self) -> "BaseSampler":
        """Return the sampler, whose random state comes from the run's seed and the trial's number alone."""
        import numpy as np

        number = len(self._study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        return make_sampler(self._strategy, self._context, seed=seed)

    def _tell(self, trial: "optuna.Trial") -> bool:
        """Tell a trial's figures if it is new and under the cap; return whether it is."""
        from optuna.trial import TrialState

        results, row = self._candidates.results, self._candidates.results.rows([trial.params])[0]
        is_new = self._candidates.fits([trial.params])[0] and row not in self.rows
        excess = results.latency[row] / self._candidates.cap - 1 if row >= 0 else float("inf")
        trial.set_constraint("latency", excess)
        if is_new:
            self.rows[int(row)] = self._proposals
            self._study.tell(trial, [float(results.seen[row]), float(results.latency[row])])
        else:
            self._study.tell(trial, state=TrialState.PRUNED)
        return bool(is_new)
