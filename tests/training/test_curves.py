import numpy as np
import pytest

from hwnas.training.curves import Curve, Look, extrapolate


def curve(loss: float, *, end: float | None = None, number: int = 0) -> Curve:
    return Curve(number, 1.0, 1.0, (Look(0.5, loss, 1.0),), end)


def simulated(count: int, seed: int) -> list[Curve]:
    """Return trainings whose end goes with the loss at the look, and by chance (one point)."""
    random = np.random.default_rng(seed)
    loss = random.normal(1.0, 0.1, count)
    ends = 0.8 - 0.3 * (loss - 1.0) + random.normal(0, 0.01, count)
    return [curve(a, end=end, number=n) for n, (a, end) in enumerate(zip(loss, ends, strict=True))]


def test_with_nothing_finished_nothing_is_said() -> None:
    with pytest.raises(ValueError, match=r"no other training was finished that was looked at after 0\.5 epochs"):
        extrapolate(curve(1.0), [curve(0.9)])


def test_one_finished_training_is_what_others_come_to_but_that_is_not_sure() -> None:
    found = extrapolate(curve(1.2), [curve(1.0, end=0.75)])
    assert found.mean == pytest.approx(0.75, abs=1e-3)
    assert found.spread > 0.02
    assert extrapolate(curve(1.0), simulated(5, seed=0)).spread < found.spread
    assert extrapolate(curve(2.0), simulated(5, seed=0)).spread > found.spread  # far from any that was finished


def test_what_goes_with_the_loss_is_learnt() -> None:
    found = extrapolate(curve(1.2), simulated(60, seed=0))
    assert found.mean == pytest.approx(0.8 - 0.06, abs=0.01)
    assert found.spread == pytest.approx(0.01, rel=0.5)


@pytest.mark.parametrize("known", [3, 8, 40])
def test_the_stated_uncertainty_holds(known: int) -> None:
    """Nine in ten of the ends lie where nine in ten are said to be, at the least."""
    inside = []
    for seed in range(300):
        *others, last = simulated(known + 1, seed)
        found = extrapolate(curve(last.looks[0].loss), others)
        inside.append(0.05 < found.chance_above(last.accuracy or 0.0) < 0.95)
    assert 0.87 < np.mean(inside) <= 1.0


def test_equal_curves_and_looks_at_other_epochs_do_no_harm() -> None:
    same = [curve(1.0, end=0.7, number=n) for n in range(5)]
    assert extrapolate(curve(1.0), same).mean == pytest.approx(0.7, abs=1e-6)
    others = [Curve(9, 1.0, 1.0, (Look(1.0, 0.5, 1.0),), 0.95)]
    assert extrapolate(curve(1.0), same + others) == extrapolate(curve(1.0), same)
