"""What the spaces of a normal and a reduction cell share: NASNet, ENAS's micro space, DARTS."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, combinations_with_replacement
from typing import TYPE_CHECKING, Any

from hwnas.network import (
    Block,
    Branch,
    Cell,
    CellNetwork,
    Combination,
    Concat,
    Graph,
    MixedBlock,
    Option,
    Scale,
    mixed_cells,
    ops,
)

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution

_ROLES = ("normal", "reduction")


@dataclass(frozen=True)
class CellSpace:
    """Cells of so many blocks; with `distinct_inputs` a block reads two different states.

    A choice's parameters are named ROLE_blockB_operation1, ..._input1, ..._operation2, ..._input2 (or ..._inputs, two
    states as in "0 2", where they are distinct) and, where there is more than one, ..._combination.
    """

    operations: tuple[str, ...]
    blocks: int
    concat: Concat
    combinations: tuple[Combination, ...] = ("add",)
    distinct_inputs: bool = False

    @property
    def choices(self) -> tuple[int, ...]:
        """How many choices there are for each block of a cell."""
        ways = len(self.combinations) * len(self.operations) ** 2
        return tuple(ways * self._inputs(block + 2) for block in range(self.blocks))

    def _inputs(self, states: int) -> int:
        return states * (states - 1) // 2 if self.distinct_inputs else states**2

    def distributions(self) -> "dict[str, CategoricalDistribution]":
        """Return what Optuna chooses from."""
        from optuna.distributions import CategoricalDistribution

        return {
            f"{role}_block{block + 1}_{field}": CategoricalDistribution(choices)
            for role in _ROLES
            for block in range(self.blocks)
            for field, choices in self._fields(block).items()
        }

    def _fields(self, block: int) -> dict[str, tuple[Any, ...]]:
        states = range(block + 2)
        fields: dict[str, tuple[Any, ...]] = {"operation1": self.operations, "operation2": self.operations}
        if self.distinct_inputs:
            fields["inputs"] = tuple(f"{left} {right}" for left, right in combinations(states, 2))
        else:
            fields |= {"input1": tuple(states), "input2": tuple(states)}
        return fields | ({"combination": self.combinations} if len(self.combinations) > 1 else {})

    def architecture(self, parameters: Mapping[str, Any], scale: Scale) -> CellNetwork:
        """Return the network of what Optuna chose; a block's branches are sorted, as their order changes nothing."""
        normal, reduction = (self._cell(parameters, role) for role in _ROLES)
        return CellNetwork(normal, scale, reduction)

    def _cell(self, parameters: Mapping[str, Any], role: str) -> Cell:
        return Cell(tuple(self._block(parameters, f"{role}_block{b + 1}_") for b in range(self.blocks)), self.concat)

    def _block(self, parameters: Mapping[str, Any], prefix: str) -> Block:
        if self.distinct_inputs:
            sources = tuple(map(int, parameters[f"{prefix}inputs"].split()))
        else:
            sources = (parameters[f"{prefix}input1"], parameters[f"{prefix}input2"])
        operations = (parameters[f"{prefix}operation1"], parameters[f"{prefix}operation2"])
        left, right = sorted(zip(operations, sources, strict=True), key=lambda branch: (branch[1], branch[0]))
        return Block(left, right, parameters.get(f"{prefix}combination", self.combinations[0]))

    def mixed(self, scale: Scale) -> Graph:
        """Return the graph of all cells in one, where blocks read distinct inputs, add, and are all output."""
        normal, reduction = ([self._mixed_block(role, block) for block in range(self.blocks)] for role in _ROLES)
        return mixed_cells(scale, normal, reduction)

    def _mixed_block(self, role: str, block: int) -> MixedBlock:
        prefix = f"{role}_block{block + 1}_"
        pairs = list(combinations(range(block + 2), 2))

        def option(side: int, operation: int, source: int) -> Option:
            reading = tuple(place for place, pair in enumerate(pairs) if pair[side] == source)
            return (f"{prefix}operation{side + 1}", (operation,)), (f"{prefix}inputs", reading)

        return MixedBlock(
            {
                (name, source): [
                    option(side, place, source) for side in (0, 1) if any(pair[side] == source for pair in pairs)
                ]
                for place, name in enumerate(self.operations)
                for source in range(block + 2)
            }
        )

    def cover(self, scale: Scale) -> Iterator[CellNetwork]:
        """Yield networks that between them have every operator of the space at a scale."""
        few = replace(scale, cells=min(scale.cells, 2))  # the third cell of a stage brings no new operator
        for cell in self._covering_cells:
            yield CellNetwork(cell, few, cell)

    @cached_property
    def _covering_cells(self) -> tuple[Cell, ...]:
        """What an operator looks like depends on what reads its output: a ReLU is fused where nothing else does.

        So states are read by an operation that begins with a ReLU, by one that does not, by both, and by the output
        alone. The cells need not be of the space themselves.
        """
        return (*self._with_each_operation(), *self._with_each_way_of_reading(), *self._with_each_output())

    def _with_each_operation(self) -> Iterator[Cell]:
        """Every operation on each input and on blocks, its output added, joined, or read as it is."""
        for operation in self.operations:
            for combination in self.combinations:
                first = Block((operation, 0), (operation, 1), combination)
                yield Cell((first, Block((operation, 2), (operation, 2))))
            if ops.ZERO in self.operations:
                for source in (0, 1, 2):
                    for reader in self._sorts:
                        alone = Block((operation, source), (ops.ZERO, 0))
                        yield Cell((Block((reader, 0), (reader, 1)), alone, Block((reader, 3), (ops.ZERO, 0))))

    @property
    def _sorts(self) -> tuple[str, ...]:
        """An operation that begins with a ReLU, and two that do not."""
        return ("separable_3x3", "max_pool_3x3", ops.IDENTITY)

    def _with_each_way_of_reading(self) -> Iterator[Cell]:
        branches: list[Branch] = [(operation, source) for operation in self._sorts for source in (0, 1)]
        for left, right in combinations_with_replacement(branches, 2):
            for onwards in combinations_with_replacement(self._sorts, 2):
                yield Cell((Block(left, right), Block((onwards[0], 2), (onwards[1], 2))), (3,))

    def _with_each_output(self) -> Iterator[Cell]:
        """As many outputs as there can be, some of them of twice the channels where branches are joined."""
        for outputs in range(1, self.blocks + 1) if self.concat == "loose" else (self.blocks,):
            for joined in range(outputs + 1) if "concat" in self.combinations else (0,):
                for sort in self._sorts:
                    pair = (sort, 0), (sort, 1)
                    blocks = [Block(*pair, "concat" if block < joined else "add") for block in range(outputs)]
                    yield Cell(tuple(blocks))
