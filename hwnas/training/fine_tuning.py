"""Quantisation-aware fine-tuning: a trained network learns to compute in int8 what it computes in fp32.

BatchNorm is folded first. Then weights and activations are rounded in the forward pass as an int8 file rounds them, and
gradients pass through the rounding (Jacob et al., 2018, section 3). What is learnt is the output of the network itself
in fp32, so that no label is needed.
"""

import time
import zlib
from collections.abc import Callable
from math import cos, pi
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from hwnas.errors import TrainingError
from hwnas.formats import Quantisation, Reading
from hwnas.network import Graph, Layer
from hwnas.training import checkpoint as _checkpoint
from hwnas.training import hardware as _hardware
from hwnas.training.batches import normalise
from hwnas.training.module import Network, deployed_weights

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.formats import Ranges, Weights

STEPS = 300
BATCH = 64
_RATE = 1e-4
_LOWEST, _HIGHEST = -128, 127  # of int8
_SMALLEST = 1e-9  # scale of a weight
_SAVE_EVERY_S = 60.0


def fine_tune(
    network: Network,
    lowered: Graph,
    weights: "Weights",
    ranges: "Ranges",
    dataset: "Dataset",
    *,
    reading: Reading,
    highest_weight: int = _HIGHEST,
    steps: int | None = None,
    checkpoint: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> "Weights":
    """Return weights with which a file of the network is nearer to it, given those that it has, in torch's layout.

    `lowered` is what the file computes of what it reads, with the network's own convolutions: none is split. Its
    activations are rounded to `ranges`, its weights to numbers up to `highest_weight`. It learns from random training
    images, `BATCH` in each of `steps`, without them `STEPS`. With `checkpoint` it goes on from there if it was cut off,
    and ends with the very weights of one that was not (on the CPU with the same number of threads).
    """
    steps = STEPS if steps is None else steps
    hardware = _hardware.choose("auto", precision="fp32", channels_last=None)
    teacher = network.eval().to(hardware.device)
    student = _Rounded(lowered, ranges).to(hardware.device)
    _take(student, weights)
    for module in student.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", _RoundedWeight(highest_weight))
    optimizer, saved = torch.optim.Adam(student.parameters(), lr=_RATE), time.monotonic()
    identity = _identity(student, ranges, steps, highest_weight)
    first = _resume(student, optimizer, checkpoint, identity)
    for step in range(first, steps):
        chosen = torch.randint(len(dataset.whole_train.labels), (BATCH,), generator=torch.Generator().manual_seed(step))
        pixels = dataset.whole_train.read(chosen)
        with torch.no_grad():
            wanted = teacher(normalise(pixels.to(hardware.device), dataset)).log_softmax(1)
        images = torch.from_numpy(reading.seen(pixels.numpy())).to(hardware.device)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + cos(pi * step / steps))
        optimizer.zero_grad()
        F.kl_div(student(images).log_softmax(1), wanted, reduction="batchmean", log_target=True).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if on_step:
            on_step(step + 1)
        if checkpoint is not None and time.monotonic() >= saved + _SAVE_EVERY_S:
            state = {"fine_tuning": identity, "step": step + 1}
            _checkpoint.save(checkpoint, _checkpoint.tensors_of(student, optimizer), state)
            saved = time.monotonic()
    network.cpu()
    return deployed_weights(student)


class _Rounded(Network):
    """A network without BatchNorm whose activations are rounded to int8, in training and after it."""

    def __init__(self, graph: Graph, ranges: "Ranges") -> None:
        super().__init__(Graph(tuple(map(_folded, graph.layers)), graph.norm_epsilon))
        self._scales = {layer.name: Quantisation.of(*ranges[layer.name], lowest=_LOWEST) for layer in graph.layers}

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self._round(self.graph.layers[0], images))

    def _run(self, layer: Layer, module: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> Tensor:
        return self._round(layer, super()._run(layer, module, inputs))

    def _round(self, layer: Layer, value: Tensor) -> Tensor:
        step, zero_point = self._scales[layer.name]
        return torch.fake_quantize_per_tensor_affine(value, step, zero_point, _LOWEST, _HIGHEST)


class _RoundedWeight(nn.Module):
    """A weight with a scale for each output channel, and the numbers from -highest to highest."""

    def __init__(self, highest: int) -> None:
        super().__init__()
        self._highest = highest

    def forward(self, weight: Tensor) -> Tensor:
        steps = (weight.detach().flatten(1).abs().amax(1) / self._highest).clamp(min=_SMALLEST)
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -self._highest, self._highest)


def _folded(layer: Layer) -> Layer:
    return layer._replace(norm=False, bias=layer.kind in ("conv", "linear"))


@torch.no_grad()
def _take(student: Network, weights: "Weights") -> None:
    for layer, module in zip(student.graph.layers, student.layers, strict=True):
        if layer.name in weights:
            inner = next(part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear))
            weight, bias = map(torch.from_numpy, weights[layer.name])
            inner.weight.copy_(weight)
            assert inner.bias is not None  # `_folded` gives them one
            inner.bias.copy_(bias)


def _identity(student: Network, ranges: "Ranges", steps: int, highest_weight: int) -> str:
    """Return what is the same for fine-tunings that begin alike."""
    checksum = zlib.crc32(repr((steps, highest_weight, sorted(ranges.items()))).encode())
    for name, tensor in sorted(student.state_dict().items()):
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().data, zlib.crc32(name.encode(), checksum))
    return f"{checksum:08x}"


def _resume(student: Network, optimizer: torch.optim.Optimizer, path: Path | None, identity: str) -> int:
    """Take up a checkpoint, if there is one of this fine-tuning; return the step at which to go on."""
    if path is None or not path.exists():
        return 0
    try:
        tensors, state = _checkpoint.load(path)
    except TrainingError:  # a broken one, or another version's
        return 0
    if state.get("fine_tuning") != identity:
        return 0
    _checkpoint.restore(student, tensors, optimizer)
    return int(state["step"])
