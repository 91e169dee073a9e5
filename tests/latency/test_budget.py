"""Caps: whether costs are inside them, and by what share they are above each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import InputError
from hwnas.latency.budget import Budget

figures = st.floats(1e-9, 1e12)
caps = st.none() | figures


@given(
    latency_ms=figures, cap_ms=figures, costs=st.tuples(figures, figures), most=st.tuples(caps, caps), data=st.data()
)
def test_costs_are_inside_where_they_exceed_nothing(
    latency_ms: float, cap_ms: float, costs: tuple[float, float], most: tuple[float | None, ...], data: st.DataObject
) -> None:
    latency_ms = data.draw(st.sampled_from([latency_ms, cap_ms, np.nextafter(cap_ms, 0), np.nextafter(cap_ms, np.inf)]))
    budget = Budget(cap_ms, *most)
    excesses = budget.excesses(latency_ms=latency_ms, mult_adds=costs[0], parameters=costs[1])
    inside = budget.inside(latency_ms=latency_ms, mult_adds=costs[0], parameters=costs[1])
    assert inside == all(excess <= 0 for excess in excesses.values())
    pairs = [("latency", latency_ms, cap_ms), ("mult_adds", costs[0], most[0]), ("parameters", costs[1], most[1])]
    assert excesses == {
        name: pytest.approx(cost / cap - 1, rel=1e-9, abs=1e-12) for name, cost, cap in pairs if cap is not None
    }


@given(rows=st.lists(st.tuples(figures, figures, figures), min_size=1, max_size=5), most=st.tuples(figures, caps, caps))
def test_many_networks_are_compared_as_each(
    rows: list[tuple[float, float, float]], most: tuple[float, float | None, float | None]
) -> None:
    budget, names = Budget(*most), ("latency_ms", "mult_adds", "parameters")
    together = dict(zip(names, np.array(rows).T, strict=True))
    each = [budget.inside(**dict(zip(names, row, strict=True))) for row in rows]
    assert np.asarray(budget.inside(**together)).tolist() == each
    excesses = budget.excesses(**together)
    for at, row in enumerate(rows):
        assert {n: e[at] for n, e in excesses.items()} == budget.excesses(**dict(zip(names, row, strict=True)))


def test_what_is_not_known_is_not_compared_and_a_target_is_in_place_of_the_cap() -> None:
    budget = Budget(10.0, max_mult_adds=5.0)
    assert budget.inside(mult_adds=5.0, parameters=1e9)
    assert not budget.inside(mult_adds=5.1, parameters=0.0)
    assert not budget.inside(latency_ms=9.0, mult_adds=1.0, parameters=0.0, target_ms=8.0)
    targets = np.array([8.0, 9.0])
    assert np.asarray(
        budget.inside(latency_ms=np.array([9.0, 9.0]), mult_adds=1.0, parameters=1.0, target_ms=targets)  # type: ignore[type-var]
    ).tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "message"), [((0.0,), "max-latency-ms must be above 0; got 0"), ((1.0, -1.0), "max-mult")]
)
def test_a_cap_that_nothing_can_be_inside_is_refused(values: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(*values)
