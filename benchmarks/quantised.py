"""What int8 costs on networks that were really trained: those of trained_networks.py, on Fashion-MNIST.

Each is written in int8 for TFLite as `hwnas export` writes it, calibrated on 100 training images, equalised or not, the
best method by 200 others, and quantised by onnxruntime's `quantize_static` on the same 100 (per channel, min-max):
the root mean square error of the logits on 1,000 test images, in units of the logits' deviation, how often the class
is that of PyTorch, and how accurate each is.

    python benchmarks/quantised.py [--quick] [--folder runs/trained_networks]

The last line is one JSON object: {"networks", "rmse_ratio": {"median", "worst"}, "agreement": {"median", "lowest",
"below_99"}, "lost_points": {"median", "worst"}, "each": {"NAME": {"rmse", "rmse_onnxruntime", "agreement",
"agreement_onnxruntime", "accuracy", "accuracy_int8"}}}; what is lost is in points of accuracy.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas import datasets, formats
from hwnas.device.device import Setting
from hwnas.formats._inputs import Reading
from hwnas.network.scale import Scale
from hwnas.support import plugins
from hwnas.support.progress import bar
from hwnas.training import calibrate
from hwnas.training.batches import normalise
from hwnas.training.module import Network, deployed_weights

CALIBRATED, TESTED = 100, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one network, hardly trained: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/trained_networks"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder
        if options.quick:
            folder = Path(temporary) / "trained"
            script = Path(__file__).with_name("trained_networks.py")
            subprocess.run([sys.executable, str(script), "--quick", "--keep", str(folder)], check=True)
        paths = sorted(folder.glob("*.json"))
        if not paths:
            raise SystemExit(f"{folder} has no trained network. Type: python benchmarks/trained_networks.py")
        images = Images(100) if options.quick else Images(TESTED)
        found = {}
        with bar("quantising", len(paths)) as progress:
            for path in paths:
                found[path.stem] = compared(path, images, Path(temporary))
                progress.advance()
    print(json.dumps(summary(found)))


class Images:
    """Normalised images [n, c, h, w]: training images to calibrate on, and test images with their labels."""

    def __init__(self, tested: int) -> None:
        self.dataset = datasets.load("fashion-mnist", seed=0)
        train, test = self.dataset.whole_train, self.dataset.test
        self.calibration = normalise(train.read(spread(len(train.labels), CALIBRATED)), self.dataset).numpy()
        rows = spread(len(test.labels), tested)
        self.tested = normalise(test.read(rows), self.dataset).numpy()
        self.labels = test.labels[rows].numpy()


def spread(length: int, count: int) -> torch.Tensor:
    return torch.arange(count) * length // count


def compared(path: Path, images: Images, folder: Path) -> dict[str, Any]:
    """Return how a network's int8 files compare with PyTorch."""
    network = read(path, images)
    with torch.no_grad():
        batches = torch.from_numpy(images.tested).split(100)
        wanted = torch.cat([network(batch) for batch in batches]).numpy()
    ours, theirs = tflite(network, images, folder), onnxruntime(network, images, folder)
    right = [outputs.argmax(1) == images.labels for outputs in (wanted, ours)]
    same = [float((outputs.argmax(1) == wanted.argmax(1)).mean()) for outputs in (ours, theirs)]
    rmse = [float(np.sqrt(np.mean((outputs - wanted) ** 2)) / wanted.std()) for outputs in (ours, theirs)]
    return {
        "rmse": round(rmse[0], 5),
        "rmse_onnxruntime": round(rmse[1], 5),
        "agreement": same[0],
        "agreement_onnxruntime": same[1],
        "accuracy": float(right[0].mean()),
        "accuracy_int8": float(right[1].mean()),
    }


def read(path: Path, images: Images) -> Network:
    """Return a trained network."""
    from safetensors.torch import load_file

    one = json.loads(path.read_text())
    dataset = images.dataset
    scale = Scale(one["cells"], one["filters"], dataset.resolution, len(dataset.classes), dataset.channels)
    network = Network(plugins.load("spaces", one["space"]).architecture(one["parameters"], scale).graph)
    network.load_state_dict(load_file(path.with_suffix(".safetensors")))
    return network.eval()


def tflite(network: Network, images: Images, folder: Path) -> Any:
    """Return the logits of our int8 TFLite file."""
    written, path = formats.get("tflite", precision="int8"), folder / "model.tflite"
    dataset, setting = images.dataset, Setting(runtime="tflite", precision="int8")
    reading = Reading("normalised", dataset.mean, dataset.std, "int8")
    weights, train = deployed_weights(network), dataset.whole_train
    best = calibrate(network, network.graph, weights, train, dataset, setting, path, reading=reading)
    path.write_bytes(written.write(written.lower(network.graph), best.weights, ranges=best.ranges))
    return written.load(path)(images.tested)


def onnxruntime(network: Network, images: Images, folder: Path) -> Any:
    """Return the logits of what onnxruntime's quantiser makes of our fp32 ONNX file."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images.calibration[:, None])

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image}

    written, weights = formats.get("onnx"), deployed_weights(network)
    whole, quantised = folder / "model.onnx", folder / "model.int8.onnx"
    whole.write_bytes(written.write(written.lower(network.graph), weights))
    quantize_static(
        str(whole),
        str(quantised),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return written.load(quantised)(images.tested)


def summary(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all networks."""
    ratios = [one["rmse"] / one["rmse_onnxruntime"] for one in found.values()]
    agreements = [one["agreement"] for one in found.values()]
    lost = [100 * (one["accuracy"] - one["accuracy_int8"]) for one in found.values()]
    return {
        "networks": len(found),
        "rmse_ratio": {"median": round(statistics.median(ratios), 3), "worst": round(max(ratios), 3)},
        "agreement": {
            "median": statistics.median(agreements),
            "lowest": min(agreements),
            "below_99": sum(agreement < 0.99 for agreement in agreements),
        },
        "lost_points": {"median": round(statistics.median(lost), 2), "worst": round(max(lost), 2)},
        "each": found,
    }


if __name__ == "__main__":
    main()
