"""The macro space of ENAS (Pham et al., 2018, section 2.3): 12 layers of 6 operations, each with any skip connections.

At scale N a network has N layers in each of three stages: the first 3N of those chosen, so N is 4 at most.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hwnas.errors import InputError
from hwnas.network import MacroLayer, MacroNetwork, Scale

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution

OPERATIONS = (
    "conv_3x3",
    "conv_5x5",
    "separable_3x3_single",
    "separable_5x5_single",
    "avg_pool_3x3",
    "max_pool_3x3",
)
LAYERS = 12
CHOICES = tuple(len(OPERATIONS) * 2**earlier for earlier in range(LAYERS))  # of each layer


def distributions() -> "dict[str, CategoricalDistribution]":
    """Return what Optuna chooses from: an operation a layer, and whether it skips from each output before its input."""
    from optuna.distributions import CategoricalDistribution

    choices: dict[str, CategoricalDistribution] = {}
    for layer in range(1, LAYERS + 1):
        choices[f"layer{layer}_operation"] = CategoricalDistribution(OPERATIONS)
        for skip in range(layer - 1):
            choices[f"layer{layer}_skip{skip}"] = CategoricalDistribution((False, True))
    return choices


def architecture(parameters: Mapping[str, Any], scale: Scale) -> MacroNetwork:
    """Return the network of what Optuna chose; raises InputError for a scale of more layers than are chosen."""
    layers = tuple(
        MacroLayer(
            parameters[f"layer{layer}_operation"],
            tuple(skip for skip in range(layer - 1) if parameters[f"layer{layer}_skip{skip}"]),
        )
        for layer in range(1, _layers(scale) + 1)
    )
    return MacroNetwork(layers, scale)


def _layers(scale: Scale) -> int:
    if 3 * scale.cells > LAYERS:
        raise InputError(f"enas-macro has N = {LAYERS // 3} layers a stage at most; got N = {scale.cells}")
    return 3 * scale.cells


def cover(scale: Scale) -> Iterator[MacroNetwork]:
    """Yield networks that between them have every operator of the space at a scale: as many skips as there can be."""
    for operation in OPERATIONS:
        for most in range(_layers(scale)):
            layers = (MacroLayer(operation, tuple(range(min(most, layer)))) for layer in range(_layers(scale)))
            yield MacroNetwork(tuple(layers), scale)
