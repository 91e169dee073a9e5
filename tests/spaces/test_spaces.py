"""What every space must do; a new file in hwnas/spaces is tested here by its name alone."""

import json
from itertools import islice
from types import ModuleType
from typing import Any

import optuna
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import chosen_networks, repeatable
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hwnas import formats, spaces
from hwnas.network.architecture import Architecture
from hwnas.network.graph import executed
from hwnas.network.scale import Scale
from hwnas.support import plugins
from hwnas.training.module import Network

SCALES = [Scale(1, 6, 12, 7), Scale(1, 9, 16, 3), Scale(1, 4, 13, 4), Scale(2, 4, 17, 10, 1)]


@pytest.fixture(params=plugins.names("spaces"), scope="module")
def space(request: pytest.FixtureRequest) -> ModuleType:
    return plugins.load("spaces", request.param)


class Counter(TorchDispatchMode):
    """Counts as torch's FlopCounterMode does, which takes twice as long: it also keeps a count of each module."""

    flops = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        output = function(*arguments, **(named or {}))
        if function.overloadpacket in flop_registry:
            self.flops += flop_registry[function.overloadpacket](*arguments, **(named or {}), out_val=output)
        return output


def check(architecture: Architecture) -> None:
    """Run a network forwards and backwards; compare its costs with torch's own counts."""
    graph = architecture.graph
    module = Network(graph)
    images = torch.randn(2, *graph.layers[0].shape)
    with Counter() as counter:
        logits = module(images)
    assert 2 * graph.mult_adds * len(images) == counter.flops
    assert logits.shape == (2, graph.output_shape[0])
    assert graph.parameters == sum(parameter.numel() for parameter in module.parameters())
    logits.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.slow
def test_200_random_networks_run_and_cost_what_torch_counts(space: ModuleType) -> None:
    for index, parameters in enumerate(spaces.random_parameters(space, 200, seed=0)):
        check(space.architecture(parameters, SCALES[index % len(SCALES)]))


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_network_at_any_scale_breaks(space: ModuleType, data: st.DataObject) -> None:
    name = space.__name__.rpartition(".")[2].replace("_", "-")
    check(data.draw(chosen_networks(name)))


@pytest.mark.parametrize("runtime", plugins.names("formats"))
@pytest.mark.parametrize("scale", [Scale(1, 8, 28, 10, 1), Scale(2, 6, 17, 5)], ids=str)
def test_its_cover_has_every_operator_of_random_networks(space: ModuleType, runtime: str, scale: Scale) -> None:
    """What `profile` measures is enough for whatever `search` may propose."""
    lower = formats.get(runtime).lower
    covered = {name for architecture in space.cover(scale) for name, _, _ in executed(lower(architecture.graph))}
    for parameters in spaces.random_parameters(space, 100, seed=1):
        graph = lower(space.architecture(parameters, scale).graph)
        assert {name for name, _, _ in executed(graph)} <= covered


def test_a_network_survives_its_json(space: ModuleType) -> None:
    for parameters in spaces.random_parameters(space, 10, seed=2):
        architecture = space.architecture(parameters, SCALES[0])
        assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
        assert architecture.name.startswith(architecture.size)


def test_optuna_chooses_from_it(space: ModuleType) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    distributions: dict[str, CategoricalDistribution] = space.distributions()
    trial = study.ask(dict(distributions))
    _ = space.architecture(trial.params, SCALES[0]).graph


def test_random_networks_differ_and_come_from_the_seed(space: ModuleType) -> None:
    drawn = spaces.random_parameters(space, 5, seed=3)
    assert drawn == spaces.random_parameters(space, 5, seed=3)
    assert len({space.architecture(parameters, SCALES[0]).name for parameters in drawn}) > 1


def test_larger_scales_cost_more(space: ModuleType) -> None:
    for parameters in spaces.random_parameters(space, 5, seed=4):
        costs = [space.architecture(parameters, Scale(1, filters, 24, 10)).graph.mult_adds for filters in (8, 16, 32)]
        assert costs == sorted(costs)


def test_its_choices_are_the_papers() -> None:
    """Per block, layer or stage; the products are the sizes that the papers give."""
    sizes = {name: plugins.load("spaces", name).CHOICES for name in plugins.names("spaces")}
    assert sizes["pnas"] == (256, 576, 1024, 1600, 2304)
    assert len(plugins.load("spaces", "nasnet").OPERATIONS) == 13
    assert sizes["enas-micro"] == tuple(5**2 * states**2 for states in range(2, 7))
    assert sizes["darts"] == (64 * 1, 64 * 3, 64 * 6, 64 * 10)
    assert torch.tensor(sizes["enas-macro"], dtype=torch.float64).prod().item() == 6.0**12 * 2.0**66
    assert sizes["mbconv"] == (18 + 18**2 + 18**3 + 18**4,) * 5


def test_a_cover_is_lazy(space: ModuleType) -> None:
    assert len(list(islice(space.cover(SCALES[0]), 3))) == 3


@given(architecture=chosen_networks())
@repeatable(30)
def test_every_space_is_lowered_for_every_runtime(architecture: Architecture) -> None:
    for name in plugins.names("formats"):
        lowered = formats.get(name).lower(architecture.graph)
        assert lowered.output_shape == architecture.graph.output_shape
