"""Tree-structured Parzen estimators: Optuna's TPESampler (Bergstra et al., 2011; Ozaki et al., 2022)."""

from optuna.samplers import TPESampler

from hwnas.searching.strategies import Context


def sampler(context: Context, *, seed: int) -> TPESampler:
    """Return the sampler; it needs nothing of the context."""
    return TPESampler(seed=seed)
