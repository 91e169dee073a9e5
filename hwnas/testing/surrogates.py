"""What every surrogate must keep to; how well one ranks real networks is measured by benchmarks/surrogates.py."""

from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from hwnas.searching.surrogates import Evaluated, Surrogate
from hwnas.spaces import pnas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

    Array = NDArray[np.float64]

OPERATIONS = len(pnas.OPERATIONS)
ONE_BLOCK = pnas.first_level()
TWO_BLOCKS = pnas.grow(ONE_BLOCK)[:: 31620 // 200]
_WORTH = np.array([0.05, 0.06, 0.04, 0.03, 0.0, -0.02, 0.01, 0.02])  # of an operation


def _truth(codes: "Codes", targets: "Array") -> "Array":
    """Return accuracies to which every operation, h[l-1] and the target add something."""
    from_previous = (codes[:, :, 1::2] == 1).mean(axis=(1, 2))
    worth = _WORTH[codes[:, :, 0::2]].mean(axis=(1, 2))
    return cast("Array", 0.7 + worth + 0.02 * from_previous + 0.05 * targets)


def evaluated(codes: "Codes", *, seed: int = 0) -> Evaluated:
    """Return cells as if they had been trained, at random targets."""
    targets = np.random.default_rng(seed).choice([0.4, 0.7, 1.0], len(codes))
    return Evaluated(codes, targets, _truth(codes, targets))


def fitted(surrogate: ModuleType, groups: list[Evaluated], *, seed: int = 0) -> Surrogate:
    """Return the surrogate fitted to these."""
    return cast(Surrogate, surrogate.fit(groups, operations=OPERATIONS, seed=seed))


class SurrogateContract:
    """Takes the fixture `surrogate`: a module of hwnas/searching/surrogates, or like one.

    A single model, whose spread says nothing, says so by `tells_spread`.
    """

    tells_spread = True

    def test_it_ranks_what_it_was_fitted_to_and_what_it_was_not(self, surrogate: ModuleType) -> None:
        half = evaluated(ONE_BLOCK[::2])
        fit = fitted(surrogate, [half])
        for codes, least in ((half.codes, 0.95), (ONE_BLOCK[1::2], 0.8), (TWO_BLOCKS, 0.5)):
            targets = half.targets if codes is half.codes else np.full(len(codes), 0.7)
            assert spearmanr(fit.predict(codes, targets)[0], _truth(codes, targets)).statistic > least

    def test_it_learns_from_cells_of_several_sizes_and_what_the_target_does(self, surrogate: ModuleType) -> None:
        fit = fitted(surrogate, [evaluated(ONE_BLOCK[::4]), evaluated(TWO_BLOCKS[::4])])
        low, high = (fit.predict(TWO_BLOCKS, np.full(len(TWO_BLOCKS), share))[0] for share in (0.4, 1.0))
        assert (high - low).mean() == pytest.approx(0.03, abs=0.02)

    def test_a_seed_decides_everything_and_the_callers_random_state_is_left_alone(self, surrogate: ModuleType) -> None:
        group, targets = evaluated(ONE_BLOCK[::8]), np.ones(len(ONE_BLOCK))
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        once, again = (fitted(surrogate, [group]).predict(ONE_BLOCK, targets) for _ in range(2))
        assert torch.equal(torch.rand(1), expected)
        assert np.array_equal(once, again)

    def test_the_two_branches_of_a_block_are_exchangeable(self, surrogate: ModuleType) -> None:
        exchanged = TWO_BLOCKS[:, :, [2, 3, 0, 1]]
        fit, targets = fitted(surrogate, [evaluated(ONE_BLOCK[::4])]), np.ones(len(TWO_BLOCKS))
        one, other = (fit.predict(codes, targets)[0] for codes in (TWO_BLOCKS, exchanged))
        assert one == pytest.approx(other, abs=1e-5)

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_very_few_and_equal_candidates_do_no_harm(self, surrogate: ModuleType, count: int) -> None:
        group = Evaluated(ONE_BLOCK[:1].repeat(count, axis=0), np.ones(count), np.full(count, 0.5))
        mean, spread = fitted(surrogate, [group]).predict(TWO_BLOCKS, np.ones(len(TWO_BLOCKS)))
        assert np.isfinite(mean).all()
        assert np.isfinite(spread).all()
        assert (spread >= 0).all()

    def test_the_spread_is_larger_where_nothing_was_seen(self, surrogate: ModuleType) -> None:
        fit = fitted(surrogate, [evaluated(ONE_BLOCK[::2])])
        seen = fit.predict(ONE_BLOCK[::2], np.ones(68))[1]
        new = fit.predict(TWO_BLOCKS, np.ones(len(TWO_BLOCKS)))[1]
        assert not self.tells_spread or np.median(new) > np.median(seen)
