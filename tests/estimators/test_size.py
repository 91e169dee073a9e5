"""The stand-in for accuracy: it must make searches repeatable and rank larger networks higher."""

from typing import Any, cast

from networks import random_cells

from hwnas.network.architecture import Architecture
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.searching.estimators import Job, get
from hwnas.support import plugins

CELLS = random_cells(20, seed=0)


def figure(architecture: Architecture, *, seed: int = 0) -> float:
    without_data = cast(Any, None)
    return get("size").estimate(architecture, without_data, Job(epochs=1, images=None, seed=seed)).accuracy


def at(filters: int) -> list[float]:
    return [figure(CellNetwork(cell, Scale(1, filters, 8, 3, 1))) for cell in CELLS]


def test_a_larger_network_of_the_same_choice_is_better() -> None:
    assert all(small < large < 1 for small, large in zip(at(4), at(8), strict=True))


def test_the_choice_has_an_effect_of_its_own_that_comes_from_the_seed() -> None:
    network = CellNetwork(CELLS[0], Scale(1, 4, 8, 3, 1))
    assert figure(network) == figure(network)
    assert 0 < abs(figure(network) - figure(network, seed=1)) < 0.05


def test_only_training_gives_accuracies_without_a_caveat() -> None:
    assert [name for name in plugins.names("estimators") if not get(name).CAVEAT] == ["training"]


def test_what_figures_are_of_tells_estimators_apart() -> None:
    said = {name: get(name).OF for name in plugins.names("estimators")}
    assert said == {
        "size": "no training",
        "supernet": "shared weights",
        "training": "short training",
        "training-speed": "training speed",
    }
