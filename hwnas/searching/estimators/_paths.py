"""Which candidates shared weights learn by: every choice in its turn, as far as the caps allow.

Strictly fair (FairNAS; Chu et al., 2021, section 3.2): of a parameter with n choices each is taken once in every n
candidates. A candidate that does not fit its latency target takes the next target that it fits. One that fits none
swaps choices with another of its round until both fit, so that a round, as long as the most choices of a parameter,
keeps its choices; if that does not help it is left out. Where the caps leave few, others are changed until they fit.
"""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from hwnas.searching.descent import descended
from hwnas.searching.strategies import Parameters
from hwnas.spaces import fair_parameters

if TYPE_CHECKING:
    from hwnas.searching.candidates import SpaceCandidates

_SWAPS = 10  # tries for a candidate that does not fit
_MORE = 4  # rounds for each that is wanted: where the caps leave few, fewer candidates are found
_FEW = 200  # with fewer, some are added that are changed until they fit
_EMPTY = 5  # rounds in a row after which nothing is taken to fit


def fair_choices(
    candidates: "SpaceCandidates", count: int, *, seed: int, on_drawn: Callable[[int], None] = lambda drawn: None
) -> list[Parameters]:
    """Return up to `count` choices that fit the caps, and their targets; `on_drawn` is told how many there are."""
    choices = {name: known.choices for name, known in candidates.distributions().items()}
    drawn, random = fair_parameters(choices, seed=seed), np.random.default_rng((seed, 1))
    round_length = max(map(len, choices.values()))
    fair: list[Parameters] = []
    empty = 0
    for _ in range(_MORE * -(-count // round_length) + _EMPTY):
        fitting = _fitting(list(islice(drawn, round_length)), candidates, random)
        empty = 0 if fitting else empty + 1
        fair += fitting
        on_drawn(min(len(fair), count))
        if len(fair) >= count or empty == _EMPTY:
            break
    if missing := max(0, min(count, _FEW) - len(fair)):
        fair += islice(descended(candidates, np.random.default_rng((seed, 2))), missing)
    return fair[:count]


def _fitting(drawn: list[Parameters], candidates: "SpaceCandidates", random: np.random.Generator) -> list[Parameters]:
    """Return those of a round that fit, some of them after they have swapped choices."""
    at_targets = [_at_target(chosen, candidates) for chosen in drawn]
    for place in range(len(drawn)):
        for other in random.integers(len(drawn), size=_SWAPS).tolist():
            if at_targets[place] is not None:
                break
            swapped = _swapped(drawn[place], drawn[other], random)
            fitting = [_at_target(chosen, candidates) for chosen in swapped]
            if _count(fitting) > _count([at_targets[place], at_targets[other]]):
                drawn[place], drawn[other] = swapped
                at_targets[place], at_targets[other] = fitting
    return [chosen for chosen in at_targets if chosen is not None]


def _count(at_targets: list[Parameters | None]) -> int:
    return sum(chosen is not None for chosen in at_targets)


def _at_target(chosen: Parameters, candidates: "SpaceCandidates") -> Parameters | None:
    """Return a choice at its target or the next one that it fits, or nothing."""
    targets = [target for target in candidates.fitting_targets(chosen) if target >= chosen["target"]]
    return {**chosen, "target": min(targets)} if targets else None


def _swapped(one: Parameters, other: Parameters, random: np.random.Generator) -> tuple[Parameters, Parameters]:
    """Return two choices with some values of one in the other's place."""
    kept = dict(zip(one, random.random(len(one)) < 0.5, strict=True))
    return (
        {name: one[name] if kept[name] else other[name] for name in one},
        {name: other[name] if kept[name] else one[name] for name in one},
    )
