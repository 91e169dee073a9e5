"""What export asks of the files, and in which setting it times each; the whole verb is in test_end_to_end.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_images
from networks import network

from hwnas import datasets, measure
from hwnas.artefact import Checked
from hwnas.device import Device, Setting
from hwnas.errors import ExportError
from hwnas.export import _refuse_other_outputs, _setting_for, _spread, _time_files, _write_checked
from hwnas.formats import tflite
from hwnas.latency import Measurement, OtherCosts
from hwnas.measure import Timed
from hwnas.networks import Scale
from hwnas.spaces import pnas, random_parameters

FP32, INT8 = Setting(runtime="tflite"), Setting(runtime="tflite", precision="int8", threads=2)


def setting_for(runtime: str, precision: str, *, own: str = "tflite-fp32-1t", device: tuple[Setting, ...]) -> str:
    run: Any = SimpleNamespace(settings=SimpleNamespace(setting=own, threads=int(own[-2])))
    chosen = _setting_for(runtime, precision, Device(name="here", settings=device), run)
    return chosen.name if chosen else ""


def test_a_file_is_timed_in_the_setting_of_its_runtime_and_precision() -> None:
    device = (FP32, INT8, Setting(runtime="onnx"))
    assert setting_for("tflite", "fp32", device=device) == "tflite-fp32-1t"
    assert setting_for("tflite", "int8", device=device) == "tflite-int8-2t"
    assert setting_for("onnx", "fp32", device=device) == "onnx-fp32-1t"


def test_the_runs_own_setting_keeps_its_threads_and_the_other_precision_its_own() -> None:
    assert setting_for("tflite", "int8", own="tflite-int8-4t", device=(FP32, INT8)) == "tflite-int8-4t"
    assert setting_for("tflite", "fp32", own="tflite-int8-4t", device=(FP32, INT8)) == "tflite-fp32-1t"


def test_a_device_without_a_setting_for_int8_is_asked_for_it_all_the_same_and_one_without_the_runtime_is_not() -> None:
    assert setting_for("tflite", "int8", device=(FP32,)) == "tflite-int8-1t"
    assert setting_for("onnx", "fp32", device=(FP32,)) == ""


def checked(*, error: float = 0.0, agreement: float = 1.0) -> Checked:
    return Checked(images=70, max_relative_error=error, agreement=agreement, accuracy=0.5)


@pytest.mark.parametrize(
    ("precision", "found", "words"),
    [
        ("fp32", checked(error=2e-4), "must compute what PyTorch computes, to 0.0001 .* got 0.0002 on 70 test images"),
        ("fp32", checked(error=float("nan")), "got nan"),
        ("int8", checked(error=0.3, agreement=0.49), "PyTorch's class for 50% of images at least; .* for 49.0%"),
        ("int8", checked(agreement=float("nan")), "for nan%"),
    ],
)
def test_a_file_that_computes_something_else_is_refused(precision: str, found: Checked, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        _refuse_other_outputs("model.tflite", precision, found)


def test_int8_may_be_off_by_what_fp32_may_not() -> None:
    _refuse_other_outputs("model.int8.tflite", "int8", checked(error=0.05, agreement=0.97))


def test_files_are_compared_on_all_test_images_and_calibrated_on_images_from_all_over_the_training_set(
    tmp_path: Path,
) -> None:
    write_images(tmp_path / "images.npz", train=600, test=130)
    data = datasets.load(f"npz:{tmp_path / 'images.npz'}")
    module = network(pnas.architecture(random_parameters(pnas, 1, seed=0)[0], Scale(1, 4, 8, 3, 1)).graph)
    card = _write_checked(module, data, tmp_path, ["model.int8.tflite"], {})
    assert card["model.int8.tflite"]["test_images"] == 130
    assert card["model.int8.tflite"]["calibration"]["images"] == 100
    assert card["model.int8.tflite"]["agreement"] > 0.9
    assert _spread(600, 100).tolist() == list(range(0, 600, 6))
    images = data.test.read(torch.arange(130)).numpy() / np.float32(255)
    outputs = tflite.load(tmp_path / "model.int8.tflite")((images - data.mean[0]) / data.std[0])
    found = float((outputs.argmax(1) == data.test.labels.numpy()).mean())
    assert card["model.int8.tflite"]["accuracy"] == pytest.approx(found, abs=0.02)


@pytest.mark.parametrize(
    ("rounds_ms", "calls", "stated_ms"), [([0.9], 1, 0.9), ([1.1, 0.8], 2, 0.875), ([1.2, 1.2], 2, 1.2)]
)
def test_a_file_over_the_cap_is_measured_once_more_and_all_rounds_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds_ms: list[float], calls: int, stated_ms: float
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no table
    found = iter(rounds_ms)
    asked = []

    def time_models(*_: Any, **__: Any) -> list[Timed]:
        asked.append(1)
        return [Timed("model.tflite", Measurement(((next(found),),)), OtherCosts())]

    monkeypatch.setattr(measure, "time_models", time_models)
    run: Any = SimpleNamespace(
        settings=SimpleNamespace(setting=FP32.name, threads=1, predicted=False, max_latency_ms=1.0)
    )
    files = {"model.tflite": {"runtime": "tflite", "precision": "fp32"}}
    _time_files(files, tmp_path, Device(name="here", settings=(FP32,)), run)
    assert len(asked) == calls
    assert files["model.tflite"]["measured_ms"] == pytest.approx(stated_ms)
