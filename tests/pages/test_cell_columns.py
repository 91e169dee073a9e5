"""A cell's picture: the columns go by the longest path from the inputs, and no edge crosses one without a lane."""

from hypothesis import given
from networks import architectures

from hwnas.network.architecture import Architecture
from hwnas.pages.cell_picture import _OUTPUT, _branches, _columns


@given(architecture=architectures())
def test_a_state_is_as_far_right_as_its_longest_path_and_has_a_lane_wherever_it_passes(
    architecture: Architecture,
) -> None:
    cell = architecture.cells["normal"]
    states = [*range(2, len(cell.blocks) + 2), _OUTPUT]
    edges = {(source, state) for state in states for _, source in _branches(cell, state)}

    def longest_path(state: int) -> int:
        return max((1 + longest_path(source) for source, reader in edges if reader == state), default=0)

    column_of = {state: longest_path(state) for edge in edges for state in edge} | {s: longest_path(s) for s in states}
    column_of[_OUTPUT] = 1 + max(at for state, at in column_of.items() if state != _OUTPUT)
    expected: list[set[int]] = [set() for _ in range(column_of[_OUTPUT] + 1)]
    for state, at in column_of.items():
        last = max((column_of[reader] for source, reader in edges if source == state), default=at)
        for column in {at, *range(at + 1, last)}:
            expected[column].add(state)
    assert [{item.state for item in column} for column in _columns(cell)] == expected
