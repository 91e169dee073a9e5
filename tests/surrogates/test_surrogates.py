"""What every surrogate keeps to; how well they rank is measured by benchmarks/surrogates.py."""

import numpy as np
import pytest

from hwnas.runs.front import spearman
from hwnas.searching import surrogates
from hwnas.searching.surrogates import Evaluated, Surrogate
from hwnas.searching.surrogates._features import features
from hwnas.spaces import pnas
from hwnas.support import plugins

NAMES = plugins.names("surrogates")
OPERATIONS = len(pnas.OPERATIONS)
ONE_BLOCK = pnas.first_level()
TWO_BLOCKS = pnas.grow(ONE_BLOCK)[:: 31620 // 200]
WORTH = np.array([0.05, 0.06, 0.04, 0.03, 0.0, -0.02, 0.01, 0.02])  # of an operation


def truth(codes: "np.ndarray", targets: "np.ndarray") -> "np.ndarray":
    """Return accuracies to which every operation, h[l-1] and the target add something."""
    from_previous = (codes[:, :, 1::2] == 1).mean(axis=(1, 2))
    return 0.7 + WORTH[codes[:, :, 0::2]].mean(axis=(1, 2)) + 0.02 * from_previous + 0.05 * targets


def evaluated(codes: "np.ndarray", *, seed: int = 0) -> Evaluated:
    targets = np.random.default_rng(seed).choice([0.4, 0.7, 1.0], len(codes))
    return Evaluated(codes, targets, truth(codes, targets))


def fitted(name: str, groups: list[Evaluated], *, seed: int = 0) -> Surrogate:
    return surrogates.fit(name, groups, operations=OPERATIONS, seed=seed)


@pytest.mark.parametrize("name", NAMES)
def test_it_ranks_what_it_was_fitted_to_and_what_it_was_not(name: str) -> None:
    half = evaluated(ONE_BLOCK[::2])
    surrogate = fitted(name, [half])
    for codes, least in ((half.codes, 0.95), (ONE_BLOCK[1::2], 0.8), (TWO_BLOCKS, 0.5)):
        targets = half.targets if codes is half.codes else np.full(len(codes), 0.7)
        found = spearman(surrogate.predict(codes, targets)[0].tolist(), truth(codes, targets).tolist())
        assert found is not None
        assert found > least


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_from_cells_of_several_sizes_and_what_the_target_does(name: str) -> None:
    surrogate = fitted(name, [evaluated(ONE_BLOCK[::4]), evaluated(TWO_BLOCKS[::4])])
    low, high = (surrogate.predict(TWO_BLOCKS, np.full(len(TWO_BLOCKS), share))[0] for share in (0.4, 1.0))
    assert (high - low).mean() == pytest.approx(0.03, abs=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_everything_and_the_callers_random_state_is_left_alone(name: str) -> None:
    import torch

    group, targets = evaluated(ONE_BLOCK[::8]), np.ones(len(ONE_BLOCK))
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    once, again = (fitted(name, [group]).predict(ONE_BLOCK, targets) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(once, again)


@pytest.mark.parametrize("name", NAMES)
def test_the_two_branches_of_a_block_are_exchangeable(name: str) -> None:
    exchanged = TWO_BLOCKS[:, :, [2, 3, 0, 1]]
    surrogate, targets = fitted(name, [evaluated(ONE_BLOCK[::4])]), np.ones(len(TWO_BLOCKS))
    one, other = (surrogate.predict(codes, targets)[0] for codes in (TWO_BLOCKS, exchanged))
    assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_and_equal_candidates_do_no_harm(name: str, count: int) -> None:
    group = Evaluated(ONE_BLOCK[:1].repeat(count, axis=0), np.ones(count), np.full(count, 0.5))
    mean, spread = fitted(name, [group]).predict(TWO_BLOCKS, np.ones(len(TWO_BLOCKS)))
    assert np.isfinite(mean).all()
    assert np.isfinite(spread).all()
    assert (spread >= 0).all()


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("-single")])
def test_the_spread_is_larger_where_nothing_was_seen(name: str) -> None:
    surrogate = fitted(name, [evaluated(ONE_BLOCK[::2])])
    seen = surrogate.predict(ONE_BLOCK[::2], np.ones(68))[1]
    new = surrogate.predict(TWO_BLOCKS, np.ones(len(TWO_BLOCKS)))[1]
    assert np.median(new) > np.median(seen)


def test_features_say_what_a_cell_is() -> None:
    chain = np.array([[[0, 1, 4, 1], [2, 2, 2, 0]]])  # separable and identity on h[l-1]; one operation on it and h[l-2]
    parts = np.split(features(chain, operations=OPERATIONS)[0], np.cumsum([24, 8, 3, 8, 1]))
    on_kinds, shares, kinds, there, twice, structure = parts
    assert np.flatnonzero(on_kinds).tolist() == [2, 8, 12, 18]
    assert on_kinds.sum() == 1
    assert {int(place): share for place, share in enumerate(shares) if share} == {0: 0.25, 4: 0.25, 2: 0.5}
    assert kinds.tolist() == [0.25, 0.5, 0.25]
    assert np.flatnonzero(there).tolist() == [0, 2, 4]
    assert twice.tolist() == [0.5]
    assert structure == pytest.approx([0.5, 0.5, 0.5, 1.5, 2.0, np.log(2)])
