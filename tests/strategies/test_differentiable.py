"""Strategies that learn on all networks of a space in one: what they derive fits, resumes, and is not a collapse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import pretend_table
from cutting import cut_off

import hwnas
from hwnas import datasets
from hwnas.errors import InputError
from hwnas.network import Block, Cell, CellNetwork, Scale
from hwnas.runs.run import Run
from hwnas.searching.strategies import _differentiable, darts, fbnet, proxyless
from hwnas.spaces import pnas
from hwnas.training import TrainingSettings, mixed
from hwnas.training.mixed import Looked, Relaxation

STRATEGIES = ["darts", "darts-second", "fbnet", "proxyless"]
TINY: dict[str, Any] = {
    "space": "mbconv",
    "max_latency_ms": 0.4,
    "targets": (0.5, 1.0),
    "data": "npz:images.npz",
    "cells": (1,),
    "filters": (6,),
    "predicted": True,
    "estimator": "size",
    "supernet": 6.0,
    "images": 64,
    "epochs": 1.0,
    "trials": 2,
}


@pytest.fixture
def place(workplace: Path) -> Path:
    """A folder with tiny images and a pretended table of the space mbconv."""
    pretend_table(workplace, "mbconv")
    return workplace


def searched(out: str, **options: Any) -> list[tuple[float, dict[str, Any]]]:
    """Return each trial's share of the cap, with the prediction's error, and what was chosen."""
    hwnas.search(out=out, **{**TINY, **options})
    run = Run.open(out)
    latencies = [record.deployed.predicted_ms for record in run.trials().records if record.deployed]
    shares = [1.5 * ms / TINY["max_latency_ms"] for ms in latencies]  # a table without networks is off by half
    return [(share, dict(record.choices)) for share, record in zip(shares, run.trials().records, strict=True)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_derives_candidates_that_use_the_cap(place: Path, strategy: str) -> None:
    trials = searched("run", strategy=strategy)
    assert all(0.95 <= share <= 1.0 and chosen["target"] == 1.0 for share, chosen in trials)
    assert not list((place / "run").glob("derive*"))


def test_what_is_cut_off_at_any_step_derives_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"strategy": "proxyless", "trials": 1}
    whole = searched("whole", **options)
    logits: list[torch.Tensor] = []

    def look(training: Any) -> None:
        logits.append(training.network.logits.detach().clone())
        learned = [parameter for group in training.optimizer.param_groups for parameter in group["params"]]
        assert all(parameter is not training.network.logits for parameter in learned)

    cut_off(monkeypatch, _differentiable, at=(1, 2), look=look)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched("cut", **options)
        assert (place / "cut" / "derive.checkpoint.safetensors").exists()
    assert searched("cut", **options) == whole
    monkeypatch.setattr(_differentiable, "run_training", lambda training, **_: kept(training, logits[-1]))
    searched("again", **options)


def kept(training: mixed.MixedTraining, wanted: torch.Tensor) -> None:
    """Train without being cut off: the logits are those of the one that was, bit for bit."""
    for _ in training.run():
        pass
    assert training.step > 2
    assert torch.equal(training.network.logits, wanted)


def test_a_collapse_ends_the_learning_and_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_differentiable, "_is_mostly_identities", lambda *_: True)
    searched("run", strategy="proxyless")
    assert "mostly identities" in capsys.readouterr().err


@pytest.mark.parametrize(("operation", "is_mostly"), [("identity", True), ("zero", True), ("max_pool_3x3", False)])
def test_a_cell_has_collapsed_where_most_branches_do_nothing(operation: str, is_mostly: bool) -> None:
    kept_block, other = Block((operation, 0), (operation, 1)), Block((operation, 0), ("separable_3x3", 1))

    class Latency:
        """Of one network whatever is chosen."""

        def parameters(self, places: Any) -> Any:
            return places

        def architecture(self, blocks: Any) -> CellNetwork:
            return CellNetwork(Cell(tuple(blocks)), Scale(1, 4, 8, 3))

    latency: Any = Latency()
    places: Any = [kept_block, other]
    assert _differentiable._is_mostly_identities(latency, places) == is_mostly
    assert not _differentiable._is_mostly_identities(latency, [other, other])  # type: ignore[list-item]


def test_a_space_that_cannot_be_mixed_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match=r"the spaces darts, mbconv, pnas allow; got --space nasnet"):
        searched("run", strategy="darts", space="nasnet")
    assert not (place / "run").exists()


def test_gates_are_those_of_the_papers() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, -torch.inf]], requires_grad=True)
    probabilities = logits.detach().softmax(1)
    assert torch.equal(darts.gates(logits, 0.5).values, probabilities)
    torch.manual_seed(0)
    draws = torch.stack([fbnet.gates(logits, 1.0).values.detach() for _ in range(1000)])
    likeliest = (draws.argmax(2, keepdim=True) == torch.arange(3)).float().mean(0)
    torch.testing.assert_close(likeliest, probabilities, atol=0.06, rtol=0)
    assert fbnet.gates(logits, 0.0).values.max() < draws.amax(2).mean()
    paths = torch.stack([proxyless.one_path(logits, 0.0).values.detach() for _ in range(1000)])
    torch.testing.assert_close(paths.mean(0), probabilities, atol=0.06, rtol=0)
    gates = proxyless.two_paths(logits, 0.0)
    assert gates.considered.sum(1).tolist() == [2, 2]
    assert sorted(gates.values[0][gates.considered[0]].tolist()) == pytest.approx([0.0, 1.0])
    (by_gates,) = torch.autograd.grad(gates.values[1, 0], logits)
    slope = float(probabilities[1, 0] * probabilities[1, 1])
    assert by_gates[1].tolist() == pytest.approx([slope, -slope, 0.0])


def test_the_second_order_gradient_is_that_of_weights_that_follow_the_logits(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss after a step of weights, differentiated by finite differences (DARTS, equation 6)."""
    monkeypatch.setattr(mixed, "_FINITE", 1e-6)  # shorter than to the next kink of a ReLU
    data = datasets.load("npz:images.npz", seed=0)
    choices = {name: known.choices for name, known in pnas.distributions().items()}
    network = mixed.Mixed(
        pnas.mixed(Scale(1, 4, data.resolution, len(data.classes), data.channels)),
        {name: len(known) for name, known in choices.items()},
        Relaxation(darts.gates, darts.gates, second_order=True),
        seed=0,
    ).double()
    network.latencies.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    network.multiplier.fill_(0.3)
    settings = TrainingSettings(epochs=1.0, batch_size=4, learning_rate=0.05, warm_up=0.0, augment=False, seed=0)
    training = mixed.MixedTraining(
        lambda: network,
        {},
        data,
        settings,
        look=lambda *_: Looked(1.0, network.latencies),
        is_collapsed=lambda _: False,
    )
    random = torch.Generator().manual_seed(1)
    images = torch.randn(2, 4, data.channels, data.resolution, data.resolution, generator=random).double()
    labels, wanted = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 1, 0, 0])
    bank = network.bank

    def loss_after_a_step() -> float:
        gradients = training._by_weights(images[0], labels)
        with mixed._moved(bank.parameters(), gradients, -training._rate()):
            return training._loss_of_logits(images[1], wanted)[1].item()

    _, second = training._second_order(images[0], labels, images[1], wanted)
    (first,) = torch.autograd.grad(training._loss_of_logits(images[1], wanted)[1], network.logits)
    largest = second.abs().flatten().topk(8).indices.tolist()
    for row, place in (divmod(at, second.shape[1]) for at in largest):
        sides = []
        for step in (1e-5, -1e-5):
            network.logits.data[row, place] += step
            sides.append(loss_after_a_step())
            network.logits.data[row, place] -= step
        assert second[row, place].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4)
    assert (second - first).norm() > 0.1 * second.norm()
