"""Search strategies, one file each: an Optuna sampler."""
