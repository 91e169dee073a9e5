"""All networks of a space in one graph, and what latency is to be expected of them."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FILTERS, pretend_table
from networks import images
from torch.nn import functional as F

from hwnas import spaces
from hwnas.latency import Budget, CellCosts, CostModel
from hwnas.network import Graph, Scale, ladder, taken
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.expected_latency import ExpectedLatency
from hwnas.spaces import random_parameters
from hwnas.support import plugins
from hwnas.training.bank import Bank
from hwnas.training.mixed import Gates, Mixture

SPACES = [name for name in plugins.names("spaces") if hasattr(plugins.load("spaces", name), "mixed")]
SCALE = Scale(2, 4, 8, 3, 1)


def choices_of(space: str) -> dict[str, tuple[Any, ...]]:
    known = plugins.load("spaces", space).distributions().items()
    return {name: distribution.choices for name, distribution in known}


def one_hot(space: str, chosen: dict[str, Any]) -> Gates:
    choices = choices_of(space)
    values = torch.zeros(len(choices), max(map(len, choices.values())))
    for row, (name, known) in enumerate(choices.items()):
        values[row, known.index(chosen[name])] = 1.0
    return Gates(values, values > 0)


def sizes_of(space: str) -> dict[str, int]:
    return {name: len(known) for name, known in choices_of(space).items()}


def bank_of(graph: Graph) -> Bank:
    bank = Bank(seed=0)
    bank.hold(graph)
    generator = torch.Generator().manual_seed(1)
    for parameter in bank.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return bank


def with_right_branches(bank: Bank) -> Bank:
    """Return a bank whose right branches, too, have the weights of the left ones."""
    both = Bank(seed=0)
    for name, parameter in bank.named_parameters():
        for other in {name, name.replace("/left/", "/right/")}:
            both.register_parameter(other, parameter)
    return both


def computed(space: str, mixed: Graph, bank: Bank, gates: Gates, value: torch.Tensor) -> torch.Tensor:
    """Return what the mixed graph computes, without the terms that weigh nothing."""
    mixture = Mixture(mixed, sizes_of(space))
    needed = {option for option, flag in zip(mixture.options, mixture.computed(gates), strict=True) if flag}
    weights = dict(zip(mixture.options, mixture.weights(gates.values), strict=True))
    logits: torch.Tensor = bank.train()(taken(mixed, needed), value, weights=weights)
    return logits


@pytest.mark.parametrize("space", SPACES)
def test_choices_for_certain_make_of_a_mixed_graph_what_the_network_computes(space: str) -> None:
    plugin = plugins.load("spaces", space)
    mixed = plugin.mixed(SCALE)
    bank = bank_of(mixed)
    for seed, chosen in enumerate(random_parameters(plugin, 3, seed=0)):
        if space == "pnas":
            chosen["blocks"] = 3 + seed % 3  # of fewer blocks h[l-2] may be read unsqueezed
            chosen = plugin.parameters(plugin.code(chosen))  # whose blocks are in the network's order
        graph = plugin.architecture(chosen, SCALE).graph
        value = torch.from_numpy(images(graph, count=6))
        expected = with_right_branches(bank).train()(graph, value)
        torch.testing.assert_close(
            computed(space, mixed, bank, one_hot(space, chosen), value), expected, rtol=1e-5, atol=1e-5
        )


def test_gradients_by_the_values_of_choices_are_those_of_finite_differences() -> None:
    """Of a mixture, and by gates of two paths, of which one is computed for the gradient alone."""
    mixed = plugins.load("spaces", "pnas").mixed(replace(SCALE, cells=1))
    bank, random = bank_of(mixed).double(), torch.Generator().manual_seed(0)
    value = torch.from_numpy(images(mixed, count=4)).double()
    considered = torch.zeros(len(sizes_of("pnas")), 8, dtype=torch.bool)
    considered[:, :2], considered[0] = True, torch.eye(8)[2] + torch.eye(8)[4] > 0
    soft = torch.rand(considered.shape, generator=random).double() * considered
    two = torch.zeros_like(soft)
    two[:, 0], two[0] = 1.0, torch.eye(8)[4]  # a block less is no kink of a ReLU

    def loss(values: torch.Tensor) -> torch.Tensor:
        gates = Gates(values, considered)
        return F.cross_entropy(computed("pnas", mixed, bank, gates, value), torch.tensor([0, 1, 2, 0]))

    for values in (soft, two):
        (gradient,) = torch.autograd.grad(loss(values.requires_grad_()), values)
        for row, place in ((0, 2), (0, 4), (1, 0), (1, 1), (4, 1)):
            step = torch.zeros_like(values)
            step[row, place] = 1e-6
            with torch.no_grad():
                difference = (loss(values + step) - loss(values - step)).item() / 2e-6
            assert abs(difference) > 1e-6
            assert gradient[row, place].item() == pytest.approx(difference, rel=1e-4)


def latency_of(space: str, folder: Path) -> tuple[ExpectedLatency, SpaceCandidates]:
    plugin = plugins.load("spaces", space)
    table, scales = pretend_table(folder, space), ladder((1,), FILTERS, (8,), classes=3, channels=1)
    grows = spaces.grows(plugin)
    costs = CellCosts(table, scales, operations=plugin.OPERATIONS) if grows else CostModel(table, scales)
    candidates = SpaceCandidates(plugin, costs, Budget(max_latency_ms=1.0), targets=(1.0,))
    return ExpectedLatency(candidates, 1), candidates


@pytest.mark.parametrize("space", ["pnas", "mbconv"])
def test_for_certain_the_expected_latency_is_that_of_the_table(space: str, tmp_path: Path) -> None:
    latency, candidates = latency_of(space, tmp_path)
    for chosen in random_parameters(candidates.space, 1, seed=1):
        places = [choices.index(chosen[name]) for name, choices in latency.choices.items()]
        rows = list(range(len(places)))
        looked = latency.looked(one_hot(space, chosen).values.double().numpy(), parameters=len(places), seed=0)
        predicted = candidates.costs.predict(candidates.space.architecture(chosen, latency.scale))
        assert looked[rows, places] == pytest.approx(predicted.ms, rel=1e-12)


@pytest.mark.parametrize("space", ["pnas", "mbconv"])
def test_looks_are_on_average_the_derivatives_of_the_expected_latency(space: str, tmp_path: Path) -> None:
    latency, candidates = latency_of(space, tmp_path)
    (chosen,) = random_parameters(candidates.space, 1, seed=3)
    probabilities = one_hot(space, chosen).values.double().numpy()
    names = list(latency.choices)
    free = ["blocks", "block2_operation1", "block2_input1"] if space == "pnas" else ["stage1_depth", "stage1_block2"]
    rows = [names.index(name) for name in free]
    for row in rows:
        probabilities[row, :3] = 0.5, 0.3, 0.2
        probabilities[row, 3:] = 0.0
    supports = [np.flatnonzero(line).tolist() for line in probabilities]
    drawn = list(product(*supports))
    ms_of = dict(zip(drawn, latency.ms([latency.parameters(places) for places in drawn]), strict=True))

    def expected(values: np.ndarray) -> float:
        return sum(float(np.prod([values[row, p] for row, p in enumerate(places)])) * ms_of[places] for places in drawn)

    means = sum(
        np.prod([probabilities[row, place] for row, place in enumerate(places)]) * latency.by_choice(places, rows=rows)
        for places in drawn
    )
    for at, (row, place) in enumerate((row, place) for row in rows for place in range(3)):
        step = np.zeros_like(probabilities)
        step[row, place] = 1e-4
        difference = (expected(probabilities + step) - expected(probabilities - step)) / 2e-4
        assert means[at // 3, place] == pytest.approx(difference, rel=1e-6)
    draws = [tuple(latency.drawn(probabilities, np.random.default_rng(seed))) for seed in range(2000)]
    assert np.mean([ms_of[places] for places in draws]) == pytest.approx(expected(probabilities), rel=0.02)
