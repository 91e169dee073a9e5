"""Describing cells from files, and spaces."""

import json
from pathlib import Path

import pytest

from hwnas.describe import Described, DescribedSpace, describe, read_architecture
from hwnas.errors import InputError, UnknownNameError
from hwnas.spaces import pnas

PNASNET_5_MOBILE = """
[scale]
skeleton = "imagenet"
cells = 3
filters = 54
resolution = 224
classes = 1000
[normal]
blocks = [
    [["separable_5x5", 0], ["max_pool_3x3", 0]],
    [["separable_7x7", 1], ["max_pool_3x3", 1]],
    [["separable_5x5", 1], ["separable_3x3", 1]],
    [["separable_3x3", 4], ["max_pool_3x3", 1]],
    [["separable_3x3", 0], ["identity", 1]],
]
concat = "all"
"""


@pytest.fixture
def cell_file(tmp_path: Path) -> Path:
    path = tmp_path / "pnasnet5.toml"
    path.write_text(PNASNET_5_MOBILE)
    return path


def test_a_published_network_is_written_down_in_toml_and_has_its_published_costs(cell_file: Path) -> None:
    described = describe(str(cell_file))
    assert isinstance(described, Described)
    assert described.parameters == pytest.approx(5.1e6, rel=0.01)
    assert described.mult_adds == pytest.approx(588e6, rel=0.01)
    assert sum(layer.mult_adds for layer in described.layers) == described.mult_adds
    assert sum(layer.parameters for layer in described.layers) == described.parameters
    assert described.layers[-1].shape == (1000, 1, 1)


def test_a_winners_record_and_its_folder_are_described_alike(cell_file: Path, tmp_path: Path) -> None:
    architecture = read_architecture(cell_file)
    (tmp_path / "card.json").write_text(json.dumps({"architecture": architecture.to_json()}))
    assert read_architecture(tmp_path) == read_architecture(tmp_path / "card.json") == architecture


@pytest.mark.parametrize("name", ["cell.svg", "cell.png"])
def test_the_cell_is_drawn(cell_file: Path, tmp_path: Path, name: str) -> None:
    describe(str(cell_file), picture=str(tmp_path / name))
    assert (tmp_path / name).read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"<svg")


def test_the_numbers_of_the_space_are_those_that_its_enumeration_has() -> None:
    described = describe(space="pnas")
    assert isinstance(described, DescribedSpace)
    one = pnas.first_level()
    assert described.distinct[:2] == [len(one), len(pnas.grow(one))]
    assert described.choices == [((b + 2) * 8) ** 2 for b in range(5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[scale", "must be TOML"),
        ("", "must have a scale and a normal cell"),
        (PNASNET_5_MOBILE.replace('"imagenet"', '"lenet"'), 'skeleton must be "cifar" or "imagenet"'),
        (PNASNET_5_MOBILE.replace("cells = 3", "cells = 0"), "cells must be at least 1; got 0"),
        (PNASNET_5_MOBILE.replace("cells = 3", "sells = 3"), "sells"),
        (PNASNET_5_MOBILE.replace('3x3", 4', '3x3", 5'), "block 4 may read states 0 to 4; got 5"),
    ],
)
def test_a_file_that_is_no_cell_is_refused_by_name(cell_file: Path, content: str, message: str) -> None:
    cell_file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        describe(str(cell_file))
    assert str(cell_file) in str(caught.value)


def test_what_there_is_not_is_said() -> None:
    with pytest.raises(InputError, match=r"none\.toml, which does not"):
        describe("none.toml")
    with pytest.raises(InputError, match="needs a cell's TOML file"):
        describe()
    with pytest.raises(UnknownNameError, match="unknown space 'magic'"):
        describe(space="magic")


def test_an_unknown_operation_lists_the_known_ones(cell_file: Path) -> None:
    cell_file.write_text(PNASNET_5_MOBILE.replace("separable_7x7", "seperable_7x7"))
    with pytest.raises(UnknownNameError, match=r"unknown operation 'seperable_7x7'; known: .*separable_KxK"):
        describe(str(cell_file))
