"""NSGA-II: Optuna's NSGAIISampler (Deb et al., 2002), with a population that a small search can turn over."""

from optuna.samplers import NSGAIISampler

from hwnas.searching.strategies import Context


def sampler(context: Context, *, seed: int) -> NSGAIISampler:
    """Return the sampler: a fifth of the search's trials as population, between 4 and Optuna's own 50."""
    return NSGAIISampler(population_size=min(50, max(4, context.trials // 5)), seed=seed)
