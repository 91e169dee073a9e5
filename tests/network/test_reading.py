"""Architectures that people wrote, in TOML or JSON: what is not of the right type, or means nothing, is refused."""

import json
import tomllib
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chosen_networks, repeatable

from hwnas.errors import InputError
from hwnas.network.architecture import Architecture, UnreadableArchitecture
from hwnas.network.cell import Block, Cell
from hwnas.network.graph import _WITHOUT_WEIGHTS, Builder, Kind, Layer, layer_mult_adds, layer_parameters
from hwnas.network.kinds._blocks import InvertedResidual
from hwnas.network.kinds.chain import Chain
from hwnas.network.published import mobilenet_v2
from hwnas.network.scale import Scale

CELLS = """
[scale]
skeleton = "cifar"
cells = 1
filters = 4
resolution = 12
classes = 3
[normal]
blocks = [[["separable_3x3", 0], ["max_pool_3x3", 1]], [["identity", 1], ["conv_1x7_7x1", 2], "concat"]]
concat = "loose"
[reduction]
blocks = [[["dilated_3x3", 0], ["avg_pool_3x3", 1]]]
"""
MACRO = """
kind = "macro"
layers = [["conv_3x3", []], ["max_pool_3x3", [0]], ["separable_3x3_single", [0, 1]]]
[scale]
cells = 1
filters = 4
resolution = 12
classes = 3
"""
CHAIN = json.dumps(mobilenet_v2(resolution=32).to_json())


def of_toml(text: str) -> Architecture:
    return Architecture.from_json(tomllib.loads(text))


def of_json(text: str) -> Architecture:
    return Architecture.from_json(json.loads(text))


def test_what_is_right_is_read() -> None:
    assert of_toml(CELLS).graph.output_shape == (3, 1, 1)
    assert of_toml(CELLS).cells["normal"].blocks[1].combination == "concat"
    assert of_toml(MACRO).graph.output_shape == (3, 1, 1)
    assert of_json(CHAIN) == mobilenet_v2(resolution=32)


@pytest.mark.parametrize(
    ("read", "text", "change", "message"),
    [
        (of_toml, CELLS, ("cells = 1", "cells = 1.5"), r"normal cell: scale.cells must be a whole number; got 1\.5"),
        (of_toml, CELLS, ("cells = 1", "cells = true"), "scale.cells must be a whole number; got True"),
        (of_toml, CELLS, ("cells = 1", "cells = '1'"), "scale.cells must be a whole number; got '1'"),
        (of_toml, CELLS, ("cells = 1", "cells = 1979-05-27"), "scale.cells must be a whole number; got '1979-05-27'"),
        (of_toml, CELLS, ("classes = 3", ""), "scale.classes is missing"),
        (of_toml, CELLS, ("cells = 1", "cells = 1\nsells = 2"), "scale.sells is not known"),
        (of_toml, CELLS, ('"cifar"', '"cifar10"'), 'scale.skeleton must be "cifar" or "imagenet"; got \'cifar10\''),
        (of_toml, CELLS, ("filters", 'reductions = "extr"\nfilters'), 'reductions must be "inline" or "extra"; got'),
        (of_toml, CELLS, ("filters", "stem_multiplier = 'x'\nfilters"), "stem_multiplier must be a number; got 'x'"),
        (of_toml, CELLS, ("filters", "stem_multiplier = nan\nfilters"), "stem_multiplier must be a number above 0"),
        (of_toml, CELLS, ("filters", "stem_multiplier = -1\nfilters"), "stem_multiplier must be a number above 0"),
        (of_toml, CELLS, ("filters", "skip_reduction_input = 1\nfilters"), "skip_reduction_input must be true or fal"),
        (
            of_toml,
            CELLS,
            ('2], "concat"]', '2], "concta"]'),
            'blocks.1.2 must be "add" or "concat"; got \'concta',
        ),
        (of_toml, CELLS, ('"identity", 1', '"identity", 1.0'), r"blocks\.1\.0\.1 must be a whole number; got 1\.0"),
        (of_toml, CELLS, ('["identity", 1], ', ""), r"normal\.blocks\.1.*is missing|normal\.blocks\.1\.1 must be"),
        (of_toml, CELLS, ('"loose"', "[2.5]"), r"concat must list states from 0 to 3; got \[2\.5\]"),
        (of_toml, CELLS, ('"loose"', "2"), r'concat must be "all", "loose" or a list of states; got 2'),
        (of_toml, CELLS, ('"loose"', '"lose"'), r'concat must be "all", "loose" or a list of states; got \'lose'),
        (of_toml, CELLS, ("[reduction]", "[reductoin]"), "reductoin is not known"),
        (of_toml, CELLS, ("[scale]", "[skale]"), "must have a scale and a normal cell: scale is missing; skale is not"),
        (of_toml, MACRO, ("[0, 1]", "[0, 1.5]"), r"layers\.2\.1\.1 must be a whole number; got 1\.5"),
        (of_toml, MACRO, ('["conv_3x3", []]', '["conv_3x3"]'), r"layers\.0\.1 is missing"),
        (of_toml, MACRO, ("layers", "layerz"), r"a scale and layers = .*layers is missing"),
        (
            of_json,
            CHAIN,
            ('"padding": "same"', '"padding": "smae"'),
            'padding must be "same", "valid" or "symmetric"',
        ),
        (of_json, CHAIN, ('"activation": "relu6"', '"activation": "swish"'), "activation must be .*got 'swish'"),
        (of_json, CHAIN, ('"stem": 32', '"stem": 32.5'), r"stem must be a whole number; got 32\.5"),
        (of_json, CHAIN, ('"kernel": 3', '"kernel": "3"'), r"blocks\.0\.kernel must be a whole number; got '3'"),
        (of_json, CHAIN, ('"squeezed": 0', '"squeezed": -1'), "squeezed must be 0, for none, or more; got -1"),
        (of_json, CHAIN, ('"hidden": 0', '"hidden": -1'), "hidden must be 0, for none, or more; got -1"),
        (of_json, CHAIN, ('"norm_epsilon": 1e-05', '"norm_epsilon": NaN'), "norm_epsilon must be a number above 0"),
        (of_json, CHAIN, ('"norm_epsilon": 1e-05', '"norm_epsilon": "x"'), "norm_epsilon must be a number; got 'x'"),
        (of_json, CHAIN, ('"stem": 32', '"stemm": 32'), "stem is missing; stemm is not known"),
    ],
)
def test_what_is_wrong_is_refused_with_the_rule_and_what_was_got(
    read: Callable[[str], Architecture], text: str, change: tuple[str, str], message: str
) -> None:
    assert change[0] in text
    with pytest.raises(InputError, match=message):
        read(text.replace(*change))


@given(architecture=chosen_networks(), data=st.data())
@repeatable(100)
def test_one_value_of_another_type_anywhere_is_refused(architecture: Architecture, data: st.DataObject) -> None:
    """Whatever stands in the place of any value: an error in words, never a traceback, never another network."""
    content = json.loads(json.dumps(architecture.to_json()))
    containers = list(nested(content))
    container = data.draw(st.sampled_from([one for one in containers if one]))
    at = data.draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
    before = container[at]
    wrong = [None, True, 1.5, -1, "smae", [], {}, [[]], {"a": 1}]
    container[at] = data.draw(st.sampled_from([value for value in wrong if value != before]))
    try:
        changed = Architecture.from_json(content)
    except InputError:
        return
    assert json.loads(json.dumps(changed.to_json())) == content


def nested(value: Any) -> Any:
    """Yield a JSON value's objects and lists."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from nested(inner)


def test_what_is_built_in_python_with_an_unknown_name_is_refused_too() -> None:
    with pytest.raises(InputError, match='reductions must be "inline" or "extra"; got \'extr\''):
        Scale(1, 4, 8, 3, reductions="extr")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"activation must be one of relu, .*; got 'swish'"):
        InvertedResidual(8, 3, 1, 8, "swish")  # type: ignore[arg-type]
    block = (InvertedResidual(8, 3, 1, 8),)
    with pytest.raises(InputError, match="padding must be one of same, valid, symmetric; got 'smae'"):
        Chain(8, block, 8, 8, 3, padding="smae")  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="smae"):
        Builder((1, 8, 8)).window("conv", 0, name="a", padding="smae")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="concta"):
        Block(("identity", 0), ("identity", 1), "concta").to_json()  # type: ignore[arg-type]


def test_every_kind_of_layer_is_counted_or_known_to_have_no_weights() -> None:
    names = [name for member in get_args(Kind) for name in get_args(member) or (member,)]
    assert {*names} == {*_WITHOUT_WEIGHTS, "conv", "linear"}
    for count in (layer_mult_adds, layer_parameters):
        with pytest.raises(KeyError, match="magic"):
            count(Layer("magic", (0,), (1, 1, 1), "a"), ((1, 1, 1),))  # type: ignore[arg-type]


@given(architecture=chosen_networks())
@repeatable(30)
def test_what_is_read_back_equals_hashes_and_is_written_alike(architecture: Architecture) -> None:
    written = json.dumps(architecture.to_json())
    read = of_json(written)
    assert (read, hash(read), json.dumps(read.to_json())) == (architecture, hash(architecture), written)


def test_whole_numbers_of_toml_are_written_as_they_were_read() -> None:
    read = of_toml(CELLS.replace("filters", "stem_multiplier = 3\nfilters"))
    assert json.dumps(read.to_json()["scale"]["stem_multiplier"]) == "3"


def test_what_cannot_be_read_is_kept_and_says_why() -> None:
    content = {"kind": "magic", "x": [1]}
    with pytest.raises(InputError) as caught:
        Architecture.from_json(content)
    kept = UnreadableArchitecture(content, caught.value)
    assert kept.to_json() == content
    assert kept == UnreadableArchitecture({**content}, InputError("another reason"))
    assert kept != UnreadableArchitecture({"kind": "magic"}, caught.value)
    with pytest.raises(InputError, match="unknown kind of network 'magic'; known: cells, chain, macro"):
        _ = kept.graph
    assert Cell.from_json({"blocks": [[["identity", 0], ["identity", 1]]]}).concat == "all"
