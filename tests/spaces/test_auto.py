"""Several spaces in one: a candidate is of one of them, and what is chosen for the others changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from conftest import pretend_table
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable

from hwnas.latency import Budget, CostModel
from hwnas.network import Scale, ladder
from hwnas.searching.candidates import SpaceCandidates
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


def test_networks_that_n_does_not_change_are_looked_at_once(tmp_path: Path) -> None:
    """The largest that fits is found among scales that rise in cost."""
    table = pretend_table(tmp_path, "auto", filters=(4, 8, 16))
    scales = ladder((1, 2), (4, 8, 16), (8,), classes=3, channels=1)
    costs = CostModel(table, scales)
    for seed in range(6):
        parameters = {**drawn(seed), "space": "mobile", "target": 1.0}
        mult_adds = [auto.architecture(parameters, scale).graph.mult_adds for scale in scales]
        for cap in mult_adds:
            candidates = SpaceCandidates(auto, costs, Budget(1e9, max_mult_adds=cap), (1.0,))
            found = candidates.largest(parameters)
            assert found is not None
            assert auto.architecture(parameters, found[0]).graph.mult_adds == cap


def test_candidates_that_differ_in_depth_alone_are_two(tmp_path: Path) -> None:
    table = pretend_table(tmp_path, "mobile", filters=(4,))
    candidates = SpaceCandidates(
        mobile, CostModel(table, ladder((1, 4), (4,), (8,), classes=3, channels=1)), Budget(1e9), (1.0,)
    )
    (one,) = random_parameters(mobile, 1, seed=0)
    shallow, deep = ({**one, "stage1_depth": depth, "target": 1.0} for depth in (1, 4))
    assert candidates.identity(shallow) != candidates.identity(deep)
