"""Numbers that describe a cell whatever its number of blocks: what a surrogate can carry from one level to the next."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.cell import Codes

    Array = NDArray[np.float64]

_KINDS = 3  # of inputs: h[l-2], h[l-1], a block of the cell


def features(codes: "Codes", *, operations: int) -> "Array":
    """Return [n, 3 x operations + 6] of codes [n, blocks, 4].

    First the share of the branches that are each operation on each kind of input; then the share of blocks that read a
    block, that none reads and whose two branches read the same, the mean and the largest depth in blocks, and the
    logarithm of the number of blocks.
    """
    count, blocks, _ = codes.shape
    operation, source = codes[:, :, 0::2].reshape(count, -1), codes[:, :, 1::2].reshape(count, -1)
    token = np.minimum(source, _KINDS - 1) * operations + operation
    shares = np.zeros((count, _KINDS * operations))
    np.add.at(shares, (np.arange(count)[:, None], token), 1 / token.shape[1])
    depth, is_read = np.zeros((count, blocks + 2)), np.zeros((count, blocks + 2), dtype=bool)
    rows = np.arange(count)
    for block in range(blocks):
        left, right = codes[:, block, 1], codes[:, block, 3]
        depth[:, block + 2] = 1 + np.maximum(depth[rows, left], depth[rows, right])
        is_read[rows, left] = is_read[rows, right] = True
    reads_block = (codes[:, :, 1::2] >= 2).any(axis=2)
    structure = [
        reads_block.mean(axis=1),
        1 - is_read[:, 2:].mean(axis=1),
        (codes[:, :, 1] == codes[:, :, 3]).mean(axis=1),
        depth[:, 2:].mean(axis=1),
        depth[:, 2:].max(axis=1),
        np.full(count, np.log(blocks)),
    ]
    return np.concatenate([shares, np.stack(structure, axis=1)], axis=1)
