"""Several spaces in one: a candidate is of one of them, and what is chosen for the others changes nothing."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable

from hwnas.network import Scale
from hwnas.spaces import auto, mobile, pnas, random_parameters

SCALE = Scale(1, 8, 16, 3)
OF_EACH = {"mobile": mobile, "pnas": pnas}


def drawn(seed: int) -> dict[str, Any]:
    (parameters,) = random_parameters(auto, 1, seed=seed)
    return parameters


@given(seed=st.integers(0, 10_000))
@repeatable(50)
def test_a_candidate_is_that_of_its_space(seed: int) -> None:
    parameters = drawn(seed)
    name = parameters["space"]
    own = {key.removeprefix(f"{name}."): value for key, value in parameters.items() if key.startswith(f"{name}.")}
    scale = replace(SCALE, cells=4) if name == "mobile" else SCALE  # as deep as is chosen
    assert auto.architecture(parameters, SCALE) == OF_EACH[name].architecture(own, scale)


@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000))
@repeatable(50)
def test_what_is_ignored_is_told_as_the_first_choice(seed: int, other: int) -> None:
    """The same candidate, whatever was chosen for the other space."""
    parameters, told = drawn(seed), auto.without_ignored(drawn(seed))
    assert list(told) == list(parameters)
    assert auto.architecture(told, SCALE) == auto.architecture(parameters, SCALE)
    ignored = [name for name in parameters if "." in name and name.partition(".")[0] != parameters["space"]]
    changed = {**parameters, **{name: drawn(other)[name] for name in ignored}}
    assert auto.without_ignored(changed) == told
    first = {name: known.choices[0] for name, known in auto.distributions().items()}
    assert all(told[name] == first[name] for name in ignored)


def test_chance_draws_each_space_alike() -> None:
    names = [parameters["space"] for parameters in random_parameters(auto, 400, seed=0)]
    assert {name: round(names.count(name) / 400, 1) for name in set(names)} == {"mobile": 0.5, "pnas": 0.5}
