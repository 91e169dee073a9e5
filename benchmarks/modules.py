"""How fast our torch module is beside timm's, on a CPU: PNASNet-5 large, or NASNet-A large, with the same weights.

Forward (eval mode, no gradients) and forward with backward (train mode, without an optimizer), in fp32, on one thread
and on all. Ours runs in channels_last, as the estimators run it; timm's in the faster of channels_last and torch's
default. Rounds are interleaved; a figure is the lower quartile over rounds, its spread the upper quartile relative to
it. The last line is one JSON object; a ratio is ours / theirs, and 1 or less is expected of each.

    python benchmarks/modules.py [--quick] [--network pnasnet5large] [--resolution 224] [--batch 2]
"""

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_timm import PEERS, ours

Step = Callable[[nn.Module, Tensor], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: 96 pixels, two images, few rounds")
    parser.add_argument("--network", choices=list(PEERS), default="pnasnet5large")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    resolution, batch = (96, 2) if options.quick else (options.resolution, options.batch)
    rounds = 3 if options.quick else 7
    contenders = prepare(options.network, torch.randn(batch, 3, resolution, resolution))
    result: dict[str, Any] = {"network": options.network, "resolution": resolution, "batch": batch, "rounds": rounds}
    for threads, suffix in ((1, ""), (os.cpu_count() or 1, "_all_threads")):
        torch.set_num_threads(threads)
        for name, step in (("forward", forward), ("train", train)):
            seconds = measure(contenders, step, rounds)
            quartiles = {label: np.quantile(found, [0.25, 0.75]) for label, found in seconds.items()}
            theirs = min((label for label in quartiles if label != "ours"), key=lambda label: quartiles[label][0])
            for label, (low, high) in quartiles.items():
                print(f"{name}, {threads} threads, {label}: {low:.3f} s, spread {high / low - 1:.1%}")
                result[f"spread_{name}{suffix}"] = max(
                    result.get(f"spread_{name}{suffix}", 0), round(high / low - 1, 3)
                )
            result[f"ratio_{name}{suffix}"] = round(quartiles["ours"][0] / quartiles[theirs][0], 3)
            print(f"{name}, {threads} threads: ours / theirs = {result[f'ratio_{name}{suffix}']} ({theirs})")
    print(json.dumps(result))


def prepare(network: str, images: Tensor) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return ours and timm's twice with the images of each, all with the same weights and with fitted norms."""
    torch.manual_seed(0)
    peer = PEERS[network]().train()
    with torch.no_grad():  # otherwise activations shrink from layer to layer to numbers too small to be usual
        for _ in range(3):
            peer(images[:2])
    last = torch.channels_last
    ours_too = copy.deepcopy(ours(network, images.shape[2], peer)).to(memory_format=last)
    return {
        "ours": (ours_too, images.contiguous(memory_format=last)),
        "timm channels_last": (copy.deepcopy(peer).to(memory_format=last), images.contiguous(memory_format=last)),
        "timm": (peer, images),
    }


def measure(contenders: dict[str, tuple[nn.Module, Tensor]], step: Step, rounds: int) -> dict[str, list[float]]:
    """Return each contender's seconds, one by one in turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {label: [] for label in contenders}
    for turn in range(rounds + 1):
        for label, (module, images) in contenders.items():
            started = time.perf_counter()
            step(module, images)
            taken = time.perf_counter() - started
            module.zero_grad(set_to_none=True)
            if turn:
                seconds[label].append(taken)
        print(f"{step.__name__}: round {turn} of {rounds}", file=sys.stderr)
    return seconds


def forward(module: nn.Module, images: Tensor) -> None:
    module.eval()
    with torch.no_grad():
        module(images)


def train(module: nn.Module, images: Tensor) -> None:
    module.train()
    module(images).square().mean().backward()


if __name__ == "__main__":
    main()
