"""Cells: canonical form against brute force, extension, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import InputError
from hwnas.network.cell import Block, Cell, all_blocks, canonical, canonical_keys, decode, distinct, encode, extend
from hwnas.spaces import pnas


def same_network(left: np.ndarray, right: np.ndarray) -> bool:
    """Say by brute force whether some renaming of the blocks makes one cell the other."""
    blocks = len(left)
    wanted = [tuple(sorted([(row[1], row[0]), (row[3], row[2])])) for row in right.tolist()]
    for order in itertools.permutations(range(blocks)):
        name = {0: 0, 1: 1, **{old + 2: new + 2 for old, new in enumerate(order)}}
        renamed = [None] * blocks
        for old, row in enumerate(left.tolist()):
            renamed[order[old]] = tuple(sorted([(name[row[1]], row[0]), (name[row[3]], row[2])]))
        if renamed == wanted:
            return True
    return False


def all_cells(blocks: int, operations: int) -> np.ndarray:
    """Return every cell whose blocks are unordered pairs of branches: codes [n, blocks, 4]."""
    choices = [all_blocks(inputs=block + 2, operations=operations) for block in range(blocks)]
    return np.array([np.stack(rows) for rows in itertools.product(*choices)])


def classes_by_brute_force(codes: np.ndarray) -> int:
    found: dict[tuple, list[np.ndarray]] = {}
    for code in codes:  # cells of one class use the same operations and cell inputs
        mark = tuple(sorted((row[i], min(row[i + 1], 2)) for row in code.tolist() for i in (0, 2)))
        members = found.setdefault(mark, [])
        if not any(same_network(code, member) for member in members):
            members.append(code)
    return sum(len(members) for members in found.values())


def test_there_are_136_distinct_cells_of_one_block() -> None:
    assert len(pnas.first_level()) == 136


def test_keys_tell_cells_apart_exactly_as_brute_force_does_for_two_blocks() -> None:
    codes = all_cells(2, operations=2)
    assert len(distinct(codes, operations=2)) == classes_by_brute_force(codes)


def test_keys_tell_cells_apart_exactly_as_brute_force_does_for_three_blocks_over_two_operations() -> None:
    codes = all_cells(3, operations=2)
    assert len(distinct(codes, operations=2)) == classes_by_brute_force(codes)


def test_two_equal_blocks_read_by_a_third_differ_from_one_of_them_read_twice() -> None:
    block = [0, 0, 1, 1]
    once_each, twice = [0, 2, 0, 3], [0, 2, 0, 2]
    keys = canonical_keys(np.array([[block, block, once_each], [block, block, twice]]), operations=8)
    assert keys[0] != keys[1]


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    blocks = []
    for block in range(draw(st.integers(1, 5))):
        branch = st.tuples(st.sampled_from(pnas.OPERATIONS), st.integers(0, block + 1))
        blocks.append(Block(draw(branch), draw(branch)))
    return Cell(tuple(blocks))


@given(cells(), st.randoms(use_true_random=False))
def test_the_canonical_form_does_not_depend_on_the_order_of_blocks_and_branches(cell: Cell, random) -> None:
    code = encode([cell], pnas.OPERATIONS)
    key = canonical_keys(code, operations=8)
    shuffled = code.copy()
    for block in range(code.shape[1]):
        if random.random() < 0.5:
            shuffled[0, block] = code[0, block][[2, 3, 0, 1]]
    order = list(range(code.shape[1]))
    random.shuffle(order)
    name = np.array([0, 1, *(np.argsort(order) + 2)])  # where each block goes
    renamed = shuffled[:, order]
    renamed[..., 1::2] = name[renamed[..., 1::2]]
    reads_later = (renamed[..., 1::2] >= np.arange(2, code.shape[1] + 2)[:, None]).any()
    if not reads_later:
        assert canonical_keys(renamed, operations=8) == key
    assert (canonical_keys(canonical(code, operations=8), operations=8) == key).all()
    assert same_network(canonical(code, operations=8)[0], code[0])


@given(cells())
def test_a_cell_survives_its_json_and_its_code(cell: Cell) -> None:
    assert Cell.from_json(cell.to_json()) == cell
    assert decode(encode([cell], pnas.OPERATIONS), pnas.OPERATIONS) == [cell]


def test_extending_gives_every_distinct_cell_with_one_block_more_and_nothing_else() -> None:
    one = distinct(all_cells(1, operations=2), operations=2)
    extended = extend(one, operations=2)
    everything = distinct(all_cells(2, operations=2), operations=2)
    assert (extended == everything).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"blocks": []}, "at least one block"),
        ({"blocks": [[["identity", 2], ["identity", 0]]]}, "block 1 may read states 0 to 1; got 2"),
        ({"blocks": [[["identity", 0], ["identity", 0]]], "concat": [3]}, "concat must list states from 0 to 2"),
        ({"blocks": [[["identity", 0], ["identity", 0]]], "concat": "some"}, '"all", "loose" or a list'),
        ({"blocks": [[["identity"]]]}, "a cell must be blocks"),
        ([], "a cell must be blocks"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[").replace("]", r"\]")):
        Cell.from_json(value)


def test_loose_states_are_those_that_no_block_reads() -> None:
    cell = Cell((Block(("identity", 0), ("identity", 1)), Block(("identity", 2), ("identity", 1))), "loose")
    assert cell.output_states == (3,)
