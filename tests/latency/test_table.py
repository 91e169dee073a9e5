"""Latency tables and predictions."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.device.device import Setting
from hwnas.errors import TableError
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement, TimedNetwork
from hwnas.latency.table import LatencyTable
from hwnas.latency.where import check_conditions
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.published import PNASNET_5
from hwnas.network.scale import Scale
from hwnas.support import commands

NETWORK = CellNetwork(PNASNET_5, Scale(1, 4, 8, 3))
milliseconds = st.floats(1e-6, 1e6, allow_nan=False)
measurements = st.builds(
    Measurement, st.lists(st.lists(milliseconds, min_size=1).map(tuple), min_size=1).map(tuple), st.booleans()
)


def table(path: Path) -> LatencyTable:
    return LatencyTable(
        path,
        "host",
        Setting(runtime="tflite"),
        Conditions(cpu="a", cores=2),
        {"add": Measurement(((1.0, 2.0, 3.0), (2.0, 2.0, 9.0)))},
        [TimedNetwork(NETWORK, Measurement(((5.0,),)))],
    )


def test_the_stated_latency_is_the_lower_quartile_of_the_rounds_medians() -> None:
    measurement = Measurement(((1.0, 9.0, 2.0), (3.0,), (4.0,), (5.0,), (6.0,)))
    assert measurement.round_medians_ms == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert measurement.ms == 3.0
    assert measurement.spread == pytest.approx(4.0 / 3.0 - 1.0)
    assert measurement.median_ms == 4.0


@given(entries=st.dictionaries(st.text(min_size=1), measurements, max_size=4))
def test_a_table_survives_its_file(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Measurement]) -> None:
    written = table(tmp_path_factory.mktemp("table") / "table.json")
    written.entries = entries
    written.save()
    assert LatencyTable.read(written.path) == written


def test_a_table_that_is_cut_short_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    written = table(tmp_path / "table.json")
    written.save()
    content = written.path.read_bytes()
    for end in range(len(content) - 1):
        written.path.write_bytes(content[:end])
        with pytest.raises(TableError, match=r"table\.json"):
            LatencyTable.read(written.path)


@pytest.mark.parametrize("sample", ["-1.0", "0", "NaN", "Infinity", '"1.0"', "null", "true", "[]"])
def test_an_entry_that_is_no_time_is_refused_with_file_and_entry(tmp_path: Path, sample: str) -> None:
    written = table(tmp_path / "table.json")
    written.save()
    written.path.write_text(written.path.read_text().replace("3.0", sample))
    with pytest.raises(TableError, match=r"table\.json: entry 'add' must have rounds_ms"):
        LatencyTable.read(written.path)


def test_a_table_of_version_1_is_read_and_written_byte_for_byte(tmp_path: Path) -> None:
    """The file was written before entries were read by pydantic; a network and a condition in it are not known here."""
    written = Path(__file__).with_name("table_v1.json").read_bytes()
    (tmp_path / "table.json").write_bytes(written)
    read = LatencyTable.read(tmp_path / "table.json")
    assert (len(read.entries), len(read.networks), len(read.sessions)) == (2, 5, 1)
    read.path.unlink()
    read.save()
    assert read.path.read_bytes() == written


def test_a_table_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    written = table(tmp_path / "host" / "tflite-fp32-1t.json")
    written.save()
    written.path.write_text(written.path.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(TableError) as caught:
        LatencyTable.read(written.path)
    assert str(caught.value) == (
        f"{written.path} is a latency table of version 99, of a newer hwnas; this one reads version 1. Install the "
        "newer hwnas, or measure with this one. Restore the file, or delete it, as a "
        "search measures what it needs, or measure it again: hwnas profile host --setting "
        "tflite-fp32-1t --fresh"
    )


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ([], "'conditions' is missing or of a wrong type"),
        ({"cores": "2"}, "'conditions' must have the conditions of a device: cores: .*got '2'"),
        ({"frequency_mhz": 1800}, "'conditions' must have the conditions of a device: frequency_mhz: .*got 1800"),
    ],
)
def test_broken_conditions_are_refused_by_field(tmp_path: Path, conditions: Any, reason: str) -> None:
    written = table(tmp_path / "table.json")
    written.save()
    written.path.write_text(json.dumps({**json.loads(written.path.read_text()), "conditions": conditions}))
    with pytest.raises(TableError, match=rf"table\.json: {reason}"):
        LatencyTable.read(written.path)


@pytest.mark.parametrize(
    "change", [{"version": 0}, {"version": True}, {"version": "1"}, {"entries": []}, {"device": None}, {"networks": {}}]
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    written = table(tmp_path / "table.json")
    written.save()
    written.path.write_text(json.dumps({**json.loads(written.path.read_text()), **change}))
    with pytest.raises(TableError, match=rf"table\.json.*{next(iter(change))}"):
        LatencyTable.read(written.path)


def test_a_missing_entry_names_the_command_that_measures_it(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"lacks 1, such as 'mean'.*hwnas profile host"):
        table(tmp_path / "table.json").require(["add", "mean", "mean"], command=commands.profile("host"))


def test_other_conditions_are_refused_by_field(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"cpu was 'a' and is 'b'\. Measure anew: hwnas profile host --setting tflite-fp32-1t --fresh"
    ):
        check_conditions(table(tmp_path / "table.json"), {"cpu": "b", "cores": 2})


def test_rounds_are_compared_as_multiples_of_the_canary() -> None:
    slow_then_fast = Measurement(((2.0,), (4.0,), (2.0,), (4.0,)), canary_ms=(1.0, 2.0, 1.0, 2.0))
    assert slow_then_fast.spread == 0.0
    assert slow_then_fast.at(1.0) == 2.0
    assert slow_then_fast.at(1.5) == 3.0
    assert slow_then_fast.at(1.0, {1.0: 2.0}) == 1.5  # rounds of 1 and of 2
    assert slow_then_fast.ms == 2.0
    assert Measurement(((2.0,), (4.0,))).at(7.0) == Measurement(((2.0,), (4.0,))).ms


def test_a_table_states_latencies_at_its_own_canary(tmp_path: Path) -> None:
    of_canary = table(tmp_path / "table.json")
    of_canary.entries = {
        "a": Measurement(((2.0,), (2.0,)), canary_ms=(1.0, 1.0)),
        "b": Measurement(((6.0,), (6.0,)), canary_ms=(3.0, 3.0)),
    }
    of_canary.networks = []
    assert of_canary.canary_ms == 1.0
    assert of_canary.ms("a") == pytest.approx(2.0)
    assert of_canary.ms("b") == pytest.approx(2.0)


def test_a_table_without_a_canary_states_what_is_measured_later_as_it_is(tmp_path: Path) -> None:
    of_old = table(tmp_path / "table.json")
    of_old.entries, of_old.networks = {"a": Measurement(((2.0,),))}, []
    later = Measurement(((2.0,), (4.0,)), canary_ms=(0.1, 0.2))
    assert of_old.stated_ms(later) == later.ms
    assert of_old.canary_ms is None
    assert of_old.drift is None


def test_a_canary_is_added_to_none() -> None:
    old, new = Measurement(((2.0,),)), Measurement(((3.0,),), canary_ms=(1.0,))
    assert new.after(old) == new
    assert new.after(new).canary_ms == (1.0, 1.0)


@pytest.mark.parametrize("canary", ["[1.0]", "[1.0, -1.0]", "[1.0, NaN]", '"1"', "[1.0, true]"])
def test_a_canary_that_is_none_is_refused_with_file_and_entry(tmp_path: Path, canary: str) -> None:
    written = table(tmp_path / "table.json")
    written.entries = {"add": Measurement(((1.0,), (2.0,)), canary_ms=(7.0, 7.5))}
    written.save()
    written.path.write_text(written.path.read_text().replace("[7.0, 7.5]", canary))
    with pytest.raises(TableError, match=r"table\.json: entry 'add' must have canary_ms"):
        LatencyTable.read(written.path)
