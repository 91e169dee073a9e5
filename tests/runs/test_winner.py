"""winner.json: what an older hwnas wrote is read as it was, and what cannot be read is named with what to type."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from winners import trained_run

from hwnas.errors import InputError
from hwnas.runs.winner import WinnerFolder, WinnerRecord
from hwnas.training.settings import TrainingSettings

BEFORE = Path(__file__).parent.parent / "data" / "before" / "runs" / "a" / "winners" / "0000"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = trained_run(tmp_path_factory.mktemp("run"))
    read: dict[str, Any] = json.loads((run / "winners" / "0003" / "winner.json").read_text())
    return read


def test_a_record_of_an_older_hwnas_is_read_and_would_be_written_alike(tmp_path: Path) -> None:
    record = WinnerFolder(BEFORE).read()
    assert record.training == TrainingSettings(epochs=8, batch_size=16, augment=False, device="cpu", precision="fp32")
    assert record.architecture.graph.mult_adds == record.mult_adds
    record.write(tmp_path / "winner.json")
    assert (tmp_path / "winner.json").read_text() == (BEFORE / "winner.json").read_text()


def test_what_is_unknown_in_a_record_is_kept(content: dict[str, Any]) -> None:
    content = {**content, "note": {"by": "somebody"}}
    assert WinnerRecord.model_validate(content).to_json() == content


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 99}, "must be of version 1 or older; got 99, which a newer hwnas wrote. Update hwnas, or delete"),
        ({"version": "1"}, "version: Input should be a valid integer, got '1'. Delete"),
        ({"version": 0}, "version: Input should be greater than or equal to 1, got 0. Delete"),
        ({"test_accuracy": None}, "test_accuracy: Input should be a valid number, got None. Delete"),
        ({"seconds": float("nan")}, "seconds: Input should be a finite number, got nan. Delete"),
        ({"data": {"name": "cifar10"}}, "data.classes: Field required; .*Delete"),
        ({"architecture": {"kind": "magic"}}, "architecture: .*unknown kind of network 'magic'; known: .*Delete"),
        ({"training": {"epochs": -1}}, "training: epochs must be above 0; got -1.* Delete"),
    ],
)
def test_a_record_that_cannot_be_read_is_named_with_what_to_type(
    tmp_path: Path, content: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    folder = WinnerFolder(tmp_path / "a" / "winners" / "0003")
    folder.path.mkdir(parents=True)
    folder.record.write_text(json.dumps({**content, **changes}))
    command = f"hwnas train {tmp_path / 'a'} --trial 3"
    with pytest.raises(InputError, match=rf"{re.escape(str(folder.record))}.* {words}.*type: {re.escape(command)}$"):
        folder.read()


def test_each_field_that_is_missing_is_named(tmp_path: Path, content: dict[str, Any]) -> None:
    folder = WinnerFolder(tmp_path)
    for name in content.keys() - {"search_accuracy_of"}:  # an older hwnas states none
        folder.record.write_text(json.dumps({other: value for other, value in content.items() if other != name}))
        with pytest.raises(InputError, match=rf"winner.json is not a winner's record: {name}: Field required\. Delete"):
            folder.read()
