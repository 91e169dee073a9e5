"""What hubs of models read at the top of an artefact's README.md."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from winners import trained_run

import hwnas
from hwnas.artefacts import texts
from hwnas.artefacts.card import Card, GivenWeights

KNOWN = {"license", "library_name", "pipeline_tag", "tags", "datasets", "metrics", "model-index"}  # as documented
FILES = ("model.tflite", "model.int8.tflite", "model.onnx")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    folder = tmp_path_factory.mktemp("hub")
    (exported,) = hwnas.export(str(trained_run(folder)), out=str(folder / "export"), files=FILES)
    assert (Path(exported.folder) / "README.md").read_text() == texts.readme(exported.card)
    return exported.card


def read(card: Card) -> dict[str, Any]:
    """Return the front matter of a card's README, in which nothing else may be."""
    empty, text, rest = texts.readme(card).split("---\n", maxsplit=2)
    assert empty == ""
    assert rest.startswith(f"\n# {card.run}")
    content: dict[str, Any] = yaml.safe_load(text)
    assert content.keys() <= KNOWN
    return content


def named(card: Card, name: str) -> Card:
    return card.model_copy(update={"data": card.data.model_copy(update={"name": name})})


def test_it_tells_accuracies_of_the_network_and_of_its_int8_file_and_leaves_the_license_open(card: Card) -> None:
    content = read(card)
    assert "license" not in content
    assert content["library_name"] == "tflite"
    assert content["pipeline_tag"] == "image-classification"
    assert {"hwnas", "tflite", "onnx"} <= set(content["tags"])
    assert content["metrics"] == ["accuracy"]
    (model,) = content["model-index"]
    assert model["name"] == f"{card.run}, trial {card.trial}"
    (result,) = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"type": card.data.name, "name": card.data.name, "split": "test"}
    int8 = card.files["model.int8.tflite"].accuracy
    assert [(metric["type"], metric["name"], metric["value"]) for metric in result["metrics"]] == [
        ("accuracy", "accuracy (long training)", pytest.approx(card.accuracy.test, abs=1e-4)),
        ("accuracy", "accuracy (exported file) of model.int8.tflite", pytest.approx(int8, abs=1e-4)),
    ]


def test_a_data_set_of_the_hub_has_its_name_there_and_any_other_none(card: Card) -> None:
    assert "datasets" not in read(card)
    content = read(named(card, "fashion-mnist"))
    assert content["datasets"] == ["zalando-datasets/fashion_mnist"]
    assert content["model-index"][0]["results"][0]["dataset"]["type"] == "zalando-datasets/fashion_mnist"


@pytest.mark.parametrize("name", ['a "b": {c}', "it's # no comment", "\N{SNOWMAN} - |", "null", "1e3"])
def test_any_name_is_read_back(card: Card, name: str) -> None:
    content = read(named(card, name).model_copy(update={"run": name}))
    assert content["model-index"][0]["name"] == f"{name}, trial {card.trial}"
    assert content["model-index"][0]["results"][0]["dataset"]["name"] == name


def test_random_weights_have_no_accuracy(card: Card) -> None:
    untrained = card.accuracy.model_copy(update={"test": None, "balanced": None})
    files = {"model.tflite": card.files["model.tflite"]}
    network = card.model_copy(update={"accuracy": untrained, "files": files, "trial": None})
    random = network.model_copy(update={"training": GivenWeights(weights="random")})
    assert read(random).keys() == {"library_name", "pipeline_tag", "tags"}
