"""Convert networks with litert-torch, and quantise its files and ours with litert-quantizer.

It runs in an environment of its own, which benchmarks/export.py makes, with the repository on PYTHONPATH:

    python benchmarks/export_peers.py FOLDER...

Each folder has architecture.json, weights.safetensors, images.npy and whole.tflite, and gets peer.tflite,
peer.int8.tflite, quantizer.int8.tflite and, at the end, peer.json: the error by the name of each file that failed.
"""

import contextlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import litert_torch
import numpy as np
import torch
from litert_quantizer import calibrator, quantizer, recipe, recipe_manager
from litert_quantizer.utils import qsv_utils, tfl_interpreter_utils
from safetensors.torch import load_file
from torch import nn

from hwnas.network.architecture import Architecture
from hwnas.support.files import read_json, write_json
from hwnas.training.module import Network


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        failed: dict[str, str] = {}
        with contextlib.redirect_stdout(sys.stderr):
            attempt(failed, folder / "peer.tflite", lambda path: convert(path.parent, path))
            if "peer.tflite" in failed:
                failed["peer.int8.tflite"] = "no peer.tflite"
            else:
                attempt(failed, folder / "peer.int8.tflite", lambda path: quantise(path.with_name("peer.tflite"), path))
            attempt(
                failed, folder / "quantizer.int8.tflite", lambda path: quantise(path.with_name("whole.tflite"), path)
            )
        write_json(folder / "peer.json", failed)
        print(folder.name, flush=True)


def attempt(failed: dict[str, str], path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name, or note the error."""
    temporary = path.with_name(f"part.{path.name}")
    try:
        write(temporary)
    except Exception as error:  # noqa: BLE001  whatever a peer raises is its failure, and the benchmark goes on
        traceback.print_exc()
        failed[path.name] = f"{type(error).__name__}: {error}"[:1000]
    else:
        temporary.rename(path)


def convert(folder: Path, path: Path) -> None:
    """Convert the module as plain torch: what hwnas's convolutions change is for training on a CPU."""
    architecture = Architecture.from_json(read_json(folder / "architecture.json", what="a network"))
    network = Network(architecture.graph)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = nn.Conv2d
    channels, height, width = architecture.graph.layers[0].shape
    channels_last = litert_torch.to_channel_last_io(network.eval(), args=[0])
    litert_torch.convert(channels_last.eval(), (torch.zeros(1, height, width, channels),)).export(str(path))


def quantise(source: Path, path: Path) -> None:
    """Quantise a file fully to int8, calibrated on all images, min-max."""
    content, rules = source.read_bytes(), recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    calibration = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    interpreter = tfl_interpreter_utils.create_tfl_interpreter(content)
    ((signature, names),) = interpreter.get_signature_list().items()
    images = np.load(source.with_name("images.npy")).transpose(0, 2, 3, 1)
    inputs = [{names["inputs"][0]: np.ascontiguousarray(image[None])} for image in images]
    calibration.calibrate({signature: inputs}, rules)
    quantised = quantizer.Quantizer(content, recipe.static_wi8_ai8()).quantize(calibration.get_model_qsvs())
    path.write_bytes(quantised.quantized_model)


if __name__ == "__main__":
    main()
