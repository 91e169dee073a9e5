"""What networks cost on several devices, each under a cap: the latency is the largest share of a cap.

So a target and the budget's cap are such shares, too, and who chooses by costs need not know of several devices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hwnas.errors import BudgetError
from hwnas.latency.budget import Budget
from hwnas.latency.cell_costs import CellCosts
from hwnas.latency.costs import CostModel, Costs
from hwnas.network import Architecture

if TYPE_CHECKING:
    from hwnas.network.cell import Codes


class _OfSeveral(CostModel):
    """What both models below have in common; what is about one device alone, such as the table, is the first's."""

    _models: tuple[CostModel, ...]
    _caps_ms: tuple[float, ...]

    @property
    def models(self) -> tuple[CostModel, ...]:
        """The model of each device."""
        return self._models

    @property
    def error(self) -> float:
        """The largest of the devices'."""
        return max(model.error for model in self._models)

    def walked(self, networks: Iterable[Sequence[Architecture]]) -> Costs:
        """Return the costs of networks, each given at every scale: arrays [networks, scales]."""
        given = list(networks)
        return self._worst([model.walked(given) for model in self._models])

    def check_reachable(self, costs: Costs, budget: Budget) -> None:
        """Raise BudgetError where not one of a space's small networks fits the caps of all devices."""
        if (costs.largest(budget, target_ms=budget.max_latency_ms) >= 0).any():
            return
        raise BudgetError(
            f"nothing in the space fits the caps of all devices: the network that comes nearest is predicted to take "
            f"{costs.upper_ms.min():.2f} of a cap, with its error. Raise {budget.options()} or allow fewer --filters"
        )

    def _worst(self, costs: Sequence[Costs]) -> Costs:
        """Return the devices' costs as one, of which the latencies are the largest shares of a cap."""
        ms = [each.ms / cap_ms for each, cap_ms in zip(costs, self._caps_ms, strict=True)]
        upper_ms = [each.upper_ms / cap_ms for each, cap_ms in zip(costs, self._caps_ms, strict=True)]
        return replace(costs[0], ms=np.max(ms, axis=0), upper_ms=np.max(upper_ms, axis=0))


class SeveralCosts(_OfSeveral):
    """Costs of networks on several devices."""

    def __init__(self, models: Sequence[CostModel], caps_ms: Sequence[float]) -> None:
        super().__init__(models[0].table, models[0].scales)
        self._models, self._caps_ms = tuple(models), tuple(caps_ms)


class SeveralCellCosts(_OfSeveral, CellCosts):
    """Costs of networks, and of many cells at once, on several devices."""

    def __init__(self, models: Sequence[CellCosts], caps_ms: Sequence[float]) -> None:
        super().__init__(models[0].table, models[0].scales, operations=models[0].operations)
        self._models, self._caps_ms = tuple(models), tuple(caps_ms)

    def of(self, codes: "Codes") -> Costs:
        """Return the costs of codes [n, blocks, 4] at every scale."""
        return self._worst([model.of(codes) for model in self._models if isinstance(model, CellCosts)])


def together(models: Sequence[CostModel], caps_ms: Sequence[float]) -> CostModel:
    """Return the costs on devices with these caps: of one device its own, in ms."""
    cells = [model for model in models if isinstance(model, CellCosts)]
    if len(models) == 1:
        return models[0]
    return SeveralCellCosts(cells, caps_ms) if len(cells) == len(models) else SeveralCosts(models, caps_ms)
