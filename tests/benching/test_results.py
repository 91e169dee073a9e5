"""Tables of known results: what is read, what is refused, what is left of a run's figures."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.benching.results import Results, ResultsCandidates, hypervolumes
from hwnas.errors import BudgetError, InputError

TABLE = """kernel,op,seen,truth,ms,flops
3,conv,0.80,0.90,2.0,5
5,conv,0.85,0.91,4.0,9
3,pool,0.70,0.95,1.0,1
5,pool,0.60,0.65,3.0,2
"""


def read(path: Path, text: str = TABLE, *, costs: tuple[str, ...] = ()) -> Results:
    path.write_text(text)
    return Results.read(path, choices=["kernel", "op"], accuracy=["seen", "truth"], latency="ms", costs=costs)


def test_columns_of_integers_become_integers_and_shares_become_points(tmp_path: Path) -> None:
    results = read(tmp_path / "t.csv")
    assert results.choices == {"kernel": (3, 5), "op": ("conv", "pool")}
    assert results.parameters[1] == {"kernel": 5, "op": "conv"}
    np.testing.assert_allclose(results.seen, [80, 85, 70, 60])
    np.testing.assert_allclose(results.truth, [90, 91, 95, 65])


def test_a_gzipped_table_is_the_same_and_one_accuracy_is_both(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(TABLE.encode()))
    results = Results.read(path, choices=["kernel", "op"], accuracy=["seen"], latency="ms")
    assert results.parameters == read(tmp_path / "t.csv").parameters
    assert results.truth.tolist() == results.seen.tolist()


def test_rows_without_a_figure_and_repeated_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    broken = "3,skip,nan,0.9,2,1\n5,skip,0.9,,2,1\n,conv,0.9,0.9,2,1\n7,conv,inf,0.9,2,1\n3,conv,0.80,0.90,2.0,5\n7\n"
    results = read(tmp_path / "t.csv", TABLE + broken)
    assert len(results.parameters) == 4
    assert results.left_out == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE + "3,conv,0.1,0.90,2.0,5\n", "two rows for"),
        (TABLE.replace("op,seen", "op,guessed"), "no column 'seen'; its columns: kernel"),
        (TABLE.replace("0.85", "good"), "'seen' must hold numbers; got 'good'"),
        (TABLE.replace("0.85", "x" * 9000), r"'seen' must hold numbers; got 'x{99}\.\.\.$"),
        (TABLE.replace("op,seen", "op," + "x" * 9000), r"no column 'seen'; its columns: .{100}\.\.\.$"),
        (TABLE.replace("1.0,1", "0,1"), "must be above 0"),
        ("kernel,op,seen,truth,ms\n", "a header and rows"),
        ("", "a header and rows"),
        ("kernel,op,seen,truth,ms\n3,conv,nan,1,1\n", "must have a row with all of seen, truth, ms"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path / "t.csv", text)


def test_what_is_no_gzip_file_or_absent_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "t.csv.gz", tmp_path / "absent.csv"):
        (tmp_path / "t.csv.gz").write_text(TABLE)
        with pytest.raises(InputError, match=r"must be a CSV file|a table must exist"):
            Results.read(path, choices=["op"], accuracy=["seen"], latency="ms")


def test_only_rows_of_the_table_under_the_cap_fit(tmp_path: Path) -> None:
    text = TABLE.replace("5,pool,0.60,0.65,3.0,2\n", "")
    candidates = ResultsCandidates.under(read(tmp_path / "t.csv", text), 2.0)
    chosen = [{"op": op, "kernel": kernel} for kernel in (3, 5) for op in ("conv", "pool")]
    assert candidates.fits(chosen).tolist() == [True, True, False, False]
    assert len({candidates.identity(one) for one in chosen}) == 4
    assert [candidates.identity(one) for one in candidates.every()] == [0, 2] == candidates.inside.tolist()
    assert set(candidates.distributions()) == {"kernel", "op"}


def test_costs_are_known_also_of_what_the_table_lacks(tmp_path: Path) -> None:
    text = TABLE.replace("5,pool,0.60,0.65,3.0,2\n", "")
    candidates = ResultsCandidates.under(read(tmp_path / "t.csv", text, costs=("flops",)), 4.0)
    costs = candidates.known_costs([{"kernel": 5, "op": "conv"}, {"kernel": 5, "op": "pool"}])
    np.testing.assert_allclose(costs, [[np.log(4), 9], [np.log(2), 5]])


def test_a_cap_below_every_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"leaves none, the lowest cost is 1\. Raise --caps"):
        ResultsCandidates.under(read(tmp_path / "t.csv"), 0.9)


def test_the_incumbent_is_the_first_that_is_seen_to_be_best(tmp_path: Path) -> None:
    candidates = ResultsCandidates.under(read(tmp_path / "t.csv", TABLE.replace("0.70,0.95", "0.80,0.95")), 4.0)
    curves = candidates.curves([3, 2, 0, 1])
    np.testing.assert_allclose(curves.best_seen, [60, 80, 80, 85])
    np.testing.assert_allclose(curves.regret_seen, [25, 5, 5, 0])
    np.testing.assert_allclose(curves.regret, [30, 0, 0, 4])
    assert candidates.floor == pytest.approx(4)
    assert (np.diff(curves.hypervolume) >= 0).all()
    assert len(candidates.curves([]).regret) == 0


def test_ties_and_a_single_candidate_have_figures(tmp_path: Path) -> None:
    candidates = ResultsCandidates.under(read(tmp_path / "t.csv", "kernel,op,seen,truth,ms\n3,conv,0.5,0.5,1\n"), 1.0)
    curves = candidates.curves([0])
    assert (curves.regret[0], curves.regret_seen[0], curves.hypervolume[0], candidates.floor) == (0, 0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_hypervolumes_are_what_counting_squares_gives(points: list[tuple[int, int]]) -> None:
    gain, latency = np.array(points).T / 6
    counted = [
        sum(any(x >= at and y <= up for x, y in points[:number]) for at in range(1, 7) for up in range(6)) / 36
        for number in range(1, len(points) + 1)
    ]
    np.testing.assert_allclose(hypervolumes(gain, latency), counted)


def test_a_byte_order_mark_is_no_part_of_the_first_columns_name(tmp_path: Path) -> None:
    for path in (tmp_path / "t.csv", tmp_path / "t.csv.gz"):
        content = f"\ufeff{TABLE}".encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        results = Results.read(path, choices=["kernel", "op"], accuracy=["seen"], latency="ms")
        assert results.parameters == read(tmp_path / "u.csv").parameters
