"""Describing networks from files, at the largest scale that fits, and spaces."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import FILTERS
from typer.testing import CliRunner

from hwnas import formats
from hwnas.cli.main import app
from hwnas.errors import BudgetError, InputError, TableError, UnknownNameError
from hwnas.formats import tflite
from hwnas.network.architecture import Architecture
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.spaces import pnas, random_parameters
from hwnas.support import plugins
from hwnas.verbs.describe import Described, DescribedSpace, LayerCosts, describe, read_architecture

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


SPACES = plugins.names("spaces")
BEFORE = Path(__file__).parent.parent / "data" / "before"
WINNER, CARD = BEFORE / "runs/a/winners/0000/winner.json", BEFORE / "export/a/0000/card.json"


def described(what: str | Path, **options: Any) -> Described:
    found = describe(str(what), **options)
    assert isinstance(found, Described)
    return found


def random_architectures(space: str, count: int) -> list[Architecture]:
    plugin = plugins.load("spaces", space)
    parameters = random_parameters(plugin, count, seed=2)
    return [plugin.architecture(chosen, Scale(1 + at % 2, 12, 16, 10)) for at, chosen in enumerate(parameters)]


def record_of(architecture: Architecture, folder: Path) -> Path:
    """Write a record of which nothing but the architecture is known, as that of a candidate may be."""
    path = folder / "candidate.json"
    path.write_text(json.dumps({"architecture": architecture.to_json()}))
    return path


@pytest.fixture
def cell_file(tmp_path: Path) -> Path:
    path = tmp_path / "pnasnet5.toml"
    path.write_text(PNASNET_5_MOBILE)
    return path


def test_a_published_network_is_written_down_in_toml_and_has_its_published_costs(cell_file: Path) -> None:
    found = described(cell_file)
    assert found.parameters == pytest.approx(5.1e6, rel=0.01)
    assert found.mult_adds == pytest.approx(588e6, rel=0.01)
    assert sum(layer.mult_adds for layer in found.layers) == found.mult_adds
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert found.layers[-1].shape == (1000, 1, 1)


@pytest.mark.parametrize("space", SPACES)
def test_networks_of_every_space_are_described_and_drawn(space: str, tmp_path: Path) -> None:
    (architecture,) = random_architectures(space, 1)
    path = record_of(architecture, tmp_path)
    found = described(path, picture=str(tmp_path / "network.svg"))
    assert found.network == architecture.name
    assert (tmp_path / "network.svg").read_text().startswith("<?xml")
    result = CliRunner().invoke(app, ["describe", str(path)])
    assert result.exit_code == 0
    assert f"{found.parameters:,} parameters" in result.output


@pytest.mark.parametrize("space", SPACES)
def test_the_sizes_of_the_files_are_those_of_the_files_that_are_written(space: str) -> None:
    for architecture in random_architectures(space, 3):
        graph = tflite.lower(architecture.graph)
        weights = formats.random_weights(graph)
        assert tflite.memory(graph).file_bytes == len(tflite.write(graph, weights))
        in_int8 = tflite.write(graph, weights, ranges=formats.made_up_ranges(graph))
        assert tflite.memory(graph, precision="int8").file_bytes == len(in_int8)


def test_activations_alive_are_told_for_every_layer_and_their_peak_is_the_most(cell_file: Path) -> None:
    found = described(cell_file)
    assert max(layer.activation_bytes for layer in found.layers) == found.peak_activation_bytes
    assert [layer.number for layer in found.layers] == list(range(len(found.layers)))
    image, stem = 4 * 3 * 224 * 224, 4 * 32 * 111 * 111
    assert [layer.activation_bytes for layer in found.layers[:3]] == [image, image + stem, 2 * stem]
    assert found.layers[-1].activation_bytes == 4 * (found.layers[-2].shape[0] + 1000)


def test_the_operator_of_a_layer_says_what_its_costs_depend_on() -> None:
    def operator(kind: str = "conv", stride: tuple[int, int] = (1, 1), rate: int = 1, groups: int = 1) -> str:
        return LayerCosts(0, "", kind, (3, 3), stride, (rate, rate), groups, (8, 4, 4), 0, 0, 0).operator

    assert operator() == "conv 3x3"
    assert operator(stride=(2, 2)) == "conv 3x3/2"
    assert operator(stride=(1, 2)) == "conv 3x3/1x2"
    assert operator(groups=8, rate=2) == "depthwise 3x3 rate 2"
    assert operator(groups=2) == "conv 3x3 2 groups"
    assert operator("max_pool") == "max_pool 3x3"
    assert operator("add") == "add"


def test_the_table_marks_the_peak_and_has_totals_and_sums_by_part(cell_file: Path) -> None:
    found = described(cell_file)
    lines = CliRunner().invoke(app, ["describe", str(cell_file)]).output.splitlines()
    (peak,) = [layer for layer in found.layers if layer.activation_bytes == found.peak_activation_bytes]
    marked = [line for line in lines if line.rstrip().endswith(" peak")]
    assert [line.split()[0] for line in marked] == [str(peak.number), "total"]
    assert marked[1].split() == [
        "total",
        f"{found.mult_adds:,}",
        f"{found.parameters:,}",
        f"{found.peak_activation_bytes / 1024:,.1f}",
        "peak",
    ]
    parts = [line.split()[1] for line in lines if line.startswith("│")]
    assert parts == ["input", "stem", *(f"cell{number}" for number in range(11)), "pool", "classifier"]
    assert len([line for line in lines if line.strip().split(" ")[0].isdigit()]) == len(found.layers)


def test_the_json_has_all_the_costs(cell_file: Path) -> None:
    result = CliRunner().invoke(app, ["describe", str(cell_file), "--json"])
    found = json.loads(result.output)
    assert found["peak_activation_bytes"] == max(layer["activation_bytes"] for layer in found["layers"])
    assert 4 * found["parameters"] < found["file_bytes_fp32"] < 4.2 * found["parameters"]
    assert found["parameters"] < found["file_bytes_int8"] < 0.35 * found["file_bytes_fp32"]
    assert found["largest"] is None
    assert found["layers"][1]["kernel"] == [3, 3]


def test_the_largest_scale_inside_the_caps_is_described(cell_file: Path) -> None:
    found = described(cell_file, max_mult_adds=588e6, cells=(2, 3), filters=range(46, 64, 4), resolution=(160, 224))
    assert found.largest is not None
    assert found.largest.scale == Scale(3, 54, 224, 1000, skeleton="imagenet")
    assert found.largest.scales == 2 * 5 * 2
    assert (found.mult_adds, found.parameters) == (found.largest.mult_adds, found.largest.parameters)
    result = CliRunner().invoke(app, ["describe", str(cell_file), "--max-parameters", "5.1e6", "--cells", "3"])
    assert "N=3 F=52 resolution=224: the largest of 64 scales inside the caps, found in " in result.output


def test_a_latency_cap_is_held_by_the_prediction_of_the_devices_table(workplace: Path) -> None:
    scale = Scale(1, FILTERS[0], 8, 3, 1)
    network = CellNetwork(pnas.cells(pnas.first_level())[0], scale)
    folder = record_of(network, workplace)
    both = described(folder, max_latency_ms=1e6, cells=(1,), filters=FILTERS)
    assert both.largest is not None
    assert both.largest.scale == replace(scale, filters=max(FILTERS))
    assert both.largest.upper_ms == pytest.approx(1.5 * (both.largest.latency_ms or 0))
    with pytest.raises(BudgetError, match="Raise --max-latency-ms"):
        describe(str(folder), max_latency_ms=1e-6, cells=(1,), filters=FILTERS)
    with pytest.raises(TableError, match=r"lacks \d+, such as 'conv .*hwnas profile host"):
        describe(str(folder), max_latency_ms=1.0)


@pytest.mark.parametrize("space", ["mbconv", "enas-macro"])
def test_what_is_not_made_of_cells_is_not_brought_to_another_scale(space: str, tmp_path: Path) -> None:
    folder = record_of(random_architectures(space, 1)[0], tmp_path)
    with pytest.raises(
        InputError, match=r"only networks of cells can be brought to another scale: .* of the kind (chain|macro)"
    ):
        describe(str(folder), max_mult_adds=1e9)


def test_scales_to_choose_from_need_a_cap(cell_file: Path) -> None:
    with pytest.raises(InputError, match="which needs a cap; add --max-mult-adds"):
        describe(str(cell_file), filters=(8, 12))
    with pytest.raises(InputError, match="max-mult-adds must be above 0; got 0"):
        describe(str(cell_file), max_mult_adds=0)


@pytest.mark.parametrize("space", SPACES)
def test_every_space_has_its_numbers(space: str) -> None:
    found = describe(space=space)
    assert isinstance(found, DescribedSpace)
    assert found.choices == list(plugins.load("spaces", space).CHOICES)
    assert bool(found.distinct) == (space == "pnas")
    assert CliRunner().invoke(app, ["describe", "--space", space]).exit_code == 0


@pytest.mark.parametrize("record", [WINNER, CARD])
def test_a_record_its_folder_and_its_architecture_alone_are_described_alike(record: Path, tmp_path: Path) -> None:
    architecture = read_architecture(record)
    assert read_architecture(record.parent) == read_architecture(record_of(architecture, tmp_path)) == architecture


@pytest.mark.parametrize(("record", "command"), [(WINNER, "hwnas train"), (CARD, "hwnas export")])
@pytest.mark.parametrize("damage", [{"version": 99}, {"parameters": None}, {"architecture": {"kind": "magic"}}])
def test_a_damaged_record_is_said_with_the_command_that_writes_it_again(
    record: Path, command: str, damage: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / record.name).write_text(json.dumps({**json.loads(record.read_text()), **damage}))
    for what in (tmp_path, tmp_path / record.name):
        with pytest.raises(InputError, match=rf"{record.name}.* type: {command} "):
            describe(str(what))


@pytest.mark.parametrize("name", ["cell.svg", "cell.png"])
def test_the_cell_is_drawn(cell_file: Path, tmp_path: Path, name: str) -> None:
    describe(str(cell_file), picture=str(tmp_path / name))
    assert (tmp_path / name).read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"<svg")


def test_the_numbers_of_the_space_are_those_that_its_enumeration_has() -> None:
    found = describe(space="pnas")
    assert isinstance(found, DescribedSpace)
    one = pnas.first_level()
    assert found.distinct[:2] == [len(one), len(pnas.grow(one))]
    assert found.choices == [((b + 2) * 8) ** 2 for b in range(5)]


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


def test_a_published_network_is_described_by_its_name() -> None:
    described = describe("mobilenet-v2")
    assert isinstance(described, Described)
    assert described.parameters == 3_504_872
    with pytest.raises(InputError, match=r"one of mobilenet-v2, .*; there is no mobilenet-v4"):
        describe("mobilenet-v4")
