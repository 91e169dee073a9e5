import pytest

from hwnas.searching import pruners
from hwnas.support import plugins
from hwnas.training.curves import Curve, Look

ACTIVE = [name for name in plugins.names("pruners") if name != "none"]


def curve(accuracy: float, *, number: int = 0, target: float = 1.0, latency_ms: float = 1.0, end: float = 0.0) -> Curve:
    """Return a training whose every look, of two epochs, shows one loss: the lower the more accurate it is."""
    looks = tuple(Look(2 * share, 1 - accuracy, 1.0) for share in (0.125, 0.25, 0.5))
    return Curve(number, target, latency_ms, looks, end or None)


@pytest.mark.parametrize("name", plugins.names("pruners"))
@pytest.mark.parametrize("number", range(8))
def test_looks_rise_and_come_before_the_end(name: str, number: int) -> None:
    epochs = pruners.get(name).epochs(2.0, number=number)
    assert list(epochs) == sorted(set(epochs))
    assert all(0 < epoch < 2 for epoch in epochs)


@pytest.mark.parametrize("name", plugins.names("pruners"))
def test_the_first_training_is_not_stopped(name: str) -> None:
    assert not pruners.get(name).stops(curve(0.1), [])


@pytest.mark.parametrize("name", ACTIVE)
def test_the_worst_is_stopped_and_the_best_is_not(name: str) -> None:
    others = [curve(0.5 + number / 100, number=4 * number, end=0.6 + number / 100) for number in range(10)]
    assert pruners.get(name).stops(curve(0.2, number=40), others)
    assert not pruners.get(name).stops(curve(0.8, number=40), others)


@pytest.mark.parametrize("name", ACTIVE)
def test_a_fast_network_is_not_stopped_for_what_slow_ones_reach(name: str) -> None:
    slow = [curve(0.8, number=4 * number, target=1.0, latency_ms=5.0, end=0.9) for number in range(10)]
    assert not pruners.get(name).stops(curve(0.2, number=40, target=0.4), slow)


@pytest.mark.parametrize("name", ACTIVE)
def test_nothing_is_stopped_before_one_is_finished(name: str) -> None:
    running = [curve(0.8, number=4 * number) for number in range(10)]
    assert not pruners.get(name).stops(curve(0.2, number=40), running)


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
