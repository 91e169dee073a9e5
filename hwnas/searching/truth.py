"""How true the surrogate was: what it predicted of candidates before they were trained, beside what came out.

Progressive search plans a level by these predictions, so they tell whether its choice was better than chance. They
are of candidates that were chosen for being good: over all candidates of a level a surrogate looks better.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hwnas.runs import kendall, spearman
from hwnas.searching.strategies._plans import Plans

if TYPE_CHECKING:
    from optuna.study import Study

    from hwnas.runs import Trials

_TRUTH = "progressive:truth"  # a study attribute: each level that has ended, for whoever looks at the study


@dataclass(frozen=True, slots=True)
class LevelTruth:
    """The rank correlations of a level's predicted with its trained accuracies; None where there are too few.

    `blocks` is None where nothing grows: then all is one level. `candidates` were predicted and trained to their end.
    """

    blocks: int | None
    candidates: int
    spearman: float | None
    kendall: float | None

    def __str__(self) -> str:
        level = "the surrogate" if self.blocks is None else f"the surrogate at {self.blocks} blocks"
        if self.spearman is None or self.kendall is None:
            return f"{level}: too few candidates to say how true it was ({self.candidates})"
        return (
            f"{level}: Spearman {self.spearman:+.2f}, Kendall {self.kendall:+.2f} between what was predicted of "
            f"{self.candidates} candidates and what came out"
        )


def surrogate_truth(trials: "Trials") -> list[LevelTruth]:
    """Return the truth of each level of which anything was predicted, in their order."""
    plans = Plans.of(trials.study)
    pairs: dict[int | None, list[tuple[float, float]]] = {}
    for number, (plan, position) in sorted(plans.items.items()):
        record, predicted = trials.records[number], plans[plan].items[position].predicted_accuracy
        if predicted is not None and record.values is not None and record.stopped is None:
            pairs.setdefault(plans[plan].blocks, []).append((predicted, record.values[0]))
    return [
        LevelTruth(blocks, len(level), spearman(*zip(*level, strict=True)), kendall(*zip(*level, strict=True)))
        for blocks, level in sorted(pairs.items(), key=lambda item: item[0] or 0)
    ]


def ended_levels(trials: "Trials") -> list[LevelTruth]:
    """Return the truth of the levels that ended: another one was planned after them."""
    plans = Plans.of(trials.study)
    latest = plans[plans.latest].blocks if plans.latest >= 0 else None
    return [level for level in surrogate_truth(trials) if level.blocks != latest] if latest is not None else []


def plan_count(trials: "Trials") -> int:
    """Return how many plans there are: no level has ended since where there are no more of them."""
    return Plans.of(trials.study).latest + 1


def known_levels(study: "Study") -> int:
    """Return how many levels the study knows the truth of."""
    return len(study.user_attrs.get(_TRUTH, []))


def keep_truth(study: "Study", levels: Sequence[LevelTruth]) -> None:
    """Keep in the study how true the surrogate was."""
    if levels:
        study.set_user_attr(_TRUTH, [asdict(level) for level in levels])
