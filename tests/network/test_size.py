"""A network that no file could hold, or no memory, is refused before any of it is taken."""

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import hwnas
from hwnas.errors import InputError
from hwnas.network.architecture import Architecture
from hwnas.network.published import PUBLISHED, published_network

BLOCK = [["identity", 0], ["identity", 1]]
CELL: dict[str, Any] = {"blocks": [BLOCK]}
SCALE: dict[str, Any] = {"cells": 1, "filters": 4, "resolution": 12, "classes": 3}
INVERTED = {"filters": 8, "kernel": 3, "stride": 1, "expanded": 8}
CHAIN: dict[str, Any] = {"kind": "chain", "stem": 8, "head": 8, "resolution": 24, "classes": 3, "blocks": [INVERTED]}


def graph(value: Any) -> Any:
    return Architecture.from_json(value).graph


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"filters": 10**8}, "scale: filters must be at most 65536; got 100000000"),
        ({"cells": 10**6}, "scale: cells must be at most 1000; got 1000000"),
        ({"resolution": 2**31}, "scale: resolution must be at most 4096; got 2147483648"),
        ({"classes": 2**40}, "scale: classes must be at most 1048576; got"),
        ({"input_channels": 10**30}, "scale: input_channels must be at most 65536; got"),
        ({"stem_multiplier": 1e300}, r"scale: stem_multiplier must be at most 65536; got 1e\+300"),
        ({"filters": 60_000}, "a network may have up to 536,870,912 weights, as its files hold 2 GiB; got"),
        ({"cells": 1000}, "a network may have up to 10,000 layers; got more. Take fewer cells or blocks"),
        ({"resolution": 4096, "filters": 32}, "a network may have up to 536,870,912 numbers in an activation"),
    ],
)
def test_a_scale_that_takes_all_memory_is_refused_in_words(scale: dict[str, Any], message: str) -> None:
    separable = [["separable_3x3", 0], ["separable_3x3", 1]]
    with pytest.raises(InputError, match=message):
        graph({"scale": {**SCALE, **scale}, "normal": {"blocks": [separable]}})


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ({"stem": 2**31}, "chain: stem must be at most 65536; got 2147483648"),
        ({"stem_stride": 2**31}, "chain: stem_stride must be at most 99; got"),
        ({"hidden": 10**9}, "chain: hidden must be at most 65536; got"),
        ({"blocks": [{**INVERTED, "kernel": 10**9}]}, "a block's kernel must be at most 99; got"),
        ({"blocks": [{**INVERTED, "squeezed": 10**9}]}, "a block's squeezed must be at most 65536; got"),
        ({"blocks": [{**INVERTED, "expanded": 10**9}]}, "a block's expanded must be at most 65536; got"),
        ({"head": 65536, "hidden": 65536}, "a network may have up to 536,870,912 weights"),
    ],
)
def test_a_chain_that_takes_all_memory_is_refused_in_words(chain: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        graph({**CHAIN, **chain})


def test_a_window_of_many_pixels_is_no_operation() -> None:
    with pytest.raises(InputError, match=r"unknown operation .*K is an odd number below 100"):
        graph({"scale": SCALE, "normal": {"blocks": [[["conv_101x101", 0], ["identity", 1]]]}})


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_cell_of_a_million_blocks_is_refused_before_memory_is_taken(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cell{suffix}"
    blocks = ",".join([json.dumps(BLOCK)] * 10**6)
    path.write_text(f'{{"normal": {{"blocks": [{blocks}]}}}}' if suffix == ".json" else f"[normal]\nblocks=[{blocks}]")
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(InputError, match=r"must have at most 1?6? ?1? ?MiB; .* has \d+\.\d MiB"):
            hwnas.describe(str(path))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 5


def test_a_cell_of_as_many_blocks_as_a_file_may_have_is_refused_by_its_layers() -> None:
    with pytest.raises(InputError, match="up to 10,000 layers"):
        graph({"scale": SCALE, "normal": {"blocks": [[["separable_3x3", 0], ["identity", 1]]] * 5000}})


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_far_from_what_is_refused(name: str) -> None:
    network = published_network(name, resolution=448).graph
    assert len(network.layers) < 1000
    assert network.parameters < 1e7
