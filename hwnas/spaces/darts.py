"""The space of DARTS (Liu et al., 2019, section 3.1): a normal and a reduction cell of four nodes, 8 operations.

A node adds two edges from different earlier states, the two that DARTS keeps of all; `zero` is no edge. The cell's
output are all nodes.
"""

from hwnas.spaces._cells import CellSpace

OPERATIONS = (
    "zero",
    "max_pool_3x3",
    "avg_pool_3x3",
    "identity",
    "separable_3x3",
    "separable_5x5",
    "dilated_separable_3x3",
    "dilated_separable_5x5",
)
_SPACE = CellSpace(OPERATIONS, blocks=4, concat="all", distinct_inputs=True)
CHOICES = _SPACE.choices
distributions = _SPACE.distributions
architecture = _SPACE.architecture
cover = _SPACE.cover
mixed = _SPACE.mixed
