"""Progressive search (PNAS, Liu et al., 2018, section 4; under a latency cap as in DPP-Net and POPNAS).

Level b trains cells of b blocks. Level 1 draws them from all one-block cells; level b + 1 extends the best of level b
by one more block in every way, leaves out what does not fit the caps, what is equal and what was tried, ranks the rest
by a surrogate and takes the predicted Pareto front, front after front. Each level's plan is stored in the study.
Where nothing grows, as in a table of known results, there is a single level: see _single_level.py.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hwnas import spaces
from hwnas.latency import CellCosts
from hwnas.network import canonical_keys
from hwnas.runs import TARGET, ranking, scale_of
from hwnas.searching import surrogates
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.strategies import Context, ExhaustedError, NotYetError
from hwnas.searching.strategies._plans import Plan, PlanItem, Plans
from hwnas.searching.strategies._seen import Seen
from hwnas.searching.strategies._single_level import next_batch
from hwnas.searching.surrogates import Evaluated, Surrogate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

_BEAM = 8  # cells of a level that are extended, at least; with larger levels as many as were trained
_OPTIMISM = 0.5  # deviations above what is expected
_SHORTLIST = 3  # times as many candidates as are listed are scored by zero-cost proxies
_SPARE = 4  # a plan lists this many times its quota: candidates that turn out over the cap are replaced


def sampler(context: Context, *, seed: int) -> "PlanSampler":
    """Return the sampler: of growing cells, or of a single level where nothing grows."""
    if isinstance(context.candidates, SpaceCandidates) and spaces.grows(context.candidates.space):
        return GrowingSampler(context, context.candidates, seed=seed)
    return SingleLevelSampler(context, seed=seed)


class PlanSampler(BaseSampler):
    """Proposes the next candidate of the latest plan, and plans anew when that is done. Plans are kept in the study."""

    def __init__(self, context: Context, *, seed: int) -> None:
        self._context = context
        self._seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all that there is to choose: candidates are proposed as a whole."""
        return dict(self._context.candidates.distributions())

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters of the next candidate; raises ExhaustedError when there is none left."""
        plans = Plans.of(study)
        plan, position = plans.items.get(trial.number) or self._next_item(study, plans)
        return self._parameters(plans.take(study, trial, plan, position))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse: a parameter that is not of the candidates cannot be chosen."""
        raise ValueError(f"progressive proposes whole candidates; {param_name!r} is not of them")

    def _next_item(self, study: Study, plans: Plans) -> tuple[int, int]:
        """Return the next item of the latest plan, or the first of a new one."""
        if (item := self._left_of(study, plans)) is not None:
            return item
        plans.read(study)  # another process may have planned, and been killed
        if (item := self._left_of(study, plans)) is not None:
            return item
        return plans.add(study, self._plan(study, plans.latest + 1)), 0

    def _left_of(self, study: Study, plans: Plans) -> tuple[int, int] | None:
        """Return the next item of the latest plan; None where there is none, or enough of them are evaluated."""
        if plans.latest < 0:
            return None
        plan, takers = plans[plans.latest], plans.takers[plans.latest]
        trials = study.get_trials(deepcopy=False)
        taken = [trials[number] for number in takers]
        busy = sum(trial.state in (TrialState.COMPLETE, TrialState.RUNNING) for trial in taken)
        position = 1 + max((plans.items[number][1] for number in takers), default=-1)
        if busy < plan.quota and position < len(plan.items):
            return plans.latest, position
        self._check_ended(plan, taken)
        return None

    def _check_ended(self, plan: Plan, taken: Sequence[FrozenTrial]) -> None:
        """Raise NotYetError where the next plan has to wait for trials of this one."""

    @abstractmethod
    def _plan(self, study: Study, number: int) -> Plan:
        """Return plan `number`."""

    @abstractmethod
    def _parameters(self, item: PlanItem) -> dict[str, Any]:
        """Return what Optuna chose, of a plan's item."""


class SingleLevelSampler(PlanSampler):
    """Plans a small batch of all candidates that there are."""

    def _plan(self, study: Study, number: int) -> Plan:
        """Return the next batch, for which nothing has to be waited."""
        batch = next_batch(study, self._context.candidates, seed=self._seed)
        if not batch:
            raise ExhaustedError("progressive has no candidate left inside the caps")
        items = [PlanItem(accuracy, parameters=dict(chosen)) for chosen, accuracy in batch]
        return Plan(len(items), items)

    def _parameters(self, item: PlanItem) -> dict[str, Any]:
        """Return what Optuna chose."""
        return dict(item.parameters or {})


class GrowingSampler(PlanSampler):
    """Plans level after level of growing cells."""

    def __init__(self, context: Context, candidates: SpaceCandidates, *, seed: int) -> None:
        super().__init__(context, seed=seed)
        self._candidates = candidates
        self._space = candidates.space
        self._operations = len(self._space.OPERATIONS)

    def _parameters(self, item: PlanItem) -> dict[str, Any]:
        """Return what Optuna chose: the cell's code as parameters, and the target."""
        parameters: dict[str, Any] = self._space.parameters(np.array([item.code]))
        return {**parameters, TARGET: item.target}

    def _check_ended(self, plan: Plan, taken: Sequence[FrozenTrial]) -> None:
        """Raise NotYetError while trials of the level run: one that is left out is replaced, in this level."""
        if any(t.state == TrialState.RUNNING for t in taken):
            raise NotYetError(f"level {plan.blocks} is still being trained")

    def _plan(self, study: Study, number: int) -> Plan:
        """Return a level."""
        seen = Seen.of(study, self._candidates)
        trials, complete = list(seen.chosen.values()), seen.complete
        levels = self._space.MAX_BLOCKS
        reached = max((t.params["blocks"] for t in complete), default=0)
        wanted = min(number + 1, reached + 1, levels)
        share, rest = divmod(self._context.trials, levels)
        quota = max(1, share + (number < rest) if number < levels else self._context.trials - len(complete))
        for blocks in range(wanted, 0, -1):
            codes = self._extensions(complete, blocks)
            items = self._choose(codes, trials, complete, count=_SPARE * quota)
            if items:
                return Plan(quota, items, blocks)
        raise ExhaustedError(f"progressive has no candidate left inside the caps after {len(complete)} trained ones")

    def _extensions(self, complete: Sequence[FrozenTrial], blocks: int) -> "Codes":
        """Return the candidates of a level: codes [n, blocks, 4]."""
        if blocks == 1:
            first: Codes = self._space.first_level()
            return first
        parents = [t for t in complete if t.params["blocks"] == blocks - 1]
        if not parents:
            return np.zeros((0, blocks, 4), dtype=np.int64)
        accuracy, latency = np.array([t.values for t in parents]).T
        best = ranking(accuracy, latency, count=max(_BEAM, len(parents) // 2))
        grown: Codes = self._space.grow(np.concatenate([self._space.code(parents[i].params) for i in best]))
        return grown

    def _choose(
        self, codes: "Codes", trials: Sequence[FrozenTrial], complete: Sequence[FrozenTrial], *, count: int
    ) -> list[PlanItem]:
        """Return up to `count` candidates (a cell at a target) that fit and are new, the most promising first."""
        if not len(codes):
            return []
        costs, budget = self._candidates.costs, self._candidates.budget
        if not isinstance(costs, CellCosts):
            raise TypeError(f"cells that grow have CellCosts; got {type(costs).__name__}")
        targets = np.array(self._candidates.targets)
        scale, ms = costs.largest_of(codes, budget, (targets * budget.max_latency_ms).tolist())
        scale[self._already_tried(codes, scale, trials)] = -1
        rows, columns = np.nonzero(scale >= 0)
        rows, columns = _first_of_equals(rows, columns, scale[rows, columns])
        if not len(rows):
            return []
        if codes.shape[1] == 1:
            order, predicted = self._by_coverage(codes[rows], columns, count=count), None
        else:
            order, predicted = self._ranked(complete, codes[rows], targets[columns], ms[rows, columns], count=count)
        return [
            PlanItem(
                None if predicted is None else float(predicted[i]),
                codes[rows[i]].tolist(),
                float(targets[columns[i]]),
            )
            for i in order
        ]

    def _already_tried(
        self, codes: "Codes", scale: "NDArray[np.int64]", trials: Sequence[FrozenTrial]
    ) -> "NDArray[np.bool_]":
        """Return [n, targets]: which candidates are networks, or cells at a target, that a trial had."""
        tried = [t for t in trials if t.params["blocks"] == codes.shape[1]]
        if not tried:
            return np.zeros(scale.shape, dtype=bool)
        theirs = np.concatenate([self._space.code(t.params) for t in tried])
        keys = canonical_keys(np.concatenate([theirs, codes]), operations=self._operations)
        cells = np.unique(keys, return_inverse=True)[1]
        targets = self._candidates.targets
        scales = [-1 if (claimed := scale_of(t)) is None else claimed for t in tried]
        same_network = _pairs(cells, scales, scale, size=len(self._candidates.costs.scales) + 1)
        at = [targets.index(t.params[TARGET]) for t in tried]
        return same_network | _pairs(cells, at, np.arange(len(targets)), size=len(targets))

    def _ranked(
        self,
        complete: Sequence[FrozenTrial],
        codes: "Codes",
        targets: "NDArray[np.float64]",
        ms: "NDArray[np.float64]",
        *,
        count: int,
    ) -> "tuple[list[int], NDArray[np.float64]]":
        """Return positions, the predicted Pareto front first, then that of the rest, and the predicted accuracies.

        A candidate stands where its accuracy would be if it came out somewhat better than expected, as unsure ones may.
        Where zero-cost proxies are wanted, the best few are scored, and ranked again by a surrogate that reads them.
        """
        mean, spread = self._fitted(complete).predict(codes, targets)
        if self._context.scores is None:
            return ranking(mean + _OPTIMISM * spread, ms, count=count).tolist(), mean
        few = ranking(mean + _OPTIMISM * spread, ms, count=_SHORTLIST * count)
        parents = [(self._space.code(trial.params), trial.params[TARGET]) for trial in complete]
        asked = [(codes[at : at + 1], targets[at]) for at in few]
        chosen = [{**self._space.parameters(code), TARGET: float(target)} for code, target in (*parents, *asked)]
        scores = self._context.scores(chosen)
        scores = (scores - scores.mean(axis=0)) / np.where(scores.std(axis=0) > 0, scores.std(axis=0), 1.0)
        fitted = self._fitted(complete, scores[: len(complete)])
        mean[few], spread[few] = fitted.predict(codes[few], targets[few], scores[len(complete) :])
        order = ranking(mean[few] + _OPTIMISM * spread[few], ms[few], count=count)
        return few[order].tolist(), mean

    def _fitted(self, complete: Sequence[FrozenTrial], scores: "NDArray[np.float64] | None" = None) -> Surrogate:
        """Return the surrogate, fitted to the trials, with what proxies say of each."""
        blocks = np.array([trial.params["blocks"] for trial in complete])
        evaluated = []
        for rows in (np.flatnonzero(blocks == level) for level in np.unique(blocks)):
            level = [complete[row] for row in rows.tolist()]
            evaluated.append(
                Evaluated(
                    np.concatenate([self._space.code(trial.params) for trial in level]),
                    np.array([trial.params[TARGET] for trial in level]),
                    np.array([trial.values[0] for trial in level]),
                    None if scores is None else scores[rows],
                )
            )
        return surrogates.fit(self._context.surrogate, evaluated, operations=self._operations, seed=self._seed)

    def _by_coverage(self, codes: "Codes", columns: "NDArray[np.int64]", *, count: int) -> list[int]:
        """Return positions in a random order in which rare operations and targets come first."""
        random = np.random.default_rng(self._seed)
        used: Counter[Any] = Counter()
        left = random.permutation(len(codes)).tolist()
        order: list[int] = []
        while left and len(order) < count:
            scores = [used[codes[i, 0, 0]] + used[codes[i, 0, 2]] + used["target", columns[i]] for i in left]
            chosen = left.pop(int(np.argmin(scores)))
            order.append(chosen)
            for name in (codes[chosen, 0, 0], codes[chosen, 0, 2], ("target", columns[chosen])):
                used[name] += 1
        return order


def _pairs(
    cells: "NDArray[np.int64]", theirs: Sequence[int], ours: "NDArray[np.int64]", *, size: int
) -> "NDArray[np.bool_]":
    """Return [n, k]: which pairs of our cells and `ours` [n or 1, k] are among those of the first cells and `theirs`.

    `ours` and `theirs` are numbers below `size`.
    """
    known = len(theirs)
    return np.isin(cells[known:, None] * size + ours, cells[:known] * size + np.array(theirs))


def _first_of_equals(
    rows: "NDArray[np.int64]", columns: "NDArray[np.int64]", scale: "NDArray[np.int64]"
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Leave out a cell's further targets that lead to the same scale: they are the same network."""
    _, first = np.unique(np.stack([rows, scale], axis=1), axis=0, return_index=True)
    first.sort()
    return rows[first], columns[first]
