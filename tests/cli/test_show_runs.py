"""What stands beside an accuracy that is printed: shared weights, short or long training, or the exported file."""

import json
import re
import shutil
from pathlib import Path

import pytest

from hwnas.artefacts.card import Card
from hwnas.artefacts.exporting import Exported
from hwnas.artefacts.texts import readme
from hwnas.cli.encode import encoded
from hwnas.cli.show_runs import show_exported, show_searched, show_winners
from hwnas.latency.placement import Placement
from hwnas.searching.estimators import get
from hwnas.searching.loop import Searched
from hwnas.support import plugins
from hwnas.verbs.train import TrainedWinner

BEFORE = Path(__file__).parent.parent / "data" / "before"
WINNER = TrainedWinner(3, "long training", 0.93, 0.92, 10, 10, 1.0, "runs/a/winners/0003")


@pytest.mark.parametrize("estimator", plugins.names("estimators"))
def test_a_front_says_what_its_accuracies_are_of(estimator: str, capsys: pytest.CaptureFixture[str]) -> None:
    searched = Searched("runs/a", get(estimator).OF, [], 0, 0, 0, [], [], "")
    show_searched(searched)
    assert f"accuracy ({get(estimator).OF})" in capsys.readouterr().out
    assert json.loads(encoded(searched))["accuracy_of"] == get(estimator).OF


def test_winners_and_artefacts_say_which_accuracy_is_the_networks_and_which_a_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(BEFORE / "devices", tmp_path / "devices")
    monkeypatch.chdir(tmp_path)
    show_winners([WINNER])
    assert "accuracy (long training)" in capsys.readouterr().out
    card = Card.read(BEFORE / "export" / "a" / "0000" / "card.json", again="hwnas export runs/a")
    show_exported([Exported("export/a/0000", card)])
    shown = capsys.readouterr().out
    assert "accuracy (long training)" in shown
    assert re.search(r"model\.int8\.tflite: .* accuracy \(exported file\) 100\.00%", shown)
    entry = card.files["model.tflite"]
    placed = entry.model_copy(update={"placement": Placement(processor="cpu", delegate="XNNPACK", whole=True)})
    show_exported([Exported("export/a/0000", card.model_copy(update={"files": {"model.tflite": placed}}))])
    assert "in tflite-fp32-1t on the CPU, by XNNPACK: all operators" in capsys.readouterr().out
    text = readme(card)
    assert "| accuracy (long training) on the test set of npz:images.npz | 100.00 % |" in text
    assert "| model.int8.tflite: accuracy (exported file) on " in text
    published = card.model_copy(update={"trial": None})
    show_exported([Exported("export/mobilenet-v2/224", published)])
    assert "accuracy (given weights)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("predicted", "said"),
    [(0, ""), (3, "3 of them not timed on the device, as one that was is as"), (9, "none was timed on the device")],
)
def test_a_search_says_of_how_many_the_latency_is_a_prediction(
    predicted: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_searched(Searched("runs/a", "shared weights", [], 9, 0, 0, [], [], "", predicted))
    shown = capsys.readouterr().out
    assert said in shown
    assert ("about" in shown) == bool(predicted)


def test_the_next_command_names_the_runs_device_or_says_why_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(BEFORE / "devices", tmp_path / "devices")
    (tmp_path / "devices" / "phone.toml").write_text(
        'name = "phone"\ntransport = "adb"\n[[settings]]\nruntime = "tflite"\n'
    )
    monkeypatch.chdir(tmp_path)
    card = Card.read(BEFORE / "export" / "a" / "0000" / "card.json", again="hwnas export runs/a")
    show_exported([Exported("export/a/0000", card.model_copy(update={"device": "host"}))])
    assert "next: hwnas verify export/a/0000 --device host\n" in capsys.readouterr().out
    show_exported([Exported("export/a/0000", card.model_copy(update={"device": "phone"}))])
    assert "--device host; phone has no Python to check the files on" in capsys.readouterr().out
