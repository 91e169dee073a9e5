"""Candidates inside caps that hardly any candidate meets: from one that chance draws towards those that cost less.

Uniform draws come to the middle of a space, and a tight cap may leave one in a million of them. So a drawn candidate
is changed, one parameter after another in a random order, and a change is kept unless it is further over the caps. Of
candidates that fit any change is kept that fits as well: from the first one on it is a random walk among these. Its
latency target is raised only where it comes to no candidate that fits it: each target is to have its share.
"""

from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.runs import TARGET

if TYPE_CHECKING:
    from hwnas.searching.strategies import Candidates, Parameters

_DESCENTS = 20
_ROUNDS = 40  # of a descent: in each every parameter is changed once
_STUCK = 5  # rounds in a row that come no nearer to the caps
_FROM_EACH = 10  # candidates that fit, of a descent


def descended(
    candidates: "Candidates", random: np.random.Generator, *, descents: int = _DESCENTS
) -> "Iterator[Parameters]":
    """Yield candidates that fit, some more than once: up to ten of each descent, and nothing where none is found."""
    known: dict[Hashable, float] = {}

    def excess_of(chosen: "Parameters") -> float:
        """Return the excess, looked up once: many a change is ignored."""
        identity = candidates.identity(chosen)
        if identity not in known:
            known[identity] = candidates.excess(chosen)
        return known[identity]

    for _ in range(descents):
        yield from islice(_descent(candidates, excess_of, random), _FROM_EACH)


def new_descended(
    candidates: "Candidates", known: Container[Hashable], random: np.random.Generator
) -> "Parameters | None":
    """Return a candidate that fits and is not of the known identities, or nothing where descents come to none."""
    found = descended(candidates, random)
    return next((chosen for chosen in found if candidates.identity(chosen) not in known), None)


def _descent(
    candidates: "Candidates", excess_of: "Callable[[Parameters], float]", random: np.random.Generator
) -> "Iterator[Parameters]":
    """Yield what fits at the ends of the rounds of one descent."""
    choices: dict[str, Any] = {name: known.choices for name, known in candidates.distributions().items()}
    names = [name for name, known in choices.items() if len(known) > 1 and name != TARGET]
    chosen: Parameters = {name: known[random.integers(len(known))] for name, known in choices.items()}
    excess, stuck = excess_of(chosen), 0
    for _ in range(_ROUNDS):
        before = excess
        for place in random.permutation(len(names)):
            changed = candidates.without_ignored(_changed(chosen, names[place], choices, random))
            if (changed_excess := excess_of(changed)) <= excess:
                chosen, excess = changed, changed_excess
        if excess <= 0:
            yield chosen
            continue
        stuck = stuck + 1 if excess == before else 0
        if stuck == _STUCK:
            larger = [target for target in choices.get(TARGET, ()) if target > chosen[TARGET]]
            if not larger:
                return
            chosen = {**chosen, TARGET: min(larger)}
            excess, stuck = excess_of(chosen), 0


def _changed(chosen: "Parameters", name: str, choices: Mapping[str, Any], random: np.random.Generator) -> "Parameters":
    """Return a candidate with another choice of one parameter."""
    others = [choice for choice in choices[name] if choice != chosen[name]]
    return {**chosen, name: others[random.integers(len(others))]}
