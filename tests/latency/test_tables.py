"""Latency tables as files: what survives, what is refused and how; showing, checking, merging and comparing them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SETTING, pretend_table
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import chosen_networks
from pretended import ABACUS, conditions_line, interpreter, says
from typer.testing import CliRunner

import hwnas
from hwnas.cli.main import app
from hwnas.device.device import Setting, load_device
from hwnas.errors import InputError, TableError, UnknownNameError
from hwnas.latency.conditions import Conditions
from hwnas.latency.measure import read_conditions
from hwnas.latency.measurement import Measurement, OtherCosts, TimedNetwork
from hwnas.latency.showing import kind_of
from hwnas.latency.table import LatencyTable, Session
from hwnas.latency.where import find_tables, one_table_path, table_paths
from hwnas.network.architecture import UnreadableArchitecture
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.scale import Scale
from hwnas.spaces import pnas

CONDITIONS = ABACUS

with_files = settings(deadline=None, max_examples=50)  # files are flushed to the disk
milliseconds = st.floats(1e-6, 1e6)
rounds = st.lists(st.lists(milliseconds, min_size=1, max_size=4).map(tuple), min_size=1, max_size=4).map(tuple)
measurements = rounds.flatmap(
    lambda drawn: st.builds(
        Measurement,
        st.just(drawn),
        st.booleans(),
        st.just(()) | st.lists(milliseconds, min_size=len(drawn), max_size=len(drawn)).map(tuple),
    )
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def unreadable(value: dict[str, Any]) -> UnreadableArchitecture:
    return UnreadableArchitecture(value, InputError("why"))


sizes = st.none() | st.integers(0, 2**60)
durations = st.none() | st.floats(0, 1e9)
other_costs = st.builds(OtherCosts, sizes, sizes, durations, durations)
networks = st.lists(
    st.builds(
        TimedNetwork,
        st.dictionaries(st.text(), json_values, max_size=3).map(unreadable) | chosen_networks(),
        measurements,
        st.booleans(),
        other_costs,
    ),
    max_size=3,
)


def new_table(path: Path, entries: dict[str, Measurement] | None = None, **changes: Any) -> LatencyTable:
    conditions = CONDITIONS.model_copy(update=changes)
    return LatencyTable(
        path,
        "host",
        Setting(runtime="tflite"),
        conditions,
        entries if entries is not None else {"add": timed(1.0, 2.0)},
    )


def saved(path: Path, entries: dict[str, Measurement] | None = None, **changes: Any) -> str:
    new_table(path, entries, **changes).save()
    return str(path)


def timed(*ms: float) -> Measurement:
    """Return a measurement of one sample a round."""
    return Measurement(tuple((one,) for one in ms))


def session(**changes: Any) -> Session:
    """Return a session of two scales, which held six networks out."""
    scales = {"cells": [1], "filters": [4, 6], "resolution": [8], "classes": [3], "input_channels": [1]}
    conditions = Conditions(temperature_c=40.0, governor="performance")
    drawn = {"networks": 8, "seed": 0, "held_out": 6, "held_out_seed": 7, "before": conditions, "after": conditions}
    return Session(**{"space": "pnas", "scales": scales, **drawn, **changes})


def a_network(filters: int = 4) -> CellNetwork:
    return CellNetwork(pnas.cells(pnas.first_level())[0], Scale(1, filters, 8, 3, 1))


def change(path: Path, **changes: Any) -> Path:
    """Change fields of a table's file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a small table."""
    return Path(saved(tmp_path / "table.json"))


# Files.


@with_files
@given(entries=st.dictionaries(st.text(), measurements, max_size=4), networks=networks)
def test_any_entries_and_networks_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Measurement], networks: list[TimedNetwork]
) -> None:
    written = new_table(tmp_path_factory.mktemp("table") / "table.json", entries)
    written.networks = networks
    written.sessions = [session(), session(seed=1)]
    written.save()
    assert LatencyTable.read(written.path) == written


@with_files
@given(
    entries=st.dictionaries(st.text(), measurements, min_size=1, max_size=4),
    data=st.data(),
    broken=st.sampled_from([0, -1.5, "1.0", None, True, [1.0], {}, 10**400, float("nan"), float("inf")]),
)
def test_one_broken_sample_anywhere_is_refused_with_its_entry(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Measurement], data: st.DataObject, broken: Any
) -> None:
    path = tmp_path_factory.mktemp("table") / "table.json"
    new_table(path, entries).save()
    content = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(entries)))
    samples = data.draw(st.sampled_from(content["entries"][key]["rounds_ms"]))
    samples[data.draw(st.integers(0, len(samples) - 1))] = broken
    path.write_text(json.dumps(content))
    with pytest.raises(TableError) as caught:
        LatencyTable.read(path)
    assert str(caught.value).startswith(f"{path}: entry {key!r} must have rounds_ms, lists of positive numbers")
    assert "hwnas profile" in str(caught.value)


def test_the_unit_is_written_and_a_table_without_one_is_in_milliseconds(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content.pop("unit") == "ms"
    path.write_text(json.dumps(content))
    assert LatencyTable.read(path).ms("add") == 1.25


@pytest.mark.parametrize("unit", ["us", "s", None, 1])
def test_a_table_in_another_unit_is_refused(path: Path, unit: Any) -> None:
    change(path, unit=unit)
    with pytest.raises(TableError, match=rf"table\.json: the unit must be 'ms'; got {unit!r}\. .*hwnas profile"):
        LatencyTable.read(path)


@pytest.mark.parametrize("part", ["unit", "rewrites", "setting", "device"])
def test_an_error_quotes_no_more_than_a_line_of_a_table(path: Path, part: str) -> None:
    change(path, **{part: {"x" * 9000: "x" * 9000}})
    with pytest.raises(TableError) as error:
        LatencyTable.read(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({}, "runtime: Field required"),
        ({"runtime": 3}, "runtime: Input should be a valid string, got 3"),
        ({"runtime": "tflite", "threads": "1"}, "threads: .*got '1'"),
        ({"runtime": "tflite", "threads": 0}, "threads: .*got 0"),
        ({"runtime": "tflite", "precision": "fp8"}, "precision: .*got 'fp8'"),
        ({"runtime": "tflite", "thread": 1}, "thread: Extra inputs"),
    ],
)
def test_a_mistyped_setting_is_refused_by_field(path: Path, setting: dict[str, Any], reason: str) -> None:
    change(path, setting=setting)
    with pytest.raises(TableError, match=rf"table\.json: 'setting' must have a setting's fields: {reason}"):
        LatencyTable.read(path)


@pytest.mark.parametrize("entry", [[], 1.0, None, {}, {"rounds_ms": []}, {"rounds_ms": [[]]}, {"rounds_ms": 1.0}])
def test_an_entry_of_another_form_is_refused(path: Path, entry: Any) -> None:
    change(path, entries={"add": entry})
    with pytest.raises(TableError, match=r"table\.json: entry 'add' must have rounds_ms.*; got .*hwnas profile"):
        LatencyTable.read(path)


def test_an_entry_that_is_there_twice_is_refused(path: Path) -> None:
    path.write_text(path.read_text().replace('"entries": {', '"entries": {"add": {"rounds_ms": [[9.0]]},'))
    with pytest.raises(
        TableError, match=r"table\.json must be a latency table in JSON; it is not \('add' is there twice"
    ):
        LatencyTable.read(path)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"version": 1' + "0" * 5000 + "}", "\x00", "[1]", ""])
def test_what_is_no_table_at_all_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(TableError, match=r"table\.json must be a latency table"):
        LatencyTable.read(path)


@pytest.mark.parametrize(
    ("field", "words"),
    [("of a newer hwnas", "must hold JSON's numbers only; got NaN"), ("load", "load.float: Input should be a finite")],
)
def test_numbers_that_json_has_not_are_refused_outside_of_entries_too(path: Path, field: str, words: str) -> None:
    change(path, conditions={field: float("nan")})
    with pytest.raises(TableError, match=rf"table\.json.* {words}"):
        LatencyTable.read(path)


def test_a_file_that_is_not_there_is_a_tables_error_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "host" / "onnx-fp32-1t.json"
    with pytest.raises(TableError, match=r"must exist; got .*hwnas profile host --setting onnx-fp32-1t"):
        LatencyTable.read(path)


def test_a_table_from_before_there_were_sessions_and_other_costs_is_read(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content.pop("sessions") == []
    content["networks"] = [{"architecture": a_network().to_json(), "rounds_ms": [[1.0]]}]
    path.write_text(json.dumps(content))
    table = LatencyTable.read(path)
    assert (table.sessions, table.networks) == ([], [TimedNetwork(a_network(), timed(1.0))])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("peak_memory_bytes", -1, "greater than or equal to 0, got -1"),
        ("peak_memory_bytes", 1.5, "valid integer, got 1.5"),
        ("file_bytes", "12", "valid integer, got '12'"),
        ("file_bytes", True, "valid integer, got True"),
        ("load_ms", -0.5, "greater than or equal to 0, got -0.5"),
        ("load_ms", float("nan"), "finite number, got nan"),
        ("first_ms", float("inf"), "finite number, got inf"),
        ("first_ms", [1.0], "valid number, got \\[1.0\\]"),
    ],
)
def test_other_costs_that_are_none_are_refused_with_the_network(path: Path, name: str, value: Any, reason: str) -> None:
    change(path, networks=[{"architecture": {}, "rounds_ms": [[1.0]], name: value}])
    with pytest.raises(
        TableError, match=rf"table\.json: network 0 must have other costs .*{name}: .*{reason}.*profile"
    ):
        LatencyTable.read(path)


@pytest.mark.parametrize(
    ("sessions", "reason"),
    [
        ({}, "'sessions' is missing or of a wrong type"),
        ([3], "session 0 must have the fields of a session: .*got 3"),
        ([{"space": "pnas"}], "session 0 must have the fields of a session: scales: Field required"),
        ([session(waited_s=-1.0).to_json()], "waited_s: .*got -1.0"),
        ([session(seed="0").to_json()], "seed: .*got '0'"),
    ],
)
def test_a_broken_session_is_refused_by_field(path: Path, sessions: Any, reason: str) -> None:
    change(path, sessions=sessions)
    with pytest.raises(TableError, match=rf"table\.json: .*{reason}"):
        LatencyTable.read(path)


@given(a=other_costs, b=other_costs)
def test_other_costs_of_two_measurements_are_the_shorter_times_and_the_larger_sizes(
    a: OtherCosts, b: OtherCosts
) -> None:
    both = a.after(b)
    assert both == b.after(a)
    for name in OtherCosts.__dataclass_fields__:
        known = {getattr(one, name) for one in (a, b)} - {None}
        assert getattr(both, name) == ((max if "bytes" in name else min)(known) if known else None)


# Names.


def test_a_table_is_named_by_file_device_and_setting(workplace: Path) -> None:
    path = workplace / "latency_tables" / "host" / f"{SETTING}.json"
    assert table_paths("host", SETTING) == table_paths(f"host/{SETTING}") == [path]
    assert path in find_tables()
    assert one_table_path("some/where.json") == Path("some/where.json")
    with pytest.raises(UnknownNameError, match=r"'pi/a'; known: .*host/tflite-fp32-1t.*hwnas profile pi --setting a"):
        table_paths("pi", "a")


def test_one_of_several_tables_must_be_chosen(workplace: Path) -> None:
    for name in "ab":
        saved(workplace / "latency_tables" / "pi" / f"{name}.json")
    with pytest.raises(InputError, match=r"pi has 2\. Type one of pi/a, pi/b instead of pi"):
        one_table_path("pi")


# Show.


def test_a_table_is_shown_with_its_kinds_and_stability(tmp_path: Path) -> None:
    entries = {
        "conv 3x3 g8 8x4x4 > 8x4x4 relu": timed(1.0, 1.0),
        "conv 3x3 g2 8x4x4 > 8x4x4": timed(1.0, 3.0),
        "conv 1x1 8x4x4 > 8x4x4": dataclasses.replace(timed(1.0, 2.0), unstable=True),
        "max_pool 3x3/2 8x4x4 > 8x2x2": timed(2.0),
        "[/red] :cat:": timed(3.0),
    }
    path = saved(tmp_path / "table.json", entries)
    (shown,) = hwnas.tables_show(path, entries=True)
    assert shown.entries == {"depthwise": 1, "grouped conv": 1, "conv": 1, "max_pool": 1, "[/red]": 1}
    assert shown.unstable == ["conv 1x1 8x4x4 > 8x4x4"]
    assert shown.median_spread == pytest.approx(0.0)
    assert shown.prediction_error is None
    assert [row.ms for row in shown.rows or []] == [3.0, 1.25, 1.5, 1.0, 2.0]
    said = CliRunner().invoke(app, ["tables", "show", path, "--entries"]).output
    assert "device host, setting tflite-fp32-1t" in said
    assert "5 entries: " in said
    assert "unstable: 1 (conv 1x1 8x4x4 > 8x4x4)" in said
    assert "ai-edge-litert 2.3.0, abacus, 2 cores" in said
    assert len([line for line in said.splitlines() if line.startswith("│")]) == 5
    assert "│ [/red] :cat: " in said


def test_what_rewrites_are_worth_is_kept_and_shown(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "table.json", {"add 4x4x4 + 4x4x4 > 4x4x4": timed(1.0)}))
    table = LatencyTable.read(path)
    assert table.setting.without == ()
    table.choose({"split-depthwise": 0.3})
    table.choose({"quantize-for-relu": 1.2})
    table.save()
    read = LatencyTable.read(path)
    assert read.rewrites == {"split-depthwise": 0.3, "quantize-for-relu": 1.2}
    assert read.setting.without == ("quantize-for-relu",)
    said = " ".join(CliRunner().invoke(app, ["tables", "show", str(path)]).output.split())
    assert "rewrites, with / without: split-depthwise 0.30, quantize-for-relu 1.20 (left out)" in said


@pytest.mark.parametrize("rewrites", [{"split-depthwise": -1}, {"split-depthwise": "fast"}, ["split-depthwise"]])
def test_broken_rewrites_are_named(tmp_path: Path, rewrites: Any) -> None:
    path = Path(saved(tmp_path / "table.json", {"add 4x4x4 + 4x4x4 > 4x4x4": timed(1.0)}))
    path.write_text(json.dumps({**json.loads(path.read_text()), "rewrites": rewrites}))
    with pytest.raises(TableError, match="'rewrites'"):
        LatencyTable.read(path)


@given(key=st.text())
def test_every_key_has_a_kind(key: str) -> None:
    assert kind_of(key)


@given(words=st.lists(st.sampled_from(["conv", ">", "g4", "g", "gx", "8x4x4", "relu"])))
def test_keys_that_are_cut_have_a_kind_too(words: list[str]) -> None:
    assert kind_of(" ".join(words))


def test_the_prediction_error_is_shown_or_why_there_is_none(workplace: Path) -> None:
    table = pretend_table(workplace)
    table.set_network(a_network(), timed(1.0))
    table.save()
    (shown,) = hwnas.tables_show("host", setting=SETTING)
    assert shown.prediction_error == 0.5
    table.entries = {"add": timed(1.0)}
    table.save()
    (shown,) = hwnas.tables_show("host", setting=SETTING)
    assert shown.prediction_error is None
    assert "its networks cannot be predicted: " in shown.problem


def test_held_out_networks_are_reported_with_how_they_were_drawn_and_the_noise(workplace: Path) -> None:
    table = pretend_table(workplace)
    for filters, held_out in ((4, False), (6, False), (4, True), (6, True)):
        cell = pnas.cells(pnas.first_level())[1 + held_out]
        architecture = CellNetwork(cell, Scale(1, filters, 8, 3, 1))
        table.set_network(architecture, timed(filters, filters), held_out=held_out)
    table.sessions = [session(), session(), session(held_out=0)]
    table.save()
    (shown,) = hwnas.tables_show("host", setting=SETTING)
    assert shown.validation is not None
    assert (shown.validation.networks, shown.validation.noise_within_5) == (2, 1.0)
    assert shown.drawn == ["at random from pnas (N 1, F 4,6, resolution 8), seed 7"]
    said = CliRunner().invoke(app, ["tables", "show", "host", "--setting", SETTING]).output
    assert "2 other networks, shares predicted within 5 and 10 %: " in said
    assert "of the device's own noise: 100%, 100%" in said
    assert "held out were drawn at random from pnas (N 1, F 4,6, resolution 8), seed 7" in said
    (plain,) = json.loads(CliRunner().invoke(app, ["tables", "show", "host", "--setting", SETTING, "--json"]).output)
    assert plain["validation"]["networks"] == 2
    table.sessions = []
    table.save()
    said = CliRunner().invoke(app, ["tables", "show", "host", "--setting", SETTING]).output
    assert "held out were drawn in a way that the file does not tell" in said


def test_other_costs_of_whole_networks_are_shown(tmp_path: Path) -> None:
    table = new_table(tmp_path / "table.json")
    table.set_network(a_network(4), timed(1.0), other=OtherCosts(2048, 10240, 3.0, 4.0))
    table.set_network(a_network(6), timed(2.0), held_out=True, other=OtherCosts(4096))
    table.networks.append(TimedNetwork(unreadable({"kind": "magic"}), timed(3.0)))
    table.save()
    (shown,) = hwnas.tables_show(str(table.path), entries=True)
    assert shown.typical == OtherCosts(2048, 10240, 3.0, 4.0)
    assert [row.name[:12] for row in shown.network_rows or []] == ["0: N=1 F=4 8", "1: N=1 F=6 8", "2: unknown k"]
    said = CliRunner().invoke(app, ["tables", "show", str(table.path), "--entries"]).output
    assert "their medians: file 2 KiB, peak memory 10 KiB, loaded in 3.00 ms, first inference 4.00 ms" in said
    rows = [line for line in said.splitlines() if "N=1" in line]
    assert rows[0].replace("│", " ").split()[-6:] == ["1.0000", "0.0%", "2", "10", "3.000", "4.000"]
    assert "held out" in rows[1]


def test_unstable_entries_are_shown_with_the_command_that_measures_them_again(tmp_path: Path) -> None:
    table = new_table(tmp_path / "table.json", {"add": dataclasses.replace(timed(1.0, 2.0), unstable=True)})
    table.save()
    assert hwnas.tables_show(str(table.path))[0].again == f"hwnas profile host --setting {SETTING} --fresh"
    table.sessions = [session()]
    table.save()
    (shown,) = hwnas.tables_show(str(table.path))
    assert shown.again == (
        f"hwnas profile host --setting {SETTING} --space pnas --cells 1 --filters 4,6 --resolution 8 --channels 1 "
        "--classes 3 --networks 8 --validate 6 --seed 0 --unstable"
    )
    assert shown.again in CliRunner().invoke(app, ["tables", "show", str(table.path)]).output


def test_all_tables_are_shown_and_a_broken_one_hides_none(workplace: Path) -> None:
    broken = workplace / "latency_tables" / "pi" / "a.json"
    broken.parent.mkdir()
    broken.write_text("{")
    shown = {one.path: one for one in hwnas.tables_show()}
    assert "must be a latency table in JSON" in shown[str(broken)].problem
    assert shown[str(workplace / "latency_tables" / "host" / f"{SETTING}.json")].entries
    result = CliRunner().invoke(app, ["tables", "show", "--json"])
    assert {one["path"] for one in json.loads(result.output)} == set(shown)
    with pytest.raises(TableError, match="in JSON"):
        hwnas.tables_show("pi")


# Check.


Answer = Callable[[Conditions | str], None]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Let the device host tell conditions, or why it cannot run."""
    monkeypatch.setenv("HWNAS_ROOT", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()

    def answer(told: Conditions | str) -> None:
        lines = [{"error": told}] if isinstance(told, str) else [{"conditions": conditions_line(told)}, {"end": 0}]
        python = interpreter(tmp_path, says(*lines))
        (tmp_path / "root" / "devices" / "host.toml").unlink(missing_ok=True)
        hwnas.devices_add("host", setting=SETTING, python=python)

    answer(CONDITIONS)
    return answer


def test_a_fine_table_is_said_to_fit_this_machine_or_not(path: Path, answers: Answer) -> None:
    (checked,) = hwnas.tables_check([str(path)])
    assert (checked.fine, checked.fits_now) == (True, True)
    answers(CONDITIONS.model_copy(update={"cpu": "slide rule"}))
    (checked,) = hwnas.tables_check([str(path)])
    assert (checked.fine, checked.fits_now) == (True, False)
    assert "cpu was 'abacus' and is 'slide rule'" in checked.remark
    answers("no runtime")
    (checked,) = hwnas.tables_check([str(path)])
    assert (checked.fine, checked.fits_now) == (True, None)
    assert checked.remark == f"nothing can be timed on host, {SETTING}: no runtime"
    assert CliRunner().invoke(app, ["tables", "check", str(path)]).exit_code == 0


def test_a_table_that_was_taken_here_and_now_fits(tmp_path: Path) -> None:
    host = load_device("host")
    path = tmp_path / "table.json"
    now = read_conditions(host, host.setting(SETTING))
    LatencyTable(path, "host", host.setting(SETTING), now, {"add": timed(1.0)}).save()
    (checked,) = hwnas.tables_check([str(path)])
    assert (checked.fine, checked.fits_now) == (True, True)


def test_a_broken_table_ends_the_check_with_status_1(path: Path, answers: Answer) -> None:
    broken = path.with_name("broken.json")
    broken.write_text(path.read_text()[:-20])
    for extra in ([], ["--json"]):
        result = CliRunner().invoke(app, ["tables", "check", str(broken), str(path), *extra])
        assert result.exit_code == 1
        assert "broken.json must be a latency table in JSON" in result.output
        assert "fits this machine" in result.output
    (checked,) = hwnas.tables_check([str(path.with_name("absent.json"))])
    assert not checked.fine


def test_a_check_looks_at_the_networks_and_the_place(tmp_path: Path, answers: Answer) -> None:
    table = new_table(tmp_path / "latency_tables" / "pi" / f"{SETTING}.json")
    table.save()
    (checked,) = hwnas.tables_check([str(table.path)])
    assert (
        f"it is of device host in setting {SETTING}. Move it to latency_tables/host/{SETTING}.json" in checked.problem
    )
    table = new_table(tmp_path / "table.json")
    table.networks = [TimedNetwork(a_network(), timed(1.0)), TimedNetwork(unreadable({"kind": "magic"}), timed(1.0))]
    table.save()
    (checked,) = hwnas.tables_check([str(table.path)])
    assert "table.json: network 1 must be an architecture" in checked.problem


# Merge.


def test_merging_keeps_what_either_has_and_puts_rounds_together(tmp_path: Path) -> None:
    a, b = (new_table(tmp_path / f"{name}.json", {name: timed(1.0), "add": timed(1.0, 1.01)}) for name in "ab")
    b.entries["add"] = timed(1.01, 1.02)
    a.set_network(a_network(4), timed(5.0), other=OtherCosts(9, load_ms=1.0))
    b.set_network(a_network(4), timed(6.0), other=OtherCosts(9, load_ms=2.0, first_ms=3.0))
    a.sessions, b.sessions = [session(), session(seed=1)], [session(seed=1), session(seed=2)]
    b.set_network(a_network(6), timed(7.0))
    a.save()
    b.save()
    out = tmp_path / "c" / "c.json"
    merged = hwnas.tables_merge(str(a.path), str(b.path), out=str(out))
    table = LatencyTable.read(out)
    assert table.entries == {"a": timed(1.0), "b": timed(1.0), "add": timed(1.0, 1.01, 1.02)}
    assert table.network(a_network(4)) == dataclasses.replace(timed(5.0, 6.0))
    assert table.network(a_network(6)) == timed(7.0)
    assert table.networks[0].other == OtherCosts(9, load_ms=1.0, first_ms=3.0)
    assert [one.seed for one in table.sessions] == [0, 1, 2]
    assert (merged.entries, merged.common_entries, merged.networks, merged.common_networks) == (3, 1, 2, 1)
    assert LatencyTable.read(a.path).entries == a.entries


@with_files
@given(
    first=st.dictionaries(st.sampled_from("abc"), measurements),
    second=st.dictionaries(st.sampled_from("abc"), measurements),
)
def test_merging_loses_no_round_and_merging_again_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, Measurement], second: dict[str, Measurement]
) -> None:
    first, second = ({key: without_canary(m) for key, m in entries.items()} for entries in (first, second))
    folder = tmp_path_factory.mktemp("tables")
    a, b, out = saved(folder / "a.json", first), saved(folder / "b.json", second), str(folder / "c.json")
    hwnas.tables_merge(a, b, out=out)
    once = LatencyTable.read(Path(out)).entries
    for key in first.keys() | second.keys():
        parts = [entries[key].rounds_ms for entries in (first, second) if key in entries]
        assert {*once[key].rounds_ms} == {samples for part in parts for samples in part}
    hwnas.tables_merge(out, b, out=out)
    assert LatencyTable.read(Path(out)).entries == once


def without_canary(measurement: Measurement) -> Measurement:
    return dataclasses.replace(measurement, canary_ms=())


def test_a_network_that_one_table_held_out_stays_held_out(tmp_path: Path) -> None:
    a, b = new_table(tmp_path / "a.json"), new_table(tmp_path / "b.json")
    a.networks = [TimedNetwork(a_network(4), timed(1.0), held_out=True)]
    b.networks = [TimedNetwork(a_network(4), timed(2.0)), TimedNetwork(a_network(6), timed(2.0))]
    a.save()
    b.save()
    hwnas.tables_merge(str(a.path), str(b.path), out=str(a.path))
    assert [network.held_out for network in LatencyTable.read(a.path).networks] == [True, False]
    (shown,) = hwnas.tables_show(str(a.path))
    assert (shown.networks, shown.held_out) == (2, 1)
    change(a.path, networks=[{"architecture": {}, "rounds_ms": [[1.0]], "held_out": "yes"}])
    with pytest.raises(TableError, match=r"a\.json: network 0 must have held_out, true or false; got 'yes'"):
        LatencyTable.read(a.path)


def test_rounds_that_disagree_after_merging_are_unstable(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.json", {"add": timed(1.0, 1.0)}), saved(tmp_path / "b.json", {"add": timed(2.0, 2.1)})
    assert hwnas.tables_merge(a, b, out=str(tmp_path / "c.json")).unstable == 1


def test_rounds_keep_their_canary(tmp_path: Path) -> None:
    first, second = (
        Measurement(((1.0,), (2.0,)), canary_ms=(0.1, 0.2)),
        Measurement(((2.0,), (3.0,)), canary_ms=(0.2, 0.3)),
    )
    a, b = saved(tmp_path / "a.json", {"add": first}), saved(tmp_path / "b.json", {"add": second})
    hwnas.tables_merge(a, b, out=a)
    assert LatencyTable.read(Path(a)).entries["add"] == Measurement(((1.0,), (2.0,), (3.0,)), canary_ms=(0.1, 0.2, 0.3))
    c = saved(tmp_path / "c.json")
    with pytest.raises(TableError, match=r"canary is True in .*a\.json and False in .*c\.json"):
        hwnas.tables_merge(a, c, out=a)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("cpu", "slide rule", r"cpu is 'abacus' in .*a\.json and 'slide rule' in .*b\.json"),
        (
            "runtime_version",
            "ai-edge-litert 3",
            "runtime_version is 'ai-edge-litert 2.3.0' in .* and 'ai-edge-litert 3'",
        ),
        ("threads", 2, "threads is 1 in"),
    ],
)
def test_tables_of_other_conditions_do_not_merge(tmp_path: Path, field: str, value: Any, said: str) -> None:
    a, b = saved(tmp_path / "a.json"), saved(tmp_path / "b.json", **{field: value})
    with pytest.raises(TableError, match=said + r".*hwnas tables diff"):
        hwnas.tables_merge(a, b, out=str(tmp_path / "c.json"))
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("head", [{"device": "pi"}, {"setting": {"runtime": "tflite", "precision": "int8"}}])
def test_tables_of_another_device_or_setting_do_not_merge(tmp_path: Path, head: dict[str, Any]) -> None:
    a, b = saved(tmp_path / "a.json"), saved(tmp_path / "b.json")
    change(Path(b), **head)
    with pytest.raises(TableError, match=r"(device is 'host' .* 'pi'|precision is 'fp32' .* 'int8') in"):
        hwnas.tables_merge(a, b, out=a)


def test_what_changes_from_minute_to_minute_does_not_keep_tables_apart(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.json", load=0.1, date="2026"), saved(tmp_path / "b.json", load=0.2, date="2027")
    hwnas.tables_merge(a, b, out=b)
    assert LatencyTable.read(Path(b)).conditions.date == "2026"


def test_the_same_merge_may_be_typed_again(tmp_path: Path) -> None:
    """As one that was stopped says, however much it has done."""
    a, b = (saved(tmp_path / f"{name}.json", date=name) for name in "ab")
    merged = hwnas.tables_merge(a, b, out=str(tmp_path / "c.json"))
    assert hwnas.tables_merge(a, b, out=str(tmp_path / "c.json")) == merged


def test_merging_writes_over_nothing_but_the_two(tmp_path: Path) -> None:
    a, b, c = (saved(tmp_path / f"{name}.json", date=name) for name in "abc")
    before = Path(c).read_text()
    with pytest.raises(InputError, match=r"--out must be a new file or one of the two tables; .*c\.json exists"):
        hwnas.tables_merge(a, b, out=c)
    with pytest.raises(InputError, match="two tables must be given to merge"):
        hwnas.tables_merge(a, a, out=str(tmp_path / "d.json"))
    with pytest.raises(InputError, match=r"ends in \.json; got d"):
        hwnas.tables_merge(a, b, out="d")
    assert Path(c).read_text() == before


# Diff.


def test_a_comparison_tells_what_is_missing_and_how_far_the_rest_is_apart(tmp_path: Path) -> None:
    common = {f"add {at}": timed(1.0, 1.0) for at in range(20)}
    slower = {
        key: timed(ratio, ratio) for key, ratio in zip(common, [0.2] + [0.95] * 6 + [1.05] * 6 + [2.0] * 7, strict=True)
    }
    a = saved(tmp_path / "a.json", {**common, "mean": timed(1.0)})
    b = saved(tmp_path / "b.json", {**slower, "relu": timed(1.0), "shift": timed(1.0)}, cpu="slide rule")
    compared = hwnas.tables_diff(a, b)
    assert (compared.only_a, compared.only_b, compared.common) == (["mean"], ["relu", "shift"], 20)
    assert (compared.ratio_lower_quartile, compared.ratio_median, compared.ratio_upper_quartile) == (0.95, 1.05, 2.0)
    assert compared.beyond_10_percent == 8
    assert [one.ratio for one in compared.largest[:5]] == [0.2, 2.0, 2.0, 2.0, 2.0]
    assert len(compared.largest) == 10
    assert [(one.field, one.a, one.b) for one in compared.differences] == [("cpu", "abacus", "slide rule")]
    said = CliRunner().invoke(app, ["tables", "diff", a, b]).output
    assert "8 differ by more than 10 %" in " ".join(said.split())
    assert "entries only in b: 2 (relu, shift)" in said
    assert json.loads(CliRunner().invoke(app, ["tables", "diff", a, b, "--json"]).output)["common"] == 20


@pytest.mark.parametrize("keys", [(), ("add",)])
def test_tables_with_little_in_common_are_compared_too(tmp_path: Path, keys: tuple[str, ...]) -> None:
    a, b = saved(tmp_path / "a.json", {key: timed(1.0) for key in keys}), saved(tmp_path / "b.json")
    assert hwnas.tables_diff(a, b).ratio_median == (1.25 if keys else None)
    assert CliRunner().invoke(app, ["tables", "diff", a, b]).exit_code == 0
