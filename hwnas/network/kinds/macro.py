"""Whole networks of single operations with skip connections: the macro space of ENAS (Pham et al., 2018, section 2.3).

As in the authors' networks that are trained after the search: a layer is ReLU, 1x1 and BatchNorm, then its operation;
its output and the outputs that it skips from are concatenated and brought back to F filters (ReLU, 1x1, BatchNorm). The
layers form three stages; between them the filters double and all earlier outputs pass a factorised reduction.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from hwnas.errors import InputError, short
from hwnas.network.architecture import Architecture
from hwnas.network.graph import Builder, Graph, Place
from hwnas.network.kinds.cells import factorised_reduction, run_steps
from hwnas.network.reading import STRICT, read_as
from hwnas.network.scale import Scale


@dataclass(frozen=True, slots=True)
class MacroLayer:
    """An operation, and the earlier outputs that are joined to its own: 0 is the stem, 1 the first layer, ..."""

    operation: str
    skips: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.operation}{list(self.skips)}" if self.skips else self.operation


@dataclass(frozen=True, slots=True)
class MacroNetwork(Architecture):
    """Layers in three stages of the same number; of the scale, F, the resolution, classes and channels count."""

    layers: tuple[MacroLayer, ...]
    scale: Scale

    def __post_init__(self) -> None:
        if not self.layers or len(self.layers) % 3:
            raise InputError(f"the layers must be three stages of the same number; got {len(self.layers)} layers")
        for number, layer in enumerate(self.layers):
            if any(not 0 <= skip < number for skip in layer.skips):
                raise InputError(f"layer {number + 1} may skip from 0 to {number - 1}; got {short(list(layer.skips))}")

    @property
    def size(self) -> str:
        """The layers of a stage N, F and the resolution."""
        return str(self.scale)

    @property
    def choice(self) -> str:
        """The layers, in words."""
        return "; ".join(map(str, self.layers))

    def walk(self) -> Graph:
        """Walk the network from the image to the logits; raises InputError where the image is too small."""
        scale = self.scale
        b = Builder((scale.input_channels, scale.resolution, scale.resolution))
        outputs = [b.window("conv", 0, name=Place("stem"), filters=scale.filters, kernel=(3, 3), norm=True)]
        origins = ["stem"]  # of the outputs
        for number, layer in enumerate(self.layers):
            stage, position = divmod(number, len(self.layers) // 3)
            filters = scale.filters * 2**stage
            place = Place(f"layer{number}", "stage", stage, "layer", position)
            if stage and not position:
                outputs = [
                    factorised_reduction(
                        b, value, filters, Place(f"{place}.from{source}", "to", stage, origin), relu=False
                    )
                    for source, (value, origin) in enumerate(zip(outputs, origins, strict=True))
                ]
            outputs.append(_layer(b, outputs, layer, filters, place, [origins[skip] for skip in layer.skips]))
            origins.append(f"{stage}-{position}")
        features = b.mean(outputs[-1], name="pool")
        return b.finish(b.linear(features, scale.classes, name=Place("classifier")))

    def to_json(self) -> dict[str, Any]:
        """Return the architecture as JSON values."""
        layers = [[layer.operation, list(layer.skips)] for layer in self.layers]
        return {"kind": "macro", "scale": asdict(self.scale), "layers": layers}


def _layer(b: Builder, outputs: list[int], layer: MacroLayer, filters: int, place: Place, skips: list[str]) -> int:
    value = b.window("conv", b.relu(outputs[-1]), name=place.then("squeeze"), filters=filters, norm=True)
    value = run_steps(b, value, layer.operation, filters=filters, stride=1, place=place.doing(layer.operation))
    if not layer.skips:
        return value
    values = [*(outputs[skip] for skip in layer.skips), value]
    joined = b.concat(values, name=place.then("joined"), slots=(*skips, "itself"))
    return b.window("conv", b.relu(joined), name=place.then("join"), filters=filters, norm=True)


def read(value: Mapping[str, Any]) -> MacroNetwork:
    """Read what `to_json` wrote; raises InputError for anything else."""
    record = read_as(_Record, value, rule="a macro network must have a scale and layers = [[operation, [skips]], ...]")
    return MacroNetwork(tuple(MacroLayer(*layer) for layer in record.layers), record.scale)


@dataclass(frozen=True, slots=True)
class _Record:
    """A macro network as it is written down."""

    __pydantic_config__: ClassVar = STRICT

    scale: Scale
    layers: tuple[tuple[str, tuple[int, ...]], ...]
