"""benchmarks/contest.py: networks are scaled to a cap as they are measured, and its figures are what they say."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import write_images
from hypothesis import given
from hypothesis import strategies as st
from networks import repeatable
from scipy.stats import ttest_1samp

from hwnas.device import Setting
from hwnas.errors import InputError
from hwnas.network import Architecture, Chain, adapted, mobilenet_v2, published_network

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def contest() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))  # for what it imports from beside it
        return importlib.import_module("contest")


@given(count=st.integers(1, 80), fitting=st.integers(0, 80), start=st.integers(0, 79))
@repeatable(200)
def test_the_highest_step_that_fits_is_found_in_few_looks(
    contest: ModuleType, count: int, fitting: int, start: int
) -> None:
    looked: list[int] = []

    def fits(at: int) -> bool:
        looked.append(at)
        return at < fitting

    assert contest.highest(count, fits, start % count) == min(count, fitting) - 1
    assert len(looked) == len(set(looked)) <= 14
    assert set(looked) <= set(range(count))


def small(**multipliers: float) -> Chain:
    chain = published_network("resnet-8")
    assert isinstance(chain, Chain)
    return adapted(chain, resolution=16, classes=3, **multipliers)  # type: ignore[arg-type]


def test_a_ladder_has_each_network_once_by_rising_width(contest: ModuleType) -> None:
    networks = contest.ladder(lambda width: small(width=width))
    assert len(set(networks)) == len(networks) > 10
    mult_adds = [network.graph.mult_adds for network in networks]
    assert mult_adds == sorted(mult_adds)


def clock(contest: ModuleType, path: Path, measure: Callable[[Architecture], float]) -> Any:
    return contest.Clock(path / "latencies.json", measure)


def by_mult_adds(architecture: Architecture) -> float:
    return architecture.graph.mult_adds / 1e6


def test_the_largest_network_within_the_cap_is_found(contest: ModuleType, tmp_path: Path) -> None:
    ladders = [contest.ladder(lambda width, depth=depth: small(width=width, depth=depth)) for depth in (1, 2)]
    found = contest.largest(ladders, 5.0, clock(contest, tmp_path, by_mult_adds), processes=3)
    fitting = [network for networks in ladders for network in networks if by_mult_adds(network) <= 5.0]
    assert found == max(fitting, key=by_mult_adds)
    assert contest.largest(ladders, 1e-6, clock(contest, tmp_path, by_mult_adds), processes=3) is None


def test_a_network_that_further_processes_find_too_slow_is_not_taken(contest: ModuleType, tmp_path: Path) -> None:
    networks = contest.ladder(lambda width: small(width=width))
    times: dict[Architecture, int] = {}

    def measure(architecture: Architecture) -> float:
        """Take a fifth longer but in the first process."""
        times[architecture] = times.get(architecture, 0) + 1
        return by_mult_adds(architecture) * (1.0 if times[architecture] == 1 else 1.2)

    found = contest.largest([networks], 5.0, clock(contest, tmp_path, measure), processes=3)
    assert found == max((one for one in networks if by_mult_adds(one) * 1.2 <= 5.0), key=by_mult_adds)


def test_a_clock_takes_the_median_and_measures_nothing_twice(contest: ModuleType, tmp_path: Path) -> None:
    network, coming = small(), iter([3.0, 1.0, 2.0])
    first = clock(contest, tmp_path, lambda architecture: next(coming))
    assert first.ms(network) == 3.0
    assert first.ms(network, 3) == 2.0
    assert clock(contest, tmp_path, by_mult_adds).ms(network, 3) == 2.0  # from the file


@pytest.mark.parametrize("values", [[0.9, 0.92], [0.9, 0.91, 0.95, 0.9]])
def test_the_interval_is_students(contest: ModuleType, values: list[float]) -> None:
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert contest.half_interval(values) == pytest.approx((interval.high - interval.low) / 2)
    assert contest.half_interval(values[:1]) is None


def test_the_table_is_sorted_by_accuracy_and_states_what_it_is_of(contest: ModuleType) -> None:
    made = contest.Contestant("resnet-8", contest.MADE, small(), 0.4)
    found = contest.Contestant("a search", contest.FOUND, small(width=2), 0.5, searched=12.0)
    records = {
        (contest.key_of(each.architecture), seed): {"accuracy": accuracy + seed / 100, "trained": 3.0}
        for each, accuracy in ((made, 0.8), (found, 0.9))
        for seed in range(2)
    }
    rows = contest.summary(0.5, [made, found], records)
    assert [row.network for row in rows] == ["a search", "resnet-8"]
    assert rows[1].share == 0.8
    assert rows[1].accuracy == pytest.approx(0.805)
    assert rows[1].accuracies == [0.8, 0.81]
    lines = contest.table({"0.5": rows}, Setting(runtime="tflite", precision="int8")).splitlines()
    assert lines[0] == "Cap 0.5 ms, tflite-int8-1t:"
    assert "test accuracy of the int8 file (%)" in lines[2]
    assert lines[4].startswith("| **a search** | 90.50 ± 6.35 | 0.500 (100%) | ")
    assert lines[5].endswith(" | - | 3 |")


@pytest.mark.parametrize(("points", "left"), [("2", 1), ("3.5", 2), ("20", 3)])
def test_what_is_far_behind_has_no_further_seed(
    contest: ModuleType, monkeypatch: pytest.MonkeyPatch, points: str, left: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["contest.py", "--within", points])
    group = [contest.Contestant(f"{width}", contest.MADE, small(width=width), 0.4) for width in (1, 2, 3)]
    race = contest.Contest(contest.asked())
    assert race.in_reach(group) == group
    for each, accuracies in zip(group, ([0.9, 0.91], [0.89, 0.86], [0.8]), strict=True):
        for seed, accuracy in enumerate(accuracies):
            race.records[contest.key_of(each.architecture), seed] = {"accuracy": accuracy}
    assert race.in_reach(group) == group[:left]


def test_a_contest_goes_on_where_it_was_and_states_the_accuracy_of_int8_files(
    contest: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(Path("images.npz"))
    options = ["--data", "npz:images.npz", "--device", "pretend", "--setting", "tflite-int8-1t", "--processes", "1"]
    options += ["--families", "resnet-8,mobilenet-v2", "--depths", "1", "--resolutions", "8", "--caps", "0.2"]
    options += ["--seeds", "1", "--epochs", "4", "--batch-size", "16", "--folder", str(tmp_path / "contest")]
    monkeypatch.setattr(sys, "argv", ["contest.py", *options])
    contest.main()
    said = capsys.readouterr().out
    result = json.loads(said.splitlines()[-1])["caps"]["0.2"]
    assert {row["network"] for row in result} == {"resnet-8", "mobilenet-v2"}
    assert all(0 < row["share"] <= 1 for row in result)
    records = [json.loads(path.read_text()) for path in Path("trained").glob("*.json")]
    tested = np.load(tmp_path / "images.npz")["y_test"]
    assert sorted(record["accuracy"] for record in records) == sorted(row["accuracy"] for row in result)
    assert all(round(record["accuracy"] * len(tested)) / len(tested) == record["accuracy"] for record in records)
    assert Path("contest.md").read_text() in said
    assert Path("contest-0.2.png").stat().st_size > 1000

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contest, "train_network", None)
    monkeypatch.setattr(contest, "time_beside", None)
    contest.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["caps"]["0.2"] == result

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["contest.py", *options, "--learning-rate", "0.2"])
    with pytest.raises(InputError, match=r"must be of the same data, device, .*give another --folder"):
        contest.main()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--families", "resnet-8,resnet-9000"], "--families must be some of .*; got resnet-9000"),
        (["--searches", "mbconv:random"], "--searches must be space:strategy:estimator, .*; got mbconv:random"),
    ],
)
def test_what_is_not_there_is_named(
    contest: ModuleType, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["contest.py", *options])
    with pytest.raises(InputError, match=message):
        contest.asked()


def test_every_family_can_be_scaled(contest: ModuleType) -> None:
    assert len(contest.FAMILIES) == 12
    for make in contest.FAMILIES.values():
        assert (
            len(contest.ladder(lambda width, make=make: adapted(make(), resolution=28, classes=10, width=width))) > 20
        )
    assert "mobilenet-v2" in contest.FAMILIES
    assert mobilenet_v2 in contest.FAMILIES.values()
