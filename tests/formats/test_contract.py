"""Every format by the contract of all; test_formats.py has what is more thorough."""

import pytest

from hwnas import formats
from hwnas.formats import Format
from hwnas.support import plugins
from hwnas.testing import FormatContract


class TestEveryFormat(FormatContract):
    """A new file in hwnas/formats is tested here by its name alone."""

    @pytest.fixture(params=plugins.names("formats"))
    def runtime(self, request: pytest.FixtureRequest) -> Format:
        return formats.get(request.param)
