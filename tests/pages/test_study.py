"""What is said of a whole study: its hypervolume, which choices mattered, what operations were worth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import random_cells
from optuna._hypervolume import compute_hypervolume

from hwnas.network.cell import Block, Cell
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.pages.study import hypervolumes, importances, operation_worths
from hwnas.runs import Candidate
from hwnas.runs.study import open_study
from hwnas.runs.trials import Trials
from pages.test_pictures import candidate

CAP_MS = 2.0
POINTS = st.lists(st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.integers(1, 22).map(lambda n: n / 10)))


@given(POINTS)
def test_the_hypervolume_is_optunas(points: list[tuple[float, float]]) -> None:
    volumes = hypervolumes([candidate(at, *point) for at, point in enumerate(points)], cap=CAP_MS)
    assert [trial for trial, _ in volumes] == list(range(len(points)))
    for at, volume in volumes:
        losses = np.array([(-accuracy, ms) for accuracy, ms in points[: at + 1] if ms < CAP_MS])
        expected = compute_hypervolume(losses, np.array([0.0, CAP_MS])) / CAP_MS if len(losses) else 0.0
        assert volume == pytest.approx(expected)


def test_the_choice_that_decides_is_the_most_important(tmp_path: Path) -> None:
    study = open_study(tmp_path, storage=None, name="search")[0]
    assert importances(Trials(study, None).refresh()) == []  # of too few
    random = np.random.default_rng(0)
    for number in range(40):
        choices = {name: int(random.integers(4)) for name in ("idle", "decisive", "target")}
        architecture = CellNetwork(random_cells(1, seed=number)[0], Scale(1, 4, 12, 10, 1)).to_json()
        study.add_trial(
            optuna.trial.create_trial(
                values=[0.5 + choices["decisive"] / 10, 1.0],
                params=choices,
                distributions=dict.fromkeys(choices, optuna.distributions.CategoricalDistribution(range(4))),
                user_attrs={"architecture": architecture, "predicted_ms": 1.0, "predicted_error": 0.1},
            )
        )
    shares = importances(Trials(study, None).refresh())
    assert shares[0][0] == "decisive"
    assert shares[0][1] > 0.5
    assert sum(share for _, share in shares) == pytest.approx(1)


def test_operations_are_counted_once_a_candidate_and_by_level() -> None:
    def of(accuracy: float, *operations: str) -> Candidate:
        cell = Cell(tuple(Block((name, 0), ("identity", 1)) for name in operations))
        return replace(candidate(0, accuracy, 1.0), architecture=CellNetwork(cell, Scale(1, 4, 12, 10, 1)))

    worths = operation_worths([of(0.5, "conv_3x3"), of(0.7, "conv_3x3"), of(0.8, "conv_3x3", "conv_3x3")])
    assert {worth.name: worth.by_blocks for worth in worths} == {
        "conv_3x3": {1: (2, pytest.approx(0.6)), 2: (1, 0.8)},
        "identity": {1: (2, pytest.approx(0.6)), 2: (1, 0.8)},
    }
