"""What strategies share that learn, before the first trial, how probable each choice is to be of the best network.

All networks of the space are trained in one, at the scale at which a random candidate is near the cap, and candidates
are derived that are probable and use the cap: hwnas/training/mixed.py and hwnas/searching/deriving.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwnas.network import ops
from hwnas.searching.deriving import derive_candidates
from hwnas.searching.expected_latency import ExpectedLatency
from hwnas.searching.strategies import Parameters
from hwnas.searching.strategies._derived import CHECKPOINT
from hwnas.spaces import random_parameters
from hwnas.support import bar, say
from hwnas.training import search_settings, seeded
from hwnas.training.loop import run_training
from hwnas.training.mixed import Gates, Looked, Mixed, MixedTraining, Relaxation

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Scale
    from hwnas.runs import Run, SearchSettings
    from hwnas.searching.candidates import SpaceCandidates

_RANDOM = 16  # candidates by which the scale is found, and what a training of one computes
_DRAWS = 8  # of gates, by which it is found what a step computes
_NO_OPERATION = (ops.IDENTITY, ops.ZERO)


def derive_by(
    relaxation: Relaxation,
    run: "Run",
    candidates: "SpaceCandidates",
    dataset_of: "Callable[[int], Dataset]",
) -> Sequence[Parameters]:
    """Return the candidates that a relaxation comes to, the best first; goes on where it was cut off.

    Raises BudgetError and TrainingError.
    """
    settings = run.settings
    latency = ExpectedLatency(candidates, _learning_scale(candidates, settings.seed))
    training = mixed_training(relaxation, settings, candidates, latency, dataset_of)
    say(f"{settings.strategy}: all of {settings.space} is trained in one at {latency.scale}, {training.steps} steps")
    with bar("learning architectures", training.steps) as steps:
        run_training(training, checkpoint=run.folder / CHECKPOINT, on_progress=lambda progress: steps.at(progress.step))
    network = training.finished()
    if training.stopped:
        say(
            f"{settings.strategy} was stopped after {training.step} of {training.steps} steps: the most probable cell "
            "had come to be mostly identities, as DARTS does once weights learn around them; what it was before counts"
        )
    probabilities = network.masked().detach().double().softmax(1).cpu().numpy()
    return derive_candidates(
        latency,
        probabilities,
        settings.budget,
        target=max(settings.targets),
        wanted=settings.trials,
        seed=settings.seed,
    )


def mixed_training(
    relaxation: Relaxation,
    settings: "SearchSettings",
    candidates: "SpaceCandidates",
    latency: ExpectedLatency,
    dataset_of: "Callable[[int], Dataset]",
) -> MixedTraining:
    """Return the training of all networks in one before its first step, as long as `--supernet` says."""
    scale = settings.proxy_scale(latency.scale)
    network = Mixed(candidates.space.mixed(scale), latency.sizes, relaxation, seed=settings.seed)
    share = _mult_adds(settings, candidates, scale) / _mult_adds_of_step(network, relaxation)
    training = replace(
        search_settings(epochs=settings.epochs, images_per_epoch=settings.images, seed=settings.seed),
        epochs=settings.epochs * settings.supernet * share,
    )
    cap = max(settings.targets) * settings.budget.max_latency_ms / (1 + candidates.costs.error)

    def look(probabilities: Tensor, seed: int) -> Looked:
        known = probabilities.double().numpy()
        derived = latency.ms([latency.parameters(known.argmax(1).tolist())])[0]
        by_choice = latency.looked(known, parameters=latency.parameters_a_look, seed=seed)
        return Looked(float(derived) / cap, torch.from_numpy(by_choice / cap))

    def is_collapsed(places: Sequence[int]) -> bool:
        return _is_mostly_identities(latency, places)

    identity = {"mixed": {"space": settings.space, "strategy": settings.strategy, "scale": str(latency.scale)}}
    dataset = dataset_of(scale.resolution)
    return MixedTraining(lambda: network, identity, dataset, training, look=look, is_collapsed=is_collapsed)


def _is_mostly_identities(latency: ExpectedLatency, places: Sequence[int]) -> bool:
    """Say whether more than half of a normal cell's branches are identities or zero."""
    cell = latency.architecture(latency.parameters(places)).cells.get("normal")
    branches = [operation for block in cell.blocks for operation, _ in (block.left, block.right)] if cell else []
    return 2 * sum(operation in _NO_OPERATION for operation in branches) > len(branches)


def _learning_scale(candidates: "SpaceCandidates", seed: int) -> int:
    """Return the place of the scale at which the median random candidate is predicted nearest above the cap.

    Only where some candidate is inside it; where there is no such scale, the one that comes nearest from below.
    """
    chosen = random_parameters(candidates.space, _RANDOM, seed=seed)
    columns = zip(*(candidates.costs_of(one).upper_ms[0].tolist() for one in chosen), strict=True)
    medians, least = zip(*((float(median(column)), min(column)) for column in columns), strict=True)
    cap = max(candidates.targets) * candidates.budget.max_latency_ms
    places = range(len(medians))
    above = [place for place in places if least[place] <= cap <= medians[place]]
    below = [place for place in places if medians[place] < cap]
    return min(above or places, key=medians.__getitem__) if above or not below else max(below, key=medians.__getitem__)


def _mult_adds(settings: "SearchSettings", candidates: "SpaceCandidates", scale: "Scale") -> float:
    """Return the Mult-Adds of the median random candidate in short training, for one image."""
    chosen = random_parameters(candidates.space, _RANDOM, seed=settings.seed)
    return float(median(candidates.space.architecture(one, scale).graph.mult_adds for one in chosen))


@torch.no_grad()
def _mult_adds_of_step(network: Mixed, relaxation: Relaxation) -> float:
    """Return the Mult-Adds that a step of logits and one of weights compute, for one image, in terms of forward passes.

    A step of the second order takes four gradients in place of one: by weights, by both, and twice by logits.
    """

    def computed(gates: Callable[[Tensor, float], Gates]) -> float:
        with seeded(0):
            return sum(network.taken(gates(network.masked(), 0.0)).mult_adds for _ in range(_DRAWS)) / _DRAWS

    of_logits, of_weights = computed(relaxation.architecture), computed(relaxation.weights)
    return of_weights + (4 if relaxation.second_order else 1) * of_logits
