"""Every kind of network by the contract of all: networks of every space, each of some kind."""

from types import ModuleType

import pytest

from hwnas.network import Architecture, Scale
from hwnas.spaces import random_parameters
from hwnas.support import plugins
from hwnas.testing import KindContract


@pytest.fixture(params=[(space, seed) for space in plugins.names("spaces") for seed in range(3)], ids=str)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    name, seed = request.param
    space = plugins.load("spaces", name)
    (parameters,) = random_parameters(space, 1, seed=seed)
    network: Architecture = space.architecture(parameters, Scale(1, 4, 16, 5, 3))
    return network


class TestEveryKind(KindContract):
    @pytest.fixture
    def kind(self, architecture: Architecture) -> ModuleType:
        return plugins.load("kinds", architecture.to_json().get("kind", "cells"))


def test_the_spaces_have_networks_of_every_kind() -> None:
    spaces = [plugins.load("spaces", name) for name in plugins.names("spaces")]
    drawn = [space.architecture(random_parameters(space, 1, seed=0)[0], Scale(1, 4, 16, 5, 3)) for space in spaces]
    assert {network.to_json().get("kind", "cells") for network in drawn} == set(plugins.names("kinds"))
