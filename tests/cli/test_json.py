"""What `--json` prints: every result is JSON, and a network in it is one that hwnas reads back."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import FILTERS
from pydantic import BaseModel
from typer.testing import CliRunner

from hwnas.cli.encode import encoded
from hwnas.cli.main import app
from hwnas.network.architecture import Architecture
from hwnas.network.scale import Scale
from hwnas.spaces import random_parameters
from hwnas.support import plugins
from hwnas.verbs.describe import Described, describe

TINY = ["--data", "npz:images.npz", "--cells", "1", "--filters", ",".join(map(str, FILTERS)), "--predicted"]
TINY += ["--space", "pnas"]


@pytest.mark.slow
def test_networks_that_search_prints_are_described_and_read_back(workplace: Path) -> None:
    command = ["search", "--out", "run", "--max-latency-ms", "2", "--estimator", "size", "--strategy", "random"]
    result = CliRunner().invoke(app, [*command, "--trials", "6", *TINY, "--json"])
    assert result.exit_code == 0, result.output
    front = json.loads(result.stdout)["front"]
    assert front
    for candidate in front:
        for content in (candidate["architecture"], candidate):  # by itself, and with what else is known
            path = workplace / "network.json"
            path.write_text(json.dumps(content))
            described = describe(path)
            assert isinstance(described, Described)
            assert (described.mult_adds, described.parameters) == (candidate["mult_adds"], candidate["parameters"])
        architecture = Architecture.from_json(candidate["architecture"])
        assert json.loads(json.dumps(architecture.to_json())) == candidate["architecture"]


@pytest.mark.parametrize("space", plugins.names("spaces"))
def test_a_network_of_any_space_is_read_back_as_it_is(space: str) -> None:
    plugin = plugins.load("spaces", space)
    (parameters,) = random_parameters(plugin, 1, seed=0)
    architecture = plugin.architecture(parameters, Scale(1, 8, 16, 10))
    assert Architecture.from_json(json.loads(encoded(architecture))) == architecture


class Model(BaseModel):
    ratio: float
    path: Path


@dataclass(frozen=True)
class Result:
    model: Model
    counts: dict[int, tuple[float, ...]]
    array: object


def test_whatever_a_result_is_made_of_is_json_and_what_is_not_finite_is_null() -> None:
    nan = float("nan")
    result = Result(Model(ratio=nan, path=Path("a/b")), {1: (nan, float("inf"), 0.5)}, np.array([[1.0, nan]]))
    assert json.loads(encoded([result, np.int64(3), np.float32(0.5), Path("c"), None, True])) == [
        {"model": {"ratio": None, "path": "a/b"}, "counts": {"1": [None, None, 0.5]}, "array": [[1.0, None]]},
        3,
        0.5,
        "c",
        None,
        True,
    ]
    assert "NaN" not in encoded(result)
