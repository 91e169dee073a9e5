"""What export asks of the files, in which setting it times each, and what it writes beside them.

The whole verb is in test_end_to_end.py.
"""

import ast
import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_images
from networks import network
from PIL import Image
from pretended import ScriptedDevice
from safetensors.torch import load_file, save_file
from tiny_models import WRITERS
from winners import MODELS, trained_run

import hwnas
from hwnas import datasets, formats
from hwnas.artefacts import files as artefact
from hwnas.artefacts import texts as export_texts
from hwnas.artefacts import timing
from hwnas.artefacts import writing as export_files
from hwnas.artefacts.card import Card, FileEntry
from hwnas.artefacts.comparison import Comparison, compare_logits
from hwnas.artefacts.exporting import Exported
from hwnas.artefacts.files import FILES
from hwnas.artefacts.source import Purpose
from hwnas.artefacts.writing import refuse_other_outputs, write_checked
from hwnas.cli import show_runs
from hwnas.cli.main import main
from hwnas.datasets._reader import read_square
from hwnas.device.device import Device, Setting
from hwnas.errors import ExportError, InputError
from hwnas.formats import tflite
from hwnas.formats._inputs import Form, Input
from hwnas.network.architecture import Architecture
from hwnas.network.scale import Scale
from hwnas.runs.run import RunIdentity
from hwnas.spaces import pnas, random_parameters
from hwnas.support.files import write_json
from hwnas.training import calibration as calibrating
from hwnas.training import fine_tuning, spread
from hwnas.training.loop import accuracy
from hwnas.training.module import Network
from hwnas.training.scoring import logits

FP32, INT8 = Setting(runtime="tflite"), Setting(runtime="tflite", precision="int8", threads=2)


def setting_for(runtime: str, precision: str, *, own: str = "tflite-fp32-1t", device: tuple[Setting, ...]) -> str:
    purpose = Purpose("a", "here", own, threads=int(own[-2]))
    chosen = timing.setting_for(runtime, precision, Device(name="here", settings=device), purpose)
    return chosen.name if chosen else ""


def test_a_file_is_timed_in_the_setting_of_its_runtime_and_precision() -> None:
    device = (FP32, INT8, Setting(runtime="onnx"))
    assert setting_for("tflite", "fp32", device=device) == "tflite-fp32-1t"
    assert setting_for("tflite", "int8", device=device) == "tflite-int8-2t"
    assert setting_for("onnx", "fp32", device=device) == "onnx-fp32-1t"


def test_the_runs_own_setting_keeps_its_threads_and_the_other_precision_its_own() -> None:
    assert setting_for("tflite", "int8", own="tflite-int8-4t", device=(FP32, INT8)) == "tflite-int8-4t"
    assert setting_for("tflite", "fp32", own="tflite-int8-4t", device=(FP32, INT8)) == "tflite-fp32-1t"


def test_a_runs_setting_for_the_gpu_is_its_own_and_no_other_files() -> None:
    gpu = FP32.model_copy(update={"accelerator": "gpu"})
    assert setting_for("tflite", "fp32", own=gpu.name, device=(FP32, gpu)) == "tflite-fp32-gpu-1t"
    assert setting_for("tflite", "int8", own=gpu.name, device=(gpu, FP32)) == "tflite-int8-1t"
    assert setting_for("tflite", "int8", own=gpu.name, device=(gpu,)) == ""


def test_a_device_without_a_setting_for_int8_is_asked_for_it_all_the_same_and_one_without_the_runtime_is_not() -> None:
    assert setting_for("tflite", "int8", device=(FP32,)) == "tflite-int8-1t"
    assert setting_for("onnx", "fp32", device=(FP32,)) == ""


def checked(*, error: float = 0.0, agreement: float = 1.0) -> Comparison:
    return Comparison(images=70, max_relative_error=error, agreement=agreement, accuracy=0.5)


@pytest.mark.parametrize(
    ("precision", "found", "words"),
    [
        ("fp32", checked(error=2e-4), "must compute what PyTorch computes, to 0.0001 .* got 0.0002 on 70 test images"),
        ("fp32", checked(error=float("nan")), "got nan"),
        ("int8", checked(error=0.3, agreement=0.49), "PyTorch's class for 50% of images at least; .* for 49.0%"),
        ("int8", checked(agreement=float("nan")), "for nan%"),
    ],
)
def test_a_file_that_computes_something_else_is_refused(precision: str, found: Comparison, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        refuse_other_outputs("model.tflite", precision, found)


def test_int8_may_be_off_by_what_fp32_may_not() -> None:
    refuse_other_outputs("model.int8.tflite", "int8", checked(error=0.05, agreement=0.97))


def test_files_are_compared_on_all_test_images_and_calibrated_on_images_from_all_over_the_training_set(
    tmp_path: Path,
) -> None:
    write_images(tmp_path / "images.npz", train=600, test=130)
    data = datasets.load(f"npz:{tmp_path / 'images.npz'}")
    module = network(pnas.architecture(random_parameters(pnas, 1, seed=0)[0], Scale(1, 4, 8, 3, 1)).graph)
    card = write_checked(module, data, tmp_path, {"model.int8.tflite": INT8}, {})
    assert card["model.int8.tflite"].test_images == 130
    assert card["model.int8.tflite"].calibration.images == 100
    assert card["model.int8.tflite"].agreement > 0.9
    assert spread(600, 100).tolist() == list(range(0, 600, 6))
    images = data.test.read(torch.arange(130)).numpy() / np.float32(255)
    outputs = tflite.load(tmp_path / "model.int8.tflite")((images - data.mean[0]) / data.std[0])
    found = float((outputs.argmax(1) == data.test.labels.numpy()).mean())
    assert card["model.int8.tflite"].accuracy == pytest.approx(found, abs=0.02)
    by_class = card["model.int8.tflite"].by_class
    assert by_class.images == tuple(data.test.labels.bincount().tolist())
    assert sum(by_class.right) / 130 == pytest.approx(card["model.int8.tflite"].accuracy)
    said = logits(module.eval(), data.test, data).argmax(1)
    assert by_class.right_in_pytorch == tuple(data.test.labels[said == data.test.labels].bincount(minlength=3).tolist())


@pytest.mark.parametrize("train", [150, 80])
@pytest.mark.parametrize("methods", [{"min-max": 1.0, "half": 0.75}, {"half": 0.75, "min-max": 1.0}])
@pytest.mark.parametrize("name", ["model.int8.tflite", "model.int8.onnx"])
def test_int8_takes_the_calibration_that_is_nearer_to_pytorch(
    name: str, methods: dict[str, float], train: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "_METHODS", methods)
    write_images(tmp_path / "images.npz", train=train)
    data = datasets.load(f"npz:{tmp_path / 'images.npz'}")
    module = network(pnas.architecture(random_parameters(pnas, 1, seed=0)[0], Scale(1, 4, 8, 3, 1)).graph)
    setting = Setting(runtime=FILES[name][0], precision="int8")
    calibration = write_checked(module, data, tmp_path, {name: setting}, {})[name].calibration
    assert calibration is not None
    assert calibration.method in ("min-max", "equalised, min-max")
    assert calibration.images == min(train, 100)
    for way in ("", "equalised, "):
        assert calibration.rmse[f"{way}min-max"] < 0.1 < calibration.rmse[f"{way}half"]


@pytest.mark.parametrize(
    ("rounds_ms", "images", "calls", "stated_ms"),
    [([0.9], 1, 1, 0.9), ([1.1, 0.8], 1, 2, 0.875), ([1.2, 1.2], 1, 2, 1.2), ([3.6], 4, 1, 0.9)],
)
def test_a_file_over_the_cap_is_measured_once_more_and_all_rounds_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds_ms: list[float], images: int, calls: int, stated_ms: float
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no table
    (tmp_path / "model.tflite").write_bytes(b"file")
    device, taken = ScriptedDevice(monkeypatch), iter(rounds_ms)
    device.takes = lambda name: (next(taken),)
    purpose = Purpose("a", "here", FP32.name, threads=1, cap_ms=1.0)
    files = {"model.tflite": FileEntry(runtime="tflite", bytes=1)}
    here = Device(name="here", transport="pretend", settings=(FP32,))
    timed = timing.time_files(files, tmp_path, here, purpose, images=images)
    assert len(device.jobs) == calls
    assert timed["model.tflite"].measured_ms == pytest.approx(stated_ms)


# What is written beside the files.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an artefact that tests only read."""
    folder = tmp_path_factory.mktemp("made")
    (exported,) = hwnas.export(str(trained_run(folder)), out=str(folder / "export"), files=MODELS)
    return exported


@pytest.fixture(scope="module", params=[Form("pixels"), Form("uint8", 3)], ids=["pixels", "uint8"])
def baked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an artefact whose files normalise, which tests only read."""
    folder, form = tmp_path_factory.mktemp("baked"), request.param
    names = ["model.tflite", "model.int8.tflite", "model.onnx"]
    run, out = str(trained_run(folder)), str(folder / "export")
    (exported,) = hwnas.export(run, out=out, files=names, input=form.input, batch=form.batch)
    return exported


def run_script(folder: Path, *arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-I", "run.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, encoding="utf-8")
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if status else done.stdout


def pictures(folder: Path) -> list[Path]:
    """Write images that must be cut, turned and converted, beside noise; return their files."""
    random = np.random.default_rng(0)
    wide = Image.fromarray(random.integers(0, 256, (9, 14, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    wide.save(folder / "turned.png", exif=turned)
    wide.convert("P").save(folder / "palette.png")
    Image.fromarray(random.integers(0, 65536, (8, 8), dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray(random.integers(200, 256, (30, 20), dtype=np.uint8)).save(folder / "bright.jpg")
    Image.fromarray(random.integers(0, 40, (8, 8), dtype=np.uint8)).save(folder / "dark.png")
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))


def test_run_py_reads_an_image_as_training_does_and_prints_what_each_file_computes(
    made: Exported, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made.folder, tmp_path / "copy"))
    data = made.card.data
    best = set()
    for picture in pictures(tmp_path):
        pixels = read_square(picture, 8, 1, "white", 0, 65535).transpose(2, 0, 1).astype(np.float32)[None]
        for name in MODELS if picture.name == "turned.png" else ("model.int8.tflite",):
            model = formats.get(made.card.files[name].runtime).load(folder / name)
            logits = model((pixels / 255 - np.float32(data.mean[0])) / np.float32(data.std[0]))[0].astype(float)
            shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            lines = run_script(folder, str(picture), "--model", name, "--threads", "2").splitlines()
            assert [line[10:] for line in lines] == [data.classes[place] for place in np.argsort(-shares)]
            printed = [float(line.split(" %")[0]) for line in lines]
            assert printed == pytest.approx(sorted(100 * shares, reverse=True), abs=0.011)
            best.add(lines[0][10:])
    assert len(best) > 1


def test_files_that_normalise_compute_what_pytorch_does_and_run_py_gives_them_what_they_read(
    made: Exported, baked: Exported, tmp_path: Path
) -> None:
    assert made.card.input == "normalised"
    assert (made.card.accuracy.test_of, made.card.accuracy.search_of) == ("long training", "short training")
    number = {"pixels": "float32", "uint8": "uint8"}[baked.card.input]
    (picture,) = (path for path in pictures(tmp_path) if path.name == "turned.png")
    pixels = read_square(picture, 8, 1, "white", 0, 65535).transpose(2, 0, 1).astype(np.float32)[None]
    data = made.card.data
    model = tflite.load(Path(made.folder, "model.tflite"))
    logits = model((pixels / 255 - np.float32(data.mean[0])) / np.float32(data.std[0]))[0].astype(float)
    shares = dict(zip(data.classes, 100 * np.exp(logits) / np.exp(logits).sum(), strict=True))
    for name, entry in baked.card.files.items():
        dtype = "int8" if number != "uint8" and "int8" in name else number
        assert entry.input == f"{'NCHW' if entry.runtime == 'onnx' else 'NHWC'} {dtype}"
        assert entry.tensors.input.dtype == dtype
        batch = baked.card.batch or ("batch" if name == "model.onnx" else 1)
        assert [tensor.shape[0] for tensor in (entry.tensors.input, entry.tensors.output)] == [batch, batch]
        assert entry.batch == (baked.card.batch or ("dynamic" if name == "model.onnx" else 1))
        if name == "model.tflite":  # run.py has nothing that is of this file alone
            continue
        lines = run_script(Path(baked.folder), str(picture), "--model", name).splitlines()
        printed = {line[10:]: float(line.split(" %")[0]) for line in lines}
        assert printed == pytest.approx(shares, abs=3 if "int8" in name else 0.02)
    check = artefact.read_check(Path(baked.folder), baked.card)
    for name, entry in baked.card.files.items():
        outputs = formats.get(entry.runtime).load(Path(baked.folder, name))(check.images(baked.card))
        found = compare_logits(outputs, check.logits, check.labels)
        assert found.max_relative_error < (1e-5 if entry.precision == "fp32" else 0.2)


def test_an_artefact_of_another_input_is_not_taken_for_this_one(baked: Exported) -> None:
    names, batch = list(baked.card.files), baked.card.batch
    other: Input = "pixels" if baked.card.input == "uint8" else "uint8"
    assert artefact.whole_card(Path(baked.folder), names, Form(baked.card.input, batch)) == baked.card
    assert artefact.whole_card(Path(baked.folder), names, Form(other, batch)) is None
    assert artefact.whole_card(Path(baked.folder), names, Form(baked.card.input, 4)) is None
    assert artefact.whole_card(Path(baked.folder), names) is None


def test_the_texts_say_what_files_that_normalise_read(baked: Exported) -> None:
    uint8 = baked.card.input == "uint8"
    text = " ".join(export_texts.readme(baked.card).split())
    stated = "uint8, from 0 to 255. The files" if uint8 else "float32, from 0 to 1: `pixel / 255`. The files"
    assert stated in text
    for name in baked.card.files:
        card = fastest(baked.card, name)
        if name == "model.onnx":
            card = of_files(card, {name: card.files[name]})
        for code in fragments(card).values():
            assert not re.search("mean|deviation", code)
            assert ("255" in code) != uint8
            assert ("List<Int>" in code or "std::vector<int>" in code) == (baked.card.batch == 3)
            assert len(code.splitlines()) <= 30


def test_run_py_alone_takes_the_first_model_that_is_there_and_as_many_classes_as_it_is_told(
    made: Exported, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    for name in ("run.py", "model.onnx"):
        shutil.copy(Path(made.folder, name), tmp_path)
    assert len(run_script(tmp_path, "a.png").splitlines()) == 3
    assert len(run_script(tmp_path, "a.png", "--top", "1").splitlines()) == 1


def test_run_py_prints_classes_that_a_pipe_has_no_characters_for(
    made: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("café", "猫", "\N{DOG FACE}")
    card = made.card.model_copy(update={"data": made.card.data.model_copy(update={"classes": names})})
    (tmp_path / "run.py").write_text(export_texts.run_script(card), encoding="utf-8")
    shutil.copy(Path(made.folder, "model.onnx"), tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # a pipe's on Windows
    done = subprocess.run([sys.executable, "run.py", "a.png"], cwd=tmp_path, capture_output=True, check=True)
    printed = done.stdout.decode("cp1252")
    assert all(name in printed for name in ("café", "\\u732b", "\\U0001f436"))


def test_run_py_is_python_3_9_with_numpy_pillow_and_a_runtime_alone(made: Exported) -> None:
    tree = ast.parse(Path(made.folder, "run.py").read_text(encoding="utf-8"), feature_version=(3, 9))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found == {"argparse", "importlib", "os", "sys", "pathlib", "numpy", "PIL"}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["none.png", "--model", "broken.onnx"], 1, "none.png must be an image that Pillow reads"),
        (["run.py", "--model", "broken.onnx"], 1, "run.py must be an image"),
        (["a.png", "--model", "none.tflite"], 1, "none.tflite is not there; choose one with --model: model.tflite"),
        (["a.png", "--model", "run.py"], 1, "must be a file *.tflite or *.onnx"),
        (["a.png", "--model", "broken.tflite"], 1, "broken.tflite must be a model of this folder"),
        (["a.png", "--model", "broken.onnx"], 1, "broken.onnx must be a model of this folder"),
        (["a.png", "--model", "other.tflite"], 1, "other.tflite must be a model of this folder"),
        (["a.png", "--top", "0"], 2, "whole number above 0"),
        (["a.png", "--threads", "two"], 2, "whole number above 0"),
        (["a.png"], 1, f"one of {', '.join(MODELS)} must lie beside run.py"),
    ],
)
def test_run_py_says_what_is_wrong(
    made: Exported, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    shutil.copy(Path(made.folder, "run.py"), tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    for name in ("broken.tflite", "broken.onnx"):
        (tmp_path / name).write_bytes(b"no model")
    WRITERS["tflite"](tmp_path / "other.tflite")
    assert words in " ".join(run_script(tmp_path, *arguments, status=status).split())


def test_the_card_states_the_tensors_of_each_file(made: Exported) -> None:
    for name in ("model.tflite", "model.int8.tflite"):
        interpreter = tflite._runtime().Interpreter(model_path=str(Path(made.folder, name)))
        for key, (detail,) in {
            "input": interpreter.get_input_details(),
            "output": interpreter.get_output_details(),
        }.items():
            stated = getattr(made.card.files[name].tensors, key)
            assert (stated.name, stated.shape) == (detail["name"], tuple(detail["shape"]))
            assert stated.dtype == np.dtype(detail["dtype"]).name
            numbers = (stated.scale, stated.zero_point)
            assert numbers == (detail["quantization"] if "int8" in name else (None, None))
    onnx = made.card.files["model.onnx"].tensors
    assert (onnx.input.name, onnx.input.shape) == ("images", ("batch", 1, 8, 8))
    assert (onnx.output.name, onnx.output.shape) == ("logits", ("batch", 3))


def of_files(card: Card, files: dict[str, FileEntry]) -> Card:
    """Return a card of other files."""
    return card.model_copy(update={"files": files})


def fastest(card: Card, name: str) -> Card:
    """Return a card as if its files had been timed and one had been the fastest."""
    ms = {other: 0.5 if other == name else 0.9 for other in card.files}
    return of_files(
        card, {other: entry.model_copy(update={"measured_ms": ms[other]}) for other, entry in card.files.items()}
    )


def fragments(card: Card) -> dict[str, str]:
    """Return the code in a README's blocks that are no Python, by language."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", export_texts.readme(card), re.DOTALL)
    return {language: code for language, code in blocks if language != "python"}


def test_the_fragments_are_for_the_fastest_tflite_file(made: Exported) -> None:
    assert export_texts.fragments_file(made.card) == "model.tflite"  # none is timed
    for name in ("model.tflite", "model.int8.tflite"):
        found = fragments(fastest(made.card, name))
        assert found.keys() == {"cpp", "kotlin"}
        assert all(name in code for code in found.values())
        assert all(len(code.splitlines()) <= 28 for code in found.values())
    assert export_texts.fragments_file(fastest(made.card, "model.onnx")) != "model.onnx"
    only = of_files(made.card, {"model.onnx": made.card.files["model.onnx"]})
    assert '{"images"}, *outputs[] = {"logits"}' in fragments(only)["cpp"]
    assert len(fragments(only)["cpp"].splitlines()) <= 28


def test_the_fragments_have_the_numbers_of_the_file(made: Exported) -> None:
    interpreter = tflite._runtime().Interpreter(model_path=str(Path(made.folder, "model.int8.tflite")))
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    card = fastest(made.card, "model.int8.tflite")
    for code in fragments(card).values():
        (scale, zero_point) = re.findall(r"value / ([0-9.e-]+)f\).*? \+ \((-?\d+)\)", code)[0]
        assert np.float32(scale) == np.float32(source["quantization"][0])
        assert int(zero_point) == source["quantization"][1]
        for name, numbers in (("mean", card.data.mean), ("deviation", card.data.std)):
            (listed,) = re.findall(rf"{name}(?:\[\])? = (?:floatArrayOf\(|{{)(.*?)[)}}]", code)
            found = [np.float32(text.removesuffix("f")) for text in listed.split(", ")]
            assert found == [np.float32(number) for number in numbers]
        assert source["name"] in code
        assert target["name"] in code
    text = " ".join(export_texts.readme(card).split())
    scale = np.float32(re.findall(r"`logits`, int8 \[1, 3\] \(scale ([0-9.e-]+), zero point", text)[0])
    assert scale == np.float32(target["quantization"][0])
    assert f"zero point {target['quantization'][1]})." in text
    assert "`images`, int8 [1, 8, 8, 1] (scale" in text


@pytest.mark.parametrize(
    ("number", "literal"), [(2.0, "2.0f"), (0.1, "0.1f"), (-3e-7, "-3e-07f"), (1 / 3, "0.333333333f"), (1e10, "1e+10f")]
)
def test_float_literals_are_valid_in_both_languages(number: float, literal: str) -> None:
    assert export_texts.float32(number) == literal
    assert np.float32(literal.removesuffix("f")) == np.float32(number)


PRETENDED = """
#pragma once
#include <cstdint>
#include <iostream>
#include <memory>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
struct FlatBufferModel {
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char* path) {
    std::cout << path << "\\n";
    return std::make_unique<FlatBufferModel>();
  }
};
namespace ops::builtin { struct BuiltinOpResolver {}; }
struct Interpreter {
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { return kTfLiteOk; }
  template <class T> T* typed_input_tensor(int) { static T values[COUNT]; return values; }
  template <class T> const T* typed_output_tensor(int) {
    for (int i = 0; i < COUNT; ++i) std::cout << +typed_input_tensor<INPUT>(0)[i] << " ";
    static const T logits[] = {0, 2, 1, 0, 1, 2, 2, 0, 1};
    return logits;
  }
};
struct InterpreterBuilder {
  InterpreterBuilder(const FlatBufferModel&, const ops::builtin::BuiltinOpResolver&) {}
  TfLiteStatus operator()(std::unique_ptr<Interpreter>* made, int) {
    *made = std::make_unique<Interpreter>();
    return kTfLiteOk;
  }
};
}
"""
MAIN = """
#include <iostream>
int main() {
  uint8_t pixels[COUNT];
  for (int i = 0; i < COUNT; ++i) pixels[i] = i * 37 % 256;
  std::cout.precision(9);
  const int best = Classify(pixels);
  std::cout << "\\n" << best << "\\n";
}
"""
MAIN_OF_MANY = MAIN.replace("const int best =", "const auto found =").replace(
    '<< best << "\\n"', '; for (int best : found) std::cout << best << "\\n"'
)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: ./apt-install g++")
@pytest.mark.parametrize("name", ["model.tflite", "model.int8.tflite"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_fragment_in_cpp_compiles_and_gives_the_file_what_the_card_says(
    made: Exported, tmp_path: Path, name: str, channels: int
) -> None:
    check_cpp(made, tmp_path, name, channels)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: ./apt-install g++")
def test_the_fragment_in_cpp_gives_files_that_normalise_pixels(baked: Exported, tmp_path: Path) -> None:
    check_cpp(baked, tmp_path, "model.int8.tflite", 1)


ONNX_RUNTIME = """
#pragma once
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <type_traits>
#include <vector>
using ORTCHAR_T = std::filesystem::path::value_type;  // wchar_t on Windows
enum Kind { OrtArenaAllocator, OrtMemTypeDefault };
namespace Ort {
struct Env {};
struct SessionOptions {};
struct RunOptions {};
struct MemoryInfo { static MemoryInfo CreateCpu(Kind, Kind) { return {}; } };
struct Value {
  template <class T> static Value CreateTensor(MemoryInfo, T* values, std::size_t count, const int64_t*, int) {
    for (std::size_t i = 0; i < count; ++i) std::cout << +values[i] << " ";
    return {};
  }
  template <class T> const T* GetTensorData() { static const T logits[] = {0, 2, 1}; return logits; }
};
struct Session {
  Session(Env, const ORTCHAR_T* path, SessionOptions) {
    while (*path) std::cout << char(*path++);
    std::cout << "\\n";
  }
  std::vector<Value> Run(RunOptions, const char**, Value*, int, const char**, int) { return {Value()}; }
};
}
"""
WIDE_PATH = """
#include <string>
namespace std::filesystem {
struct wide_path {
  using value_type = wchar_t;
  std::wstring text;
  wide_path(const char* name) : text(name, name + std::char_traits<char>::length(name)) {}
  const wchar_t* c_str() const { return text.c_str(); }
};
}
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: ./apt-install g++")
@pytest.mark.parametrize("windows", [False, True])
def test_the_fragment_for_onnx_runtime_compiles_where_paths_are_narrow_and_where_they_are_wide(
    made: Exported, tmp_path: Path, windows: bool
) -> None:
    """ONNX Runtime itself is pretended, and so are Windows' paths of wide characters."""
    code = fragments(of_files(made.card, {"model.onnx": made.card.files["model.onnx"]}))["cpp"] + MAIN
    header = ONNX_RUNTIME
    if windows:
        code, header = (text.replace("filesystem::path", "filesystem::wide_path") for text in (code, header))
        code = WIDE_PATH + code
    (tmp_path / "onnxruntime_cxx_api.h").write_text(header)
    (tmp_path / "main.cc").write_text(code)
    compiler = ["c++", "-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}", "-DCOUNT=64", "main.cc", "-o", "main"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    file, values, best = done.stdout.splitlines()
    assert (file, len(values.split()), best) == ("model.onnx", 64, "1")


def card_of(exported: Exported, name: str, channels: int) -> Card:
    """Return a card whose fragments read a file, with so many channels."""
    card = fastest(exported.card, name)
    statistics = {"mean": (0.4, 0.5, 0.25)[:channels], "std": (0.2, 0.25, 0.5)[:channels]}
    data = card.data.model_copy(update={"channels": channels, **statistics})
    return card.model_copy(update={"data": data})


def check_given(values: str, card: Card, name: str) -> None:
    """Compare what a fragment gives a file, of the pixels 0, 37, 74, ... modulo 256, with what the card says."""
    data, source = card.data, card.files[name].tensors.input
    pixels = (np.arange(64 * data.channels * (card.batch or 1)) * 37 % 256).reshape(-1, data.channels)
    expected = pixels / 255 if card.input == "pixels" else (pixels / 255 - np.array(data.mean)) / np.array(data.std)
    if source.dtype == "uint8":
        expected = pixels.astype(float)
    elif source.scale:
        expected = np.clip(np.rint(expected / source.scale) + source.zero_point, -128, 127)
    found = np.array(values.split(), float)
    assert np.abs(found - expected.ravel()).max() <= (1 if source.scale else 1e-5)  # a tie may fall either way
    assert len(set(found)) > 20


def check_cpp(exported: Exported, tmp_path: Path, name: str, channels: int) -> None:
    """TensorFlow Lite itself is pretended: its headers come with no package."""
    card = card_of(exported, name, channels)
    (tmp_path / "tensorflow" / "lite" / "kernels").mkdir(parents=True)
    for header in ("interpreter.h", "model.h", "kernels/register.h"):
        included = "#include <tensorflow/lite/interpreter.h>\n"
        content = PRETENDED if header == "interpreter.h" else included
        (tmp_path / "tensorflow" / "lite" / header).write_text(content)
    main = MAIN if card.batch is None else MAIN_OF_MANY
    (tmp_path / "main.cc").write_text(fragments(card)["cpp"] + main)
    images, source = card.batch or 1, card.files[name].tensors.input
    count = 64 * channels * images
    defined = [f"-DCOUNT={count}", f"-DINPUT={source.dtype.replace('32', '').replace('int8', 'int8_t')}"]
    compiler = ["c++", "-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}", *defined, "main.cc", "-o", "main"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    file, values, *best = done.stdout.splitlines()
    assert (file, best) == (name, ["1"] if images == 1 else ["1", "2", "0"])
    check_given(values, card, name)


ASSETS_IN_KOTLIN = """
package android.content.res
import java.io.Closeable
import java.io.File
import java.io.FileDescriptor
import java.io.RandomAccessFile
class AssetFileDescriptor(private val file: RandomAccessFile) : Closeable {
    val fileDescriptor: FileDescriptor = file.fd
    val startOffset = 2L
    val declaredLength = file.length() - 2L
    override fun close() = file.close()
}
class AssetManager { fun openFd(name: String) = AssetFileDescriptor(RandomAccessFile("assets/" + name, "r")) }
"""
PRETENDED_IN_KOTLIN = """
package org.tensorflow.lite
import java.nio.ByteBuffer
var floats = false
class Interpreter(private val model: ByteBuffer, options: Options) : AutoCloseable {
    class Options {
        fun setNumThreads(threads: Int) = this
        fun setUseXNNPACK(use: Boolean) = this
    }
    fun run(input: Any, output: Any) {
        val bytes = input as ByteBuffer
        println(Charsets.UTF_8.decode(model.duplicate()))
        while (bytes.hasRemaining()) print(if (floats) "${bytes.getFloat()} " else "${bytes.get()} ")
        println()
        val logits = intArrayOf(0, 2, 1, 0, 1, 2, 2, 0, 1)
        (output as Array<*>).forEachIndexed { row, scores ->
            for (i in 0..2)
                if (scores is FloatArray) scores[i] = logits[3 * row + i].toFloat()
                else (scores as ByteArray)[i] = logits[3 * row + i].toByte()
        }
    }
    override fun close() {}
}
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("kotlinc") and shutil.which("java")),
    reason="no Kotlin compiler and Java here: ./apt-install kotlin default-jre-headless",
)
def test_the_fragments_in_kotlin_compile_and_give_the_files_what_the_card_says(
    made: Exported, baked: Exported, tmp_path: Path
) -> None:
    """TensorFlow Lite itself is pretended, as it is for C++; all are compiled at once, which takes as long as one."""
    asked = [(made, "model.tflite", 1), (made, "model.int8.tflite", 3), (baked, "model.int8.tflite", 1)]
    cards = [card_of(*one) for one in asked]
    sources = {"pretended.kt": PRETENDED_IN_KOTLIN, "assets.kt": ASSETS_IN_KOTLIN, "main.kt": "fun main() {\n"}
    (tmp_path / "assets").mkdir()
    sources["main.kt"] += "    val assets = android.content.res.AssetManager()\n"
    for number, (card, (_, name, _)) in enumerate(zip(cards, asked, strict=True)):
        sources[f"fragment{number}.kt"] = f"package fragment{number}\n\n{fragments(card)['kotlin']}"
        count = 64 * card.data.channels * (card.batch or 1)
        floats = str(card.files[name].tensors.input.dtype == "float32").lower()
        sources["main.kt"] += f"    org.tensorflow.lite.floats = {floats}\n"
        pixels = f"ByteArray({count}) {{ (it * 37 % 256).toByte() }}"
        fragment = f"fragment{number}"
        sources["main.kt"] += f"    println({fragment}.classify({pixels}, {fragment}.model(assets)))\n"
        (tmp_path / "assets" / name).write_text(f"--{name}")  # an asset begins somewhere in the app's package
    sources["main.kt"] += "}\n"
    for file, source in sources.items():
        (tmp_path / file).write_text(source)
    library = Path(shutil.which("kotlinc") or "").resolve().parents[1] / "lib" / "kotlin-stdlib-jdk7.jar"  # for `use`
    compiler = ["kotlinc", "-nowarn", *sources, "-classpath", str(library), "-include-runtime", "-d", "main.jar"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    command = ["java", "-classpath", f"main.jar:{library}", "MainKt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    for number, (card, (_, name, _)) in enumerate(zip(cards, asked, strict=True)):
        file, values, found = lines[3 * number : 3 * number + 3]
        assert (file, found) == (name, "1" if card.batch is None else "[1, 2, 0]")
        if card.files[name].tensors.input.dtype == "uint8":
            values = " ".join(str(int(value) % 256) for value in values.split())  # Java's bytes have a sign
        check_given(values, card, name)


# What is refused, and what is left behind then.


def test_a_winner_that_is_refused_does_not_keep_the_other_from_being_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = trained_run(tmp_path, 3, 5, 8), str(tmp_path / "export")
    cut_in_half(run / "winners" / "0003" / "weights.safetensors")
    (run / "winners" / "0008" / "winner.json").write_text("{}")
    with pytest.raises(ExportError, match=r"trial 0003: .*\ntrial 0008: .*winner.json is not") as refused:
        hwnas.export(str(run), out=out, files=["model.onnx"])
    (exported,) = refused.value.exported
    assert isinstance(exported, Exported)
    assert exported.card.trial == 5
    assert Path(exported.folder, "model.onnx").is_file()
    command = ["hwnas", "export", str(run), "--out", out, "--files", "model.onnx"]
    for option in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*command, *option])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == 1
        assert "hwnas: trial 0003: " in printed.err
        if option:
            assert [one["card"]["trial"] for one in json.loads(printed.out)] == [5]
        else:
            assert "0005/model.onnx" in printed.out


def test_the_artefact_of_another_run_of_the_same_name_is_not_replaced(tmp_path: Path) -> None:
    out = str(tmp_path / "export")
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
    runs = [trained_run(tmp_path / place) for place in ("one", "other")]
    for run in runs:
        RunIdentity(version=1, study=f"a-{run.parent.parent.name}").write(run / "run.json")
    (exported,) = hwnas.export(str(runs[0]), out=out, files=["model.onnx"])
    assert exported.card.study == "a-one"
    before = contents(Path(exported.folder))
    with pytest.raises(InputError, match=r"has an artefact of another run that is named a, and would be lost\. Move"):
        hwnas.export(str(runs[1]), out=out, files=["model.onnx"])
    assert contents(Path(exported.folder)) == before
    (again,) = hwnas.export(str(runs[0]), out=out, files=["model.onnx"])
    assert again.card == exported.card
    (elsewhere,) = hwnas.export(str(runs[1]), out=str(tmp_path / "b"), files=["model.onnx"])
    assert elsewhere.card.study == "a-other"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")} if folder.exists() else set()


@pytest.mark.parametrize("out", ["/proc/hwnas", "a-file/export"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    run = trained_run(tmp_path)
    with pytest.raises(InputError, match=r"must be a folder that can be written.*another folder with --out"):
        hwnas.export(str(run), out=out)


def with_equal_pixels(images: dict[str, Any]) -> None:
    images["x_train"][:] = 7


def with_another_brightness(images: dict[str, Any]) -> None:
    images["x_train"] //= 2


def with_another_class(images: dict[str, Any]) -> None:
    images["y_train"][:5] = images["y_test"][0] = 3


def with_colours(images: dict[str, Any]) -> None:
    for name in ("x_train", "x_test"):
        images[name] = np.stack([images[name]] * 3, axis=-1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_equal_pixels, "images must differ"),
        (with_another_brightness, "as it was when trial 3 was trained"),
        (with_another_class, r"as it was .* got \(4, 1, 8\)"),
        (with_colours, r"as it was .* got \(3, 3, 8\)"),
    ],
)
def test_images_that_changed_since_the_training_are_refused_and_nothing_is_written(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    run = trained_run(tmp_path)
    images = dict(np.load(tmp_path / "images.npz"))
    change(images)
    np.savez(tmp_path / "images.npz", **images)
    with pytest.raises(InputError, match=words):
        hwnas.export(str(run), out=str(tmp_path / "export"))
    assert names_in(tmp_path / "export") <= {"a"}


@pytest.mark.parametrize("is_replaced", [False, True])
def test_an_export_that_was_killed_while_it_replaced_an_artefact_is_settled_by_the_next(
    is_replaced: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(trained_run(tmp_path)), tmp_path / "export"
    (exported,) = hwnas.export(run, out=str(out), files=["model.onnx"])
    folder = Path(exported.folder)
    before, files = folder.with_name(f".{folder.name}.before"), contents(folder)
    if is_replaced:
        shutil.copytree(folder, before)
    else:
        folder.rename(before)
    assert hwnas.export(run, out=str(out), files=["model.onnx"]) == [exported]
    assert "exported already" in capsys.readouterr().err
    assert contents(folder) == files
    assert not before.exists()


@pytest.mark.parametrize("written", [0, 2, 4])
def test_a_full_disk_leaves_the_artefact_that_was_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Files are three models, card.json, README.md and run.py."""
    run, out = trained_run(tmp_path), tmp_path / "export"
    (before,) = hwnas.export(str(run), out=str(out), files=["model.onnx"])
    had = names_in(out)
    files: list[Path] = []
    write = Path.write_bytes

    def write_some(path: Path, content: bytes) -> int:
        files.append(path)
        if len(files) > written:
            write(path, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write_some)
        with pytest.raises(InputError, match="room for an artefact; got: No space left"):
            hwnas.export(str(run), out=str(out))
    assert names_in(out) == had
    assert artefact.whole_card(Path(before.folder), ["model.onnx"]) == before.card
    assert len(hwnas.export(str(run), out=str(out))[0].card.files) == 3


def test_an_artefact_that_cannot_be_replaced_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "0003"
    target.mkdir()
    (target / "card.json").write_text("{}")
    with pytest.raises(FileNotFoundError):
        artefact.put_in_place(tmp_path / "none", target)
    assert names_in(tmp_path) == {"0003", "card.json"}


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_a_weight_nan(path: Path) -> None:
    weights = load_file(path)
    weights[list(weights)[-1]][0] = float("nan")
    save_file(weights, path)


def leave_a_weight_out(path: Path) -> None:
    weights = load_file(path)
    left_out = next(name for name in weights if name.endswith(".weight"))
    save_file({name: value for name, value in weights.items() if name != left_out}, path)


@pytest.mark.parametrize("spoil", [cut_in_half, make_a_weight_nan, leave_a_weight_out, Path.unlink])
def test_weights_that_are_broken_are_named_and_nothing_is_written(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    run = trained_run(tmp_path)
    spoil(run / "winners" / "0003" / "weights.safetensors")
    with pytest.raises(
        ExportError, match=r"weights.safetensors must hold .*0003 and type: hwnas train .*runs/a --trial 3"
    ):
        hwnas.export(str(run), out=str(tmp_path / "export"))
    assert names_in(tmp_path / "export") <= {"a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "winner.json is not a winner's record: content: Input should be"),
        ("{}", "winner.json is not a winner's record: version: Field required"),
        ("{", "must be JSON; .*winner.json is not: "),
        (
            '{"version": 99}',
            "winner.json: a winner's record must be of version 1 or older; got 99, which a newer hwnas wrote",
        ),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, content: str, words: str) -> None:
    run = trained_run(tmp_path)
    (run / "winners" / "0003" / "winner.json").write_text(content)
    with pytest.raises(ExportError, match=rf"{words}.*elete .* and type: hwnas train .*runs/a --trial 3"):
        hwnas.export(str(run), out=str(tmp_path / "export"))


def break_card(folder: Path) -> None:
    cut_in_half(folder / "card.json")


def age(folder: Path) -> None:
    """Make it an artefact of a hwnas that wrote no check.npz."""
    card = json.loads((folder / "card.json").read_text())
    del card["check"]
    write_json(folder / "card.json", card)
    (folder / "check.npz").unlink()


def change_model(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-9] ^= 1
    (folder / "model.onnx").write_bytes(content)


def lose_script(folder: Path) -> None:
    (folder / "run.py").unlink()


@pytest.mark.parametrize("spoil", [break_card, age, change_model, lose_script])
def test_an_artefact_that_is_not_whole_is_exported_again(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    run, out = trained_run(tmp_path), tmp_path / "export"
    (first,) = hwnas.export(str(run), out=str(out), files=["model.onnx"])
    written = Path(first.folder, "model.onnx").stat().st_mtime_ns
    assert hwnas.export(str(run), out=str(out), files=["model.onnx"]) == [first]
    assert Path(first.folder, "model.onnx").stat().st_mtime_ns == written
    spoil(Path(first.folder))
    assert hwnas.export(str(run), out=str(out), files=["model.onnx"]) == [first]
    assert artefact.whole_card(Path(first.folder), ["model.onnx"]) == first.card
    assert Path(first.folder, "model.onnx").stat().st_mtime_ns > written


def test_explain_times_each_file_without_each_of_its_rewrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained_run(tmp_path)
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**settings, "predicted": False, "max_latency_ms": 1000.0}))
    monkeypatch.chdir(tmp_path)  # where there is no table
    names = ("model.tflite", "model.int8.tflite", "model.onnx")
    (plain,) = hwnas.export(str(run), files=names)
    (told,) = hwnas.export(str(run), files=names, explain=True)
    expected = {name: entry.rewrites.keys() for name, entry in plain.card.files.items()}
    assert {"quantize-for-relu"} <= expected["model.int8.tflite"]
    assert not expected["model.onnx"]
    for name, entry in told.card.files.items():
        assert entry.rewrites.keys() == expected[name]
        for rewrite, found in entry.rewrites.items():
            assert found.layers == plain.card.files[name].rewrites[rewrite].layers > 0
            assert min(found.with_ms, found.without_ms, found.ratio) > 0
    assert names_in(Path(told.folder)) == names_in(Path(plain.folder))
    (again,) = hwnas.export(str(run), files=names, explain=True)
    assert again.card == told.card  # what is known is not measured again


@pytest.mark.parametrize("most_lost", [-1.0, 2.0])
def test_int8_that_loses_accuracy_is_fine_tuned_and_what_is_better_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_lost: float
) -> None:
    monkeypatch.setattr(export_files, "_MOST_LOST", most_lost)
    monkeypatch.setattr(fine_tuning, "STEPS", 3)
    (exported,) = hwnas.export(str(trained_run(tmp_path)), out=str(tmp_path), files=("model.int8.tflite",))
    entry = exported.card.files["model.int8.tflite"]
    tuning = entry.fine_tuning
    assert (tuning is not None) == (most_lost < 0)
    assert ("fine-tuned" in show_runs._accuracy(exported.card, entry)) == bool(tuning and tuning.kept)
    assert {path.name for path in Path(exported.folder).iterdir() if "int8" in path.name} == {"model.int8.tflite"}
    assert not list(tmp_path.rglob("*fine-tuning*"))
    if tuning:
        assert tuning.kept == (tuning.lost_after < tuning.lost_before)
        assert entry.accuracy == pytest.approx(exported_accuracy(tmp_path) - min(tuning.lost_after, tuning.lost_before))


def exported_accuracy(folder: Path) -> float:
    """Return PyTorch's accuracy of the trained run's winner on the test set."""
    record = json.loads(next(folder.rglob("winner.json")).read_text())
    module = Network(Architecture.from_json(record["architecture"]).graph)
    module.load_state_dict(load_file(next(folder.rglob("weights.safetensors"))))
    data = datasets.load(f"npz:{folder / 'images.npz'}")
    return accuracy(module.eval(), data.test, data)
