"""What a hub of models reads of an artefact: the YAML at the top of its README.md.

The fields are those that Hugging Face documents for model cards. The license is the user's to name.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.artefacts.card import Card

_DATASETS = {  # as hubs name them
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}


def front_matter(card: "Card") -> str:
    """Return the YAML between two lines of dashes; every value is written as JSON, which YAML has, too."""
    runtimes = list(dict.fromkeys(file.runtime for file in card.files.values()))
    dataset = _DATASETS.get(card.data.name)
    lines = [
        "# license: yours to choose, as in apache-2.0",
        f"library_name: {json.dumps(runtimes[0])}",
        "pipeline_tag: image-classification",
        f"tags: {json.dumps(['hwnas', 'neural-architecture-search', 'image-classification', *runtimes])}",
    ]
    if dataset:
        lines.append(f"datasets: {json.dumps([dataset])}")
    if card.is_trained:
        lines += ["metrics: [accuracy]", *_model_index(card, dataset or card.data.name)]
    return "\n".join(["---", *lines, "---", ""])


def _model_index(card: "Card", dataset: str) -> Iterator[str]:
    """Yield the lines of the accuracies on the test set: the network's, and those of files of reduced precision."""
    name = card.run if card.trial is None else f"{card.run}, trial {card.trial}"
    yield "model-index:"
    yield f"- name: {_text(name)}"
    yield "  results:"
    yield "  - task: {type: image-classification}"
    yield f"    dataset: {{type: {_text(dataset)}, name: {_text(card.data.name)}, split: test}}"
    yield "    metrics:"
    accuracies = {f"accuracy ({card.accuracy_of})": card.accuracy.test}
    accuracies |= {f"accuracy (exported file) of {name}": file.accuracy for name, file in card.files.items()}
    for what, accuracy in accuracies.items():
        if accuracy is not None:
            yield f"    - {{type: accuracy, name: {_text(what)}, value: {accuracy:.4f}}}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
