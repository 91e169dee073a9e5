"""Every pruner by the contract of all, and what is each one's own."""

import pytest

from hwnas.searching import pruners
from hwnas.searching.pruners import Pruner
from hwnas.support import plugins
from hwnas.testing import ActivePrunerContract, PrunerContract
from hwnas.testing.pruners import curve


class TestNone(PrunerContract):
    @pytest.fixture
    def pruner(self) -> Pruner:
        return pruners.get("none")


class TestEveryOther(ActivePrunerContract):
    """A new file in hwnas/searching/pruners is tested here by its name alone."""

    @pytest.fixture(params=[name for name in plugins.names("pruners") if name != "none"])
    def pruner(self, request: pytest.FixtureRequest) -> Pruner:
        return pruners.get(request.param)


def test_halving_lets_the_better_half_go_on() -> None:
    others = [curve(accuracy, end=0.9) for accuracy in (0.1, 0.2, 0.3)]
    assert not pruners.get("halving").stops(curve(0.25), others)
    assert pruners.get("halving").stops(curve(0.15), others)
    assert pruners.get("halving").stops(curve(0.0), others[:1])
    assert not pruners.get("halving").stops(curve(0.1), others[:1])  # as good as the only other one


def test_hyperband_has_a_bracket_that_is_not_halved_and_brackets_do_not_compete() -> None:
    hyperband = pruners.get("hyperband")
    assert [len(hyperband.epochs(2.0, number=number)) for number in range(5)] == [3, 2, 1, 0, 3]
    rivals = [curve(0.5, number=number, end=0.9) for number in (1, 2, 3, 5)]
    assert not hyperband.stops(curve(0.1, number=4), rivals)
    assert hyperband.stops(curve(0.1, number=9), rivals)


def test_extrapolation_stops_nothing_by_fewer_than_five() -> None:
    finished = [curve(0.5 + number / 50, number=number, end=0.8 + number / 50) for number in range(5)]
    stops = pruners.get("extrapolation").stops
    assert not stops(curve(0.1, number=9), finished[:4])
    assert stops(curve(0.1, number=9), finished)
