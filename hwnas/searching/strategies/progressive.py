"""Progressive search (PNAS, Liu et al., 2018, section 4; under a latency cap as in DPP-Net and POPNAS).

Level b trains cells of b blocks. Level 1 draws them from all one-block cells; level b + 1 extends the best of level b
by one more block in every way, leaves out what does not fit the caps, what is equal and what was tried, ranks the rest
by a surrogate and takes the predicted Pareto front, front after front. Each level's plan is stored in the study.
Where nothing grows, as in a table of known results, there is a single level: see _single_level.py.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
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
from hwnas.searching.strategies._level import Level, Tried
from hwnas.searching.strategies._plans import Plan, PlanItem, Plans
from hwnas.searching.strategies._seen import Seen
from hwnas.searching.strategies._single_level import next_batch
from hwnas.searching.surrogates import Evaluated, Surrogate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

_BEAM = 8  # cells of a level that are extended, at least; with larger levels as many as were trained
_LOOKED_AT = 512  # candidates of a level, at most, whose memory is looked at, the most promising first
_OPTIMISM = 0.5  # deviations above what is expected
_PARENTS = 32  # whose children are grown at once
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
            level = self._level(trials, complete, blocks)
            items = self._choose(level, complete, count=_SPARE * quota)
            if items:
                return Plan(quota, items, blocks)
        raise ExhaustedError(f"progressive has no candidate left inside the caps after {len(complete)} trained ones")

    def _level(self, trials: Sequence[FrozenTrial], complete: Sequence[FrozenTrial], blocks: int) -> Level:
        """Return the candidates of a level, those that trials had left out."""
        costs, budget = self._candidates.costs, self._candidates.budget
        if not isinstance(costs, CellCosts):
            raise TypeError(f"cells that grow have CellCosts; got {type(costs).__name__}")
        targets_ms = [share * budget.max_latency_ms for share in self._candidates.targets]
        tried = self._tried([trial for trial in trials if trial.params["blocks"] == blocks])
        return Level.of(self._grown(complete, blocks), costs, budget, targets_ms, tried=tried, blocks=blocks)

    def _grown(self, complete: Sequence[FrozenTrial], blocks: int) -> "Iterator[Codes]":
        """Yield the cells of a level in parts [n, blocks, 4]; a cell may be in several."""
        if blocks == 1:
            yield self._space.first_level()
            return
        parents = [t for t in complete if t.params["blocks"] == blocks - 1]
        if not parents:
            return
        accuracy, latency = np.array([t.values for t in parents]).T
        best = ranking(accuracy, latency, count=max(_BEAM, len(parents) // 2))
        for at in range(0, len(best), _PARENTS):
            codes = [self._space.code(parents[place].params) for place in best[at : at + _PARENTS]]
            yield self._space.grow(np.concatenate(codes))

    def _tried(self, trials: Sequence[FrozenTrial]) -> Tried:
        """Return what trials of a level had."""
        nothing = np.zeros(0, dtype=np.int64)
        if not trials:
            return Tried(nothing, nothing, nothing)
        codes = np.concatenate([self._space.code(trial.params) for trial in trials])
        targets = [self._candidates.targets.index(trial.params[TARGET]) for trial in trials]
        scales = [-1 if (claimed := scale_of(trial)) is None else claimed for trial in trials]
        return Tried(canonical_keys(codes, operations=self._operations), np.array(targets), np.array(scales))

    def _choose(self, level: Level, complete: Sequence[FrozenTrial], *, count: int) -> list[PlanItem]:
        """Return up to `count` candidates of a level, the most promising first."""
        if not len(level):
            return []
        has_memory = self._candidates.budget.has_memory
        ranked = max(count, _LOOKED_AT) if has_memory and self._context.scores is None else count
        if level.blocks == 1:
            codes = level.codes(slice(None))
            order, predicted = self._by_coverage(codes, level.targets, count=ranked), None
        else:
            order, predicted = self._ranked(complete, level, count=ranked)
        targets = self._candidates.targets
        items = (
            PlanItem(
                None if predicted is None else float(predicted[place]), code.tolist(), targets[level.targets[place]]
            )
            for place, code in zip(order, level.codes(np.array(order)), strict=True)
        )
        if has_memory:  # which the level's costs do not have
            items = (item for item in items if self._candidates.fits([self._parameters(item)])[0])
        return list(islice(items, count))

    def _ranked(
        self, complete: Sequence[FrozenTrial], level: Level, *, count: int
    ) -> "tuple[list[int], NDArray[np.float64]]":
        """Return positions, the predicted Pareto front first, then that of the rest, and the predicted accuracies.

        A candidate stands where its accuracy would be if it came out somewhat better than expected, as unsure ones may.
        Where zero-cost proxies are wanted, the best few are scored, and ranked again by a surrogate that reads them.
        """
        targets, surrogate = np.array(self._candidates.targets), self._fitted(complete)
        parts = [surrogate.predict(level.codes(some), targets[level.targets[some]]) for some in level.chunks()]
        mean, spread = (np.concatenate(part) for part in zip(*parts, strict=True))
        if self._context.scores is None:
            return ranking(mean + _OPTIMISM * spread, level.ms, count=count).tolist(), mean
        few = ranking(mean + _OPTIMISM * spread, level.ms, count=_SHORTLIST * count)
        codes, target = level.codes(few), targets[level.targets[few]]
        parents = [(self._space.code(trial.params), trial.params[TARGET]) for trial in complete]
        asked = [(codes[at : at + 1], target[at]) for at in range(len(few))]
        chosen = [{**self._space.parameters(code), TARGET: float(share)} for code, share in (*parents, *asked)]
        scores = _standardised(self._context.scores(chosen))
        fitted = self._fitted(complete, scores[: len(complete)])
        mean[few], spread[few] = fitted.predict(codes, target, scores[len(complete) :])
        order = ranking(mean[few] + _OPTIMISM * spread[few], level.ms[few], count=count)
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


def _standardised(scores: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Return scores [n, proxies] in deviations from the mean; one that is no number is the mean."""
    finite = np.where(np.isfinite(scores), scores, np.nan)
    known = np.where(np.isfinite(finite).any(axis=0), finite, 0.0)
    mean, deviation = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    return np.asarray(np.nan_to_num((known - mean) / np.where(deviation > 0, deviation, 1.0)))
