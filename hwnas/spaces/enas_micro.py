"""The micro space of ENAS (Pham et al., 2018, section 2.4): a normal and a reduction cell of five blocks, 5 operations.

What no block reads is the cell's output.
"""

from hwnas.spaces._cells import CellSpace

OPERATIONS = ("identity", "separable_3x3", "separable_5x5", "avg_pool_3x3", "max_pool_3x3")
_SPACE = CellSpace(OPERATIONS, blocks=5, concat="loose")
CHOICES = _SPACE.choices
distributions = _SPACE.distributions
architecture = _SPACE.architecture
cover = _SPACE.cover
