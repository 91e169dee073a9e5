"""The space of PNAS (Liu et al., 2018, section 3.1): cells of one to five blocks over eight operations.

One cell serves as normal and as reduction cell; every block's output is concatenated. Equal cells are one candidate.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from hwnas.network import (
    Architecture,
    Block,
    Branch,
    Cell,
    CellNetwork,
    Graph,
    MixedBlock,
    Option,
    Scale,
    all_blocks,
    canonical,
    decode,
    distinct,
    extend,
    mixed_cells,
)

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution

    from hwnas.network.cell import Codes

OPERATIONS = (
    "separable_3x3",
    "separable_5x5",
    "separable_7x7",
    "conv_1x7_7x1",
    "identity",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dilated_3x3",
)
MAX_BLOCKS = 5
CHOICES = (256, 576, 1024, 1600, 2304)  # (inputs x operations)^2 of each block
DISTINCT = (
    136,
    31_620,
    10_979_688,
)  # cells of one, two and three blocks, counted by growing them and comparing canonical keys
_FIELDS = ("operation1", "input1", "operation2", "input2")  # of a block's code


def distributions() -> "dict[str, CategoricalDistribution]":
    """Return what Optuna chooses from: constant names and choices; blocks beyond the chosen number are ignored."""
    from optuna.distributions import CategoricalDistribution

    parameters: dict[str, CategoricalDistribution] = {"blocks": CategoricalDistribution(range(1, MAX_BLOCKS + 1))}
    for block in range(1, MAX_BLOCKS + 1):
        for name in _FIELDS:
            choices = OPERATIONS if name.startswith("operation") else range(block + 1)
            parameters[f"block{block}_{name}"] = CategoricalDistribution(choices)
    return parameters


def code(parameters: Mapping[str, Any]) -> "Codes":
    """Return the canonical code [1, blocks, 4] of what Optuna chose; it is not to be changed."""
    return _code(
        tuple(
            tuple(parameters[f"block{block}_{name}"] for name in _FIELDS)
            for block in range(1, parameters["blocks"] + 1)
        )
    )


@lru_cache(maxsize=1024)  # a search asks for the same one seven times
def _code(rows: "tuple[tuple[str, int, str, int], ...]") -> "Codes":
    import numpy as np

    index = {operation: position for position, operation in enumerate(OPERATIONS)}
    codes = np.array([[[index[a], i, index[b], j] for a, i, b, j in rows]])
    code = canonical(codes, operations=len(OPERATIONS))
    code.flags.writeable = False
    return code


def parameters(codes: "Codes") -> dict[str, Any]:
    """Return Optuna's parameters of a code [1, blocks, 4]; unused blocks repeat the first choices."""
    chosen: dict[str, Any] = {"blocks": codes.shape[1]}
    rows = codes[0].tolist() + [[0, 0, 0, 0]] * (MAX_BLOCKS - codes.shape[1])
    for block, row in enumerate(rows, start=1):
        for name, value in zip(_FIELDS, row, strict=True):
            chosen[f"block{block}_{name}"] = OPERATIONS[value] if name.startswith("operation") else value
    return chosen


def cells(codes: "Codes") -> list[Cell]:
    """Return the cells of codes [n, blocks, 4]."""
    return decode(codes, OPERATIONS)


def architecture(parameters: Mapping[str, Any], scale: Scale) -> CellNetwork:
    """Return the network of what Optuna chose."""
    return CellNetwork(cells(code(parameters))[0], scale)


@cache
def first_level() -> "Codes":
    """Return the 136 distinct cells of one block: codes [136, 1, 4]."""
    return distinct(all_blocks(inputs=2, operations=len(OPERATIONS))[:, None], operations=len(OPERATIONS))


def grow(codes: "Codes") -> "Codes":
    """Return the distinct cells [m, blocks + 1, 4] that one more block makes of cells [n, blocks, 4]."""
    return extend(codes, operations=len(OPERATIONS))


def mixed(scale: Scale) -> Graph:
    """Return the graph of all cells in one, each branch computed once for the left and the right of a block."""
    return mixed_cells(scale, [_mixed_block(block) for block in range(1, MAX_BLOCKS + 1)])


def _mixed_block(block: int) -> MixedBlock:
    """Return what a block's branches may be, under the choices of at least so many blocks."""
    there: Option = (("blocks", tuple(range(block - 1, MAX_BLOCKS))),) if block > 1 else ()
    return MixedBlock(
        {
            (name, source): [
                ((f"block{block}_operation{side}", (place,)), (f"block{block}_input{side}", (source,)), *there)
                for side in (1, 2)
            ]
            for place, name in enumerate(OPERATIONS)
            for source in range(block + 1)
        }
    )


def cover(scale: Scale) -> Iterator[Architecture]:
    """Yield architectures that between them need every operator that any architecture of the space needs at a scale.

    What an operator looks like depends on what reads its output beside it: operations that begin with a ReLU, pooling,
    or identity. So one operation of each sort, on either input, is paired with each other, for every number of blocks,
    and every operation appears on each input and on a block.
    """
    few = replace(scale, cells=min(scale.cells, 2))  # the third cell of a stage brings no new operator
    for cell in _covering_cells():
        yield CellNetwork(cell, few)


@cache
def _covering_cells() -> tuple[Cell, ...]:
    sorts = [(operation, source) for operation in ("separable_3x3", "max_pool_3x3", "identity") for source in (0, 1)]
    paired = [
        _cell(left, right, OPERATIONS[(i + blocks) % len(OPERATIONS)], blocks)
        for i, left in enumerate(sorts)
        for right in sorts[i:]
        for blocks in range(1, MAX_BLOCKS + 1)
    ]
    return (*paired, *(_cell((operation, 0), (operation, 1), operation, 2) for operation in OPERATIONS))


def _cell(left: Branch, right: Branch, onwards: str, blocks: int) -> Cell:
    """Return a cell of one block and, if there are to be more, others that only read that block."""
    return Cell((Block(left, right), *[Block((onwards, 2), ("identity", 2))] * (blocks - 1)))
