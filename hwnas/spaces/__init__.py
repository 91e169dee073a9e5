"""Search spaces, one file each: what a strategy chooses from, and the network that a choice stands for.

A space is a module with
    OPERATIONS                                    what the space is made of, by name
    CHOICES                                       how many choices there are for each block, stage or layer
    distributions() -> dict                       what Optuna chooses from: constant names and choices
    architecture(parameters, scale)               the network of what Optuna chose
    cover(scale) -> Iterator[Architecture]        networks that between them have every operator of the space

where its scales are others than those of most, also CELLS and FILTERS, the choices of N and F where none are asked for;

where some choices are ignored under others, also without_ignored(parameters), with the first of all that are;

where all networks can be mixed in one graph, also mixed(scale) -> Graph, whose options name the parameters above and
the places of their choices;

where shared weights are slices of larger ones, also largest(parameters), the choice whose weights hold those of all
that share with this one; and where that is the same for all, smallest(parameters), which is a part of all;

where choices have an order, such as depths, also neighbours(parameters): those one step larger or smaller in one place;

and, where cells grow block by block as in PNAS, also first_level(), grow(codes), code(parameters), parameters(code) and
DISTINCT, how many cells differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def grows(space: ModuleType) -> bool:
    """Say whether cells of the space grow block by block."""
    return hasattr(space, "grow")


def random_parameters(space: ModuleType, count: int, *, seed: int) -> list[dict[str, Any]]:
    """Return what Optuna might have chosen: each parameter drawn by itself, every choice alike."""
    import numpy as np

    random = np.random.default_rng(seed)
    choices = {name: distribution.choices for name, distribution in space.distributions().items()}
    return [{name: known[random.integers(len(known))] for name, known in choices.items()} for _ in range(count)]


def one_step_away(parameters: Mapping[str, Any], ordered: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield the same choice with the next larger or smaller one in one place; `ordered` holds each place's, rising."""
    for name, known in ordered.items():
        at = known.index(parameters[name])
        yield from ({**parameters, name: known[near]} for near in (at - 1, at + 1) if 0 <= near < len(known))


def fair_parameters(choices: Mapping[str, Sequence[Any]], *, seed: int) -> Iterator[dict[str, Any]]:
    """Yield, without an end, what might have been chosen, each parameter's n choices once in every n, in a new order.

    Strictly fair (FairNAS; Chu et al., 2021, section 3.2).
    """
    import numpy as np

    random = np.random.default_rng(seed)
    turns = {name: _turns(known, random) for name, known in choices.items()}
    while True:
        yield {name: next(turn) for name, turn in turns.items()}


def _turns(choices: Sequence[Any], random: "np.random.Generator") -> Iterator[Any]:
    while True:
        yield from (choices[place] for place in random.permutation(len(choices)))
