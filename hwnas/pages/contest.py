"""A contest on a run's page: winners beside hand-made networks under a cap, as benchmarks/contest.py left it."""

from typing import ClassVar, Literal

from hwnas.runs import Milliseconds, Share
from hwnas.support import FileRecord, Record, commands


class ContestRow(Record):
    """A network under a cap: of `share` of it, with its test accuracies by seed, their mean and half its 95 % interval.

    `searched` are the seconds that it took to find, where they are known; `trained` those of its training, the median.
    """

    network: str
    kind: Literal["hand-made", "search"]
    name: str
    ms: Milliseconds
    share: float
    mult_adds: int
    parameters: int
    accuracy: Share
    interval: float | None
    accuracies: list[Share]
    searched: float | None
    trained: float


class ContestRecord(FileRecord):
    """The networks under each cap in ms, the most accurate first; all were trained alike."""

    WHAT: ClassVar[str] = "a contest"
    AGAIN: ClassVar[commands.Command] = commands.Command(("python", "benchmarks/contest.py"))  # writes it

    data: str
    device: str
    setting: str
    epochs: float
    caps: dict[str, list[ContestRow]]
