"""Gaussian processes: Optuna's GPSampler, by the expected gain in hypervolume (Daulton et al., 2020).

It models accuracy, latency and how far from the caps a candidate is. What does not fit or is known is drawn
again.
"""

from optuna.samplers import GPSampler

from hwnas.searching.strategies import Context
from hwnas.searching.strategies._rejecting import RejectingSampler


def sampler(context: Context, *, seed: int) -> RejectingSampler:
    """Return the sampler."""
    own = GPSampler(seed=seed, warn_independent_sampling=False)  # parameters of one choice are chosen independently
    return RejectingSampler(own, context.candidates, seed=seed)
