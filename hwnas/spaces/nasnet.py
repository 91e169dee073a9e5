"""The space of NASNet (Zoph et al., 2018, section 3): a normal and a reduction cell of five blocks, 13 operations.

The two branches of a block are added or concatenated; what no block reads is the cell's output.
"""

from hwnas.spaces._cells import CellSpace

OPERATIONS = (
    "identity",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dilated_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "separable_3x3",
    "separable_5x5",
    "separable_7x7",
)
_SPACE = CellSpace(OPERATIONS, blocks=5, concat="loose", combinations=("add", "concat"))
CHOICES = _SPACE.choices
distributions = _SPACE.distributions
architecture = _SPACE.architecture
cover = _SPACE.cover
