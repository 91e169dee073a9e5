"""Cells: blocks of two operations added together, as in NASNet (Zoph et al., 2018) and PNAS (Liu et al., 2018).

`Cell` is one cell, for people. Searches handle many at once as codes: an int array [n, blocks, 4] that holds
(operation, input, operation, input) of each block, operations by their position in the space's list.
Inputs are numbered 0 = h[l-2], 1 = h[l-1], 2, 3, ... = the cell's own blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, assert_never

from pydantic import BeforeValidator

from hwnas.errors import InputError, short
from hwnas.network.graph import Option
from hwnas.network.reading import STRICT, read_as

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]

Branch = tuple[str, int]  # an operation and the state that it reads
Concat = str | tuple[int, ...]  # "all" blocks, the "loose" states that no block reads, or a list of states


Combination = Literal["add", "concat"]


@dataclass(frozen=True, slots=True)
class Block:
    """Two branches whose outputs are added, or concatenated along the channels (NASNet, section 3.1, step 5)."""

    left: Branch
    right: Branch
    combination: Combination = "add"

    def to_json(self) -> list[Any]:
        """Return `[[operation, input], [operation, input]]`, and `"concat"` as a third where they are concatenated."""
        third: dict[Combination, list[str]] = {"add": [], "concat": ["concat"]}
        return [list(self.left), list(self.right), *third[self.combination]]

    def __str__(self) -> str:
        branches = [f"{operation}({state_name(source)})" for operation, source in (self.left, self.right)]
        match self.combination:
            case "add":
                return " + ".join(branches)
            case "concat":
                return f"concat({', '.join(branches)})"
            case _:
                assert_never(self.combination)


@dataclass(frozen=True, slots=True)
class MixedBlock:
    """All that a block's branches may be, each computed once, and under which options it is taken for one of them."""

    taken: Mapping[Branch, Sequence[Option]]


@dataclass(frozen=True, slots=True)
class Cell:
    """Blocks in order, and the states whose concatenation along the channels is the cell's output."""

    blocks: tuple[Block, ...]
    concat: Concat = "all"

    def __post_init__(self) -> None:
        if not self.blocks:
            raise InputError("a cell must have at least one block; got none")
        for index, block in enumerate(self.blocks):
            for _, source in (block.left, block.right):
                if not 0 <= source < index + 2:
                    raise InputError(f"block {index + 1} may read states 0 to {index + 1}; got {short(source)}")
        states = range(len(self.blocks) + 2)
        if isinstance(self.concat, str):
            if self.concat not in ("all", "loose"):
                raise InputError(f'concat must be "all", "loose" or a list of states; got {short(self.concat)}')
        elif not isinstance(self.concat, tuple):
            raise InputError(f'concat must be "all", "loose" or a list of states; got {short(self.concat)}')
        elif not self.concat or any(type(state) is not int or state not in states for state in self.concat):
            raise InputError(f"concat must list states from 0 to {states[-1]}; got {short(list(self.concat))}")

    @property
    def output_states(self) -> tuple[int, ...]:
        """The states that are concatenated."""
        if not isinstance(self.concat, str):
            return self.concat
        blocks = range(2, len(self.blocks) + 2)
        if self.concat == "all":
            return tuple(blocks)
        read = {source for block in self.blocks for _, source in (block.left, block.right)}
        return tuple(state for state in blocks if state not in read)

    def to_json(self) -> dict[str, Any]:
        """Return the cell as JSON values, in the form of the TOML files: `{"blocks": [[[op, input], ...], ...]}`."""
        concat = self.concat if isinstance(self.concat, str) else list(self.concat)
        return {"blocks": [block.to_json() for block in self.blocks], "concat": concat}

    @classmethod
    def from_json(cls, value: Any) -> "Cell":
        """Read what `to_json` wrote.

        Raises InputError for anything else.
        """
        return read_as(
            CellRecord, value, rule="a cell must be blocks = [[[operation, input], [operation, input]], ...]"
        ).cell

    def __str__(self) -> str:
        return "; ".join(map(str, self.blocks))


def _three_parts(block: Any) -> Any:
    """Return a block's three parts as tuples, the combination being "add" where there are two."""
    if not isinstance(block, list):
        return block
    parts = tuple(tuple(part) if isinstance(part, list) else part for part in block)
    return (*parts, "add") if len(parts) == 2 else parts


@dataclass(frozen=True, slots=True)
class CellRecord:
    """A cell as it is written down."""

    __pydantic_config__: ClassVar = STRICT

    blocks: tuple[Annotated[tuple[Branch, Branch, Combination], BeforeValidator(_three_parts)], ...]
    concat: Any = "all"  # see Cell

    @property
    def cell(self) -> Cell:
        """The cell; raises InputError where states or `concat` are none."""
        concat = tuple(self.concat) if isinstance(self.concat, list) else self.concat
        return Cell(tuple(Block(*parts) for parts in self.blocks), concat)


def state_name(state: int) -> str:
    """Return what a cell's state is called in words."""
    return ("h[l-2]", "h[l-1]")[state] if state < 2 else f"block {state - 1}"


def encode(cells: Sequence[Cell], operations: Sequence[str]) -> "Codes":
    """Return the codes [n, blocks, 4] of cells that all have the same number of blocks."""
    import numpy as np

    index = {operation: position for position, operation in enumerate(operations)}
    rows = [[(index[b.left[0]], b.left[1], index[b.right[0]], b.right[1]) for b in cell.blocks] for cell in cells]
    return np.array(rows, dtype=np.int64).reshape(len(rows), -1, 4)


def decode(codes: "Codes", operations: Sequence[str], *, concat: Concat = "all") -> list[Cell]:
    """Return the cells of codes [n, blocks, 4]."""
    return [
        Cell(tuple(Block((operations[a], i), (operations[b], j)) for a, i, b, j in rows), concat)
        for rows in codes.tolist()
    ]


def canonical_keys(codes: "Codes", *, operations: int) -> "NDArray[np.int64]":
    """Return one number [n] for each cell, equal for exactly the cells that are the same network.

    Swapping a block's two branches, and reordering blocks (which renames them), do not change the network. The key is
    the least, over all orders of the blocks in which each is read only by later ones, of the blocks' sorted branches
    written as one number. A hash of the blocks' contents would not do: it merges two equal blocks read by a third as
    (1, 1) and as (1, 2).
    """
    import numpy as np

    _, blocks, _ = codes.shape
    base = (operations * (blocks + 1)) ** 2  # distinct pairs of branches: the last block reads blocks + 1 states
    if base**blocks > np.iinfo(np.int64).max:
        raise InputError(f"cells of {blocks} blocks over {operations} operations are too many to be numbered")
    keys, tied = _least_block_first(codes, operations)
    rows = np.flatnonzero(tied)
    if len(rows):
        orders = [_keys_in_order(codes[rows], order, operations) for order in permutations(range(blocks))]
        keys[rows] = np.min(orders, axis=0)
    return keys


def _least_block_first(codes: "Codes", operations: int) -> "tuple[NDArray[np.int64], NDArray[np.bool_]]":
    """Number the cells by taking, place after place, the block with the least sorted branches among those that can be.

    Also says which cells had equal blocks to choose between: for them the order matters, and the number may not be
    the least.
    """
    import numpy as np

    count, blocks, _ = codes.shape
    branches = operations * (blocks + 1)
    unplaced = branches  # larger than any branch
    place = np.full((count, blocks + 2), unplaced, dtype=np.int64)  # of each state: its number, times the operations
    place[:, 0], place[:, 1] = 0, operations
    free = np.ones((count, blocks), dtype=bool)
    keys, tied = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool)
    everyone = np.arange(count)
    for at in range(blocks):
        pairs = np.full((count, blocks), np.iinfo(np.int64).max)
        for block in range(blocks):
            left_place = place[everyone, codes[:, block, 1]]
            right_place = place[everyone, codes[:, block, 3]]
            left, right = left_place + codes[:, block, 0], right_place + codes[:, block, 2]
            pair = np.minimum(left, right) * branches + np.maximum(left, right)
            ready = free[:, block] & (left_place < unplaced) & (right_place < unplaced)
            pairs[:, block] = np.where(ready, pair, pairs[:, block])
        chosen = pairs.argmin(axis=1)
        least = pairs[everyone, chosen]
        tied |= (pairs == least[:, None]).sum(axis=1) > 1
        keys = keys * (branches * branches) + least
        free[everyone, chosen] = False
        place[everyone, chosen + 2] = (at + 2) * operations
    return keys, tied


def _keys_in_order(codes: "Codes", order: tuple[int, ...], operations: int) -> "NDArray[np.int64]":
    """Number the cells as if block i stood at place order[i]; where one then reads a later one, the largest number."""
    import numpy as np

    count, blocks, _ = codes.shape
    branches = operations * (blocks + 1)
    place = np.array([-2, -1, *order], dtype=np.int64)  # of each state
    keys = np.zeros(count, dtype=np.int64)
    valid = np.ones(count, dtype=bool)
    for block, at in enumerate(order):
        left_place, right_place = place[codes[:, block, 1]], place[codes[:, block, 3]]
        valid &= (left_place < at) & (right_place < at)
        left = (left_place + 2) * operations + codes[:, block, 0]
        right = (right_place + 2) * operations + codes[:, block, 2]
        pair = np.minimum(left, right) * branches + np.maximum(left, right)
        keys += pair * (branches * branches) ** (blocks - 1 - at)
    return np.where(valid, keys, np.iinfo(np.int64).max)


def from_keys(keys: "NDArray[np.int64]", *, blocks: int, operations: int) -> "Codes":
    """Return the codes [n, blocks, 4] that canonical keys [n] stand for: each cell in its canonical form."""
    import numpy as np

    branches = operations * (blocks + 1)
    codes = np.empty((len(keys), blocks, 4), dtype=np.int64)
    rest = keys.copy()
    for block in reversed(range(blocks)):
        rest, pair = np.divmod(rest, branches * branches)
        left, right = np.divmod(pair, branches)
        codes[:, block, 1], codes[:, block, 0] = np.divmod(left, operations)
        codes[:, block, 3], codes[:, block, 2] = np.divmod(right, operations)
    return codes


def canonical(codes: "Codes", *, operations: int) -> "Codes":
    """Return the canonical form of each cell: codes [n, blocks, 4], in the order given."""
    return from_keys(canonical_keys(codes, operations=operations), blocks=codes.shape[1], operations=operations)


def distinct(codes: "Codes", *, operations: int) -> "Codes":
    """Return the distinct cells among codes [n, blocks, 4], in canonical form, sorted by key."""
    import numpy as np

    keys = np.unique(canonical_keys(codes, operations=operations))
    return from_keys(keys, blocks=codes.shape[1], operations=operations)


def extend(codes: "Codes", *, operations: int) -> "Codes":
    """Return the distinct cells [m, blocks + 1, 4] that one more block makes of cells [n, blocks, 4]."""
    import numpy as np

    count, blocks, _ = codes.shape
    block = all_blocks(inputs=blocks + 2, operations=operations)
    extended = np.empty((count, len(block), blocks + 1, 4), dtype=np.int64)
    extended[:, :, :blocks] = codes[:, None]
    extended[:, :, blocks] = block[None]
    return distinct(extended.reshape(-1, blocks + 1, 4), operations=operations)


def all_blocks(*, inputs: int, operations: int) -> "Codes":
    """Return the codes [m, 4] of every block that reads `inputs` states, each unordered pair of branches once."""
    import numpy as np

    branch = np.arange(inputs * operations)
    left, right = (branch[i] for i in np.triu_indices(len(branch)))
    return np.stack([left % operations, left // operations, right % operations, right // operations], axis=1)
