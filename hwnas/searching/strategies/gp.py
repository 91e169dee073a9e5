"""Gaussian processes: Optuna's GPSampler, by the expected gain in hypervolume (Daulton et al., 2020).

It models accuracy, latency and how far from the caps a candidate is.
"""

from optuna.samplers import GPSampler

from hwnas.searching.strategies import Context


def sampler(context: Context, *, seed: int) -> GPSampler:
    """Return the sampler; it needs nothing of the context."""
    return GPSampler(seed=seed, warn_independent_sampling=False)  # parameters of one choice are chosen independently
