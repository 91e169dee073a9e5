"""The space whose stages choose block, depth and width: it says the networks that people take by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable

from hwnas.network import BasicBlock, Convolution, InvertedResidual, Scale
from hwnas.spaces import mobile, random_parameters
from hwnas.training.bank import Bank

SCALE = Scale(4, 16, 32, 10)


def chosen(block: str, depth: int = 1, width: float = 1.0, head: int = 0) -> dict[str, object]:
    stages = range(1, mobile.STAGES + 1)
    each = {"block": block, "depth": depth, "width": width}
    return {**{f"stage{stage}_{name}": value for stage in stages for name, value in each.items()}, "head": head}


def test_it_can_say_a_resnet() -> None:
    network = mobile.architecture(chosen("basic_3x3", depth=2), SCALE)
    assert network.stem == 16
    assert network.blocks == tuple(
        BasicBlock(filters, 3, stride)
        for filters, first in ((16, 1), (32, 2), (64, 2), (128, 2))
        for stride in (first, 1)
    )
    assert [layer.shape[1] for layer in network.graph.layers if layer.kind == "mean"] == [1]


def test_widths_heads_and_depths_are_those_chosen() -> None:
    network = mobile.architecture(chosen("plain_3x3", depth=3, width=1.5, head=4), SCALE)
    assert [block.filters for block in network.blocks] == [24] * 3 + [48] * 3 + [96] * 3 + [192] * 3
    assert network.head == 4 * 192
    assert len(mobile.architecture(chosen("plain_3x3", depth=3), Scale(2, 16, 32, 10)).blocks) == 8


def test_neighbours_are_a_step_deeper_or_wider_or_less_so_in_one_place() -> None:
    def changed(one: dict[str, object]) -> list[str]:
        """Return what is another in each neighbour, in words, sorted."""
        neighbours = mobile.neighbours(one)
        return sorted(str({name: to for name, to in each.items() if to != one[name]}) for each in neighbours)

    def everywhere(depth: int, width: float, head: int) -> list[str]:
        stages = range(1, mobile.STAGES + 1)
        each = [{f"stage{stage}_depth": depth} for stage in stages] + [
            {f"stage{stage}_width": width} for stage in stages
        ]
        return sorted(map(str, [*each, {"head": head}]))

    assert changed(chosen("plain_3x3", depth=1, width=0.75, head=0)) == everywhere(2, 1.0, 4)
    assert changed(chosen("plain_3x3", depth=4, width=1.5, head=4)) == everywhere(3, 1.0, 0)


def test_it_can_say_a_mobilenet_v1() -> None:
    network = mobile.architecture(chosen("separable_3x3", depth=2), SCALE)
    assert network.blocks[:4] == (
        Convolution(16, 3, 1, depthwise=True),
        Convolution(16, 1, 1),
        Convolution(16, 3, 1, depthwise=True),
        Convolution(16, 1, 1),
    )
    assert network.blocks[4:6] == (Convolution(16, 3, 2, depthwise=True), Convolution(32, 1, 1))
    assert network.depths == (4, 4, 4, 4)


def test_a_large_image_is_halved_five_times() -> None:
    network = mobile.architecture(chosen("plain_3x3"), Scale(1, 8, 96, 10, skeleton="imagenet"))
    assert network.graph.layers[-3].shape[1:] == (3, 3)
    small = mobile.architecture(chosen("plain_3x3"), Scale(1, 8, 96, 10))
    assert small.graph.layers[-3].shape[1:] == (12, 12)


def test_the_other_forms_of_the_universal_inverted_bottleneck() -> None:
    ffn = mobile.architecture(chosen("ffn_e4", depth=2), SCALE).blocks
    assert ffn[2:4] == (InvertedResidual(32, 3, 2, 64), InvertedResidual(32, 0, 1, 128))  # the first halves
    convnext = mobile.architecture(chosen("convnext_7x7_e2", depth=2), SCALE).blocks
    assert convnext[2:4] == (InvertedResidual(32, 0, 2, 32, start=7), InvertedResidual(32, 0, 1, 64, start=7))


def test_a_shuffle_unit_splits_what_has_its_shape_already() -> None:
    """At width 1 stage 1 has the stem's filters; the others halve first."""
    for width, splits in ((1.0, 5), (1.5, 4)):
        network = mobile.architecture(chosen("shuffle_3x3", depth=2, width=width), SCALE)
        assert sum(layer.kind == "slice" for layer in network.graph.layers) == 2 * splits
        assert sum(layer.kind == "shuffle" for layer in network.graph.layers) == 8


@given(seeds=st.lists(st.integers(0, 999), min_size=2, max_size=4), widest=st.sampled_from([10, 11, 16]))
@repeatable(30)
def test_shared_weights_of_the_largest_hold_every_choice(seeds: list[int], widest: int) -> None:
    """In whichever order paths come, as the largest of each are held before."""
    bank = Bank(seed=0)
    chosen = [random_parameters(mobile, 1, seed=seed)[0] for seed in seeds]
    for parameters in chosen:
        bank.hold(mobile.architecture(mobile.largest(parameters), SCALE.with_filters(widest)).graph)
    for parameters in chosen:
        for filters in (6, 8, widest):
            bank.hold(mobile.architecture(parameters, SCALE.with_filters(filters)).graph)


@pytest.mark.parametrize("block", ["basic_3x3", "shuffle_3x3"])
def test_the_largest_block_has_a_shortcut_where_narrower_ones_need_it(block: str) -> None:
    """At F = 10 stage 1 has the stem's 16 filters at width 1.5, and at width 0.75 eight of them."""
    bank = Bank(seed=0)
    largest = mobile.largest(chosen(block))
    bank.hold(mobile.architecture(largest, SCALE.with_filters(10)).graph)
    for width, filters in ((0.75, 10), (1.5, 8), (1.5, 10)):
        added = bank.hold(mobile.architecture(chosen(block, width=width), SCALE.with_filters(filters)).graph)
        assert added == []


@pytest.mark.parametrize("filters", [4, 6, 16, 31])
def test_convolutions_have_channels_by_eight(filters: int) -> None:
    (parameters,) = random_parameters(mobile, 1, seed=filters)
    blocks = mobile.architecture(parameters, SCALE.with_filters(filters)).blocks
    assert all(block.filters % 8 == 0 for block in blocks)
