#!/usr/bin/env bash
# torchvision's ShuffleNetV2 does not stay in channels_last: a third of its convolutions read another layout.
#
# Guess:    a model and its images in torch.channels_last stay so through every layer, as in torchvision's other networks.
# Versions: torch 2.14.1, torchvision 0.29.1; CPython 3.11, Linux x86-64, on the CPU, with and without gradients.
# Seen:     18 of the 56 convolutions of shufflenet_v2_x1_0 read a tensor that is not in channels_last; none of the 52 of
#           mobilenet_v2, 34 of mobilenet_v3_small, 120 of densenet121, 26 of squeezenet1_1. Its channel shuffle is view,
#           transpose, contiguous() and view, and contiguous() makes the usual layout. torch's own nn.ChannelShuffle
#           computes the same and keeps channels_last.
# hwnas:    shuffles with nn.ChannelShuffle (hwnas/training/module.py), so chains with shuffle units train in the layout
#           that is asked for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn
from torchvision import models
from torchvision.models.shufflenetv2 import channel_shuffle


def is_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def others(name, gradients):
    """Return how many convolutions of a network read another layout, of how many whose images have a size."""
    network = getattr(models, name)(weights=None).to(memory_format=torch.channels_last).eval()
    read = []

    def note(module, inputs):
        if inputs[0].shape[2] > 1:
            read.append(is_last(inputs[0]))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(note)
    with torch.set_grad_enabled(gradients):
        network(torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last))
    return read.count(False), len(read)


names = ("shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "squeezenet1_1")
seen = {name: [others(name, gradients) for gradients in (False, True)] for name in names}
value = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
own, theirs = nn.ChannelShuffle(2)(value), channel_shuffle(value, 2)
print(seen, "kept:", is_last(own), is_last(theirs))
assert torch.equal(own, theirs)
assert (is_last(own), is_last(theirs)) == (True, False)
expected = {"shufflenet_v2_x1_0": (18, 56), "mobilenet_v2": (0, 52), "mobilenet_v3_small": (0, 34)}
expected |= {"densenet121": (0, 120), "squeezenet1_1": (0, 26)}
assert seen == {name: [count, count] for name, count in expected.items()}, f"expected {expected}"
PYTHON
