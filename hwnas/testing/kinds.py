"""What every kind of network must keep to."""

import json
from types import ModuleType

import pytest

from hwnas.errors import InputError
from hwnas.network import Architecture


class KindContract:
    """Takes the fixtures `kind`, a module of hwnas/network/kinds or like one, and `architecture`, a network of it."""

    def test_it_is_read_from_its_json_and_equals_what_was_written(
        self, kind: ModuleType, architecture: Architecture
    ) -> None:
        written = json.loads(json.dumps(architecture.to_json()))
        again = kind.read({name: value for name, value in written.items() if name != "kind"})
        assert again == architecture
        assert hash(again) == hash(architecture)
        assert again.graph == architecture.graph

    def test_it_walks_from_an_image_to_the_logits(self, architecture: Architecture) -> None:
        graph = architecture.graph
        assert graph.layers[0].kind == "input"
        assert graph.layers[-1].kind == "linear"
        assert graph.output_shape[1:] == (1, 1)
        assert graph.mult_adds > 0
        assert graph.parameters > 0

    def test_it_can_be_told_in_words(self, architecture: Architecture) -> None:
        assert architecture.name == f"{architecture.size}: {architecture.choice}"
        assert architecture.choice

    def test_what_lacks_a_field_is_refused_in_words(self, kind: ModuleType, architecture: Architecture) -> None:
        with pytest.raises(InputError, match="must"):
            kind.read({})
        with pytest.raises(InputError):
            kind.read({"scale": "large"})
