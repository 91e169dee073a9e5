"""ENAS: shared weights and a recurrent policy learn in turns, before the first trial (Pham et al., 2018).

As in sections 2.2 and 3.2 the weights learn each minibatch of training images with one candidate that the policy draws
(M = 1), and the policy learns by REINFORCE what a candidate is right in on a minibatch of validation images, BatchNorm
with that minibatch's statistics. Unlike there the turns are short, the policy waits until the weights are worth asking
(as in Bender et al., 2020), and its baseline is the mean of recent rewards. The latency is in the reward as in
`controller`. What does not fit the caps is drawn again, and gets no reward: with the mean reward of what fits as the
baseline, rewards for fitting would change the policy's gradient by nothing on average.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.errors import BudgetError
from hwnas.searching.descent import descended
from hwnas.searching.estimators import prepared_file, supernet
from hwnas.searching.strategies import Parameters
from hwnas.searching.strategies._derived import CHECKPOINT
from hwnas.searching.strategies._derived import sampler as sampler
from hwnas.searching.strategies._policy import BATCH, Coding, Episode, Learner, Learning, Policy
from hwnas.searching.surrogates._one_thread import one_thread
from hwnas.support import bar, counted, say
from hwnas.training.bank import Bank
from hwnas.training.batches import Order, normalise, random_seed
from hwnas.training.loop import Training, run_training
from hwnas.training.module import Classifier
from hwnas.training.shared import logits_of, write_bank

if TYPE_CHECKING:
    from hwnas.datasets import Dataset
    from hwnas.network import Architecture
    from hwnas.runs import Run, SearchSettings
    from hwnas.searching.candidates import SpaceCandidates
    from hwnas.training.curves import Progress
    from hwnas.training.settings import TrainingSettings

SHARES = True

_LEARNING = Learning(latency_exponent=-0.07, steps=1, rate=0.02)
_TURN = 32  # steps of the weights, then one of the policy
_WAITS = 0.25  # share of the steps before the policy's first one
_REWARDED_BY = 64  # validation images
_RANKED_BY = 4  # such minibatches, the same ones for all that is derived
_DRAWS = 20  # times as many as are wanted: where the caps leave few, fewer are found
_FIRST, _FIRST_DRAWS = 16, 200  # candidates that are looked for at the beginning, and how patiently


@dataclass(frozen=True, slots=True)
class Drawn:
    """A candidate that fits: its choices by their positions, its network at the scale of short training, the largest
    that shares its weights, and its predicted latency at the scale of deployment.
    """

    positions: tuple[int, ...]
    architecture: "Architecture"
    largest: "Architecture"
    latency_ms: float


class Drawing:
    """What policies draw, as far as it fits the caps."""

    def __init__(self, settings: "SearchSettings", candidates: "SpaceCandidates") -> None:
        self._settings, self._candidates = settings, candidates
        self.coding = Coding({name: known.choices for name, known in candidates.distributions().items()})
        self.setup = self.coding.setup(_LEARNING)
        self._fitting = lru_cache(maxsize=4096)(self._fitted)
        self._first: list[Drawn] = []

    def begin(self) -> None:
        """Look for candidates that fit, for when a policy draws few or none; raises BudgetError where none does."""
        generator = torch.Generator().manual_seed(random_seed(self._settings.seed, 6))
        self._first = self._found(Learner(self.setup).policy, _FIRST, generator, draws=_FIRST_DRAWS)
        if missing := _FIRST - len(self._first):
            self._first += self._descended(missing)
        if not self._first:
            raise BudgetError(f"no candidate was found that fits the caps: raise {self._settings.budget.options()}")

    def some(self, policy: Policy, count: int, *seed: int) -> list[Drawn]:
        """Return so many candidates that a policy draws, some of them more than once where it draws few that fit."""
        found = self._found(policy, count, torch.Generator().manual_seed(random_seed(self._settings.seed, *seed)))
        enough = found if len(found) >= min(count, _FIRST) else found + self._first
        return list(islice(cycle(enough), count))

    def distinct(self, policy: Policy, count: int, *seed: int) -> list[Drawn]:
        """Return up to so many candidates, no two the same, that a policy draws at rising temperatures.

        Where it draws few that fit, those of the beginning are among them.
        """
        generator = torch.Generator().manual_seed(random_seed(self._settings.seed, *seed))
        found: dict[Any, Drawn] = {}
        draws = islice(policy.drawn(generator), 2 * _DRAWS * count)
        for positions in chain(draws, (drawn.positions for drawn in self._first)):
            if drawn := self._fitting(positions):
                found.setdefault(self._candidates.identity(self.coding.parameters(positions)), drawn)
            if len(found) == count:
                break
        return list(found.values())

    def _found(self, policy: Policy, count: int, generator: torch.Generator, *, draws: int = _DRAWS) -> list[Drawn]:
        found: list[Drawn] = []
        for _ in range(draws):
            with one_thread():
                rows = policy.sample(count, generator).tolist()
            found += [drawn for row in rows if (drawn := self._fitting(tuple(row)))]
            if len(found) >= count:
                break
        return found[:count]

    def _descended(self, count: int) -> list[Drawn]:
        """Return up to so many candidates that chance hardly draws, each changed until it fits."""
        random = np.random.default_rng((self._settings.seed, 10))
        positions = map(self.coding.positions, descended(self._candidates, random))
        return list(islice(filter(None, map(self._fitting, positions)), count))

    def _fitted(self, positions: tuple[int, ...]) -> Drawn | None:
        chosen = self.coding.parameters(positions)
        if (found := self._candidates.largest(chosen)) is None:
            return None
        scale, latency_ms = found
        networks = supernet.networks_of(self._settings, self._candidates.space, chosen, scale)
        return Drawn(positions, networks.architecture, networks.largest, latency_ms)


class Turns(Classifier):
    """A bank and a policy that learn in turns: at each call the bank computes a candidate that the policy has drawn."""

    def __init__(self, drawing: Drawing, dataset: "Dataset", *, seed: int) -> None:
        super().__init__()
        self.bank, self.learner = Bank(seed=seed), Learner(drawing.setup)
        self._drawing, self._dataset = drawing, dataset
        self._order = Order(dataset.validation.labels, seed=seed)
        self._paths: list[Drawn] = []  # of this turn
        self._path = 0

    def get_extra_state(self) -> Tensor:
        """Return what a checkpoint keeps of the policy, which learns on the CPU."""
        return self.learner.state()

    def set_extra_state(self, state: Tensor) -> None:
        """Take that up."""
        self.learner.restore(state)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take up what a checkpoint has; the bank has no weights before candidates need them."""
        for name in state_dict.keys() - self.state_dict().keys():
            self.bank.register_parameter(name.removeprefix("bank."), nn.Parameter(torch.empty_like(state_dict[name])))
        return super().load_state_dict(state_dict, strict, assign)

    def before_step(self, step: int, steps: int) -> bool:
        """Let the policy learn at the end of a turn, and draw the next one's candidates; make their weights."""
        turn, self._path = divmod(step, _TURN)
        is_new = False
        if self._path == 0 and step >= _WAITS * steps:
            is_new = self._learn(turn)
        if self._path == 0 or not self._paths:
            self._paths = self._drawing.some(self.learner.policy, _TURN, 7, turn)
            is_new |= self._hold(self._paths)
        return is_new

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of the step's candidate for images [n, channels, height, width]."""
        return logits_of(self.bank, self._paths[self._path].architecture, images)

    def ranked(self, count: int) -> list[Parameters]:
        """Return up to so many different candidates that the policy draws, of each target the best first, in turns."""
        candidates = self._drawing.distinct(self.learner.policy, count, 8)
        self._hold(candidates)
        minibatches = range(min(_RANKED_BY, max(1, len(self._dataset.validation.labels) // _minibatch(self._dataset))))
        by_target: dict[int, list[tuple[float, Drawn]]] = {}
        with bar("ranking what the policy draws", len(candidates)) as done:
            for drawn in candidates:
                places = by_target.setdefault(drawn.positions[0], [])
                places.append((self._reward(drawn, minibatches), drawn))
                done.advance()
        rows = [sorted(places, key=lambda place: -place[0]) for _, places in sorted(by_target.items())]
        ordered = sorted((rank, row) for row, places in enumerate(rows) for rank in range(len(places)))
        return [self._drawing.coding.parameters(rows[row][rank][1].positions) for rank, row in ordered]

    def _learn(self, turn: int) -> bool:
        """Let the policy learn from a batch of rewards; return whether weights were made."""
        batch = self._drawing.some(self.learner.policy, BATCH, 9, turn)
        is_new = self._hold(batch)
        rewards = [self._reward(drawn, [turn * BATCH + place]) for place, drawn in enumerate(batch)]
        with one_thread():
            self.learner.learn([Episode(drawn.positions, reward) for drawn, reward in zip(batch, rewards, strict=True)])
        return is_new

    def _hold(self, some: Sequence[Drawn]) -> bool:
        """Make the weights of candidates, each as large as the largest network needs; return whether any are new."""
        made = [self.bank.hold(network.graph) for drawn in some for network in (drawn.largest, drawn.architecture)]
        return any(made)

    @torch.no_grad()
    def _reward(self, drawn: Drawn, minibatches: Sequence[int]) -> float:
        """Return accuracy x latency^w on minibatches of validation images, by their numbers."""
        images, right, count = self._dataset.validation, 0.0, _minibatch(self._dataset)
        was_training = self.training
        self.train()
        for number in minibatches:
            indices = self._order.indices(number * count, count)
            pixels = normalise(images.read(indices).to(self._device), self._dataset)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            chosen = logits_of(self.bank, drawn.architecture, pixels).argmax(1).cpu()
            right += float((chosen == images.labels[indices]).double().mean()) / len(minibatches)
        self.train(was_training)
        return right * float(drawn.latency_ms**_LEARNING.latency_exponent)

    @property
    def _device(self) -> torch.device:
        return next(self.bank.parameters()).device


def derive(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> Sequence[Parameters]:
    """Train weights and policy, from where they were cut off, and return what the policy draws, the best first.

    The bank is left to the estimator supernet, if that is the run's. Raises BudgetError where nothing is found that
    fits the caps, and TrainingError.
    """
    network = _learned(run, candidates, dataset_of)
    derived = network.ranked(3 * run.settings.trials + 10)
    if prepared_file(run.settings.estimator) == supernet.FILE:
        _leave(network.bank, run)
    return derived


def share(
    run: "Run",
    candidates: "SpaceCandidates",
    dataset_of: "Callable[[int], Dataset]",
    derived: Sequence[Parameters],
) -> None:
    """Train the bank again that the estimator supernet looks with, by the same steps; what was `derived` stays."""
    say("enas: its shared weights are no more in the run's folder, so they are trained again by the same steps")
    bank = _learned(run, candidates, dataset_of).bank
    for chosen in derived:
        if found := candidates.largest(chosen):
            networks = supernet.networks_of(run.settings, candidates.space, chosen, found[0])
            bank.hold(networks.largest.graph)
            bank.hold(networks.architecture.graph)
    _leave(bank, run)


def _leave(bank: Bank, run: "Run") -> None:
    write_bank(bank, run.folder / supernet.FILE, origin=supernet.origin_of(run.settings))


def _learned(run: "Run", candidates: "SpaceCandidates", dataset_of: "Callable[[int], Dataset]") -> Turns:
    """Return bank and policy after their training, which goes on from where it was cut off."""
    settings = run.settings
    dataset, drawing = dataset_of(max(settings.resolution)), Drawing(settings, candidates)
    drawing.begin()
    if prepared_file(settings.estimator) == supernet.FILE:
        supernet.say_scales(settings)
    training = Training(
        lambda: Turns(drawing, dataset, seed=settings.seed),
        {"enas": {"space": settings.space, "scales": [str(scale) for scale in settings.scales]}},
        dataset.train,
        dataset,
        _settings_of(settings, rewarded_by=_minibatch(dataset)),
    )
    length = f"in {counted(training.steps, 'step')}, {supernet.as_long_as(settings.supernet)}"
    say(f"enas: shared weights and a policy learn in turns {length}")
    with bar("training shared weights and policy", training.steps) as steps:

        def show(progress: "Progress") -> None:
            steps.at(progress.step)

        run_training(training, checkpoint=run.folder / CHECKPOINT, on_progress=show)
    return training.finished()


def _minibatch(dataset: "Dataset") -> int:
    """Return by how many images a candidate is rewarded: of few all, but two at least, as one has no statistics."""
    return max(2, min(_REWARDED_BY, len(dataset.validation.labels)))


def _settings_of(settings: "SearchSettings", *, rewarded_by: int) -> "TrainingSettings":
    """Return how the bank is trained: of the images that the option gives some are the rewards'."""
    whole = supernet.bank_settings(settings.epochs, settings.images, 1, seed=settings.seed)
    rewards = (1 - _WAITS) * BATCH * rewarded_by / (_TURN * whole.batch_size)  # images for each that is learned from
    trainings = settings.supernet / (1 + rewards)
    return supernet.bank_settings(settings.epochs, settings.images, trainings, seed=settings.seed)
