"""Published networks with weights from a file are exported as winners are, and torchvision's compute torchvision's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from networks import network
from pretended import ScriptedDevice
from safetensors.torch import save_file
from torch import Tensor, nn

import hwnas
from hwnas import datasets, formats
from hwnas.artefacts import published
from hwnas.artefacts.card import GivenWeights
from hwnas.artefacts.exporting import Exported
from hwnas.artefacts.files import read_check
from hwnas.artefacts.source import TrainedNetwork
from hwnas.cli.show_runs import show_exported
from hwnas.errors import InputError, UnknownNameError
from hwnas.network.kinds.chain import Chain
from hwnas.network.published import PUBLISHED, published_network
from hwnas.training import pretrained

NAME = "mobilenet-v3-small"
CLASSES = 3


def write_colours(path: Path, *, side: int = 32) -> str:
    """Write small images of three classes that differ in colour; return the data set's name."""
    random = np.random.default_rng(0)
    labels = np.arange(30) % CLASSES
    pixels = random.integers(0, 120, (30, side, side, 3)) + 130 * np.eye(CLASSES, dtype=int)[labels][:, None, None]
    np.savez(path, x_train=pixels.astype(np.uint8), y_train=labels, x_test=pixels[::-1].astype(np.uint8), y_test=labels)
    return f"npz:{path}"


def theirs(classes: int = CLASSES) -> nn.Module:
    """Return torchvision's network with norms that are worth folding."""
    torch.manual_seed(0)
    module: nn.Module = torchvision.models.mobilenet_v3_small(num_classes=classes)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module.eval()


def checkpoint(path: Path, classes: int = CLASSES) -> str:
    torch.save(theirs(classes).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an artefact of torchvision's weights that tests only read."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        ScriptedDevice(monkeypatch).takes = lambda name: (2.5,)
        options: dict[str, Any] = {
            "device": "pretend",
            "data": write_colours(Path("images.npz")),
            "resolution": 32,
            "seed": 3,
        }
        weights, files = checkpoint(Path("small.pth")), ["model.tflite", "model.onnx"]
        (exported,) = hwnas.export(NAME, weights=weights, out=str(folder / "export"), files=files, **options)
        assert hwnas.export(NAME, weights=weights, out=str(folder / "export"), files=files, **options) == [exported]
    return exported


def test_the_files_compute_what_torchvision_computes_of_its_own_input(made: Exported) -> None:
    check = read_check(Path(made.folder), made.card)
    mean, std = (np.array(value).reshape(3, 1, 1) for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = ((check.pixels / 255 - mean) / std).astype(np.float32)
    with torch.no_grad():
        expected = theirs()(torch.from_numpy(images)).numpy()
    assert np.abs(check.logits - expected).max() <= 1e-5 * np.abs(expected).max()
    for name, entry in made.card.files.items():
        found = formats.get(entry.runtime).load(Path(made.folder, name))(images)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert made.card.accuracy.test == pytest.approx((expected.argmax(1) == check.labels).mean())


def test_the_artefact_is_as_whole_as_a_winners(made: Exported) -> None:
    assert Path(made.folder).parts[-2:] == (NAME, "32")
    assert all(one.fine for one in hwnas.verify(made.folder, device="host"))
    assert (made.card.run, made.card.trial, made.card.cap_ms) == (NAME, None, None)
    assert made.card.training == GivenWeights(weights="small.pth")
    assert made.card.accuracy.test_of == made.card.accuracy_of == "given weights"
    assert made.card.data.seed == 3
    assert [entry.measured_ms for entry in made.card.files.values()] == [2.5, 2.5]
    readme = Path(made.folder, "README.md").read_text()
    assert f"---\n\n# {NAME}\n" in readme
    assert "with the weights of small.pth." in readme
    assert hwnas.describe(made.folder).parameters == made.card.parameters  # type: ignore[union-attr]


def test_a_published_network_is_listed_by_its_name_without_a_prediction_and_a_cap(
    made: Exported, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show_exported([made])
    row = next(line for line in capsys.readouterr().out.splitlines() if NAME in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert (cells[0], cells[-3:]) == (NAME, ["no", "2.500", "no"])


def test_random_weights_are_timed_and_have_no_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ScriptedDevice(monkeypatch).takes = lambda name: (2.5,)
    files = ["model.tflite", "model.int8.tflite"]
    options: dict[str, Any] = {"device": "pretend", "setting": "tflite-int8-1t", "resolution": 32, "files": files}
    (one,) = hwnas.export(NAME, weights="random", data=write_colours(Path("i.npz")), **options)
    assert one.card.accuracy.test is None
    assert one.card.files["model.int8.tflite"].measured_ms == 2.5
    assert one.card.setting == "tflite-int8-1t"
    assert all(verified.fine for verified in hwnas.verify(one.folder, device="host"))
    readme = Path(one.folder, "README.md").read_text()
    assert "random weights: it can be timed" in readme
    assert "images of the test set" not in readme
    show_exported([one])


def load(weights: str, folder: Path, name: str = NAME) -> TrainedNetwork:
    data = write_colours(folder / "images.npz")
    asked = published.ask(name, weights=weights, data=data, resolution=32, seed=None, device=None, setting=None)
    return published.load_published(asked, asked.weights_sha256)


def test_hwnas_own_weights_come_with_its_padding_and_the_normalisation_of_the_data(tmp_path: Path) -> None:
    architecture = published_network(NAME, resolution=64, classes=CLASSES)
    own = network(architecture.graph)
    save_file(own.state_dict(), tmp_path / "weights.safetensors")
    trained = load(str(tmp_path / "weights.safetensors"), tmp_path)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in trained.network.state_dict().items())
    assert trained.architecture.to_json()["padding"] == "same"
    assert trained.dataset.mean == datasets.load(trained.dataset.name, resolution=32).mean
    assert trained.data.mean == trained.dataset.mean


def test_checkpoints_without_the_norms_counters_are_read_too(tmp_path: Path) -> None:
    state = theirs().state_dict()
    torch.save({name: value for name, value in state.items() if "num_batches" not in name}, tmp_path / "old.pth")
    trained = load(str(tmp_path / "old.pth"), tmp_path)
    assert trained.architecture.to_json()["padding"] == "symmetric"
    assert trained.dataset.mean == pretrained.IMAGENET_MEAN


def cut_off(path: Path) -> None:
    checkpoint(path)
    path.write_bytes(path.read_bytes()[:100_000])


def whole_module(path: Path) -> None:
    torch.save(theirs(), path)


def training_checkpoint(path: Path) -> None:
    torch.save({"model": theirs().state_dict(), "epoch": 3}, path)


def with_nan(path: Path) -> None:
    state: dict[str, Tensor] = theirs().state_dict()
    state["classifier.3.bias"][0] = torch.nan
    torch.save(state, path)


def of_other_classes(path: Path) -> None:
    checkpoint(path, classes=5)


def of_another_network(path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(num_classes=CLASSES).state_dict(), path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "a state dict; No such file or directory. Give torchvision's checkpoint"),
        (lambda path: path.write_text("<html>"), "a state dict; it is broken, or holds something else. Give"),
        (cut_off, "a state dict; it is broken, or holds something else"),
        (whole_module, "a state dict; it holds more than tensors, .* save it by torch.save"),
        (training_checkpoint, "it holds model, epoch, and not tensors alone"),
        (with_nan, r"classifier.3.bias has numbers that are not finite"),
        (of_other_classes, r"for the 3 classes and 3 channels of npz:.* got classifier.3.weight \(5, 1024\)"),
        (of_another_network, "of mobilenet-v3-small for the 3 classes .* it has 210 tensors, got 52"),
    ],
)
def test_a_file_of_other_weights_is_named(tmp_path: Path, write: Callable[[Path], object], words: str) -> None:
    write(tmp_path / "some.pth")
    with pytest.raises(InputError, match=rf"some\.pth must .*{words}"):
        load(str(tmp_path / "some.pth"), tmp_path)


def test_networks_that_torchvision_has_not_take_hwnas_own_weights_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torchvision has no such network: give weights that hwnas saved"):
        load(checkpoint(tmp_path / "some.pth"), tmp_path, "nasnet-a-mobile")
    with pytest.raises(InputError, match=r"torchvision has no such network: give weights that hwnas saved"):
        load(checkpoint(tmp_path / "some.pth"), tmp_path, "efficientnet-lite0")  # another's weights may have its shapes
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"weights of nasnet-a-mobile for the 3 classes .* Missing key"):
        load(str(tmp_path / "a.safetensors"), tmp_path, "nasnet-a-mobile")


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        (NAME, {"data": "cifar10"}, "needs --weights, .* To have it only timed, type --weights random"),
        (NAME, {"weights": "random"}, "needs --data, on whose images"),
        (NAME, {"weights": "random", "data": "cifar10", "trial": 3}, "--trial is one of a run's"),
        (NAME, {"weights": "none.pth", "data": "cifar10"}, "none.pth must be a network's weights"),
        ("runs/a", {"weights": "random"}, "published networks mobilenet-v2, .*got runs/a. Name one"),
        ("mobilenet-v4", {"data": "cifar10"}, "published networks mobilenet-v2, .*got mobilenet-v4"),
        ("mobilenet-v4", {}, "must be a run's folder"),
    ],
)
def test_what_is_missing_or_too_much_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, options: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        hwnas.export(what, **options)
    assert not list(tmp_path.iterdir())


def test_an_unknown_setting_is_found_before_anything_is_read() -> None:
    with pytest.raises(UnknownNameError, match="setting of device host"):
        hwnas.export(NAME, weights="random", data="cifar10", setting="tflite-fp64-1t")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_network_is_for_any_data(name: str) -> None:
    graph = published_network(name, resolution=64, classes=7, channels=1).graph
    assert graph.layers[0].shape == (1, 64, 64)
    assert graph.output_shape[0] == 7
    assert isinstance(published_network(name), Chain) != name.endswith("-mobile")
