"""Whatever stands in a file that hwnas reads, it ends in words: no traceback, no hang, no more than 1 GiB."""

import functools

import pytest
from fuzz import MOST_BYTES, Outcome, run
from inputs import KINDS

CASES = 200  # of each kind; `python tests/fuzz/fuzz.py --cases 20000` reads as many as one likes


@functools.cache
def outcomes(quarter: int) -> dict[str, Outcome]:
    """Read the cases of every fourth kind in one process, which loads what they need once."""
    return run(list(KINDS)[quarter::4], cases=CASES)


@pytest.mark.timeout(900)  # the first ones read the cases of all
@pytest.mark.xdist_group("fuzz")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_input_is_read_or_refused_in_words(kind: str) -> None:
    outcome = outcomes(list(KINDS).index(kind) % 4)[kind]
    assert set(outcome.counts) <= {"read", "refused"}, outcome.words
    assert outcome.counts.total() > 0
    assert outcome.peak_bytes <= MOST_BYTES


def test_cases_are_the_same_for_the_same_seed() -> None:
    first, again = (run(["cell-json"], cases=20)["cell-json"].counts for _ in range(2))
    assert first == again
