"""The plans of a progressive search, kept in the study: each is written once, and read once."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from optuna.study import Study
from optuna.trial import FrozenTrial
from pydantic import TypeAdapter

_PLAN = "progressive:plan:"  # + the plan's number: a study attribute
_ITEM = "progressive:item"  # [plan, position]: a trial attribute


@dataclass(frozen=True, slots=True)
class PlanItem:
    """A candidate that is planned, with its predicted accuracy once there is one.

    Where cells grow it is a `code` [blocks, 4] at a latency `target`, elsewhere it is what Optuna is to have chosen.
    """

    predicted_accuracy: float | None
    code: list[list[int]] | None = None
    target: float | None = None
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How many candidates to evaluate, and `items`, candidates in their order; `blocks` where cells grow."""

    quota: int
    items: list[PlanItem]
    blocks: int | None = None


@cache
def _reader() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


_by_study: "WeakKeyDictionary[Study, Plans]" = WeakKeyDictionary()


class Plans:
    """A study's plans by their numbers, and which trial took which item."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[int, int]] = {}  # by the trial: the plan's number and the item's position
        self.takers: dict[int, list[int]] = defaultdict(list)  # by the plan: the trials, in the order of their items
        self._plans: dict[int, Plan] = {}
        self._count = 0
        self._open: list[int] = []  # trials that run and have not taken an item yet

    @classmethod
    def of(cls, study: Study) -> "Plans":
        """Return a study's plans, brought up to date."""
        plans = _by_study.setdefault(study, cls())
        plans._refresh(study.get_trials(deepcopy=False))
        if plans.takers.keys() - plans._plans.keys():
            plans.read(study)
        return plans

    @property
    def latest(self) -> int:
        """The number of the latest plan; -1 where there is none."""
        return max(self._plans, default=-1)

    def __getitem__(self, number: int) -> Plan:
        return self._plans[number]

    def read(self, study: Study) -> None:
        """Read the plans that are not known yet."""
        attributes = study._storage.get_study_user_attrs(study._study_id)  # study.user_attrs copies all plans
        for name, value in attributes.items():
            if name.startswith(_PLAN) and (number := int(name.removeprefix(_PLAN))) not in self._plans:
                self._plans[number] = _reader().validate_python(value)

    def add(self, study: Study, plan: Plan) -> int:
        """Keep another plan in the study; return its number."""
        number = self.latest + 1
        items = [{name: value for name, value in asdict(item).items() if value is not None} for item in plan.items]
        items = [{"predicted_accuracy": None, **item} for item in items]
        blocks = {} if plan.blocks is None else {"blocks": plan.blocks}
        study.set_user_attr(f"{_PLAN}{number}", {**blocks, "quota": plan.quota, "items": items})
        self._plans[number] = plan
        return number

    def take(self, study: Study, trial: FrozenTrial, plan: int, position: int) -> PlanItem:
        """Note that a trial takes an item; return it."""
        study._storage.set_trial_system_attr(trial._trial_id, _ITEM, [plan, position])
        return self._plans[plan].items[position]

    def _refresh(self, trials: list[FrozenTrial]) -> None:
        numbers = [*self._open, *range(self._count, len(trials))]
        self._count, self._open = len(trials), []
        for number in numbers:
            if item := trials[number].system_attrs.get(_ITEM):
                plan, position = item
                self.items[number] = plan, position
                self.takers[plan].append(number)
            elif not trials[number].state.is_finished():
                self._open.append(number)
