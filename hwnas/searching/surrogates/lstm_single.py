"""One LSTM of PNAS (Liu et al., 2018, section 4.3), without a spread: see lstm.py."""

from functools import partial

from hwnas.searching.surrogates import lstm

fit = partial(lstm.fit, members=1)
