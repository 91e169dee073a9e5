"""Shared weights learn by choices that take turns, inside the caps; elastic ones by the sandwich rule as well."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FILTERS, pretend_table
from optuna.distributions import CategoricalDistribution
from torch.nn import functional as F

from hwnas import datasets
from hwnas.device import load_device
from hwnas.latency import Budget
from hwnas.network import Scale
from hwnas.runs.settings import make_settings
from hwnas.searching.candidates import SpaceCandidates
from hwnas.searching.checks import costs_of_run
from hwnas.searching.estimators import _paths, supernet
from hwnas.spaces import fair_parameters, mbconv, random_parameters
from hwnas.support import plugins
from hwnas.training import Progress, loop, search_settings, shared
from hwnas.training.bank import Bank


@dataclass
class Weighed:
    """Candidates of six parameters with four choices: the sum of these may not be above a share of the limit."""

    limit: float
    targets: tuple[float, ...] = (0.5, 1.0)

    def distributions(self) -> dict[str, CategoricalDistribution]:
        each = {f"p{number}": CategoricalDistribution(range(4)) for number in range(6)}
        return {**each, "target": CategoricalDistribution(self.targets)}

    def fitting_targets(self, chosen: Any) -> list[float]:
        return [target for target in self.targets if weight(chosen) <= target * self.limit]

    def excess(self, chosen: Any) -> float:
        return max(0.0, weight(chosen) - chosen["target"] * self.limit)

    def identity(self, chosen: Any) -> Any:
        return tuple(chosen.values())

    def without_ignored(self, chosen: Any) -> Any:
        return chosen


def weight(chosen: Any) -> int:
    return sum(value for name, value in chosen.items() if name != "target")


def drawn(limit: float, count: int) -> list[Any]:
    return _paths.fair_choices(Weighed(limit), count, seed=0)  # type: ignore[arg-type]  # all that is asked of them


def test_of_n_choices_each_comes_once_in_n_and_in_ever_new_orders() -> None:
    choices = {"a": "xyz", "b": (1, 2, 3, 4, 5)}
    rows = list(islice(fair_parameters(choices, seed=0), 60))
    for name, known in choices.items():
        rounds = [tuple(row[name] for row in rows[at : at + len(known)]) for at in range(0, 60, len(known))]
        assert all(sorted(taken) == sorted(known) for taken in rounds)
        assert len(set(rounds)) > 3
    assert rows == list(islice(fair_parameters(choices, seed=0), 60))
    assert rows != list(islice(fair_parameters(choices, seed=1), 60))


def test_a_target_that_a_candidate_does_not_fit_is_raised() -> None:
    chosen = drawn(18.0, 200)
    assert {one["target"] for one in chosen} == {0.5, 1.0}
    assert all(one["target"] in Weighed(18.0).fitting_targets(one) for one in chosen)
    for start in range(0, 200, 4):
        for name in ("p0", "p5"):
            assert sorted(one[name] for one in chosen[start : start + 4]) == [0, 1, 2, 3]


def test_where_caps_leave_out_candidates_choices_are_swapped_and_still_take_turns() -> None:
    """A quarter of the choices are the heaviest; were candidates above the limit only left out, 20 % would be."""
    chosen = drawn(11.0, 400)
    assert len(chosen) == 400
    assert all(one["target"] in Weighed(11.0).fitting_targets(one) for one in chosen)
    each = list(islice(fair_parameters({f"p{number}": range(4) for number in range(6)}, seed=0), 400))
    left_out = [one for one in each if sum(one.values()) <= 11]
    assert share_of_the_heaviest(left_out) < 0.21
    assert 0.24 < share_of_the_heaviest(chosen) < 0.25


def share_of_the_heaviest(chosen: list[Any]) -> float:
    counts = Counter(one[f"p{number}"] for one in chosen for number in range(6))
    return counts[3] / counts.total()


def test_caps_that_nothing_fits_end_the_drawing() -> None:
    assert drawn(-1.0, 10**6) == []


@pytest.mark.parametrize("space", ["pnas", "mbconv"])
def test_every_path_is_at_the_largest_scale_that_fits(workplace: Path, space: str) -> None:
    if space != "pnas":
        pretend_table(workplace, space)
    candidates, settings = candidates_of(space)
    paths = supernet.drawn_paths(settings, candidates, count=16)
    chosen = _paths.fair_choices(candidates, 16, seed=0)
    assert len(paths) == len(chosen) == 16
    scales = set()
    for path, one in zip(paths, chosen, strict=True):
        at = candidates.costs_of(one).largest(candidates.budget, target_ms=one["target"] * 2.0)[0]
        assert path.scale == settings.proxy_scale(candidates.costs.scales[at])
        assert path.architecture == candidates.space.architecture(one, path.scale)
        scales.add(path.scale)
    assert len(scales) > 1


def candidates_of(space: str) -> tuple[SpaceCandidates, Any]:
    options = {"cells": (1,), "filters": FILTERS, "resolution": (8,), "channels": 1, "classes": 3, "validation": 0.1}
    settings = make_settings(
        **options, space=space, device="host", setting="tflite-fp32-1t", threads=1, max_latency_ms=2.0
    )
    device = load_device("host")
    costs = costs_of_run(settings, device, device.setting(settings.setting))
    caps = {"pnas": 300_000.0, "mbconv": 300_000.0}  # so that some fit at one scale, some at both
    budget = Budget(1e6, caps[space], None)
    return SpaceCandidates(plugins.load("spaces", space), costs, budget, (1.0,)), settings


SMALL, LARGE = Scale(1, 2, 8, 3, 1), Scale(1, 4, 8, 3, 1)


def chains(count: int) -> list[Any]:
    return [mbconv.architecture(parameters, SMALL) for parameters in random_parameters(mbconv, count, seed=0)]


def ends() -> list[Any]:
    return supernet._ends(mbconv, [SMALL, LARGE])


def test_the_ends_have_the_largest_and_the_smallest_of_every_weight() -> None:
    bank = Bank(seed=0)
    largest, smallest = ends()
    bank.hold(largest.graph)
    before = len(list(bank.parameters()))
    for chain in (*chains(10), smallest):
        bank.hold(chain.graph)
        assert chain.graph.parameters >= smallest.graph.parameters
    assert len(list(bank.parameters())) > before  # of blocks without an expansion, or transforms
    assert supernet._ends(plugins.load("spaces", "pnas"), [SMALL]) == []
    path = supernet.DrawnPath(largest, largest, LARGE)
    assert supernet._paths_a_step([largest, largest], [path]) == pytest.approx(4)


def test_each_step_trains_the_ends_and_the_next_two_on_what_the_largest_says() -> None:
    paths, (largest, smallest) = chains(5), ends()
    bank = Bank(seed=0)
    for architecture in (largest, smallest, *paths):
        bank.hold(architecture.graph)
    network = shared.Shared(bank, paths, ends=(largest, smallest)).train()
    network.before_step(7, 10)
    images, labels = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    outputs = network(images)
    expected = [bank(each.graph, images) for each in (largest, smallest, paths[14 % 5], paths[15 % 5])]
    assert torch.equal(outputs, torch.stack(expected))
    loss = network.loss(outputs, labels, search_settings())
    said = expected[0].detach().exp() / expected[0].detach().exp().sum(1, keepdim=True)
    soft = [-(said * logits.log_softmax(1)).sum(1).mean() for logits in expected[1:]]
    hard = F.cross_entropy(expected[0], labels, label_smoothing=search_settings().label_smoothing)
    assert loss.item() == pytest.approx(((hard + sum(soft)) / 4).item(), rel=1e-5)
    (by_largest,) = torch.autograd.grad(network.loss(outputs, labels, search_settings()), outputs)
    (alone,) = torch.autograd.grad(hard / 4, expected[0])
    assert torch.allclose(by_largest[0], alone, atol=1e-7)  # what it says to others is no part of its own loss


@pytest.mark.parametrize("elastic", [True, False])
def test_a_training_that_is_cut_off_ends_with_the_same_weights(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, elastic: bool
) -> None:
    dataset = datasets.load("npz:images.npz", seed=0)
    settings = search_settings(epochs=2, images_per_epoch=32)
    run_training = loop.run_training

    def cut_off(training: Any, *, checkpoint: Path, on_progress: Any) -> None:
        def stop(progress: Progress) -> None:
            raise KeyboardInterrupt

        run_training(training, checkpoint=checkpoint, on_progress=stop, save_every_s=0.0)

    def train(checkpoint: Path | None) -> Bank:
        options: dict[str, Any] = {"identity": {}, "checkpoint": checkpoint, "ends": ends() if elastic else ()}
        return shared.train_shared(chains(5), ends(), dataset, settings, **options)

    whole = train(None)
    with monkeypatch.context() as patched:
        patched.setattr(shared, "run_training", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(workplace / "c")
    cut, begun = train(workplace / "c"), Bank(seed=0)
    begun.hold(ends()[0].graph)
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, cut.get_parameter(name)), name
    moved = [not torch.equal(weight, whole.get_parameter(name)) for name, weight in begun.named_parameters()]
    assert any(moved)
    assert all(moved) or not elastic  # the largest learns at each step
