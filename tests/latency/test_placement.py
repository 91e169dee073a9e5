"""Where a model ran: its words, and its way with the measurement into a table's file and back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.device.device import Setting
from hwnas.errors import TableError
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement, TimedNetwork
from hwnas.latency.placement import Placement
from hwnas.latency.table import LatencyTable
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.published import PNASNET_5
from hwnas.network.scale import Scale

WHOLE = Placement(processor="cpu", delegate="XNNPACK", whole=True, operators=58, of=58, partitions=1)
PART = Placement(processor="cpu", delegate="XNNPACK", whole=False, operators=539, of=548, partitions=19)
NETWORK = CellNetwork(PNASNET_5, Scale(1, 4, 8, 3))


def timed(placement: Placement | None, *ms: float) -> Measurement:
    return Measurement(tuple((one,) for one in ms or (1.0,)), placement=placement)


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (WHOLE, "on the CPU, by XNNPACK: all 58 operators"),
        (PART, "on the CPU, by XNNPACK: 539 of 548 operators, in 19 partitions"),
        (
            Placement(processor="cpu", delegate="XNNPACK", whole=False, operators=0),
            "on the CPU, by XNNPACK: 0 operators",
        ),
        (Placement(processor="cpu", whole=True), "on the CPU: all operators"),
        (Placement(processor="gpu", delegate="GPU", whole=True, operators=49, of=49), "on the GPU: all 49 operators"),
        (Placement(processor="gpu", delegate="GPU", whole=False), "on the GPU: some operators"),
        (Placement(processor="npu", delegate="NNAPI", whole=True), "on the NPU, by NNAPI: all operators"),
    ],
)
def test_it_is_told_in_few_words(placement: Placement, words: str) -> None:
    assert str(placement) == words


@pytest.mark.parametrize(
    "fields",
    [
        {"processor": "tpu", "whole": True},
        {"processor": "gpu"},
        {"processor": "gpu", "whole": "yes"},
        {"processor": "gpu", "whole": True, "operators": 3, "of": 5},
        {"processor": "gpu", "whole": False, "operators": 5, "of": 5},
        {"processor": "gpu", "whole": True, "operators": -1},
        {"processor": "gpu", "whole": True, "delegate": "G" * 201},
    ],
)
def test_what_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Placement.model_validate(fields)


def test_what_a_device_calls_its_delegate_is_printable() -> None:
    assert str(Placement(processor="gpu", delegate="\x1b[2J", whole=True)) == "on the GPU, by \ufffd[2J: all operators"


def test_rounds_that_ran_elsewhere_leave_it_untold() -> None:
    assert timed(WHOLE).after(timed(WHOLE)).placement == WHOLE
    assert timed(WHOLE).after(timed(PART)).placement is None
    assert timed(WHOLE).after(timed(None)).placement is None
    assert timed(WHOLE).after(None).placement == WHOLE


def a_table(path: Path) -> LatencyTable:
    entries = {"add": timed(WHOLE, 1.0, 2.0), "relu": timed(PART), "mean": timed(None)}
    table = LatencyTable(path, "host", Setting(runtime="tflite"), Conditions(cpu="a", cores=2), entries)
    table.set_network(NETWORK, timed(WHOLE))
    return table


def test_a_table_keeps_it_and_shows_it(tmp_path: Path) -> None:
    table = a_table(tmp_path / "table.json")
    table.save()
    read = LatencyTable.read(table.path)
    assert (read.entries, read.networks) == (table.entries, table.networks)
    assert read.text() == table.text()
    said = CliRunner().invoke(app, ["tables", "show", str(table.path), "--entries"], terminal_width=200).output
    assert "whole on the CPU, by XNNPACK: 1 of 2 entries and 1 of 1 networks" in said
    assert "of 1 it is not told where they ran" in said
    shown = json.loads(CliRunner().invoke(app, ["tables", "show", str(table.path), "--entries", "--json"]).output)
    assert [row["placement"] and row["placement"]["operators"] for row in shown[0]["rows"]] == [58, None, 539]


def test_a_table_that_tells_nothing_shows_nothing(tmp_path: Path) -> None:
    table = a_table(tmp_path / "table.json")
    table.entries = {key: dataclasses.replace(entry, placement=None) for key, entry in table.entries.items()}
    table.networks = [TimedNetwork(NETWORK, timed(None))]
    table.save()
    assert "placement" not in table.path.read_text()
    assert "CPU" not in CliRunner().invoke(app, ["tables", "show", str(table.path)]).output


@pytest.mark.parametrize("wrong", [5, "cpu", {"processor": "cpu"}, {"processor": "tpu", "whole": True}])
def test_one_that_is_none_is_refused_with_file_and_entry(tmp_path: Path, wrong: Any) -> None:
    table = a_table(tmp_path / "table.json")
    table.save()
    content = json.loads(table.path.read_text())
    content["entries"]["add"]["placement"] = wrong
    table.path.write_text(json.dumps(content))
    with pytest.raises(
        TableError, match=r"table\.json: entry 'add' must have a placement that says on which processor"
    ):
        LatencyTable.read(table.path)
