"""Microcontrollers without a board: what TensorFlow Lite Micro computes, refuses and needs, and what is said of it."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from networks import OWN_SPACES, images
from tiny_models import write_onnx
from winners import MODELS, trained_run

import hwnas
from hwnas import formats, spaces
from hwnas.artefacts.card import Card
from hwnas.artefacts.texts import resolver_name
from hwnas.cli.show_devices import show_verified
from hwnas.device import runner
from hwnas.device.device import Board, Device, Setting, load_device
from hwnas.device.transports import Transport, open_transport
from hwnas.errors import DeviceError, InputError
from hwnas.formats import tflite
from hwnas.formats._micro_arena import Buffer, planned_bytes
from hwnas.latency.measure import read_conditions, time_models, write_models
from hwnas.network.graph import Graph
from hwnas.network.published import mobilenet_v2, published_network
from hwnas.network.scale import Scale
from hwnas.spaces import pnas
from hwnas.support import commands, plugins
from hwnas.support.files import write_json
from hwnas.testing import TransportContract
from hwnas.verbs.devices import _remedy
from hwnas.verbs.verify import verify_files

BOARD = load_device("arduino-nano-33-ble")
INT8 = BOARD.settings[0]
EVERY_SPACE = 4  # networks of each
MOST_STEPS = 1  # from the reference kernels


def write_int8(graph: Graph, path: Path) -> Path:
    """Write an int8 file with random weights, calibrated so that its outputs differ."""
    lowered = tflite.lower(graph)
    weights = formats.random_weights(lowered)
    path.write_bytes(tflite.write(lowered, weights, ranges=tflite.calibrate(lowered, weights, images(graph))))
    return path


def with_board(**memory: int) -> Device:
    """Return the board with other memory."""
    assert BOARD.board
    return BOARD.model_copy(update={"board": BOARD.board.model_copy(update=memory)})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = mobilenet_v2(width=0.35, resolution=32, classes=10).graph
    return write_int8(graph, tmp_path_factory.mktemp("small") / "small.tflite")


@pytest.mark.parametrize("space", OWN_SPACES)
def test_networks_of_every_space_compute_what_the_reference_kernels_do(space: str, tmp_path: Path) -> None:
    plugin = plugins.load("spaces", space)
    files, predicted = {}, {}
    for number, parameters in enumerate(spaces.random_parameters(plugin, EVERY_SPACE, seed=3)):
        graph = plugin.architecture(parameters, Scale(1, 6, 17, 10, 3)).graph
        files[f"{space} {number}"] = write_int8(graph, tmp_path / f"{number}.tflite")
        predicted[f"{space} {number}"] = tflite.micro_arena_bytes(tflite.lower(graph))
    for verified in verify_files(files, BOARD, INT8):
        assert verified.fine, verified
        assert verified.steps is not None
        assert verified.steps <= MOST_STEPS
        assert verified.arena_bytes == predicted[verified.file]


@pytest.mark.parametrize(("name", "off"), [("mobilenet-v3-small", -16), ("resnet-8", 0), ("shufflenet-v2", 0)])
def test_the_arena_of_published_networks_is_predicted(name: str, off: int, tmp_path: Path) -> None:
    """Of two classifiers in a row, as MobileNetV3 has them, to 16 bytes: what the second one keeps is not known."""
    graph = published_network(name, resolution=32, classes=10).graph
    (verified,) = verify_files({name: write_int8(graph, tmp_path / "a.tflite")}, BOARD, INT8)
    assert verified.arena_bytes
    assert tflite.micro_arena_bytes(tflite.lower(graph)) - verified.arena_bytes == off


def test_buffers_are_planned_in_the_first_gap_the_largest_and_latest_first() -> None:
    chain = [Buffer(32, 0, 1), Buffer(64, 1, 2), Buffer(32, 2, 3)]
    assert planned_bytes(chain) == 96
    assert planned_bytes([*chain, Buffer(16, 0, 3)]) == 112  # alive all along
    assert planned_bytes([Buffer(64, 0, 0), Buffer(64, 1, 1)]) == 64
    assert planned_bytes([]) == 0


def test_a_file_runs_in_the_arena_that_is_stated(small: Path) -> None:
    (verified,) = verify_files({"a": small}, BOARD, INT8)
    assert verified.arena_bytes
    assert is_loaded(small, verified.arena_bytes)


@pytest.mark.parametrize("least", [87_232, 87_248, 87_760, 200_000])
def test_the_arena_is_the_smallest_that_does(least: int) -> None:
    class Model:
        """Says that it uses 87,232 bytes, and is loaded in `least` or more."""

        @staticmethod
        def from_bytes(data: bytes, *, arena_size: int) -> None:
            if arena_size < least:
                os._exit(139)

        def print_allocations(self) -> None:
            os.write(2, b"Arena allocation total 87232 bytes\n")

    assert runner.smallest_arena(SimpleNamespace(Interpreter=Model), b"", Model()) == least


def test_the_search_for_the_smallest_arena_ends_where_nothing_is_loaded_any_more() -> None:
    class Model:
        @staticmethod
        def from_bytes(data: bytes, *, arena_size: int) -> None:
            os._exit(139)

        def print_allocations(self) -> None:
            os.write(2, b"Arena allocation total 87232 bytes\n")

    assert runner.smallest_arena(SimpleNamespace(Interpreter=Model), b"", Model()) >= runner.MICRO_BYTES


def is_loaded(path: Path, arena_bytes: int) -> bool:
    """Return whether TensorFlow Lite Micro loads a file in an arena, and runs it, in a process of its own."""
    code = (
        "import sys; from tflite_micro import runtime; "
        "runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2])).invoke()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), str(arena_bytes)], capture_output=True)
    return done.returncode == 0


# What a board's memory lacks.


def test_a_board_that_is_too_small_is_told_in_words(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fitting,) = verify_files({"a": small}, BOARD, INT8)
    assert fitting.fine
    assert fitting.lacking == ""
    exactly = with_board(ram_bytes=fitting.arena_bytes, flash_bytes=small.stat().st_size)
    assert [one.fine for one in verify_files({"a": small}, exactly, INT8)] == [True]
    for memory, words in (
        ({"ram_bytes": fitting.arena_bytes - 1}, f"the arena takes {fitting.arena_bytes:,} bytes, and arduino"),
        ({"flash_bytes": small.stat().st_size - 1}, f"the file takes {small.stat().st_size:,} bytes, and arduino"),
    ):
        (verified,) = verify_files({"a": small}, with_board(**memory), INT8)
        assert verified.computes
        assert not verified.fine
        assert verified.lacking.startswith(words)
        show_verified([verified])
        assert f"a does NOT fit: {words}" in capsys.readouterr().out


def test_a_device_without_a_board_has_any_memory(small: Path) -> None:
    (verified,) = verify_files({"a": small}, BOARD.model_copy(update={"board": None}), INT8)
    assert verified.fine


def test_a_board_must_have_memory() -> None:
    with pytest.raises(ValueError, match="ram_bytes"):
        Board(ram_bytes=0, flash_bytes=1, clock_mhz=1)


# What TensorFlow Lite Micro refuses, or gets wrong.


def write_chain(path: Path, codes: list[int], *, kind: int = schema.TensorType.INT8, scales: tuple[float, ...]) -> Path:
    """Write operators one after another, without options, on one shape; each tensor has its scale."""
    graph = schema.SubGraphT()
    graph.tensors = [schema.TensorT(shape=[1, 4, 4, 3], type=kind, name=str(number)) for number in range(len(scales))]
    for tensor, scale in zip(graph.tensors, scales, strict=True):
        tensor.quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[-128])
    graph.operators = [
        schema.OperatorT(opcodeIndex=number, inputs=[number], outputs=[number + 1]) for number in range(len(codes))
    ]
    graph.inputs, graph.outputs = [0], [len(codes)]
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], subgraphs=[graph])
    model.operatorCodes = [schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code) for code in codes]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def test_every_operator_that_is_lacking_is_named(tmp_path: Path) -> None:
    op = schema.BuiltinOperator
    codes = [op.RELU, op.TILE, op.LOGISTIC, op.LOCAL_RESPONSE_NORMALIZATION, op.TILE]
    path = write_chain(tmp_path / "a.tflite", codes, scales=(1 / 256,) * 6)
    with pytest.raises(DeviceError, match=r"lacks the operators TILE, LOCAL_RESPONSE_NORMALIZATION$"):
        hwnas.verify(str(path), device=BOARD.name)


def test_the_file_that_is_refused_is_named_and_why(tmp_path: Path) -> None:
    fp16 = Setting(runtime="tflite", precision="fp16")
    files = write_models({"a": tflite.lower(mobilenet_v2(width=0.35, resolution=32).graph)}, fp16, tmp_path)
    with pytest.raises(DeviceError, match=r"a: ValueError: .*takes fp32 and int8, refuses it: .*DEQUANTIZE"):
        verify_files(files, BOARD, fp16)


def test_what_is_computed_wrong_without_a_word_is_not_fine(tmp_path: Path) -> None:
    """RELU6 by itself, whose output has another scale than its input."""
    path = write_chain(tmp_path / "a.tflite", [schema.BuiltinOperator.RELU6], scales=(8 / 255, 4 / 255))
    (verified,) = hwnas.verify(str(path), device=BOARD.name)
    assert verified.steps is not None
    assert verified.steps > 50
    assert not verified.fine
    same = write_chain(tmp_path / "b.tflite", [schema.BuiltinOperator.RELU6], scales=(8 / 255, 8 / 255))
    assert hwnas.verify(str(same), device=BOARD.name)[0].fine


def test_a_file_in_another_precision_is_answered_with_what_to_export(tmp_path: Path) -> None:
    graph = tflite.lower(mobilenet_v2(width=0.35, resolution=32).graph)
    for precision in ("fp16", "dynamic", "fp32"):
        setting = Setting.model_validate({"runtime": "tflite", "precision": precision})
        path = write_models({"a": graph}, setting, tmp_path)["a"]
        assert tflite.precision_of(path) == precision
        with pytest.raises(
            InputError, match=r"of its settings alone, tflite-int8-1t; got 0\.tflite.*Export one: hwnas"
        ):
            hwnas.verify(str(path), device=BOARD.name)
    onnx = write_onnx(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="must have a setting of one of the artefact's runtimes, onnx"):
        hwnas.verify(str(onnx), device=BOARD.name)


def test_fp32_runs_where_the_board_has_a_setting_for_it(tmp_path: Path) -> None:
    setting = Setting(runtime="tflite")
    files = write_models({"a": tflite.lower(mobilenet_v2(width=0.35, resolution=32).graph)}, setting, tmp_path)
    (verified,) = verify_files(files, BOARD, setting)
    assert verified.computes
    assert verified.relative_error is not None
    assert verified.arena_bytes


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"must be a whole one; .*a\.tflite is not"):
        hwnas.verify(str(path), device=BOARD.name)


def test_a_missing_package_is_named_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tflite_micro.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"none here\. Type: pip install 'hwnas\[micro\]'") as raised:
        read_conditions(BOARD, INT8)
    assert _remedy(str(raised.value), BOARD) == str(commands.pip_install(["tflite-micro"], python=sys.executable))


# It has no time.


def test_its_time_is_never_taken_for_latency(small: Path) -> None:
    words = r"only a real device has a latency; arduino-nano-33-ble .*--max-mult-adds on another device.* hwnas verify"
    with pytest.raises(InputError, match=words):
        list(time_models(BOARD, INT8, {"a": small}))
    with pytest.raises(InputError, match=words):
        hwnas.profile(BOARD.name)


def test_its_conditions_name_the_runtime() -> None:
    assert read_conditions(BOARD, INT8).runtime_version.startswith("tflite-micro ")


class TestTflm(TransportContract):
    @pytest.fixture
    def transport(self) -> Iterator[Transport]:
        with open_transport(BOARD.model_copy(update={"name": "here"})) as transport:
            yield transport


# Networks that are not trained yet, and artefacts.


def test_a_network_is_checked_before_it_is_trained(tmp_path: Path) -> None:
    (parameters,) = spaces.random_parameters(pnas, 1, seed=1)
    write_json(tmp_path / "network.json", pnas.architecture(parameters, Scale(1, 4, 8, 3)).to_json())
    (verified,) = hwnas.verify(str(tmp_path / "network.json"), device=BOARD.name)
    assert verified.file == "network.json (random weights)"
    assert verified.fine
    assert verified.arena_bytes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (exported,) = hwnas.export(str(trained_run(folder)), out=str(folder / "export"), files=MODELS)
    return Path(exported.folder)


@pytest.fixture
def artefact(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "artefact"))


def card_of(folder: Path) -> Card:
    return Card.read(folder / "card.json", again=commands.export())


def test_an_artefacts_card_keeps_what_was_verified(artefact: Path, caplog: pytest.LogCaptureFixture) -> None:
    (verified,) = hwnas.verify(str(artefact), device=BOARD.name)
    assert (verified.file, verified.fine) == ("model.int8.tflite", True)
    assert verified.check_agreement is not None
    assert "alone: model.tflite, model.fp16.tflite, model.dynamic.tflite" in caplog.text
    card = card_of(artefact)
    micro = card.files["model.int8.tflite"].micro
    assert micro is not None
    assert (micro.device, micro.arena_bytes, micro.steps) == (BOARD.name, verified.arena_bytes, verified.steps)
    assert micro.operators == tflite.operators_in(artefact / "model.int8.tflite")
    assert f"verified for {BOARD.name} | {micro.arena_bytes:,} bytes |" in (artefact / "README.md").read_text()
    before = (artefact / "card.json").read_bytes()
    assert all(one.fine for one in hwnas.verify(str(artefact), device="host"))  # all is sealed as it is now
    assert hwnas.verify(str(artefact / "model.int8.tflite"), device=BOARD.name) == [verified]
    assert (artefact / "card.json").read_bytes() == before


def test_what_is_not_fine_is_not_kept(artefact: Path, tmp_path: Path) -> None:
    text = (Path(hwnas.__file__).parents[1] / "devices" / f"{BOARD.name}.toml").read_text()
    (tmp_path / f"{BOARD.name}.toml").write_text(text.replace("262144", "64"))
    before = (artefact / "card.json").read_bytes()
    (verified,) = hwnas.verify(str(artefact), device=str(tmp_path / f"{BOARD.name}.toml"))
    assert not verified.fine
    assert (artefact / "card.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_verified_all_the_same(
    artefact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Card, path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Card, "write", refuse)
    before = {path.name: path.read_bytes() for path in artefact.iterdir()}
    assert hwnas.verify(str(artefact), device=BOARD.name)[0].fine
    assert "does not keep what was verified: Read-only file system" in caplog.text
    assert {path.name: path.read_bytes() for path in artefact.iterdir()} == before


def test_a_file_that_is_none_of_the_artefacts_is_told_from_its_own(artefact: Path) -> None:
    shutil.copy(artefact / "model.int8.tflite", artefact / "other.tflite")
    with pytest.raises(InputError, match=r"must be one of the artefact's, model\.tflite.*; got other\.tflite"):
        hwnas.verify(str(artefact / "other.tflite"), device=BOARD.name)


# The fragment in C++.

MICRO = r"""
#pragma once
#include <cstddef>
#include <cstdint>
#include <iostream>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
struct Model { const unsigned char* bytes; };
inline const Model* GetModel(const void* bytes) {
  static Model model;
  model.bytes = static_cast<const unsigned char*>(bytes);
  return &model;
}
struct MicroOpResolver {};
template <unsigned int N> struct MicroMutableOpResolver : MicroOpResolver {
  unsigned int count = 0;
  TfLiteStatus Add(const char* name) {
    std::cout << name << " ";
    return count++ < N ? kTfLiteOk : kTfLiteError;
  }
METHODS
};
struct MicroInterpreter {
  MicroInterpreter(const Model* model, const MicroOpResolver&, uint8_t*, std::size_t bytes) {
    std::cout << "\n" << bytes << "\n" << static_cast<int>(model->bytes[4]) << "\n";
  }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { return kTfLiteOk; }
  template <class T> T* typed_input_tensor(int) { static T values[64]; return values; }
  template <class T> const T* typed_output_tensor(int) {
    for (int i = 0; i < 64; ++i) std::cout << +typed_input_tensor<T>(0)[i] << " ";
    static const T logits[] = {0, 2, 1};
    return logits;
  }
};
}
"""
MAIN = r"""
int main() {
  uint8_t pixels[64];
  for (int i = 0; i < 64; ++i) pixels[i] = i * 37 % 256;
  const int best = Classify(pixels);
  std::cout << "\n" << best << "\n";
}
"""
# of MicroMutableOpResolver, as far as hwnas writes their operators
METHODS = [
    "Add",
    "AveragePool2D",
    "Concatenation",
    "Conv2D",
    "DepthwiseConv2D",
    "Dequantize",
    "FullyConnected",
    "HardSwish",
    "Logistic",
    "MaxPool2D",
    "Mean",
    "Mul",
    "Pad",
    "PadV2",
    "Quantize",
    "Relu",
    "Relu6",
    "Reshape",
    "Slice",
    "Transpose",
]  # of MicroMutableOpResolver, as far as hwnas writes their operators


def test_operators_are_named_as_the_resolver_names_them() -> None:
    codes = {
        name
        for path in Path(formats.__file__).parent.glob("*.py")
        for name in re.findall(r"\bOp\.([A-Z0-9_]+)", path.read_text())
    }
    assert len(codes) > 15
    assert {resolver_name(code) for code in codes} <= set(METHODS)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here: ./apt-install g++")
def test_the_fragment_in_cpp_compiles_and_gives_the_file_what_the_card_says(artefact: Path, tmp_path: Path) -> None:
    """TensorFlow Lite Micro's headers are pretended: they come with no package."""
    hwnas.verify(str(artefact), device=BOARD.name)
    text = (artefact / "README.md").read_text().partition("## On a microcontroller")[2]
    (code,) = re.findall(r"```cpp\n(.*?)```", text, re.DOTALL)
    headers = tmp_path / "tensorflow" / "lite"
    (headers / "micro").mkdir(parents=True)
    (headers / "schema").mkdir()
    methods = "\n".join(f'  TfLiteStatus Add{name}() {{ return Add("{name}"); }}' for name in METHODS)
    (headers / "micro" / "micro_interpreter.h").write_text(MICRO.replace("METHODS", methods))
    for header in ("micro/micro_mutable_op_resolver.h", "schema/schema_generated.h"):
        (headers / header).write_text("#include <tensorflow/lite/micro/micro_interpreter.h>\n")
    numbers = ", ".join(map(str, (artefact / "model.int8.tflite").read_bytes()))
    (tmp_path / "model.h").write_text(f"alignas(16) const unsigned char model_int8_tflite[] = {{ {numbers} }};\n")
    (tmp_path / "main.cc").write_text(code + MAIN)
    compiler = ["c++", "-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}", "main.cc", "-o", "main"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    registered, arena, letter, values, best = done.stdout.splitlines()
    card = card_of(artefact)
    entry = card.files["model.int8.tflite"]
    assert entry.micro is not None
    assert entry.tensors is not None
    assert registered.split() == [resolver_name(operator) for operator in entry.micro.operators]
    assert (int(arena), int(letter), best) == (entry.micro.arena_bytes, ord("T"), "1")
    source = entry.tensors.input
    assert source.scale
    assert source.zero_point is not None
    pixels = np.arange(64) * 37 % 256
    wanted = np.rint((pixels / 255 - card.data.mean[0]) / card.data.std[0] / source.scale) + source.zero_point
    found = np.array(values.split(), float)
    assert np.abs(found - np.clip(wanted, -128, 127)).max() <= 1  # a tie may fall either way
