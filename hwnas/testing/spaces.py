"""What every space must keep to."""

from itertools import islice
from types import ModuleType
from typing import Any

import optuna
import pytest
import torch
from optuna.samplers import RandomSampler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hwnas import formats, spaces
from hwnas.network import Architecture, Scale, executed
from hwnas.support import plugins
from hwnas.training import Network

SCALES = (Scale(1, 6, 12, 7), Scale(1, 9, 16, 3), Scale(1, 4, 13, 4), Scale(2, 4, 17, 10, 1))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts as torch's FlopCounterMode does, which takes twice as long: it also keeps a count of each module."""

    flops = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        output = function(*arguments, **(named or {}))
        if function.overloadpacket in flop_registry:
            self.flops += flop_registry[function.overloadpacket](*arguments, **(named or {}), out_val=output)
        return output


def check_runs(architecture: Architecture) -> None:
    """Run a network forwards and backwards; compare its costs with torch's own counts."""
    graph = architecture.graph
    module = Network(graph)
    images = torch.randn(2, *graph.layers[0].shape)
    with _Counter() as counter:  # type: ignore[no-untyped-call]
        logits = module(images)
    assert 2 * graph.mult_adds * len(images) == counter.flops
    assert logits.shape == (2, graph.output_shape[0])
    assert graph.parameters == sum(parameter.numel() for parameter in module.parameters())
    logits.square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


class SpaceContract:
    """Takes the fixture `space`: a module of hwnas/spaces, or like one."""

    def test_random_networks_run_and_cost_what_torch_counts(self, space: ModuleType) -> None:
        for index, parameters in enumerate(spaces.random_parameters(space, 20, seed=0)):
            check_runs(space.architecture(parameters, SCALES[index % len(SCALES)]))

    @pytest.mark.parametrize("runtime", plugins.names("formats"))
    @pytest.mark.parametrize("scale", [Scale(1, 8, 28, 10, 1), Scale(2, 6, 17, 5)], ids=str)
    def test_its_cover_has_every_operator_of_random_networks(
        self, space: ModuleType, runtime: str, scale: Scale
    ) -> None:
        """What `profile` measures is enough for whatever `search` may propose."""
        lower = formats.get(runtime).lower
        covered = {name for architecture in space.cover(scale) for name, _, _ in executed(lower(architecture.graph))}
        for parameters in spaces.random_parameters(space, 100, seed=1):
            graph = lower(space.architecture(parameters, scale).graph)
            assert {name for name, _, _ in executed(graph)} <= covered

    def test_a_cover_is_lazy(self, space: ModuleType) -> None:
        assert len(list(islice(space.cover(SCALES[0]), 3))) == 3

    def test_a_network_survives_its_json(self, space: ModuleType) -> None:
        for parameters in spaces.random_parameters(space, 10, seed=2):
            architecture = space.architecture(parameters, SCALES[0])
            assert Architecture.from_json(architecture.to_json()) == architecture
            assert architecture.name.startswith(architecture.size)

    def test_optuna_chooses_from_it(self, space: ModuleType) -> None:
        study = optuna.create_study(sampler=RandomSampler(seed=0))
        trial = study.ask(dict(space.distributions()))
        assert space.architecture(trial.params, SCALES[0]).graph.layers

    def test_random_networks_differ_and_come_from_the_seed(self, space: ModuleType) -> None:
        drawn = spaces.random_parameters(space, 5, seed=3)
        assert drawn == spaces.random_parameters(space, 5, seed=3)
        assert len({space.architecture(parameters, SCALES[0]).name for parameters in drawn}) > 1

    def test_larger_scales_cost_more(self, space: ModuleType) -> None:
        for parameters in spaces.random_parameters(space, 5, seed=4):
            networks = [space.architecture(parameters, Scale(1, filters, 24, 10)) for filters in (8, 16, 32)]
            costs = [network.graph.mult_adds for network in networks]
            assert costs == sorted(costs)
            assert costs[0] < costs[-1]

    def test_a_neighbour_differs_in_one_choice_and_has_this_one_for_a_neighbour(self, space: ModuleType) -> None:
        """Where a space knows an order of its choices."""
        neighbours = getattr(space, "neighbours", lambda parameters: ())
        for parameters in spaces.random_parameters(space, 5, seed=5):
            for neighbour in neighbours(parameters):
                assert sum(neighbour[name] != chosen for name, chosen in parameters.items()) == 1
                assert parameters in list(neighbours(neighbour))

    def test_it_says_of_what_it_is_made_and_how_many_choices_there_are(self, space: ModuleType) -> None:
        assert len(space.OPERATIONS) > 0
        assert all(choices > 0 for choices in space.CHOICES)
