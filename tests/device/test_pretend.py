"""A pretended device: its figures grow with the work, repeat, and say that they are pretended."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_models import WRITERS, take, write_tflite

import hwnas
from hwnas import formats
from hwnas.device import Device, Setting, load_device
from hwnas.device.device import Formula
from hwnas.device.transports._model_work import Work, read_work
from hwnas.device.transports.pretend import NAME
from hwnas.errors import DeviceError, InputError
from hwnas.latency import Conditions, Timed, compute_models, read_conditions, time_network
from hwnas.latency.measure import time_models, write_models
from hwnas.network import Architecture, Builder, Graph, Scale
from hwnas.spaces import pnas, random_parameters

SETTINGS = [
    Setting(runtime="tflite"),
    Setting(runtime="tflite", precision="int8"),
    Setting(runtime="onnx"),
    Setting(runtime="onnx", precision="int8"),
]
TFLITE = SETTINGS[0]


def pretended(**formula: float) -> Device:
    return Device(name="here", transport="pretend", settings=(TFLITE,), formula=Formula(**formula))


def net(filters: int = 8, *, seed: int = 0) -> Architecture:
    return pnas.architecture(random_parameters(pnas, 1, seed=seed)[0], Scale(1, filters, 12, 5, 3))


def timings(device: Device, models: Mapping[str, Path], setting: Setting = TFLITE, **options: Any) -> list[Timed]:
    return list(time_models(device, setting, models, **options))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_network_is_slower_the_more_it_has_to_do(setting: Setting) -> None:
    device = pretended(noise=0.0)
    ms = [time_network(net(filters).graph, device, setting).ms for filters in (4, 8, 16, 32)]
    assert ms == sorted(ms)
    assert ms[-1] > 1.5 * ms[0]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_files_mult_adds_are_the_graphs(tmp_path: Path, setting: Setting) -> None:
    """ONNX's int8 has no average pooling: it is written as a convolution, which is work as well."""
    seen = set()
    for seed in range(10):
        graph = formats.get(setting.runtime).lower(net(seed=seed).graph, without=("convolution-for-average",))
        without = setting.model_copy(update={"without": ("convolution-for-average",)})
        (path,) = write_models({"it": graph}, without, tmp_path).values()
        works = read_work(path, setting.runtime)
        found = sum(work.mult_adds for work in works)
        averages = setting.name == "onnx-int8-1t" and any(layer.kind == "avg_pool" for layer in graph.layers)
        assert found > graph.mult_adds if averages else found == pytest.approx(graph.mult_adds, rel=1e-3)
        seen.add(averages)
        assert {work.integer for work in works if work.mult_adds} == {setting.precision == "int8"}
    assert False in seen


def one_of_each() -> Graph:
    b = Builder((4, 8, 8))
    value = b.window("conv", 0, name="dense", filters=6, kernel=(3, 3))
    value = b.window("conv", value, name="depthwise", kernel=(3, 3), groups=6, filters=6)
    return b.finish(b.linear(b.mean(value, name="mean"), 5, name="classifier"))


@pytest.mark.parametrize("runtime", ["tflite", "onnx"])
def test_each_kind_of_operator_is_told_from_the_others(tmp_path: Path, runtime: str) -> None:
    setting = Setting(runtime=runtime)
    (path,) = write_models({"it": formats.get(runtime).lower(one_of_each())}, setting, tmp_path).values()
    counted = [(work.kind, work.mult_adds) for work in read_work(path, runtime) if work.mult_adds]
    assert counted == [("convolution", 6 * 8 * 8 * 4 * 9), ("depthwise", 6 * 8 * 8 * 9), ("linear", 6 * 5)]


@pytest.mark.parametrize("runtime", ["tflite", "onnx"])
def test_it_takes_what_the_formula_says(tmp_path: Path, runtime: str) -> None:
    path = WRITERS[runtime](tmp_path / "add")  # two tensors of 1 x 4 x 4 x 3 are read, one is written
    assert read_work(path, runtime) == (Work("other", 0, 3 * 48 * 4, False),)
    device = pretended(noise=0.0, operator_us=3.0, byte_ns=2.0)
    (timed,) = timings(device, {"add": path}, Setting(runtime=runtime))
    assert timed.measurement.ms == pytest.approx(3e-3 + 3 * 48 * 4 * 2e-6)


def test_the_same_job_gives_the_same_figures_and_another_seed_others(tmp_path: Path) -> None:
    models = {name: write_tflite(tmp_path / name) for name in "ab"}
    one, again, other = (timings(pretended(noise=0.1), models, seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert one[0].measurement.rounds_ms[0][0] != one[1].measurement.rounds_ms[0][0]


def test_int8_and_threads_are_faster() -> None:
    graph, device = net(32).graph, pretended(noise=0.0)
    ms, in_bytes, in_threads = (
        time_network(graph, device, setting).ms
        for setting in (TFLITE, SETTINGS[1], TFLITE.model_copy(update={"threads": 4}))
    )
    assert in_bytes < ms
    assert in_threads < ms


def test_slow_minutes_slow_the_canary_too_and_the_device_is_given_pauses(tmp_path: Path) -> None:
    device, models = pretended(noise=0.0, slow_every_s=0.05, slow_factor=3.0), {"a": write_tflite(tmp_path / "a")}
    waits: list[tuple[float, str]] = []
    (timed,) = timings(device, models, rounds=40, max_wait=1.0, on_wait=lambda *wait: waits.append(wait))
    steady = timings(pretended(noise=0.0), models)[0].measurement
    assert max(timed.measurement.canary_ms) > 2 * min(timed.measurement.canary_ms)
    assert timed.measurement.at(steady.canary_ms[0]) == pytest.approx(steady.ms, rel=0.3)


def test_conditions_say_that_it_is_pretended_and_by_which_formula() -> None:
    one, same, other = (read_conditions(pretended(noise=noise), TFLITE) for noise in (0.1, 0.1, 0.2))
    assert isinstance(one, Conditions)
    assert (one.cpu, one.arch) == (NAME, NAME) == ("pretended", "pretended")
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_a_file_that_is_no_model_is_refused_and_the_others_are_timed(tmp_path: Path) -> None:
    models = {"a": write_tflite(tmp_path / "a"), "broken": tmp_path / "broken", "c": write_tflite(tmp_path / "c")}
    models["broken"].write_bytes(b"not a model")
    arrived, said = take(iter(time_models(pretended(), TFLITE, models)))
    assert arrived == ["a", "c"]
    assert "must be a whole file for tflite" in said


def test_it_runs_no_python_and_computes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"outputs come from a device with Python; here \(pretend\) has none"):
        compute_models(pretended(), TFLITE, {"a": write_tflite(tmp_path / "a")})
    with pytest.raises(DeviceError, match="abacus"):
        read_conditions(pretended(), Setting(runtime="abacus"))


@pytest.mark.parametrize(("field", "value"), [("noise", -1), ("slow_factor", 0.5), ("speed", 1), ("byte_ns", "inf")])
def test_a_formula_has_known_fields_in_their_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: object
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    text = f'name = "p"\ntransport = "pretend"\n[[settings]]\nruntime = "tflite"\n[formula]\n{field} = '
    Path("devices/p.toml").write_text(text + str(value))
    with pytest.raises(InputError, match=rf"(?s)p\.toml: .*formula\.{field}"):
        load_device("p")


def test_the_shipped_one_can_be_profiled_without_hardware_and_predicts_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "its figures mean nothing" in load_device("pretend").description
    tiny: dict[str, Any] = {"cells": (1,), "filters": (4,), "resolution": (8,), "classes": 3, "channels": 1}
    (done,) = hwnas.profile("pretend", space="mbconv", **tiny, networks=4, validate=4, setting="tflite-fp32-1t")
    table = json.loads(Path(done.table).read_text())
    assert table["conditions"]["cpu"] == "pretended"
    assert done.validation is not None
    assert done.validation.within_5 == 1.0
    assert dataclasses.asdict(done)["unstable"] == 0
