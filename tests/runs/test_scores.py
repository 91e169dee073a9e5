"""scores.json: what it says of a network's answers, and what is refused."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_images
from PIL import Image
from torch.nn.functional import one_hot

from hwnas.datasets import Dataset, load
from hwnas.errors import InputError
from hwnas.runs.scores import WinnerScores
from hwnas.support import commands


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "images.npz"
    write_images(path, test=30)
    return load(f"npz:{path}")


def scores_of(dataset: Dataset, wrong: dict[int, tuple[int, float]]) -> WinnerScores:
    """Return the scores where all is right but these images, of which another class is said, so surely."""
    logits = 3.0 * one_hot(dataset.test.labels, 3).float()
    for image, (said, sure) in wrong.items():
        logits[image] = sure * one_hot(torch.tensor(said), 3).float()
    return WinnerScores.of(7, logits, dataset)


def test_each_answer_is_counted_and_the_surest_wrong_one_is_first(dataset: Dataset) -> None:
    scores = scores_of(dataset, {0: (1, 2.0), 3: (1, 5.0), 4: (2, 4.0)})  # of the classes 0, 0 and 1
    assert scores.images == 30
    assert [(score.images, score.right) for score in scores.by_class] == [(10, 8), (10, 9), (10, 10)]
    assert [(one.right, one.said, one.images) for one in scores.confusions] == [(0, 1, 2), (1, 2, 1)]
    assert [(one.image, one.right, one.said) for one in scores.worst] == [(3, 0, 1), (4, 1, 2), (0, 0, 1)]
    assert scores.worst[0].confidence == pytest.approx(np.exp(5) / (np.exp(5) + 2))


def test_the_picture_is_the_image(dataset: Dataset) -> None:
    (worst,) = scores_of(dataset, {5: (0, 4.0)}).worst
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(worst.png))))
    assert np.array_equal(pixels, dataset.test.read(torch.tensor([5]))[0, 0].numpy())


def test_a_network_without_a_fault_has_no_worst_image(dataset: Dataset) -> None:
    scores = scores_of(dataset, {})
    assert (scores.worst, scores.confusions) == ((), [])


def test_a_class_without_test_images_has_no_recall(dataset: Dataset) -> None:
    scores = WinnerScores.of(7, torch.eye(4)[dataset.test.labels], replace(dataset, classes=("a", "b", "c", "d")))
    assert [score.recall for score in scores.by_class] == [1, 1, 1, None]


def test_what_was_written_is_read(dataset: Dataset, tmp_path: Path) -> None:
    scores = scores_of(dataset, {3: (1, 5.0)})
    scores.write(tmp_path / "scores.json")
    assert WinnerScores.read(tmp_path / "scores.json", again=commands.train()) == scores


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answers": []}, "answers must be of its 3 classes, and there must be some"),
        ({"answers": [{"right": 0, "said": 3, "images": 1}]}, "answers must be of its 3 classes"),
        ({"answers": [{"right": 0, "said": 0, "images": 0}]}, r"answers\.0\.images: Input should be greater than 0"),
        ({"worst": [{"image": 0, "right": 0, "said": 1, "confidence": 1, "png": '"><b>'}]}, r"worst\.0\.png"),
        ({"version": 2}, "must be of version 1 or older"),
    ],
)
def test_what_cannot_be_is_refused(dataset: Dataset, tmp_path: Path, changes: dict[str, object], words: str) -> None:
    content = scores_of(dataset, {3: (1, 5.0)}).to_json()
    (tmp_path / "scores.json").write_text(json.dumps(content | changes))
    with pytest.raises(InputError, match=rf"scores\.json.*{words}.*type: hwnas train"):
        WinnerScores.read(tmp_path / "scores.json", again=commands.train())
