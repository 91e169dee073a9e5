"""What a strategy derives before the first trial is kept in the study, and proposed in its order."""

from pathlib import Path
from typing import Any

import pytest
from cutting import PREDICTED

import hwnas
from hwnas.errors import InputError
from hwnas.runs.run import Run
from hwnas.searching.strategies import _derived, random
from hwnas.spaces import pnas, random_parameters

TINY: dict[str, Any] = {
    **PREDICTED,
    "estimator": "size",
    "strategy": "random",
}


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let the strategy random be one that derives these candidates; one of them twice."""
    candidates = [{**chosen, "target": 1.0} for chosen in random_parameters(pnas, 3, seed=0)]
    calls: list[str] = []

    def derive(run: Run, *_: Any) -> list[dict[str, Any]]:
        calls.append(run.name)
        assert len(calls) == 1, "it learns once for a run"
        return [candidates[0], *candidates]

    monkeypatch.setattr(random, "derive", derive, raising=False)
    monkeypatch.setattr(random, "sampler", _derived.sampler)
    return candidates


def test_what_is_derived_is_proposed_in_its_order_and_more_by_chance(
    workplace: Path, derived: list[dict[str, Any]]
) -> None:
    hwnas.search(out="run", trials=2, **TINY)
    hwnas.search(out="run", trials=5, **TINY)
    records = Run.open("run").trials().records
    assert [dict(record.choices) for record in records[:3]] == derived
    assert Run.open("run").trials().trained == 5


def test_a_table_of_results_has_nothing_to_learn_from(workplace: Path, derived: list[dict[str, Any]]) -> None:
    Path("t.csv").write_text("a,accuracy,ms\n1,0.5,1\n2,0.6,2\n")
    with pytest.raises(InputError, match=r"random learns from images.*leave it out of --strategies"):
        hwnas.bench(
            table="t.csv",
            choices=("a",),
            accuracy=("accuracy",),
            latency="ms",
            caps=(3,),
            out="b",
            strategies=("random",),
        )
