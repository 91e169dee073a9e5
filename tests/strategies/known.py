"""Candidates whose accuracy is known: each choice of each parameter has some worth and some latency."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from hwnas.searching.strategies import Context, Parameters, make_sampler


class Known:
    """Candidates of so many parameters and choices, of which half fit; a further parameter changes nothing.

    With targets all fit, and a network of a larger target is more accurate by its size.
    """

    def __init__(
        self,
        parameters: int = 6,
        choices: int = 5,
        *,
        seed: int = 0,
        targets: tuple[float, ...] = (),
        listed: bool = False,
    ) -> None:
        random = np.random.default_rng(seed)
        self.names = [f"p{place}" for place in range(parameters)]
        self.letters = "abcdefgh"[:choices]
        self.worths = np.stack([random.permutation(choices) for _ in self.names]) / max(1, choices - 1)
        self.ms = random.random((parameters, choices))
        self.cap_ms = float(self.ms.mean())
        self.targets, self.listed = targets, listed

    def distributions(self) -> dict[str, CategoricalDistribution]:
        found = {name: CategoricalDistribution(tuple(self.letters)) for name in self.names}
        found["ignored"] = CategoricalDistribution((False, True))
        return found | ({"target": CategoricalDistribution(self.targets)} if self.targets else {})

    def _mean(self, figures: Any, chosen: Parameters) -> float:
        places = [self.letters.index(chosen[name]) for name in self.names]
        return float(figures[range(len(places)), places].mean())

    def worth(self, chosen: Parameters) -> float:
        """Return the mean worth of the choices, 0 to 1."""
        return self._mean(self.worths, chosen)

    def accuracy(self, chosen: Parameters) -> float:
        return 0.4 + 0.2 * self.worth(chosen) + 0.3 * chosen.get("target", 1.0)

    def latency_ms(self, chosen: Parameters) -> float:
        own = self._mean(self.ms, chosen)
        return chosen["target"] * (0.9 + 0.1 * own) if self.targets else own

    def fits(self, chosen: Sequence[Parameters]) -> Any:
        return np.array([bool(self.targets) or self.latency_ms(one) <= self.cap_ms for one in chosen], dtype=bool)

    def excess(self, chosen: Parameters) -> float:
        return 0.0 if self.targets else max(0.0, self.latency_ms(chosen) - self.cap_ms)

    def identity(self, chosen: Parameters) -> Any:
        return (*(chosen[name] for name in self.names), chosen.get("target"))

    def without_ignored(self, chosen: Parameters) -> Parameters:
        return chosen

    def known_costs(self, chosen: Sequence[Parameters]) -> Any:
        return np.array([[self.latency_ms(one)] for one in chosen]).reshape(-1, 1)

    def every(self) -> list[Parameters] | None:
        if not self.listed:
            return None
        all_of_them = [
            {**dict(zip(self.names, letters, strict=True)), "ignored": False}
            for letters in product(self.letters, repeat=len(self.names))
        ]
        return [one for one, fits in zip(all_of_them, self.fits(all_of_them), strict=True) if fits]


def empty_study() -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize", "minimize"])


def propose(study: Study, known: Any, strategy: str, *, trials: int, seed: int = 0) -> optuna.Trial:
    """Ask as `search` does: by a sampler of its own, its seed from the run's and the trial's number."""
    number = len(study.get_trials(deepcopy=False))
    study.sampler = make_sampler(strategy, Context(known, trials), seed=1000 * seed + number)
    return study.ask(known.distributions())


def searched(known: Known, strategy: str, *, trials: int, seed: int = 0) -> list[FrozenTrial]:
    """Return the trials of a whole search."""
    study = empty_study()
    for _ in range(trials):
        trial = propose(study, known, strategy, trials=trials, seed=seed)
        study.tell(trial, [known.accuracy(trial.params), known.latency_ms(trial.params)])
    return study.get_trials()


def median_best(strategy: str, *, trials: int, runs: int) -> float:
    """Return the best worth that a search finds, in the median of runs on different candidates."""
    bests = []
    for run in range(runs):
        known = Known(8, 6, seed=run)
        bests.append(max(known.worth(trial.params) for trial in searched(known, strategy, trials=trials, seed=run)))
    return float(np.median(bests))
