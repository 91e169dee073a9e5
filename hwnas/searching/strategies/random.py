"""Random choice: every parameter by itself, every choice alike; what does not fit or is known is drawn again."""

from collections.abc import Iterator, Sequence

from optuna.trial import FrozenTrial

from hwnas.searching.strategies import Context, Parameters
from hwnas.searching.strategies._choosing import Proposer


def sampler(context: Context, *, seed: int) -> "RandomSampler":
    """Return the sampler."""
    return RandomSampler(context, seed=seed)


class RandomSampler(Proposer):
    """Leaves every choice to chance."""

    def draw(self, complete: Sequence[FrozenTrial]) -> Iterator[Parameters]:
        """Yield nothing: what a strategy does not draw is drawn by chance."""
        yield from ()
