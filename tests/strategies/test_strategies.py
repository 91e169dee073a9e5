"""Every strategy by the contract of all."""

from types import ModuleType

import pytest

from hwnas.support import plugins
from hwnas.testing import StrategyContract

REJECTING = ["controller", "controller-reinforce", "evolution", "random"]
OTHERS = [name for name in plugins.names("strategies") if name not in REJECTING]


class TestEveryStrategy(StrategyContract):
    """A new file in hwnas/searching/strategies is tested here by its name alone."""

    @pytest.fixture(params=OTHERS)
    def strategy(self, request: pytest.FixtureRequest) -> ModuleType:
        return plugins.load("strategies", request.param)


class TestWhatProposesNothingTwiceAndNothingOverACap(StrategyContract):
    rejects = True

    @pytest.fixture(params=REJECTING)
    def strategy(self, request: pytest.FixtureRequest) -> ModuleType:
        return plugins.load("strategies", request.param)
