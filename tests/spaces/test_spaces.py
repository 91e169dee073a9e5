"""Every space by the contract of all, more of its networks, and the papers' numbers."""

from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import chosen_networks, repeatable

from hwnas import formats, spaces
from hwnas.network import Architecture
from hwnas.support import plugins
from hwnas.testing import SpaceContract
from hwnas.testing.spaces import SCALES, check_runs


@pytest.fixture(params=plugins.names("spaces"), scope="module")
def space(request: pytest.FixtureRequest) -> ModuleType:
    return plugins.load("spaces", request.param)


class TestEverySpace(SpaceContract):
    """A new file in hwnas/spaces is tested here by its name alone."""


@pytest.mark.slow
@pytest.mark.parametrize("fifty", range(2))
def test_100_random_networks_run_and_cost_what_torch_counts(space: ModuleType, fifty: int) -> None:
    for index, parameters in enumerate(spaces.random_parameters(space, 50, seed=fifty)):
        check_runs(space.architecture(parameters, SCALES[index % len(SCALES)]))


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_network_at_any_scale_breaks(space: ModuleType, data: st.DataObject) -> None:
    name = space.__name__.rpartition(".")[2].replace("_", "-")
    check_runs(data.draw(chosen_networks(name)))


def test_its_choices_are_the_papers() -> None:
    """Per block, layer or stage; the products are the sizes that the papers give."""
    sizes = {name: plugins.load("spaces", name).CHOICES for name in plugins.names("spaces")}
    assert sizes["pnas"] == (256, 576, 1024, 1600, 2304)
    assert len(plugins.load("spaces", "nasnet").OPERATIONS) == 13
    assert sizes["enas-micro"] == tuple(5**2 * states**2 for states in range(2, 7))
    assert sizes["darts"] == (64 * 1, 64 * 3, 64 * 6, 64 * 10)
    assert torch.tensor(sizes["enas-macro"], dtype=torch.float64).prod().item() == 6.0**12 * 2.0**66
    assert sizes["mbconv"] == (18 + 18**2 + 18**3 + 18**4,) * 5
    assert sizes["mobile"] == (25 * 4 * 3,) * 4


@given(architecture=chosen_networks())
@repeatable(30)
def test_every_space_is_lowered_for_every_runtime(architecture: Architecture) -> None:
    for name in plugins.names("formats"):
        lowered = formats.get(name).lower(architecture.graph)
        assert lowered.output_shape == architecture.graph.output_shape
