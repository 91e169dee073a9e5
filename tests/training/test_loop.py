import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable
from safetensors.torch import load_file
from torch import Tensor

from hwnas.datasets import Dataset
from hwnas.datasets._shared import TensorImages
from hwnas.errors import InputError, TrainingError
from hwnas.network.cell import Block, Cell
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.searching.estimators.training import evaluate
from hwnas.support import held, raised
from hwnas.training import batches as _batches
from hwnas.training import checkpoint as _checkpoint
from hwnas.training import hardware as _hardware
from hwnas.training import loop as training
from hwnas.training import scoring
from hwnas.training.averaging import Average
from hwnas.training.batches import normalise
from hwnas.training.curves import Look, Progress, Watch
from hwnas.training.loop import Trained
from hwnas.training.module import Network
from hwnas.training.settings import TrainingSettings
from hwnas.training.weights import in_common, inherit, save_weights

CELL = Cell((Block(("separable_3x3", 1), ("max_pool_3x3", 0)),))
SIDE = 8
ARCHITECTURE = CellNetwork(CELL, Scale(1, 4, SIDE, 2, 1))
EVERYTHING = TrainingSettings(  # every source of chance, and every buffer
    epochs=2.5,
    batch_size=16,
    learning_rate=0.05,
    warm_up=0.2,
    clip_gradient_norm=1.0,
    cutout=3,
    path_drop_rate=0.3,
    dropout_rate=0.2,
    seed=3,
    device="cpu",
)
STEPS = 10  # of EVERYTHING: 4 an epoch
PLAIN = TrainingSettings(epochs=6, batch_size=16, learning_rate=0.1, augment=False, device="cpu")


def images(count: int = 64, *, seed: int = 0) -> TensorImages:
    """Return noise that is brighter in the upper (class 0) or the lower half (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    pixels = torch.randint(60, 140, (count, 1, SIDE, SIDE), generator=generator)
    pixels[labels == 0, :, : SIDE // 2] += 100
    pixels[labels == 1, :, SIDE // 2 :] += 100
    return TensorImages(pixels.to(torch.uint8), labels, resolution=SIDE)


def images_of(up: int, down: int) -> TensorImages:
    """Return so many images of each class."""
    both = images(2 * max(up, down))
    chosen = torch.cat([torch.arange(up) * 2, torch.arange(down) * 2 + 1])
    return TensorImages(both.read(chosen), both.labels[chosen], resolution=SIDE)


def dataset(count: int = 64, **changes: Any) -> Dataset:
    train = images(count)
    made = Dataset(
        name="toy",
        classes=("up", "down"),
        channels=1,
        resolution=SIDE,
        train=train,
        validation=images(50, seed=1),
        read_test=lambda: images(50, seed=2),
        mean=(0.6,),
        std=(0.25,),
        flips=True,
    )
    return dataclasses.replace(made, **changes)


DATA = dataset()


def trained(
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    save_every_s: float = 1e9,
    data: Dataset = DATA,
    watch: Watch | None = None,
) -> Trained:
    return training.train_network(
        ARCHITECTURE,
        data.train,
        data,
        settings,
        checkpoint=checkpoint,
        on_progress=on_progress,
        save_every_s=save_every_s,
        watch=watch,
    )


def same_weights(one: Trained, other: Trained) -> bool:
    states = one.network.state_dict(), other.network.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def enlarged() -> Dataset:
    """Return the data in twelve pixels a side: an auxiliary head needs them."""
    small = images()
    pixels = small.read(torch.arange(64)).repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :12, :12].contiguous()
    return dataset(resolution=12, train=TensorImages(pixels, small.labels, resolution=12))


class StopError(Exception):
    """Training is cut off here."""


def stop_at(step: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise StopError

    return stop


def interrupted_at(step: int, settings: TrainingSettings, checkpoint: Path, **options: Any) -> None:
    with pytest.raises(StopError):
        trained(settings, checkpoint=checkpoint, on_progress=stop_at(step), **options)


# Learning


def test_an_auxiliary_head_is_trained_with_the_network_and_left_behind() -> None:
    larger, data = CellNetwork(CELL, Scale(1, 4, 12, 2, 1)), enlarged()
    settings = dataclasses.replace(PLAIN, epochs=1)
    alone, together = (
        training.train_network(larger, data.train, data, dataclasses.replace(settings, auxiliary_weight=weight))
        for weight in (0.0, 0.4)
    )
    assert alone.network.state_dict().keys() == together.network.state_dict().keys()
    assert not same_weights(alone, together)
    assert together.history[-1].loss > alone.history[-1].loss


def test_where_there_is_no_place_for_an_auxiliary_head_it_is_said() -> None:
    with pytest.raises(InputError, match=r"needs a network of cells with 5x5 pixels or more .* got 4x4"):
        trained(dataclasses.replace(PLAIN, auxiliary_weight=0.4))


def test_a_separable_problem_is_learnt() -> None:
    estimate = evaluate(ARCHITECTURE, DATA, PLAIN)
    assert estimate.accuracy > 0.95
    assert estimate.images_seen == 6 * 64
    assert estimate.seconds > 0


def test_the_networks_loss_falls_and_is_told() -> None:
    told: list[Progress] = []
    history = trained(PLAIN, on_progress=told.append).history
    assert [entry.epoch for entry in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1].loss < history[0].loss
    assert [progress.step for progress in told] == list(range(1, 25))
    assert told[-1].epoch == 6
    assert told[-1].loss < told[0].loss
    assert all(progress.images_per_second > 0 and progress.steps == 24 for progress in told)


def test_a_seed_decides_everything() -> None:
    assert same_weights(trained(EVERYTHING), trained(EVERYTHING))
    assert not same_weights(trained(EVERYTHING), trained(dataclasses.replace(EVERYTHING, seed=4)))


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    trained(dataclasses.replace(PLAIN, epochs=0.5))
    assert torch.equal(torch.rand(3), expected)


def test_weight_decay_leaves_out_batchnorm_and_biases() -> None:
    network = Network(ARCHITECTURE.graph)
    decayed, others = training.make_optimizer(network, PLAIN).param_groups
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    spared = {id(parameter) for norm in norms for parameter in norm.parameters()}
    spared |= {id(parameter) for name, parameter in network.named_parameters() if name.endswith("bias")}
    assert {id(parameter) for parameter in others["params"]} == spared
    assert {id(parameter) for parameter in network.parameters()} - spared == {id(p) for p in decayed["params"]}
    assert (decayed["weight_decay"], others["weight_decay"]) == (PLAIN.weight_decay, 0.0)
    assert decayed["nesterov"]


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    settings = TrainingSettings(learning_rate=0.4, warm_up=0.1)
    rates = [training.learning_rate_at(step, 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.4 / 11)
    assert rates[:11] == pytest.approx([0.4 * (step + 1) / 11 for step in range(11)])
    assert rates[10] == max(rates) == 0.4
    assert rates[55] == pytest.approx(0.2)
    assert rates[32] == pytest.approx(0.2 * (1 + math.cos(math.pi * 22 / 90)))
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_rates_of_a_run_are_those_of_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    forward = Network.forward

    def watched(self: Network, inputs: Tensor) -> Tensor:
        seen.append(self.path_drop_rate)
        return forward(self, inputs)

    monkeypatch.setattr(Network, "forward", watched)
    history = trained(EVERYTHING).history
    assert seen == pytest.approx([0.3 * (step + 1) / STEPS for step in range(STEPS)])
    assert [entry.learning_rate for entry in history] == [
        training.learning_rate_at(step, STEPS, EVERYTHING) for step in (3, 7, 9)
    ]


@pytest.mark.parametrize(
    ("epochs", "images_per_epoch", "batch_size", "steps", "epoch_ends"),
    [
        (2, None, 16, 8, {1: 4, 2: 8}),
        (2.5, None, 16, 10, {1: 4, 2: 8, 2.5: 10}),
        (3, 24, 16, 5, {1: 2, 2: 3, 3: 5}),
        (0.1, None, 16, 1, {0.1: 1}),
        (2, None, 1000, 2, {1: 1, 2: 2}),  # a batch is at most the set
    ],
)
def test_steps_and_epochs_add_up(
    epochs: float, images_per_epoch: int | None, batch_size: int, steps: int, epoch_ends: dict[float, int]
) -> None:
    settings = dataclasses.replace(PLAIN, epochs=epochs, images_per_epoch=images_per_epoch, batch_size=batch_size)
    result = trained(settings)
    assert {entry.epoch: entry.step for entry in result.history} == epoch_ends
    assert result.images_seen == steps * min(batch_size, 64)


# Batches


def test_each_step_augments_by_its_own_seed_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def augmented(pixels: Tensor, data: Dataset, **options: Any) -> Tensor:
        seen.append(options)
        return _batches.augmented(pixels, data, **options)

    monkeypatch.setattr(training, "augmented", augmented)
    trained(EVERYTHING)
    assert len({options["seed"] for options in seen}) == STEPS
    assert all(options["crop"] and options["cutout"] == 3 for options in seen)


def test_a_pass_reads_every_image_once_and_every_stretch_has_all_classes() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=torch.Generator())]
    order = _batches.Order(labels, seed=1)
    first, second = order.indices(0, 100), order.indices(100, 100)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert first.tolist() != second.tolist()
    assert torch.equal(order.indices(90, 30), torch.cat([first[90:], second[:20]]))
    for length in range(10, 101, 10):
        counts = torch.bincount(labels[first[:length]], minlength=3)
        assert (counts - torch.tensor([0.6, 0.3, 0.1]) * length).abs().max() <= 1


def test_short_epochs_take_new_images_until_all_are_used() -> None:
    read: list[Tensor] = []

    class Watched(TensorImages):
        def read(self, indices: Tensor) -> Tensor:
            read.append(indices)
            return super().read(indices)

    watched = Watched(images().read(torch.arange(64)), images().labels, resolution=SIDE)
    settings = dataclasses.replace(PLAIN, epochs=2, images_per_epoch=32)
    training.train_network(ARCHITECTURE, watched, DATA, settings)
    assert sorted(torch.cat(read).tolist()) == list(range(64))


def test_normalised_images_have_the_data_sets_mean_and_deviation() -> None:
    pixels = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    data = dataset(mean=(0.5, 0.2), std=(0.5, 0.1))
    assert normalise(pixels, data).tolist() == [[[[-1, 1]], [[0, pytest.approx(2)]]]]


def shifts(pixels: Tensor, *, flip: bool) -> list[Tensor]:
    """Return every crop of one image [h, w] that is padded by an eighth of its side."""
    pad = len(pixels) // 8
    padded = torch.nn.functional.pad(pixels.flip(1) if flip else pixels, (pad,) * 4)
    size = range(2 * pad + 1)
    return [padded[top : top + len(pixels), left : left + len(pixels)] for top in size for left in size]


@pytest.mark.parametrize("flips", [True, False])
def test_crops_are_shifts_with_black_borders_flipped_only_where_allowed(flips: bool) -> None:
    pixels = torch.randint(1, 256, (1, 1, 16, 16), dtype=torch.uint8).expand(600, 2, 16, 16)
    plain = dataset(mean=(0.0, 0.0), std=(1 / 255, 1 / 255), flips=flips)
    cropped = _batches.augmented(pixels, plain, crop=True, cutout=0, seed=5)
    assert cropped.shape == pixels.shape
    assert torch.equal(cropped[:, 0], cropped[:, 1])  # channels move together
    kinds = {
        (flip, index)
        for flip in (False, True)
        for index, shift in enumerate(shifts(pixels[0, 0].float(), flip=flip))
        if (cropped[:, 0] - shift).abs().amax((1, 2)).lt(1e-3).any()
    }
    all_shifts = {(False, index) for index in range(25)}
    assert kinds == all_shifts | ({(True, index) for index in range(25)} if flips else set())


@pytest.mark.parametrize(("flips", "expected"), [("auto", False), ("on", True), ("off", False)])
def test_flips_are_made_as_is_asked_for_and_crops_without_them(
    flips: Any, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []

    def augmented(pixels: Tensor, data: Dataset, **options: Any) -> Tensor:
        seen.append((data.flips, options["crop"]))
        return _batches.augmented(pixels, data, **options)

    monkeypatch.setattr(training, "augmented", augmented)
    trained(dataclasses.replace(EVERYTHING, flips=flips), data=dataset(flips=False))
    assert set(seen) == {(expected, True)}


def test_flips_that_are_auto_are_no_news_to_a_checkpoint_of_before() -> None:
    assert "flips" not in EVERYTHING.to_json()
    assert dataclasses.replace(EVERYTHING, flips="off").to_json()["flips"] == "off"
    with pytest.raises(InputError, match="flips must be auto, on or off; got maybe"):
        dataclasses.replace(EVERYTHING, flips="maybe")  # type: ignore[arg-type]


@given(side=st.integers(1, 20), size=st.integers(2, 16), seed=st.integers(0, 99))
@repeatable(30)
def test_cutout_sets_a_square_to_the_mean(side: int, size: int, seed: int) -> None:
    pixels = torch.full((20, 1, size, size), 200, dtype=torch.uint8)
    cut = _batches.augmented(pixels, dataset(), crop=False, cutout=side, seed=seed)
    for image in cut[:, 0] == 0:
        rows, columns = image.any(1), image.any(0)
        assert 1 <= rows.sum() <= side
        assert 1 <= columns.sum() <= side
        assert torch.equal(image, rows[:, None] & columns[None, :])
        for line in (rows, columns):  # a run of pixels, as long as the side unless it hangs over a border
            assert line.diff().sum() <= 2
            assert line.sum() == min(side, size) or line[0] or line[-1]


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augment_changes_each_image_by_itself_as_the_seed_says(channels: int) -> None:
    pixels = torch.randint(256, (1, channels, 12, 12), dtype=torch.uint8).expand(64, -1, -1, -1)
    plain = dataset(mean=(0.0,) * channels, std=(1 / 255,) * channels)
    first, again, other = (
        _batches.augmented(pixels, plain, crop=False, cutout=0, seed=seed, trivial=True) for seed in (1, 1, 2)
    )
    assert first.shape == pixels.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({image.numpy().tobytes() for image in first}) > 30  # some operations leave it as it is
    assert first.min() >= 0
    assert first.max() <= 255.1


def test_trivial_augment_is_refused_for_other_channels() -> None:
    four = CellNetwork(CELL, Scale(1, 4, SIDE, 2, 4))
    pixels = images().read(torch.arange(64)).expand(-1, 4, -1, -1).contiguous()
    data = dataset(
        channels=4, mean=(0.5,) * 4, std=(0.5,) * 4, train=TensorImages(pixels, images().labels, resolution=SIDE)
    )
    with pytest.raises(InputError, match="TrivialAugment is for images of 1 or 3 channels; toy has 4; leave it out"):
        training.train_network(four, data.train, data, dataclasses.replace(PLAIN, trivial_augment=True))


def test_nothing_is_augmented_unless_asked_for() -> None:
    pixels = images().read(torch.arange(8))
    plain = _batches.augmented(pixels, DATA, crop=False, cutout=0, seed=1)
    assert torch.equal(plain, normalise(pixels, DATA))


def test_batches_that_are_read_ahead_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(device: str) -> list[tuple[Tensor, Tensor]]:
        loop = training.network_training(ARCHITECTURE, DATA.train, DATA, EVERYTHING)
        loop.hardware = dataclasses.replace(loop.hardware, device=torch.device(device))
        return list(loop._batches())

    ahead, one_by_one = batches("cuda"), batches("cpu")
    assert len(ahead) == len(one_by_one) == STEPS
    for (pixels, labels), (other_pixels, other_labels) in zip(ahead, one_by_one, strict=True):
        assert torch.equal(pixels, other_pixels)
        assert torch.equal(labels, other_labels)


# Accuracy


def test_accuracy_is_the_share_of_right_first_choices() -> None:
    network = trained(PLAIN).network
    outputs = scoring.logits(network, DATA.test, DATA, batch_size=7)
    assert outputs.shape == (50, 2)
    right = (outputs.argmax(1) == DATA.test.labels).sum().item()
    assert scoring.accuracy(network, DATA.test, DATA) == right / 50


def test_measuring_leaves_the_network_as_it_is() -> None:
    network = Network(ARCHITECTURE.graph).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    scoring.accuracy(network, DATA.test, DATA)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_saved_weights_are_the_networks(tmp_path: Path) -> None:
    result = trained(PLAIN)
    save_weights(result.network, tmp_path / "weights.safetensors")
    network = Network(ARCHITECTURE.graph)
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert scoring.accuracy(network.eval(), DATA.test, DATA) == scoring.accuracy(result.network, DATA.test, DATA)


# Stopping and going on


@pytest.fixture(scope="module")
def whole() -> Trained:
    return trained(EVERYTHING)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_training_cut_off_at_any_step_ends_with_the_same_weights(step: int, tmp_path: Path, whole: Trained) -> None:
    interrupted_at(step, EVERYTHING, tmp_path / "c", save_every_s=0)
    told: list[Progress] = []
    resumed = trained(EVERYTHING, checkpoint=tmp_path / "c", on_progress=told.append)
    assert [progress.step for progress in told] == list(range(step + 1, STEPS + 1))
    assert same_weights(resumed, whole)
    untimed = [[dataclasses.replace(epoch, seconds=0.0) for epoch in one.history] for one in (resumed, whole)]
    assert untimed[0] == untimed[1]


# Looking at a training before its end


def noted(looks: list[Look], *, stop_after: float = math.inf) -> Watch:
    """Return a watch over half an epoch, one and two, which stops at a look after `stop_after` epochs."""

    def stops(look: Look) -> bool:
        looks.append(look)
        return look.epoch >= stop_after

    return Watch((0.5, 1, 2), stops, images=1000)


def without_seconds(looks: Sequence[Look]) -> list[Look]:
    return [dataclasses.replace(look, seconds=0.0) for look in looks]


def test_looks_tell_accuracy_and_loss_and_change_nothing(whole: Trained) -> None:
    looks: list[Look] = []
    watched = trained(EVERYTHING, watch=noted(looks))
    assert same_weights(watched, whole)
    assert watched.looks == tuple(looks)
    assert not watched.stopped
    assert [look.epoch for look in looks] == [0.5, 1, 2]
    half = trained(EVERYTHING, watch=noted([], stop_after=0.5))
    assert half.looks[0].accuracy == scoring.accuracy(half.network, DATA.validation, DATA)
    losses = [epoch.loss for epoch in watched.history]
    assert (looks[0].loss + looks[1].loss) / 2 == pytest.approx(losses[0])
    assert looks[2].loss == pytest.approx(losses[1])


def test_a_look_stops_a_training(whole: Trained) -> None:
    stopped = trained(EVERYTHING, watch=noted([], stop_after=1))
    assert stopped.stopped
    assert stopped.looks[-1].epoch == 1
    assert stopped.images_seen == 4 * EVERYTHING.batch_size
    estimate = evaluate(ARCHITECTURE, DATA, EVERYTHING, watch=noted([], stop_after=1))
    assert estimate.stopped
    assert math.isnan(estimate.accuracy)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_watched_training_that_is_cut_off_shows_the_same(step: int, tmp_path: Path, whole: Trained) -> None:
    first: list[Look] = []
    expected = trained(EVERYTHING, watch=noted([])).looks
    interrupted_at(step, EVERYTHING, tmp_path / "c", save_every_s=0, watch=noted(first))
    resumed = trained(EVERYTHING, checkpoint=tmp_path / "c", watch=noted(first))
    assert same_weights(resumed, whole)
    assert without_seconds(resumed.looks) == without_seconds(expected)
    assert sorted({look.epoch for look in first}) == [0.5, 1, 2]  # each was decided upon


def test_the_images_that_are_looked_at_are_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    read = TensorImages.read
    monkeypatch.setattr(TensorImages, "read", lambda self, indices: seen.append(indices) or read(self, indices))
    trained(dataclasses.replace(PLAIN, epochs=1), watch=Watch((0.5,), lambda look: False, images=10))
    (some,) = [indices for indices in seen if len(indices) == 10]
    assert sorted(DATA.validation.labels[some].tolist()) == [0] * 5 + [1] * 5
    trained(dataclasses.replace(PLAIN, epochs=1), watch=Watch((0.5,), lambda look: False))
    assert sum(len(indices) == 10 for indices in seen) == 1  # none unless asked for


# Beginning with another network's weights


def test_weights_of_the_same_name_and_shape_are_inherited(tmp_path: Path) -> None:
    parent = trained(PLAIN)
    save_weights(parent.network, tmp_path / "parent")
    other = CellNetwork(Cell((Block(("separable_3x3", 1), ("separable_3x3", 0)),)), ARCHITECTURE.scale)
    network, before = Network(other.graph), Network(other.graph).state_dict()
    theirs = parent.network.state_dict()
    inherit(network, tmp_path / "parent")
    common = 0
    for name, tensor in network.state_dict().items():
        fits = name in theirs and theirs[name].shape == tensor.shape
        assert torch.equal(tensor, theirs[name]) if fits else tensor.shape == before[name].shape
        common += tensor.numel() * fits
    assert 0 < in_common(other, tmp_path / "parent") == common < sum(t.numel() for t in before.values())
    assert in_common(ARCHITECTURE, tmp_path / "parent") == sum(t.numel() for t in theirs.values())


def test_a_training_that_inherits_begins_better_and_is_taken_up_exactly(tmp_path: Path) -> None:
    save_weights(trained(PLAIN).network, tmp_path / "parent")
    few = dataclasses.replace(PLAIN, epochs=1, learning_rate=0.001)

    def begun(**options: Any) -> Trained:
        return training.train_network(ARCHITECTURE, DATA.train, DATA, few, initial=tmp_path / "parent", **options)

    whole = begun()
    assert whole.history[0].loss < trained(few).history[0].loss
    with pytest.raises(StopError):
        begun(checkpoint=tmp_path / "c", on_progress=stop_at(2), save_every_s=0)
    assert same_weights(begun(checkpoint=tmp_path / "c"), whole)


# Exactness of going on


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.filterwarnings("ignore:.*GradScaler")
def test_reduced_precision_is_taken_up_exactly(precision: str, tmp_path: Path) -> None:
    settings = dataclasses.replace(EVERYTHING, precision=precision)
    interrupted_at(5, settings, tmp_path / "c", save_every_s=0)
    assert same_weights(trained(settings, checkpoint=tmp_path / "c"), trained(settings))


def test_only_the_work_since_the_last_epoch_is_done_again(tmp_path: Path, whole: Trained) -> None:
    interrupted_at(7, EVERYTHING, tmp_path / "c")
    told: list[Progress] = []
    assert same_weights(trained(EVERYTHING, checkpoint=tmp_path / "c", on_progress=told.append), whole)
    assert [progress.step for progress in told] == [5, 6, 7, 8, 9, 10]


def test_a_finished_training_is_not_done_again(tmp_path: Path, whole: Trained) -> None:
    first = trained(EVERYTHING, checkpoint=tmp_path / "c")
    told: list[Progress] = []
    again = trained(EVERYTHING, checkpoint=tmp_path / "c", on_progress=told.append)
    assert not told
    assert same_weights(again, whole)
    assert (again.seconds, again.history) == (first.seconds, first.history)


def test_long_epochs_are_saved_now_and_then(tmp_path: Path) -> None:
    now = 0.0
    saved: list[int] = []

    def clock() -> float:
        return now

    def tick(progress: Progress) -> None:
        nonlocal now
        now += 25
        if (tmp_path / "c").exists():
            saved.append(step_of(tmp_path / "c"))

    training.train_network(
        ARCHITECTURE, DATA.train, DATA, EVERYTHING, checkpoint=tmp_path / "c", on_progress=tick, clock=clock
    )
    assert saved == [4, 4, 4, 7, 8, 8, 10]  # at the epochs' ends (4, 8, 10), and 75 s after the one at step 4


def step_of(checkpoint: Path) -> int:
    found = re.search(rb'\\"step\\": (\d+), \\"seconds\\"', checkpoint.read_bytes())
    assert found
    return int(found[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_the_step(number: signal.Signals, tmp_path: Path, whole: Trained) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 6:
            os.kill(os.getpid(), number)

    with raised(), pytest.raises(KeyboardInterrupt):
        trained(EVERYTHING, checkpoint=tmp_path / "c", on_progress=press)
    assert step_of(tmp_path / "c") == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert same_weights(trained(EVERYTHING, checkpoint=tmp_path / "c"), whole)


def test_ctrl_c_in_the_last_step_is_not_lost() -> None:
    def press(progress: Progress) -> None:
        if progress.step == progress.steps:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(EVERYTHING, on_progress=press)


def test_a_second_ctrl_c_stops_at_once() -> None:
    def press_twice() -> None:
        with held(second=False) as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted.is_set()
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second one was held back as well")

    with pytest.raises(KeyboardInterrupt):
        press_twice()


def test_training_runs_outside_the_main_thread() -> None:
    results: list[Trained] = []
    thread = threading.Thread(target=lambda: results.append(trained(PLAIN)))
    thread.start()
    thread.join()
    assert len(results) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
import torch._dynamo  # the optimizer would, in each child
torch.set_num_threads({threads})
from training.test_loop import EVERYTHING, trained

folder = Path({folder!r})

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def train_until_killed(name, save_every_s):
    def watch(progress):
        if progress.step == 6 and name == "writing":
            Path.replace = kill
        elif progress.step == 7:
            kill()
    trained(EVERYTHING, checkpoint=folder / name, on_progress=watch, save_every_s=save_every_s)

for name, save_every_s in (("epoch", 1e9), ("step", 0), ("writing", 0)):
    child = os.fork()
    if not child:
        train_until_killed(name, save_every_s)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of checkpoints of trainings that were killed at step 7."""
    folder, tests = tmp_path_factory.mktemp("killed"), Path(__file__).parent.parent
    paths, threads = [str(tests)], torch.get_num_threads()
    code = KILLED.format(paths=paths, threads=threads, folder=str(folder))
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.mark.parametrize(("name", "saved"), [("epoch", 4), ("step", 7), ("writing", 6)])
def test_kill_9_loses_no_checkpoint(name: str, saved: int, killed: Path, whole: Trained) -> None:
    assert len(list(killed.glob(".writing.*.tmp"))) == 1  # the one that was written when the kill came
    told: list[Progress] = []
    resumed = trained(EVERYTHING, checkpoint=killed / name, on_progress=told.append)
    assert told[0].step == saved + 1
    assert same_weights(resumed, whole)


STRONGER = dataclasses.replace(EVERYTHING, ema=0.9, mixup=0.4, cutmix=1.0, trivial_augment=True, reparameterise=True)
OTHERWISE = dataclasses.replace(EVERYTHING, optimizer="adamw", learning_rate=0.01, class_weights=True, patience=1)


@pytest.fixture(scope="module")
def whole_stronger() -> Trained:
    return trained(STRONGER)


@pytest.mark.parametrize("step", [1, 4, 5, 8, 10])
def test_adamw_class_weights_and_patience_are_taken_up_exactly(step: int, tmp_path: Path) -> None:
    settings = dataclasses.replace(OTHERWISE, patience=2)
    expected = trained(settings)
    assert expected.history[-1].step == 10
    interrupted_at(step, settings, tmp_path / "c", save_every_s=0)
    resumed = trained(settings, checkpoint=tmp_path / "c")
    assert same_weights(resumed, expected)
    assert resumed.stopped == expected.stopped


@pytest.mark.parametrize("step", [1, 3, 4, 6, 9, 10])
def test_what_makes_training_stronger_is_taken_up_exactly(step: int, tmp_path: Path, whole_stronger: Trained) -> None:
    interrupted_at(step, STRONGER, tmp_path / "c", save_every_s=0)
    resumed = trained(STRONGER, checkpoint=tmp_path / "c")
    assert same_weights(resumed, whole_stronger)
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in whole_stronger.history]


@pytest.mark.parametrize("step", [1, 4, 9])
def test_convolutions_in_parallel_are_taken_up_exactly(step: int, tmp_path: Path) -> None:
    settings = dataclasses.replace(STRONGER, branches=3)
    interrupted_at(step, settings, tmp_path / "c", save_every_s=0)
    resumed = trained(settings, checkpoint=tmp_path / "c")
    assert same_weights(resumed, trained(settings))


def test_other_branches_are_another_training(tmp_path: Path, whole_stronger: Trained) -> None:
    settings = dataclasses.replace(STRONGER, branches=2)
    interrupted_at(4, settings, tmp_path / "c")
    assert settings.to_json() == STRONGER.to_json() | {"branches": 2}
    with pytest.raises(TrainingError, match=r"settings.branches = 2, and now it is 3"):
        trained(dataclasses.replace(STRONGER, branches=3), checkpoint=tmp_path / "c")
    assert not same_weights(trained(settings, checkpoint=tmp_path / "c"), whole_stronger)


@pytest.mark.parametrize(
    "change",
    [
        {"ema": 0.9},
        {"mixup": 0.4},
        {"cutmix": 1.0},
        {"mixup": 0.4, "cutmix": 1.0},
        {"trivial_augment": True},
        {"reparameterise": True},
        {"optimizer": "adamw", "learning_rate": 0.05},
        {"class_weights": True},
    ],
)
def test_each_strength_changes_the_training_and_is_part_of_what_a_checkpoint_is_of(
    change: dict[str, Any], tmp_path: Path
) -> None:
    few = dataclasses.replace(PLAIN, epochs=1)
    data = dataset(train=images_of(48, 16))
    plain, stronger = trained(few, data=data), trained(dataclasses.replace(few, **change), data=data)
    assert not same_weights(plain, stronger)
    assert type(stronger.network) is Network
    assert stronger.network.state_dict().keys() == plain.network.state_dict().keys()
    interrupted_at(2, few, tmp_path / "c", save_every_s=0, data=data)
    with pytest.raises(TrainingError, match=r"settings\.\w+ = (nothing|0\.1), and now it is"):
        trained(dataclasses.replace(few, **change), checkpoint=tmp_path / "c", data=data)


def test_what_an_older_hwnas_did_not_know_is_written_only_where_it_differs() -> None:
    known = {"epochs", "images_per_epoch", "batch_size", "learning_rate", "warm_up", "momentum", "weight_decay"}
    known |= {"label_smoothing", "clip_gradient_norm", "augment", "cutout", "path_drop_rate", "dropout_rate", "seed"}
    assert PLAIN.to_json().keys() == known | {"auxiliary_weight", "device", "precision", "channels_last", "compile"}
    changed = {"ema": 0.9, "mixup": 0.4, "cutmix": 1.0, "trivial_augment": True, "reparameterise": True}
    assert STRONGER.to_json() == EVERYTHING.to_json() | changed


def test_an_auxiliary_head_and_a_compiled_network_go_with_every_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: torch.nn.Sequential(module))
    larger, data = CellNetwork(CELL, Scale(1, 4, 12, 2, 1)), enlarged()
    settings = dataclasses.replace(STRONGER, epochs=0.5, auxiliary_weight=0.4, compile=True)
    network = training.train_network(larger, data.train, data, settings).network
    assert network.state_dict().keys() == Network(larger.graph).state_dict().keys()


# Stopping early


def test_patience_ends_a_training_and_keeps_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[dict[str, Tensor]] = []
    made = [0.5, 0.8, 0.7, 0.8, 0.9]

    def scores(network: Network, images: TensorImages, data: Dataset) -> scoring.Scores:
        assert images is data.validation
        states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return scoring.Scores(made[len(states) - 1], 0.0)

    monkeypatch.setattr(training, "scores", scores)
    result = trained(dataclasses.replace(PLAIN, epochs=5, patience=2))
    assert (result.stopped, len(result.history)) == (True, 4)
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in result.network.state_dict().items())


def test_patience_counts_on_after_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = iter([0.8, 0.7, 0.6, 0.9])
    monkeypatch.setattr(training, "scores", lambda *_: scoring.Scores(next(made), 0.0))
    settings = dataclasses.replace(PLAIN, epochs=5, patience=2)
    interrupted_at(9, settings, tmp_path / "c")
    result = trained(settings, checkpoint=tmp_path / "c")
    assert (result.stopped, len(result.history)) == (True, 3)


def test_with_class_weights_the_best_epoch_is_by_balanced_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter([scoring.Scores(0.9, 0.6), scoring.Scores(0.8, 0.7), scoring.Scores(0.7, 0.6)])
    monkeypatch.setattr(training, "scores", lambda *_: next(made))
    result = trained(dataclasses.replace(PLAIN, epochs=3, patience=1, class_weights=True))
    assert (result.stopped, len(result.history)) == (False, 3)


def test_patience_with_the_average_keeps_the_best_average() -> None:
    result = trained(dataclasses.replace(EVERYTHING, ema=0.5, patience=1, reparameterise=True))
    assert type(result.network) is Network
    assert all(tensor.isfinite().all() for tensor in result.network.state_dict().values())


# The average of weights


def test_the_average_is_of_weights_and_statistics_and_its_decay_warms_up() -> None:
    network = Network(ARCHITECTURE.graph)
    average, expected = Average(network, decay=0.3), network.state_dict()
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    for step in range(4):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.add_(step + 1)
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, tensor in average.network.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, expected[name], atol=1e-5)
    assert not average.network.training


def test_looks_see_the_average() -> None:
    settings = dataclasses.replace(EVERYTHING, ema=0.9)
    half = trained(settings, watch=noted([], stop_after=0.5))
    assert half.looks[0].accuracy == scoring.accuracy(half.network, DATA.validation, DATA)
    assert not same_weights(half, trained(EVERYTHING, watch=noted([], stop_after=0.5)))


# What is refused


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 0.06}, "settings.learning_rate"),
        ({"seed": 9}, "settings.seed"),
        ({"epochs": 3}, "settings.epochs"),
    ],
)
def test_other_settings_are_refused_by_name(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    interrupted_at(4, EVERYTHING, tmp_path / "c")
    with pytest.raises(TrainingError, match=rf"{re.escape(named)} = .*delete"):
        trained(dataclasses.replace(EVERYTHING, **change), checkpoint=tmp_path / "c")


def test_other_data_and_architectures_are_refused_by_name(tmp_path: Path) -> None:
    interrupted_at(4, EVERYTHING, tmp_path / "c")
    with pytest.raises(TrainingError, match=r"data.images = 64, and now it is 66"):
        trained(EVERYTHING, checkpoint=tmp_path / "c", data=dataset(66))
    wider = ARCHITECTURE.at(ARCHITECTURE.scale.with_filters(6))
    with pytest.raises(TrainingError, match=r"architecture.scale.filters = 4, and now it is 6"):
        training.train_network(wider, DATA.train, DATA, EVERYTHING, checkpoint=tmp_path / "c")


@pytest.mark.parametrize("damage", ["empty", "truncated", "header", "weights", "state", "number", "other", "version"])
def test_broken_checkpoints_are_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "c"
    interrupted_at(4, EVERYTHING, path)
    content = bytearray(path.read_bytes())
    if damage == "weights":
        content[-100] ^= 1
    elif damage == "state":
        at = content.index(b'step\\": 4, \\"seconds') + 8
        content[at : at + 1] = b"5"
    elif damage == "number":
        tensors, state = _checkpoint.load(path)
        text = json.dumps({**state, "seconds": "999"}).replace('"999"', "1e999")
        crc32 = _checkpoint.checksum(tensors, text)
        _checkpoint.write_tensors(path, tensors, metadata={"state": text, "crc32": str(crc32)})
        content = bytearray(path.read_bytes())
    elif damage == "version":
        at = content.index(b'version\\": 2') + 11
        content[at : at + 1] = b"9"
    elif damage == "header":
        content[8:20] = bytes(12)
    elif damage == "other":
        save_weights(trained(PLAIN).network, path)
        content = bytearray(path.read_bytes())
    kept = {"empty": 0, "truncated": len(content) // 2}.get(damage, len(content))
    path.write_bytes(content[:kept])
    with pytest.raises(TrainingError, match=rf"{re.escape(str(path))}.*delete it to train anew"):
        trained(EVERYTHING, checkpoint=path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    _checkpoint.save(tmp_path / "c", {}, {"version": 1})
    with pytest.raises(TrainingError, match=r"must be of version 2; .* is of version 1"):
        trained(EVERYTHING, checkpoint=tmp_path / "c")


@pytest.mark.parametrize("every", [1, 4])
def test_a_loss_that_is_not_finite_stops_with_the_steps_number(
    every: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forward, calls = Network.forward, 0

    def broken(self: Network, inputs: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return forward(self, inputs) * (math.nan if calls == 6 else 1)

    monkeypatch.setattr(Network, "forward", broken)
    monkeypatch.setattr(training, "_check_every", lambda _: every)
    with pytest.raises(TrainingError, match=r"got nan at step 6 of 10.*lower the learning rate"):
        trained(EVERYTHING, checkpoint=tmp_path / "c", save_every_s=0 if every == 1 else 1e9)
    assert step_of(tmp_path / "c") == (5 if every == 1 else 4)  # what is not finite is never saved


def test_weights_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Network.forward

    def overflows(self: Network, inputs: Tensor) -> Tensor:
        outputs = forward(self, inputs)
        return outputs + (outputs - outputs.detach()).abs().sqrt()  # adds 0, with an infinite slope

    monkeypatch.setattr(Network, "forward", overflows)
    with pytest.raises(TrainingError, match="the last step made weights that are not"):
        trained(dataclasses.replace(PLAIN, epochs=0.1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", math.nan),
        ("batch_size", 1),
        ("learning_rate", 0),
        ("learning_rate", 1e300),
        ("momentum", 1),
        ("images_per_epoch", 0),
        ("label_smoothing", -0.1),
        ("path_drop_rate", 1),
        ("cutout", -1),
        ("ema", 1),
        ("ema", -0.1),
        ("mixup", -1),
        ("mixup", math.nan),
        ("cutmix", 1e9),
        ("patience", -1),
        ("optimizer", "adam"),
        ("branches", 0),
        ("branches", 1000),
        ("temperature", 0),
        ("distillation_weight", 0),
        ("distillation_weight", 1.1),
        ("precision", "fp8"),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"{field} must be .*; got {re.escape(str(value))}"):
        dataclasses.replace(PLAIN, **{field: value})


def test_a_learning_rate_for_sgd_is_refused_with_adamw() -> None:
    with pytest.raises(InputError, match=r"learning_rate must be above 0, and at most 0.05 with adamw; got 0.1"):
        dataclasses.replace(PLAIN, optimizer="adamw")


def test_an_architecture_for_other_data_is_refused() -> None:
    with pytest.raises(InputError, match=r"it has \(2, 1, 8\), toy has \(3, 1, 8\)"):
        trained(PLAIN, data=dataset(classes=("a", "b", "c")))


# Devices


def hardware(device: str = "cpu", precision: str = "auto", channels_last: bool | None = None) -> _hardware.Hardware:
    return _hardware.choose(device, precision=precision, channels_last=channels_last)


def test_the_cpu_computes_in_fp32_and_channels_last() -> None:
    assert hardware() == _hardware.Hardware(torch.device("cpu"), None, torch.channels_last)
    assert hardware(precision="bf16").autocast is torch.bfloat16
    assert hardware(channels_last=False).memory_format is torch.contiguous_format


@pytest.mark.parametrize(("bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_cuda_computes_in_bf16_where_it_can(bf16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    assert hardware("auto") == _hardware.Hardware(torch.device("cuda"), expected, torch.channels_last)
    assert hardware("cuda:1", precision="fp32").autocast is None


def test_mps_computes_in_fp32_and_contiguously(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware("auto") == _hardware.Hardware(torch.device("mps"), None, torch.contiguous_format)


@pytest.mark.parametrize("device", ["cuda", "tpu", ""])
def test_a_device_that_is_not_there_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"device must be auto or one that is there \(.*cpu\)"):
        hardware(device)


@pytest.mark.parametrize("layout", [True, False])
def test_the_network_has_the_wanted_layout(layout: bool) -> None:
    cell = Cell((Block(("conv_3x3", 1), ("identity", 1)),))
    settings = dataclasses.replace(PLAIN, epochs=0.1, channels_last=layout)
    network = training.train_network(CellNetwork(cell, ARCHITECTURE.scale), DATA.train, DATA, settings).network
    convolutions = [part for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    weight = next(part.weight for part in convolutions if part.kernel_size == (3, 3) and part.in_channels > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) is layout


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_learns_on_the_cpu(precision: str) -> None:
    result = trained(dataclasses.replace(PLAIN, precision=precision))
    assert scoring.accuracy(result.network, DATA.validation, DATA) > 0.9
    assert all(parameter.dtype is torch.float32 for parameter in result.network.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_cuda_learns_and_goes_on_from_a_checkpoint(precision: str, tmp_path: Path) -> None:
    settings = dataclasses.replace(PLAIN, device="cuda", precision=precision, epochs=8, augment=True)
    interrupted_at(20, settings, tmp_path / "c")
    told: list[Progress] = []
    result = trained(settings, checkpoint=tmp_path / "c", on_progress=told.append)
    assert [progress.step for progress in told] == [24, 28, 32]  # losses are looked at when an epoch ends
    assert next(result.network.parameters()).is_cuda
    assert scoring.accuracy(result.network, DATA.validation, DATA) > 0.9


def test_compiling_changes_neither_weights_nor_their_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: Trained
) -> None:
    compiled: list[torch.nn.Module] = []

    def compiling(module: torch.nn.Module) -> torch.nn.Module:
        compiled.append(module)
        return torch.nn.Sequential(module)  # as torch.compile does, another module around it

    monkeypatch.setattr(torch, "compile", compiling)
    result = trained(dataclasses.replace(EVERYTHING, compile=True), checkpoint=tmp_path / "c")
    assert len(compiled) == 1
    assert same_weights(result, whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_compiles() -> None:
    result = trained(dataclasses.replace(PLAIN, device="cuda", compile=True))
    assert scoring.accuracy(result.network, DATA.validation, DATA) > 0.9


def test_threads_that_train_at_once_end_with_the_weights_of_each_alone_and_the_callers_random_state_is_kept() -> None:
    settings = [dataclasses.replace(EVERYTHING, seed=seed, dropout_rate=0.5) for seed in range(3)]
    alone = [trained(one) for one in settings]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(trained, settings))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(same_weights, together, alone))
    assert not same_weights(*alone[:2])
