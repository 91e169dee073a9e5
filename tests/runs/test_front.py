"""Pareto fronts against enumeration."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwnas.runs.front import pareto_front, ranking

points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30)


def dominated(point: tuple[int, int], by: tuple[int, int]) -> bool:
    return by[0] >= point[0] and by[1] <= point[1] and by != point


@given(points)
def test_the_front_is_what_no_point_dominates_each_value_once(found: list[tuple[int, int]]) -> None:
    accuracy, latency = np.array(found, dtype=float).T
    chosen = [found[i] for i in pareto_front(accuracy, latency)]
    assert sorted(chosen) == sorted({p for p in found if not any(dominated(p, q) for q in found)})
    assert [p[1] for p in chosen] == sorted(p[1] for p in chosen)


@given(points, st.integers(1, 40))
def test_the_ranking_takes_front_after_front_and_every_point_once(found: list[tuple[int, int]], count: int) -> None:
    accuracy, latency = np.array(found, dtype=float).T
    order = ranking(accuracy, latency, count=count).tolist()
    assert len(order) == len(set(order)) == min(count, len(found))
    left = list(range(len(found)))
    while left and len(order) > 0:
        best = {left[i] for i in pareto_front(accuracy[left], latency[left])}
        taken = set(order[: len(best)])
        assert taken <= best
        order = order[len(best) :]
        left = [i for i in left if i not in best]


def test_the_most_accurate_point_comes_first() -> None:
    assert ranking(np.array([0.1, 0.9, 0.5]), np.array([1.0, 3.0, 2.0]), count=2).tolist() == [1, 0]


@given(points, st.integers(1, 40))
def test_what_is_not_a_number_is_in_no_front_and_in_no_ranking(found: list[tuple[int, int]], count: int) -> None:
    accuracy, latency = np.array(found, dtype=float).T
    accuracy[::3], latency[1::4] = np.nan, np.inf
    finite = set(np.flatnonzero(np.isfinite(accuracy) & np.isfinite(latency)).tolist())
    assert set(pareto_front(accuracy, latency).tolist()) <= finite
    order = ranking(accuracy, latency, count=count).tolist()
    assert len(order) == len(set(order)) == min(count, len(finite))
    assert set(order) <= finite
