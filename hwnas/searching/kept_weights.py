"""The weights of trained proxies that are kept for others to begin with (`hwnas search --inherit`).

Which of them has most in common with a network is asked for every trial, so the shapes in each file are read once, and
kept by name and shape: an answer takes as long as there are files that share something, not a look into each of them.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hwnas.network import Architecture
    from hwnas.runs import Trials

_Shape = tuple[str, tuple[int, ...]]  # a tensor's name and shape


class KeptWeights:
    """The files of a study's trained trials; `path_of` says where that of a trial is, if it was kept."""

    def __init__(self, trials: "Trials", path_of: Callable[[int], Path]) -> None:
        self._trials, self._path_of = trials, path_of
        self._read = 0  # how many of the trained trials have been looked at
        self._numbers: list[int] = []  # of the trials that have a file
        self._places: dict[_Shape, list[int]] = defaultdict(list)  # in `_numbers`, of the files with such a tensor

    def most_in_common(self, network: "Architecture") -> int | None:
        """Return the trial most of whose weights a network can begin with, the latest of equals; None without any."""
        from hwnas.training import tensor_shapes

        self._refresh()
        common = np.zeros(len(self._numbers), dtype=np.int64)
        for shape in tensor_shapes(network).items():
            common[self._places.get(shape, [])] += int(np.prod(shape[1]))
        if not common.any():
            return None
        most = np.flatnonzero(common == common.max())
        return max(self._numbers[place] for place in most)

    def _refresh(self) -> None:
        """Look at the files of trials that have been trained since."""
        from hwnas.training import file_shapes

        trained = self._trials.refresh().trained_numbers
        for number in trained[self._read :]:
            if (path := self._path_of(number)).exists():
                for shape in file_shapes(path).items():
                    self._places[shape].append(len(self._numbers))
                self._numbers.append(number)
        self._read = len(trained)
