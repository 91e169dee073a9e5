"""Untrained networks, in the state in which a proxy looks at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hwnas.training import Network, seeded

if TYPE_CHECKING:
    from hwnas.network import Architecture


@contextmanager
def untrained(architecture: "Architecture", seed: int, kind: type[Network] = Network) -> Iterator[Network]:
    """Give an untrained network in train mode: BatchNorm uses the batch, as its own statistics say nothing yet.

    The caller's random state is given back.
    """
    with seeded(seed):
        yield kind(architecture.graph).train()
