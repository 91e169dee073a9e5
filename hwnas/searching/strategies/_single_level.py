"""Progressive search where nothing grows: one level of all candidates, ranked by a Gaussian process again and again.

The first few are drawn from those that cost most, as larger networks are better as a rule. From then on a batch of a
twentieth of what is evaluated is planned at once: each candidate by its expected improvement on the best accuracy,
every eighth by that on the Pareto front, the ones before it taken as if they had come out as expected (Jones et al.,
1998; the kriging believer of Ginsbourger et al., 2010). POPNAS and BANANAS rank by a surrogate's spread as well.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from optuna.study import Study

from hwnas.searching.descent import descended
from hwnas.searching.strategies import Candidates, Parameters
from hwnas.searching.strategies._seen import Seen
from hwnas.searching.surrogates._gaussian_process import Points, expected_improvement, posterior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Random = np.random.Generator

_FIRST = 5  # candidates that are evaluated before any is ranked
_COSTLY = 0.25  # the share of the candidates, the most costly, from which these are
_BATCH = 0.05  # of what is evaluated
_FOR_THE_FRONT = 8  # every eighth
_POOL = 200  # candidates that are looked at where not all can be listed
_MOST_DRAWN = 2000  # to come to that many
_FEW = 50  # with fewer, some are added that are changed until they fit
_DESCENTS = 10  # to come to these
_PARENTS = 10  # the best, whose neighbours are half of what is drawn


def next_batch(study: Study, candidates: Candidates, *, seed: int) -> list[tuple[Parameters, float | None]]:
    """Return what to evaluate next, in this order, each with its predicted accuracy once there is one.

    A trial that still runs is taken as if it had come out as expected. Empty where no candidate is left.
    """
    random = np.random.default_rng(seed)
    seen = Seen.of(study, candidates)
    complete = seen.complete
    running = [seen.running[number].params for number in sorted(seen.running)]
    pool = _listed(study, candidates) or _Pool.of(candidates, _drawn(seen, candidates, random, seed=seed))
    pool = pool.without(seen.identities)
    if not pool.parameters:
        return []
    if len(complete) < _FIRST:
        return [(one, None) for one in _costly(pool, random)]
    evaluated = _Pool.of(candidates, [trial.params for trial in complete])
    accuracy = np.array([trial.values[0] for trial in complete])
    asked = pool.after(_Pool.of(candidates, running)) if running else pool
    return _ranked(evaluated, accuracy, asked, running=len(running), seed=seed)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Candidates, what tells them apart, their choices by number [n, parameters] and known costs [n, costs]."""

    parameters: list[Parameters]
    identities: list[Hashable]
    choices: "NDArray[np.int64]"
    costs: "Array"
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, candidates: Candidates, parameters: Sequence[Parameters]) -> "_Pool":
        """Look at candidates one by one."""
        known = {name: one.choices for name, one in candidates.distributions().items()}
        number = {name: {choice: at for at, choice in enumerate(choices)} for name, choices in known.items()}
        chosen = [[number[name][one[name]] for name in known] for one in parameters]
        return cls(
            list(parameters),
            [candidates.identity(one) for one in parameters],
            np.array(chosen, dtype=np.int64).reshape(len(chosen), len(known)),
            candidates.known_costs(parameters),
            tuple(map(len, known.values())),
        )

    def without(self, known: "set[Hashable]") -> "_Pool":
        """Leave out what is known."""
        rows = [row for row, one in enumerate(self.identities) if one not in known]
        parameters, identities = [self.parameters[row] for row in rows], [self.identities[row] for row in rows]
        return _Pool(parameters, identities, self.choices[rows], self.costs[rows], self.sizes)

    def after(self, others: "_Pool") -> "_Pool":
        """Return others and then these."""
        return _Pool(
            others.parameters + self.parameters,
            others.identities + self.identities,
            np.concatenate([others.choices, self.choices]),
            np.concatenate([others.costs, self.costs]),
            self.sizes,
        )

    def points(self, mean: "Array", scale: "Array") -> Points:
        """Return them with their costs as numbers, in units of `scale` from the mean."""
        return Points(self.choices, (self.costs - mean) / scale, self.sizes)


_pools: WeakKeyDictionary[Study, _Pool | None] = WeakKeyDictionary()


def _listed(study: Study, candidates: Candidates) -> _Pool | None:
    """Return all candidates of a study, where they can be listed; they are looked at once."""
    if study not in _pools:
        every = candidates.every()
        _pools[study] = _Pool.of(candidates, every) if every else None
    return _pools[study]


def _drawn(seen: Seen, candidates: Candidates, random: "Random", *, seed: int) -> list[Parameters]:
    """Return some new candidates that fit, by chance and among the neighbours of the best.

    Where these are few, as under a tight cap, what chance draws is changed until it fits.
    """
    best = sorted(seen.complete, key=lambda trial: -trial.values[0])[:_PARENTS]
    choices = {name: known.choices for name, known in candidates.distributions().items()}
    drawn: set[Hashable] = set()
    found: list[Parameters] = []
    for draw in range(_MOST_DRAWN):
        one = {name: options[random.integers(len(options))] for name, options in choices.items()}
        if best and draw % 2:
            name = list(choices)[random.integers(len(choices))]
            one = {**best[random.integers(len(best))].params, name: one[name]}
        one = dict(candidates.without_ignored(one))
        identity = candidates.identity(one)
        if identity not in drawn and identity not in seen.identities and candidates.fits([one])[0]:
            drawn.add(identity)
            found.append(one)
        if len(found) == _POOL:
            break
    if len(found) < _FEW:
        more = descended(candidates, np.random.default_rng((seed, 1)), descents=_DESCENTS)
        distinct = {identity: one for one in more if (identity := candidates.identity(one)) not in seen.identities}
        found += [one for identity, one in distinct.items() if identity not in drawn]
    return found


def _costly(pool: _Pool, random: "Random") -> list[Parameters]:
    """Return the first few: drawn from the costly part of the pool."""
    costly = np.argsort(-pool.costs[:, 0], kind="stable")[: max(_FIRST, round(_COSTLY * len(pool.parameters)))]
    return [pool.parameters[row] for row in random.permutation(costly)[:_FIRST]]


def _ranked(
    evaluated: _Pool, accuracy: "Array", pool: _Pool, *, running: int, seed: int
) -> list[tuple[Parameters, float | None]]:
    """Return the batch, from a pool whose first ones still run."""
    costs = np.concatenate([evaluated.costs, pool.costs])
    mean, scale = costs.mean(axis=0), np.where(costs.std(axis=0) > 0, costs.std(axis=0), 1.0)
    known, asked = evaluated.points(mean, scale), pool.points(mean, scale)
    expected, scores = posterior(known, accuracy, asked, seed=seed)
    for row in range(running):
        expected.believe(row)
    best, left = float(scores.max()), np.arange(len(asked)) >= running
    ranked = np.argsort(scores, kind="stable")
    batch: list[tuple[Parameters, float | None]] = []
    while len(batch) < max(1, round(_BATCH * len(scores))) and left.any():
        if (len(scores) + len(batch)) % _FOR_THE_FRONT:
            gain = expected_improvement(expected.mean, expected.spread, best)
        else:
            gain = _front_gain(expected.mean, expected.spread, asked, known, scores)
        row = int(np.where(left, gain, -np.inf).argmax())
        left[row] = False
        best = max(best, float(expected.mean[row]))
        batch.append((pool.parameters[row], float(np.interp(expected.mean[row], scores[ranked], accuracy[ranked]))))
        expected.believe(row)
    return batch


def _front_gain(mean: "Array", spread: "Array", asked: Points, evaluated: Points, scores: "Array") -> "Array":
    """Return by how much each [n] is expected to enlarge what the front of score and first cost dominates.

    Scores count from the median, costs up to the largest.
    """
    cost, theirs = asked.numbers[:, 0], evaluated.numbers[:, 0]
    order = np.argsort(theirs, kind="stable")
    best = np.maximum.accumulate(np.maximum(scores[order], 0.0))
    steps = np.flatnonzero(np.diff(best, prepend=0.0) > 0)
    levels = np.concatenate([[0.0], best[steps]])
    ends = np.concatenate([theirs[order][steps], [max(cost.max(), theirs.max())]])
    begins = np.concatenate([[-np.inf], ends[:-1]])
    widths = np.maximum(ends - np.maximum(begins, cost[:, None]), 0.0)
    return np.asarray((widths * expected_improvement(mean[:, None], spread[:, None], levels)).sum(axis=1))
