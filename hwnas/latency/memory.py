"""What networks take of memory on a device: the file that is exported, and the arena of its activations.

Both are worked out of the graph, for the runtime, precision and rewrites of a setting, before there are weights.
hwnas/formats says how near they are.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hwnas import formats
from hwnas.errors import InputError
from hwnas.formats import Memory

if TYPE_CHECKING:
    from hwnas.device import Setting
    from hwnas.latency.budget import Budget
    from hwnas.network import Architecture


class MemoryModel:
    """Memory of networks in a setting; `metadata_of` gives what their files say of themselves, by the resolution."""

    def __init__(self, setting: "Setting", metadata_of: Callable[[int], Mapping[str, str]]) -> None:
        self._setting, self._metadata_of = setting, metadata_of
        self._known: dict[Architecture, Memory] = {}

    def of(self, architecture: "Architecture") -> Memory:
        """Return the memory of a network, which is worked out once."""
        if architecture not in self._known:
            setting, graph = self._setting, architecture.graph
            written = formats.get(setting.runtime, precision=setting.precision)
            self._known[architecture] = written.memory(
                written.lower(graph, without=setting.without),
                precision=setting.precision,
                metadata=self._metadata_of(graph.layers[0].shape[1]),
                without=setting.without,
            )
        return self._known[architecture]

    def check(self, budget: "Budget", architecture: "Architecture") -> None:
        """Raise InputError for a cap on activations of a runtime whose arena is not known."""
        if budget.max_activation_kib is not None and self.of(architecture).arena_bytes is None:
            raise InputError(
                f"--max-activation-kib is of TFLite's arena; got it for the setting {self._setting.name}. Take a "
                "--setting of the runtime tflite, or leave it out"
            )
