"""All networks of a space in one, and how its weights and its architecture parameters are learnt in turn.

Architecture parameters are logits, one for each choice of each parameter of the space. A step updates them on one half
of the training images, then the weights on the other (DARTS, Liu et al., 2019, section 2.3). How the mixed network
takes choices meanwhile, by their probabilities or by some that are drawn, is a `Relaxation`. The loss of the logits is
cross entropy and the latency beyond a cap, whose multiplier rises as long as it is exceeded: dual ascent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from hwnas.network import Graph, Option, taken
from hwnas.training.bank import Bank
from hwnas.training.batches import Order, normalise, random_seed, stratified
from hwnas.training.loop import Training
from hwnas.training.module import Classifier
from hwnas.training.optimizer import learning_rate_at

if TYPE_CHECKING:
    from hwnas.datasets import Dataset, Images
    from hwnas.training.settings import TrainingSettings

_BETAS = (0.5, 0.999)  # DARTS, section 4
_WAY = 6.0  # how far a logit can go in all steps: DARTS makes 20,000 of 3e-4 each
_MOST_RATE = 0.1  # of Adam, where the steps are few
_DUAL_WAY = 20.0  # how far the multiplier goes in all steps where the latency is twice the cap
_KEPT = 0.9  # share of the running mean of latencies that a look leaves
_FINITE = 0.01  # size of the step of DARTS' finite differences, divided by the gradient's norm (section 2.3)
_WATCHED_FROM = 0.5  # share of the steps: before, what is most probable means little


class Gates(NamedTuple):
    """How much each choice is taken, and for which of them that is learnt: both [parameters, choices]."""

    values: Tensor  # a parameter's sum to 1
    considered: Tensor  # bool; what takes a choice that is not considered is not computed


@dataclass(frozen=True, slots=True)
class Relaxation:
    """How choices are taken, given their logits [parameters, choices] and the share of the steps that is done.

    `architecture` is for a step of the logits, by which its values can be differentiated, `weights` for one of weights.
    """

    architecture: Callable[[Tensor, float], Gates]
    weights: Callable[[Tensor, float], Gates]
    second_order: bool = False  # DARTS, equation 7; else it is taken that weights do not follow the logits


class Looked(NamedTuple):
    """What was seen of latencies, as shares of the cap."""

    derived: float  # that of what is most probable
    by_choice: Tensor  # [parameters, choices]: with this choice, the others being drawn; not a number where not known


class Mixture:
    """The options of a mixed graph, and their weights from those of choices.

    An option's weight is the product, over its parameters, of the sum of those of the choices that it names.
    """

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        options = (option for layer in graph.layers for option in layer.options)
        self.options: list[Option] = list(dict.fromkeys(options))
        rows = {name: row for row, name in enumerate(sizes)}
        width = max(sizes.values())
        count = max(map(len, self.options))
        self._factors = torch.zeros(count, len(self.options), len(sizes) * width + 1)
        self._factors[:, :, -1] = 1.0  # a factor that an option lacks
        for at, option in enumerate(self.options):
            for factor, (name, places) in enumerate(option):
                self._factors[factor, at, -1] = 0.0
                self._factors[factor, at, [rows[name] * width + place for place in places]] = 1.0

    def weights(self, values: Tensor) -> Tensor:
        """Return the weight of each option [options] from values of choices [parameters, choices]."""
        return self._each(values).prod(0)

    def _each(self, values: Tensor) -> Tensor:
        return self._factors.to(values) @ torch.cat([values.flatten(), values.new_ones(1)])

    @torch.no_grad()
    def computed(self, gates: Gates) -> list[bool]:
        """Say of each option whether its term is needed, be it for the gradient by one choice alone."""
        is_considered = (self._each(gates.considered.to(gates.values.dtype)) > 0).all(0)
        changes = (self._each(gates.values) == 0).sum(0)  # parameters that would have to be chosen otherwise
        needed: list[bool] = (is_considered & (changes <= 1)).tolist()
        return needed


class Mixed(Classifier):
    """A mixed graph with the weights of a bank, the logits of all choices, and what is known of latencies."""

    logits: nn.Parameter  # [parameters, choices]; where a parameter has fewer they are not read
    there: Tensor  # [parameters, choices]: whether there is such a choice
    latencies: Tensor  # [parameters, choices]: running means of what was looked at, as shares of the cap
    known: Tensor  # [parameters]: whether it was looked at
    multiplier: Tensor  # of the latency
    before: Tensor  # the logits at the last step at which the network had not collapsed
    collapsed: Tensor  # whether it has since

    def __init__(self, graph: Graph, sizes: Mapping[str, int], relaxation: Relaxation, *, seed: int) -> None:
        super().__init__()
        self.graph, self.relaxation = graph, relaxation
        self.mixture = Mixture(graph, sizes)
        self.bank = Bank(seed=seed)
        self.bank.hold(graph)
        self.share = 0.0  # of the steps that is done
        width = max(sizes.values())
        generator = torch.Generator().manual_seed(random_seed(seed, 4))
        self.logits = nn.Parameter(1e-3 * torch.randn(len(sizes), width, generator=generator))
        there = torch.tensor([[place < size for place in range(width)] for size in sizes.values()])
        self.register_buffer("there", there, persistent=False)
        self.register_buffer("latencies", torch.zeros_like(self.logits))
        self.register_buffer("known", torch.zeros(len(sizes), dtype=torch.bool))
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("before", self.logits.detach().clone())
        self.register_buffer("collapsed", torch.tensor(False))
        self._taken: tuple[frozenset[Option], Graph] = frozenset(self.mixture.options), graph

    @property
    def learned(self) -> Bank:
        """The weights: the logits have an optimiser of their own."""
        return self.bank

    def masked(self) -> Tensor:
        """Return the logits, minus infinity where there is no choice: [parameters, choices]."""
        return torch.where(self.there, self.logits, -torch.inf)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, classes] of images [n, channels, height, width], as in a step of weights."""
        with torch.no_grad():
            gates = self.relaxation.weights(self.masked(), self.share)
        return self.computed(images, gates)

    def computed(self, images: Tensor, gates: Gates) -> Tensor:
        """Return the logits [n, classes] of images [n, channels, height, width], with choices taken as `gates` say."""
        graph = self.taken(gates)
        weights = self.mixture.weights(gates.values)
        logits: Tensor = self.bank(graph, images, weights=dict(zip(self.mixture.options, weights, strict=True)))
        return logits

    def taken(self, gates: Gates) -> Graph:
        """Return the graph of what is computed with such gates."""
        needed = self.mixture.computed(gates)
        options = frozenset(option for option, flag in zip(self.mixture.options, needed, strict=True) if flag)
        if options != self._taken[0]:
            self._taken = options, taken(self.graph, options)
        return self._taken[1]


class Half:
    """Some of the images of a set."""

    def __init__(self, images: "Images", indices: Tensor) -> None:
        self._images, self._indices = images, indices
        self.labels = images.labels[indices]

    def read(self, indices: Tensor) -> Tensor:
        """Return the images of these indices: uint8 [len(indices), channels, resolution, resolution]."""
        return self._images.read(self._indices[indices])


def halves(images: "Images", *, seed: int) -> tuple[Half, Half]:
    """Return two halves of a set, with the same share of every class."""
    order = stratified(images.labels, random_seed(seed, 5))
    return Half(images, order[::2]), Half(images, order[1::2])


class MixedTraining(Training[Mixed]):
    """The training of a mixed network; each step is one of the logits and one of the weights.

    `look` says what latencies come to, given the probabilities [parameters, choices] and a seed, `is_collapsed` whether
    the most probable choices [parameters] are of a network that has: then it ends, with the logits of the step before.
    """

    def __init__(
        self,
        make: Callable[[], Mixed],
        identity: dict[str, Any],
        dataset: "Dataset",
        settings: "TrainingSettings",
        *,
        look: Callable[[Tensor, int], Looked],
        is_collapsed: Callable[[Sequence[int]], bool],
    ) -> None:
        images, self._others = halves(dataset.train, seed=settings.seed)
        super().__init__(make, identity, images, dataset, settings)
        self._look_at, self._is_collapsed = look, is_collapsed
        rate = min(_MOST_RATE, _WAY / self.steps)
        self._adam = torch.optim.Adam([self.network.logits], lr=rate, betas=_BETAS)
        self._order_of_others = Order(self._others.labels, seed=random_seed(settings.seed, 6))

    def _optimizers(self) -> Sequence[torch.optim.Optimizer]:
        return [self.optimizer, self._adam]

    def _is_to_stop(self) -> bool:
        self.stopped = bool(self.network.collapsed)
        return self.stopped

    def _train_step(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Take a step of the logits, then one of the weights; return the weights' loss."""
        self.network.share = self.step / self.steps
        self._learn_latency()
        self._update_logits(pixels, labels)
        self._watch_collapse()
        return super()._train_step(pixels, labels)

    @torch.no_grad()
    def _learn_latency(self) -> None:
        """Look at latencies; raise the multiplier where what is most probable is over the cap, or lower it."""
        network = self.network
        looked = self._look_at(network.masked().softmax(1).cpu(), random_seed(self.settings.seed, 7, self.step))
        seen = looked.by_choice.to(network.latencies)
        is_known = ~seen.isnan().any(1)
        kept = torch.where(network.known, _KEPT, 0.0)[:, None]
        mixed = kept * network.latencies + (1 - kept) * seen
        network.latencies.copy_(torch.where(is_known[:, None], mixed, network.latencies))
        network.known |= is_known
        network.multiplier.add_(_DUAL_WAY / self.steps * (looked.derived - 1)).clamp_(min=0)

    def _update_logits(self, pixels: Tensor, labels: Tensor) -> None:
        """Take a step of Adam; of a parameter only choices that are considered move, and keep their probability.

        ProxylessNAS (Cai et al., 2019, section 3.2.1) asks for that; where all are considered it changes nothing.
        """
        network = self.network
        before = network.logits.detach().clone()
        gates, gradient = self._gradient(pixels, labels)
        network.logits.grad = gradient
        self._adam.step()
        network.logits.grad = None
        with torch.no_grad():
            sums = [_log_sum(logits, gates.considered) for logits in (before, network.logits)]
            moved = network.logits + (sums[0] - sums[1])
            network.logits.copy_(torch.where(gates.considered, moved, before))

    def _gradient(self, pixels: Tensor, labels: Tensor) -> tuple[Gates, Tensor]:
        """Return how choices were taken, and the gradient of the loss by the logits; the images are the weights'."""
        others = self._order_of_others.indices(self.step * self.batch_size, self.batch_size)
        images = normalise(self._others.read(others).to(self.hardware.device), self.dataset)
        images = images.contiguous(memory_format=self.hardware.memory_format)
        wanted = self._others.labels[others].to(self.hardware.device)
        if not self.network.relaxation.second_order:
            gates, loss = self._loss_of_logits(images, wanted)
            return gates, torch.autograd.grad(loss, self.network.logits)[0]
        return self._second_order(self._inputs(pixels), labels.to(self.hardware.device), images, wanted)

    def _loss_of_logits(self, images: Tensor, labels: Tensor) -> tuple[Gates, Tensor]:
        """Return how choices are taken, and the loss: cross entropy, and the latency as a share of the cap."""
        network = self.network
        gates = network.relaxation.architecture(network.masked(), network.share)
        loss = network.loss(network.computed(images, gates), labels, self.settings)
        return gates, loss + network.multiplier * (gates.values * network.latencies).sum()

    def _second_order(self, inputs: Tensor, labels: Tensor, images: Tensor, wanted: Tensor) -> tuple[Gates, Tensor]:
        """Return what `_gradient` does, where weights follow the logits by one step (DARTS, equations 7 and 8)."""
        logits, bank = self.network.logits, self.network.bank
        rate = self._rate()
        with _moved(bank.parameters(), self._by_weights(inputs, labels), -rate):
            gates, loss = self._loss_of_logits(images, wanted)
            gradient, *by_weights = torch.autograd.grad(loss, [logits, *bank.parameters()], materialize_grads=True)
        step = _FINITE / max(float(torch.stack([g.norm() for g in by_weights]).norm()), 1e-12)
        sides = []
        for sign in (1, -1):
            with _moved(bank.parameters(), by_weights, sign * step):
                sides.append(self._by_logits(inputs, labels))
        return gates, gradient - rate * (sides[0] - sides[1]) / (2 * step)

    def _rate(self) -> float:
        """Return the learning rate of this step's weights."""
        return learning_rate_at(self.step, self.steps, self.settings)

    def _by_weights(self, inputs: Tensor, labels: Tensor) -> Sequence[Tensor]:
        """Return the gradient of the weights' loss by the weights."""
        loss = self.network.loss(self.network(inputs), labels, self.settings)
        return torch.autograd.grad(loss, list(self.network.bank.parameters()), materialize_grads=True)

    def _by_logits(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient of the weights' loss by the logits."""
        gates = self.network.relaxation.architecture(self.network.masked(), self.network.share)
        loss = self.network.loss(self.network.computed(inputs, gates), labels, self.settings)
        return torch.autograd.grad(loss, self.network.logits)[0]

    @torch.no_grad()
    def _watch_collapse(self) -> None:
        """Note whether the network has collapsed; go back to the logits of the last step at which it had not.

        DARTS comes to prefer identities, that the weights of others learn around (Zela et al., 2020, section 3).
        """
        network = self.network
        chosen: list[int] = network.masked().argmax(1).tolist()
        if self.step >= _WATCHED_FROM * self.steps and self._is_collapsed(chosen):
            network.collapsed.fill_(True)
            network.logits.copy_(network.before)
        network.before.copy_(network.logits)


def _log_sum(logits: Tensor, considered: Tensor) -> Tensor:
    """Return the logarithm of the sum of exponentials of what is considered: [parameters, 1]."""
    return torch.where(considered, logits, -torch.inf).logsumexp(1, keepdim=True)


@contextmanager
def _moved(weights: Iterable[Tensor], by: Sequence[Tensor], factor: float) -> Iterator[None]:
    """Add to weights some times a step, and take back exactly what they were."""
    moved = list(weights)
    before = [weight.detach().clone() for weight in moved]
    with torch.no_grad():
        for weight, step in zip(moved, by, strict=True):
            weight.add_(step, alpha=factor)
    yield
    with torch.no_grad():
        for weight, value in zip(moved, before, strict=True):
            weight.copy_(value)
