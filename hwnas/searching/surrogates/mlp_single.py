"""One MLP of PNAS (Liu et al., 2018, section 4.3), without a spread: see mlp.py."""

from functools import partial

from hwnas.searching.surrogates import mlp

fit = partial(mlp.fit, members=1)
