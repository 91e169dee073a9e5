"""Every estimator by the contract of all."""

import pytest

from hwnas.searching.estimators import Estimator, get
from hwnas.support import plugins
from hwnas.testing import EstimatorContract


class TestEveryEstimator(EstimatorContract):
    """A new file in hwnas/searching/estimators is tested here by its name alone."""

    @pytest.fixture(params=plugins.names("estimators"))
    def estimator(self, request: pytest.FixtureRequest) -> Estimator:
        return get(request.param)
