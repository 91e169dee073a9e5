"""Vela in place of a device: its estimates, that they say so, and what is refused."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from tiny_models import take

from hwnas import formats
from hwnas.device import Device, Job, Setting, load_device
from hwnas.device.transports import Transport, is_estimated, open_transport, vela
from hwnas.errors import DeviceError
from hwnas.latency import Conditions, read_conditions, time_network
from hwnas.latency.lines import TimesModels
from hwnas.latency.measure import time_models, write_models
from hwnas.network import Architecture, Builder, Graph, Scale
from hwnas.spaces import pnas, random_parameters
from hwnas.testing import TimingContract

SETTING = Setting(runtime="tflite", precision="int8", accelerator="npu")
CONFIG = {
    "accelerator_config": "ethos-u55-128",
    "system_config": "Ethos_U55_High_End_Embedded",
    "memory_mode": "Shared_Sram",
}
TOOL = f"Vela {metadata.version('ethos-u-vela')}"


def npu(**fields: str) -> Device:
    return Device.model_validate({"name": "here", "transport": "vela", "settings": (SETTING,), **CONFIG, **fields})


def network(*, seed: int = 0) -> Architecture:
    return pnas.architecture(random_parameters(pnas, 1, seed=seed)[0], Scale(1, 8, 12, 5, 3))


def convolution(filters: int) -> Graph:
    b = Builder((4, 16, 16))
    value = b.window("conv", 0, name="convolution", filters=filters, kernel=(3, 3))
    return formats.get("tflite").lower(b.finish(b.relu(value)))


def written(folder: Path, setting: Setting = SETTING, *, filters: int = 4) -> Path:
    folder.mkdir()
    return write_models({"it": convolution(filters)}, setting, folder)["it"]


def float_logits(path: Path) -> Path:
    """Write an int8 network whose last operator gives float32: it is for MediaPipe."""
    graph = formats.get("tflite").lower(network().graph)
    ranges = formats.made_up_ranges(graph)
    metadata_of_images = {"reader": "mediapipe", "mean": "0,0,0", "std": "1,1,1", "classes": "a,b,c,d,e"}
    weights = formats.random_weights(graph)
    path.write_bytes(
        formats.get("tflite").write(
            graph, weights, ranges=ranges, precision="int8", uint8_input=True, metadata=metadata_of_images
        )
    )
    return path


class TestVela(TimingContract):
    @pytest.fixture
    def transport(self) -> Iterator[Transport]:
        with open_transport(npu()) as transport:
            yield transport

    @pytest.fixture
    def job(self, transport: Transport, tmp_path: Path) -> Job:
        models = [
            {"name": name, "path": str(written(tmp_path / name, filters=filters))}
            for name, filters in {"small": 2, "large": 64}.items()
        ]
        return Job(runtime="tflite", models=models, accelerator="npu")

    def test_every_model_arrives_between_the_conditions_and_the_end(self, transport: Transport, job: Job) -> None:
        """Of an estimate there is one round, and no canary."""
        assert isinstance(transport, TimesModels)
        first, *lines, last = transport.time(job)
        assert Conditions.of_runner(first["conditions"]) == Conditions.of_runner(last["conditions"])
        assert [line["name"] for line in lines] == ["small", "large"]
        assert all(len(line["rounds_ms"]) == 1 and "canary_ms" not in line for line in lines)


@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos-u85-256"])
def test_the_shipped_ones_estimate_and_a_network_takes_what_its_layers_take(name: str, tmp_path: Path) -> None:
    device = load_device(name)
    setting = device.setting("tflite-int8-npu-1t")
    graph = formats.get("tflite").lower(network().graph, without=setting.without)
    models = write_models({"it": graph}, setting, tmp_path)
    (timed,) = time_models(device, setting, models)
    assert is_estimated(device)
    assert sum(timed.layers_ms.values()) == pytest.approx(timed.measurement.ms)
    assert timed.measurement == time_network(network().graph, device, setting)  # the same each time
    assert timed.other.load_ms is timed.other.first_ms is None
    assert (timed.other.peak_memory_bytes or 0) > 12 * 12 * 3


def test_an_estimate_says_that_it_is_one_by_which_version_and_of_what() -> None:
    measurement, conditions = time_network(network().graph, npu(), SETTING), read_conditions(npu(), SETTING)
    assert measurement.placement is not None
    assert (measurement.placement.processor, measurement.placement.whole) == ("npu", True)
    assert measurement.estimated_by == measurement.placement.estimated_by == TOOL
    assert conditions.runtime_version == f"ethos-u-vela {TOOL.removeprefix('Vela ')}"
    other = read_conditions(npu(memory_mode="Sram_Only"), SETTING)
    assert conditions.fingerprint != other.fingerprint


@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic"])
def test_a_file_that_stays_on_the_cpu_is_refused_with_its_operators_and_the_others_are_estimated(
    tmp_path: Path, precision: str
) -> None:
    floats = SETTING.model_copy(update={"precision": precision})
    models = {"a": written(tmp_path / "a"), "float": written(tmp_path / "f", floats), "c": written(tmp_path / "c")}
    arrived, said = take(time_models(npu(), SETTING, models))
    assert arrived == ["a", "c"]
    assert "float: all operators must run on the NPU; Vela leaves " in said
    assert " to the CPU, which write " in said
    assert "Take a file that is int8 from its input to its output" in said


def test_one_operator_on_the_cpu_is_a_refusal_that_names_it(tmp_path: Path) -> None:
    _, said = take(time_models(npu(), SETTING, {"it": float_logits(tmp_path / "m.tflite")}))
    assert "Vela leaves 1 of " in said
    assert "to the CPU, which write logits" in said


def test_a_file_that_is_no_model_is_refused_and_the_others_are_estimated(tmp_path: Path) -> None:
    junk = tmp_path / "junk.tflite"
    junk.write_bytes(b"junk" * 100)
    arrived, said = take(time_models(npu(), SETTING, {"junk": junk, "good": written(tmp_path / "good")}))
    assert arrived == ["good"]
    assert "junk: " in said


def test_where_velas_process_ends_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import os, sys; print('compiling it', file=sys.stderr, flush=True); os._exit(139)")
    monkeypatch.setattr("hwnas.device.transports.vela._WORKER", worker)
    _, said = take(time_models(npu(), SETTING, {"it": written(tmp_path / "it")}))
    assert "compiling it" in said


@pytest.mark.parametrize("version", [None, "4.5.0", "5.1.0", "5.20.0", "6.0.0"])
def test_no_vela_and_one_of_another_version_are_told_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    def installed(package: str) -> str:
        assert package == "ethos-u-vela"
        if version is None:
            raise metadata.PackageNotFoundError(package)
        return version

    monkeypatch.setattr(vela.metadata, "version", installed)
    got = version or "none"
    with pytest.raises(DeviceError, match=rf"ethos-u-vela 5\.2; got {got}\. Type: pip install 'hwnas\[npu\]'"):
        read_conditions(npu(), SETTING)


@pytest.mark.parametrize("field", CONFIG)
def test_what_npu_it_is_must_be_said_and_known_to_vela(tmp_path: Path, field: str) -> None:
    with pytest.raises(DeviceError, match=rf"lacks {field}\. Write in devices/here\.toml"):
        read_conditions(npu(**{field: ""}), SETTING)
    with pytest.raises(DeviceError, match=r"must take what devices/here\.toml says of the NPU; got: .*abacus"):
        list(time_models(npu(**{field: "abacus"}), SETTING, {"it": written(tmp_path / "it")}))


@pytest.mark.parametrize("change", [{"accelerator": "cpu"}, {"threads": 2}, {"runtime": "onnx"}])
def test_settings_that_are_not_the_npus_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(DeviceError, match=r"Name the setting tflite-int8-npu-1t of device here"):
        read_conditions(npu(), SETTING.model_copy(update=change))
