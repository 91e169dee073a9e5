"""card.json: what an older hwnas wrote is read as it was, and what cannot be read is named with what to type."""

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas.artefacts.card import Card, GivenWeights
from hwnas.artefacts.texts import readme
from hwnas.errors import InputError
from hwnas.formats._inputs import Form
from hwnas.latency.placement import Placement
from hwnas.support import commands
from hwnas.training.settings import TrainingSettings

BEFORE = Path(__file__).parent.parent / "data" / "before" / "export" / "a" / "0000" / "card.json"


def compared(images: list[int], right: list[int]) -> dict[str, Any]:
    """Return what is to be changed for a file that finds so many of each class."""
    by_class = {"images": images, "right": right, "right_in_pytorch": [0]}
    return {"files": {"a": {"runtime": "tflite", "bytes": 1, "by_class": by_class}}}


def content_of(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(BEFORE.read_text())
    return content | changes


def test_a_card_of_an_older_hwnas_is_read_and_would_be_written_alike(tmp_path: Path) -> None:
    card = Card.read(BEFORE, again=commands.export())
    assert isinstance(card.training, TrainingSettings)
    assert card.own_file is card.files["model.tflite"]
    assert card.form == Form("normalised", None)
    card.write(tmp_path / "card.json")
    assert (tmp_path / "card.json").read_text() == BEFORE.read_text()


def test_a_card_from_before_there_were_checks_and_forms_is_read() -> None:
    content = content_of()
    for name in ("check", "input", "batch"):
        del content[name]
    for entry in content["files"].values():
        for name in ("sha256", "tensors", "rewrites", "precision", "first_inference_ms"):
            entry.pop(name, None)
    card = Card.model_validate(content)
    assert (card.form, card.check, card.files["model.tflite"].sha256) == (Form(), None, None)
    assert card.to_json() == content  # nothing is made up


def test_where_a_file_ran_is_kept_and_read_in_its_readme() -> None:
    card = Card.model_validate(content_of())
    assert "measured on the" not in readme(card)
    placement = Placement(processor="cpu", delegate="XNNPACK", whole=False, operators=5, of=8, partitions=3)
    entry = card.files["model.tflite"].timed(
        "tflite-fp32-1t", 1.25, first_ms=None, load_ms=None, peak_memory_bytes=None, placement=placement
    )
    card = card.model_copy(update={"files": {"model.tflite": entry}})
    assert Card.model_validate(json.loads(json.dumps(card.to_json()))).files["model.tflite"].placement == placement
    assert "| 1.250 ms, measured on the CPU, by XNNPACK: 5 of 8 operators, in 3 partitions |" in readme(card)


def test_given_weights_are_told_from_a_training() -> None:
    assert Card.model_validate(content_of(training={"weights": "a.pth"})).training == GivenWeights(weights="a.pth")
    assert Card.model_validate(content_of(training={"epochs": 3})).training == TrainingSettings(epochs=3)


def test_facts_of_another_packages_format_are_kept() -> None:
    content = content_of()
    content["files"]["model.onnx"]["layout"] = "blocked"
    assert Card.model_validate(content).to_json() == content


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "an artefact's card must be of version 1 or older; got 2, which a newer hwnas wrote"),
        ({"accuracy": {}}, "is not an artefact's card: accuracy.test: Field required"),
        ({"files": {"model.tflite": {}}}, "is not an artefact's card: files.model.tflite.runtime: Field required"),
        ({"files": None}, "is not an artefact's card: files: Input should be a valid dict"),
        (compared([1], [2]), "of each class no more images can be right than there are"),
        (compared([1], [1]), "a's by_class must be of its .* classes"),
    ],
)
def test_a_card_that_cannot_be_read_is_named_with_what_to_type(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "card.json").write_text(json.dumps(content_of(**changes)))
    with pytest.raises(InputError, match=rf"card\.json.* {words}.*type: hwnas export runs/a"):
        Card.read(tmp_path / "card.json", again=commands.export("runs/a"))


def test_a_card_that_is_not_there_is_named_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must exist; got .*card\.json, which does not\. Type: hwnas export runs/a"):
        Card.read(tmp_path / "card.json", again=commands.export("runs/a"))
