"""Known weights: sorted by importance a network computes what it did, and a bank of it what torchvision's does."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from networks import random_cells
from safetensors.torch import save_file
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.network import Chain, Scale
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.published import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from hwnas.spaces import mbconv, random_parameters
from hwnas.training.bank import Bank
from hwnas.training.importance import sort_channels
from hwnas.training.module import Network, weighted
from hwnas.training.pretrained import torchvisions_network

CHAINS = {
    make.__name__: make(resolution=64, classes=5, padding="symmetric")
    for make in (mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large)
}


@cache
def torchvisions(name: str) -> nn.Module:
    """Return torchvision's network, in eval mode, with weights of which no two channels are alike, norms included."""
    torch.manual_seed(0)
    network: nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=5)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of torchvision's checkpoints, NAME.pth."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in CHAINS:
        torch.save(torchvisions(name).state_dict(), folder / f"{name}.pth")
    return folder


@cache
def known(path: Path) -> Network:
    network = torchvisions_network(path, channels=3)
    sort_channels(network)
    return network


@cache
def outputs(name: str) -> tuple[Tensor, Tensor]:
    """Return images, and what torchvision's network computes of them."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, torchvisions(name)(images)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_a_network_sorted_by_importance_computes_what_it_did(checkpoints: Path, name: str) -> None:
    before = torchvisions_network(checkpoints / f"{name}.pth", channels=3).state_dict()
    network = Network(CHAINS[name].graph).eval()
    network.load_state_dict(before)
    sort_channels(network)
    images, expected = outputs(name)
    with torch.no_grad():
        assert (network(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    kernels = [key for key, tensor in before.items() if tensor.dim() == 4]
    assert not any(torch.equal(before[key], network.state_dict()[key]) for key in kernels)


def test_the_channels_that_are_read_by_the_largest_weights_come_first(checkpoints: Path) -> None:
    for _, layer, inner, _ in weighted(known(checkpoints / "mobilenet_v2.pth")):
        if layer.name.endswith("project"):  # alone reads the channels of the depthwise convolution
            read = inner.weight.abs().sum((0, 2, 3))
            assert (read[:-1] >= read[1:]).all()


@pytest.mark.parametrize(("name", "larger"), [*zip(CHAINS, (False,) * 3, strict=True), ("mobilenet_v3_small", True)])
def test_a_bank_at_the_checkpoints_architecture_computes_what_torchvisions_does(
    checkpoints: Path, name: str, larger: bool
) -> None:
    """So does one that holds more, wider and with larger kernels, at the slice of that architecture."""
    network, chain, bank = known(checkpoints / f"{name}.pth"), CHAINS[name], Bank(seed=0)
    if larger:
        blocks = [
            replace(block, kernel=7, expanded=block.expanded + 8 * (place > 0), squeezed=block.squeezed and 300)
            for place, block in enumerate(chain.blocks)
        ]
        bank.hold(replace(chain, blocks=tuple(blocks), hidden=chain.hidden and 1400).graph)
    bank.hold(chain.graph)
    assert len(bank.take(network)) >= len(list(network.parameters()))
    statistics = {
        place: (norm.running_mean, norm.running_var) for place, _, _, norm in weighted(network) if norm is not None
    }
    images, expected = outputs(name)
    with torch.no_grad():
        logits = bank.eval()(chain.graph, images, statistics)
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


def largest(*, classes: int, skeleton: Any) -> Chain:
    (choice,) = random_parameters(mbconv, 1, seed=0)
    return mbconv.architecture(mbconv.largest(choice), Scale(4, 16, 64, classes, 3, skeleton))


@pytest.mark.parametrize(("name", "skeleton"), [*zip(CHAINS, ("imagenet", "cifar", "cifar"), strict=True)])
def test_the_spaces_blocks_begin_with_those_of_the_same_resolution_and_position(
    checkpoints: Path, name: str, skeleton: Any
) -> None:
    network, bank = known(checkpoints / f"{name}.pth"), Bank(seed=0)
    bank.hold(largest(classes=7, skeleton=skeleton).graph)
    ours = dict(bank.named_parameters())
    begun = {name: tensor.clone() for name, tensor in ours.items()}
    taken = bank.take(network)
    assert not any(name.startswith("classifier") for name in taken)  # it is of other classes
    assert all(torch.equal(ours[name], begun[name]) for name in ours.keys() - set(taken))
    theirs = {"/".join(map(str, layer.origin)): inner.weight for _, layer, inner, _ in weighted(network)}
    for place in ("stage/1/block/0", "stage/2/block/1", "stage/5/block/2"):
        kernel, known_kernel = ours[f"{place}/depthwise:weight:"], theirs[f"{place}/depthwise"]
        count, margin = min(len(kernel), len(known_kernel)), (7 - known_kernel.shape[2]) // 2
        middle = kernel[:count, :, margin : 7 - margin, margin : 7 - margin]
        assert torch.equal(middle, known_kernel[:count])
        assert torch.isclose(kernel[:count].abs().sum(), middle.abs().sum())  # around it are zeros


def test_mobilenet_v3_large_fills_each_of_the_spaces_stages_as_deep_as_it_is(checkpoints: Path) -> None:
    bank = Bank(seed=0)
    bank.hold(largest(classes=5, skeleton="imagenet").graph)
    taken = bank.take(known(checkpoints / "mobilenet_v3_large.pth"))
    blocks = {tuple(name.split("/")[1:4:2]) for name in taken if name.startswith("stage/")}
    assert [sum(stage == str(number) for stage, _ in blocks) for number in range(6)] == [1, 2, 3, 4, 2, 3]
    assert {
        *(
            f"chain/{name}"
            for name in ("stem:weight:", "head:weight:", "hidden:weight:", "hidden:bias:", "classifier:weight:")
        )
    } <= set(taken)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_a_safetensors_file_in_any_order_is_read_as_torchs(checkpoints: Path, tmp_path: Path, name: str) -> None:
    state = torch.load(checkpoints / f"{name}.pth", weights_only=True)
    save_file(dict(sorted(state.items(), reverse=True)), tmp_path / "x.safetensors")
    ours, theirs = (
        torchvisions_network(path, channels=3).state_dict()
        for path in (tmp_path / "x.safetensors", checkpoints / f"{name}.pth")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def refused() -> Iterator[tuple[Any, int, str]]:
    """Yield what a file holds, the channels of the data, and how it is refused."""
    narrow = torchvision.models.mobilenet_v2(weights=None, width_mult=0.35, num_classes=2).state_dict()
    other = torchvision.models.squeezenet1_1(weights=None, num_classes=2).state_dict()
    named = "must be torchvision's checkpoint of one of mobilenet-v2, mobilenet-v3-large, mobilenet-v3-small"
    yield narrow, 3, rf"{named}, of width 1; it has 262 tensors, the first features.0.0.weight \(16, 3, 3, 3\)"
    yield other, 3, rf"{named}.*it has 52 tensors.*leave --weights out"
    yield {}, 3, rf"{named}.*it has 0 tensors"
    yield {"x": torch.ones(())}, 3, named
    yield narrow, 1, "must be of a network that reads images of 1 channels, as the data have; it reads 3. Give the data"
    yield {"epoch": 3}, 3, "must be a network's weights, a state dict; it holds epoch"


def test_what_is_no_such_checkpoint_is_refused_in_words(checkpoints: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content, channels, said in refused():
        torch.save(content, path)
        with pytest.raises(InputError, match=rf"x\.pth {said}"):
            torchvisions_network(path, channels=channels)
    whole = (checkpoints / "mobilenet_v3_small.pth").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"x\.pth must be a network's weights.*it is broken"):
        torchvisions_network(path, channels=3)
    path.unlink()
    with pytest.raises(InputError, match=r"x\.pth must be a network's weights.*No such file"):
        torchvisions_network(path, channels=3)


def test_a_whole_network_is_not_read_and_it_is_said_how_to_save_its_weights(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    torch.save(network, tmp_path / "whole.pth")
    torch.save({"network": network}, tmp_path / "inside.pth")
    for name in ("whole.pth", "inside.pth"):
        with pytest.raises(
            InputError, match=rf"{name} must be .*, a state dict; it holds more .* torch.save\(network.st"
        ):
            torchvisions_network(tmp_path / name, channels=3)


def test_what_asks_for_more_memory_than_there_is_is_refused_in_words(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(InputError, match="it asks for more memory than there is, so it is broken or too large"):
        torchvisions_network(checkpoints / "mobilenet_v2.pth", channels=3)


def test_values_that_are_concatenated_are_not_sorted() -> None:
    (cell,) = random_cells(1, seed=0)
    network = Network(CellNetwork(replace(cell, concat="all"), Scale(1, 4, 8, 3, 1)).graph)
    with pytest.raises(ValueError, match="they have no order"):
        sort_channels(network)
