"""Random choice: Optuna's RandomSampler."""

from optuna.samplers import RandomSampler

from hwnas.strategies import Context


def sampler(context: Context, *, seed: int) -> RandomSampler:
    """Return the sampler; it needs nothing of the context."""
    return RandomSampler(seed=seed)
