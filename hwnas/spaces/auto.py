"""Several spaces in one: which of them a candidate is of is a choice like the others, its first.

What is chosen for the other spaces is ignored. So one study races them under the same caps and the same evaluation,
and a strategy that learns spends the rest of the trials where they pay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from hwnas.network import Architecture, Scale
from hwnas.spaces import mobile, pnas

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution

_SPACES = {"mobile": mobile, "pnas": pnas}
SPACE = "space"  # the parameter that says which
OPERATIONS = tuple(f"{name}.{operation}" for name, space in _SPACES.items() for operation in space.OPERATIONS)
CHOICES = tuple(chain.from_iterable(space.CHOICES for space in _SPACES.values()))


def distributions() -> "dict[str, CategoricalDistribution]":
    """Return what Optuna chooses from."""
    from optuna.distributions import CategoricalDistribution

    choices = {SPACE: CategoricalDistribution(tuple(_SPACES))}
    for name, space in _SPACES.items():
        choices |= {f"{name}.{parameter}": known for parameter, known in space.distributions().items()}
    return choices


def architecture(parameters: Mapping[str, Any], scale: Scale) -> Architecture:
    """Return the network of what Optuna chose."""
    name = parameters[SPACE]
    network: Architecture = _SPACES[name].architecture(_of(parameters, name), _scale_of(name, scale))
    return network


def _scale_of(name: str, scale: Scale) -> Scale:
    """Return a scale of one of the spaces: stages of `mobile` are as deep as is chosen."""
    return replace(scale, cells=max(mobile.CELLS)) if name == "mobile" else scale


def without_ignored(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same candidate with the first choice of all that is ignored."""
    name = parameters[SPACE]
    own = _of(parameters, name)
    if name == "pnas":
        own = pnas.parameters(pnas.code(own))
    ignored = {parameter: first for parameter, first in _first().items() if parameter.partition(".")[0] != name}
    return _with({**parameters, **ignored, SPACE: name}, name, own)


@cache
def _first() -> dict[str, Any]:
    return {name: known.choices[0] for name, known in distributions().items()}


def largest(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choice whose weights hold this one's, of its own space."""
    name = parameters[SPACE]
    return _with(parameters, name, getattr(_SPACES[name], "largest", dict)(_of(parameters, name)))


def neighbours(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the choices that are one step larger or smaller in one place, where its own space has such."""
    name = parameters[SPACE]
    if hasattr(_SPACES[name], "neighbours"):
        yield from (_with(parameters, name, own) for own in _SPACES[name].neighbours(_of(parameters, name)))


def cover(scale: Scale) -> Iterator[Architecture]:
    """Yield networks that between them have every operator of the spaces at a scale."""
    return chain.from_iterable(space.cover(_scale_of(name, scale)) for name, space in _SPACES.items())


def _with(parameters: Mapping[str, Any], name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice with what is chosen for one of the spaces."""
    return {**parameters, **{f"{name}.{parameter}": chosen for parameter, chosen in own.items()}}


def _of(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what is chosen for one of the spaces."""
    return {
        parameter.removeprefix(f"{name}."): chosen
        for parameter, chosen in parameters.items()
        if parameter.startswith(f"{name}.")
    }
