"""How true the surrogate was: what it predicted of candidates before they were trained, beside what came out.

Progressive search plans a level by these predictions, so they tell whether its choice was better than chance. They
are of candidates that were chosen for being good: over all candidates of a level a surrogate looks better.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from hwnas.runs import kendall, spearman
from hwnas.searching.strategies.progressive import ITEM, PLAN

if TYPE_CHECKING:
    from optuna.study import Study

TRUTH = "progressive:truth"  # a study attribute: `to_json` of each level that has ended


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


def surrogate_truth(study: "Study") -> list[LevelTruth]:
    """Return the truth of each level of which anything was predicted, in their order."""
    plans = _plans(study)
    pairs: dict[int | None, list[tuple[float, float]]] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if plans else ():
        if ITEM in trial.system_attrs and "stopped" not in trial.user_attrs:
            number, position = trial.system_attrs[ITEM]
            predicted = plans[number]["items"][position]["predicted_accuracy"]
            if predicted is not None:
                pairs.setdefault(plans[number].get("blocks"), []).append((predicted, trial.values[0]))
    return [
        LevelTruth(blocks, len(found), spearman(*zip(*found, strict=True)), kendall(*zip(*found, strict=True)))
        for blocks, found in sorted(pairs.items(), key=lambda item: item[0] or 0)
    ]


def ended_levels(study: "Study") -> list[LevelTruth]:
    """Return the truth of the levels that ended: another one was planned after them."""
    plans = _plans(study)
    latest = plans[max(plans)].get("blocks") if plans else None
    return [level for level in surrogate_truth(study) if level.blocks != latest] if plans else []


def _plans(study: "Study") -> dict[int, dict[str, Any]]:
    return {int(name.removeprefix(PLAN)): plan for name, plan in study.user_attrs.items() if name.startswith(PLAN)}
