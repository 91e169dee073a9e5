"""Every surrogate by the contract of all, and the features of cells that they read."""

from types import ModuleType

import numpy as np
import pytest

from hwnas.searching.surrogates._features import features
from hwnas.support import plugins
from hwnas.testing import SurrogateContract
from hwnas.testing.surrogates import OPERATIONS

NAMES = plugins.names("surrogates")


class TestEverySurrogate(SurrogateContract):
    """A new file in hwnas/searching/surrogates is tested here by its name alone."""

    @pytest.fixture(params=[name for name in NAMES if not name.endswith("-single")])
    def surrogate(self, request: pytest.FixtureRequest) -> ModuleType:
        return plugins.load("surrogates", request.param)


class TestEverySingleModel(SurrogateContract):
    tells_spread = False

    @pytest.fixture(params=[name for name in NAMES if name.endswith("-single")])
    def surrogate(self, request: pytest.FixtureRequest) -> ModuleType:
        return plugins.load("surrogates", request.param)


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
