"""What a search chooses, before it is a graph: the base of every kind of network, and its JSON."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from hwnas.errors import InputError, short
from hwnas.network.cell import Cell
from hwnas.network.graph import Graph, check_size
from hwnas.support import plugins


class Architecture(ABC):
    """A network of some kind, before it is a graph; equal to another where they were written down alike."""

    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> str:
        """How large the network is, in words."""

    @property
    @abstractmethod
    def choice(self) -> str:
        """What was chosen, in words."""

    @property
    def name(self) -> str:
        """The size and the choice, in words."""
        return f"{self.size}: {self.choice}"

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cells that there are, by their role: "normal" and "reduction"."""
        return {}

    @abstractmethod
    def walk(self) -> Graph:
        """Walk the network from the image to the logits; raises InputError where the image is too small."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the architecture as JSON values, from which `from_json` makes an equal one."""

    @property
    def graph(self) -> Graph:
        """The graph of layers."""
        return _graph(self)

    @staticmethod
    def from_json(value: Any) -> "Architecture":
        """Read what `to_json` wrote; without a `kind` it is a network of cells.

        Raises InputError for anything else.
        """
        if not isinstance(value, Mapping):
            raise InputError(
                f"an architecture must have a scale and a normal cell, or another kind; got {short(value)}"
            )
        kind = value.get("kind", "cells")
        if not isinstance(kind, str):
            raise InputError(f"an architecture's kind must be a name; got {short(kind)}")
        read = plugins.load("kinds", kind).read
        return cast(Architecture, read({name: field for name, field in value.items() if name != "kind"}))


class UnreadableArchitecture(Architecture):
    """What was written down as an architecture and is none here, such as one of a kind that is not installed.

    It can be kept, compared and written again; its graph, and all that needs it, raises why it cannot be read.
    """

    __slots__ = ("_reason", "_value")

    def __init__(self, value: Mapping[str, Any], reason: InputError) -> None:
        self._value, self._reason = value, reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnreadableArchitecture) and self._value == other._value

    def __hash__(self) -> int:
        return hash(str(self._value))

    @property
    def size(self) -> str:
        """Why it cannot be read."""
        return str(self._reason)

    @property
    def choice(self) -> str:
        """Nothing that is known."""
        return "?"

    def walk(self) -> Graph:
        """Raise InputError."""
        raise InputError(str(self._reason))

    def to_json(self) -> dict[str, Any]:
        """Return what was written down."""
        return dict(self._value)


@lru_cache(maxsize=256)
def _graph(architecture: Architecture) -> Graph:
    graph = architecture.walk()
    check_size(graph)
    return graph
