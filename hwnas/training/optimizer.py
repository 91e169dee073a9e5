"""The optimiser of a training and its learning rate: a linear warm-up, then a cosine to 0."""

import math
from typing import TYPE_CHECKING, assert_never

import torch
from torch import nn

if TYPE_CHECKING:
    from hwnas.training.settings import TrainingSettings


def learning_rate_at(step: int, steps: int, settings: "TrainingSettings") -> float:
    """Return the learning rate of a step: a linear rise over the warm-up, then a cosine to 0 after the last step."""
    warm_up = round(settings.warm_up * steps)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / (warm_up + 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def make_optimizer(network: nn.Module, settings: "TrainingSettings") -> torch.optim.Optimizer:
    """Return an optimiser whose weight decay leaves out what has one dimension: biases and BatchNorm's gamma and beta.

    SGD with Nesterov momentum, or Adam with decoupled weight decay (AdamW; Loshchilov and Hutter, 2019, algorithm 2).
    """
    decayed = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    match settings.optimizer:
        case "sgd":
            momentum = settings.momentum
            return torch.optim.SGD(
                groups, lr=settings.learning_rate, momentum=momentum, nesterov=momentum > 0, foreach=True
            )
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.learning_rate, foreach=True)
        case _:
            assert_never(settings.optimizer)
