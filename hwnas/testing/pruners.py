"""What every pruner must keep to."""

import pytest

from hwnas.searching.pruners import Pruner
from hwnas.training import Curve, Look


def curve(accuracy: float, *, number: int = 0, target: float = 1.0, latency_ms: float = 1.0, end: float = 0.0) -> Curve:
    """Return a training whose every look, of two epochs, shows one loss: the lower the more accurate it is."""
    looks = tuple(Look(2 * share, 1 - accuracy, 1.0) for share in (0.125, 0.25, 0.5))
    return Curve(number, target, latency_ms, looks, end or None)


class PrunerContract:
    """Takes the fixture `pruner`: a module of hwnas/searching/pruners, or like one."""

    @pytest.mark.parametrize("number", range(8))
    def test_looks_rise_and_come_before_the_end(self, pruner: Pruner, number: int) -> None:
        epochs = pruner.epochs(2.0, number=number)
        assert list(epochs) == sorted(set(epochs))
        assert all(0 < epoch < 2 for epoch in epochs)

    def test_the_first_training_is_not_stopped(self, pruner: Pruner) -> None:
        assert not pruner.stops(curve(0.1), [])


class ActivePrunerContract(PrunerContract):
    """What a pruner keeps to besides that stops anything at all."""

    def test_the_worst_is_stopped_and_the_best_is_not(self, pruner: Pruner) -> None:
        others = [curve(0.5 + number / 100, number=4 * number, end=0.6 + number / 100) for number in range(10)]
        assert pruner.stops(curve(0.2, number=40), others)
        assert not pruner.stops(curve(0.8, number=40), others)

    def test_a_fast_network_is_not_stopped_for_what_slow_ones_reach(self, pruner: Pruner) -> None:
        slow = [curve(0.8, number=4 * number, target=1.0, latency_ms=5.0, end=0.9) for number in range(10)]
        assert not pruner.stops(curve(0.2, number=40, target=0.4), slow)

    def test_nothing_is_stopped_before_one_is_finished(self, pruner: Pruner) -> None:
        running = [curve(0.8, number=4 * number) for number in range(10)]
        assert not pruner.stops(curve(0.2, number=40), running)
