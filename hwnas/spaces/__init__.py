"""Search spaces, one file each: what a strategy chooses from, and the network that a choice stands for.

A space is a module with
    OPERATIONS                                    what the space is made of, by name
    CHOICES                                       how many choices there are for each block, stage or layer
    distributions() -> dict                       what Optuna chooses from: constant names and choices
    architecture(parameters, scale)               the network of what Optuna chose
    cover(scale) -> Iterator[Architecture]        networks that between them have every operator of the space

where all networks can be mixed in one graph, also mixed(scale) -> Graph, whose options name the parameters above and
the places of their choices;

where weights are elastic, also largest(parameters), the choice of which all others are parts;

and, where cells grow block by block as in PNAS, also first_level(), grow(codes), code(parameters), parameters(code) and
DISTINCT, how many cells differ.
"""

from types import ModuleType
from typing import Any


def grows(space: ModuleType) -> bool:
    """Say whether cells of the space grow block by block."""
    return hasattr(space, "grow")


def random_parameters(space: ModuleType, count: int, *, seed: int) -> list[dict[str, Any]]:
    """Return what Optuna might have chosen: each parameter drawn by itself, every choice alike."""
    import numpy as np

    random = np.random.default_rng(seed)
    choices = {name: distribution.choices for name, distribution in space.distributions().items()}
    return [{name: known[random.integers(len(known))] for name, known in choices.items()} for _ in range(count)]
