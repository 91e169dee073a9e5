"""Numbers that describe a cell whatever its number of blocks: what a surrogate can carry from one level to the next."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwnas.network.cell import Codes

    Array = NDArray[np.float64]

_KINDS = 3  # of inputs: h[l-2], h[l-1], a block of the cell


def features(codes: "Codes", *, operations: int) -> "Array":
    """Return [n, 5 x operations + 10] of codes [n, blocks, 4]: what the branches do, and how they hang together."""
    return np.concatenate([_branches(codes, operations), _structure(codes)], axis=1)


def _branches(codes: "Codes", operations: int) -> "Array":
    """Return [n, 5 x operations + 4]: shares of the branches, and which operations there are.

    In this order: the share of each operation on each kind of input, of each operation, of each kind of input, whether
    there is each operation, and the share of blocks that have one operation twice.
    """
    operation, source = codes[:, :, 0::2], np.minimum(codes[:, :, 1::2], _KINDS - 1)
    is_operation = operation.reshape(len(codes), -1, 1) == np.arange(operations)  # [n, branches, operations]
    is_kind = source.reshape(len(codes), -1, 1) == np.arange(_KINDS)
    parts = [
        np.concatenate([(is_operation & is_kind[:, :, kind, None]).mean(axis=1) for kind in range(_KINDS)], axis=1),
        is_operation.mean(axis=1),
        is_kind.mean(axis=1),
        is_operation.any(axis=1),
        (operation[:, :, 0] == operation[:, :, 1]).mean(axis=1, keepdims=True),
    ]
    return np.concatenate(parts, axis=1)


def _structure(codes: "Codes") -> "Array":
    """Return [n, 6]: the share of blocks that read a block, that none reads, and whose two branches read the same; the
    mean and the largest depth in blocks; the logarithm of the number of blocks.
    """
    count, blocks, _ = codes.shape
    depth, is_read = np.zeros((count, blocks + 2)), np.zeros((count, blocks + 2), dtype=bool)
    rows = np.arange(count)
    for block in range(blocks):
        left, right = codes[:, block, 1], codes[:, block, 3]
        depth[:, block + 2] = 1 + np.maximum(depth[rows, left], depth[rows, right])
        is_read[rows, left] = is_read[rows, right] = True
    structure = [
        (codes[:, :, 1::2] >= 2).any(axis=2).mean(axis=1),
        1 - is_read[:, 2:].mean(axis=1),
        (codes[:, :, 1] == codes[:, :, 3]).mean(axis=1),
        depth[:, 2:].mean(axis=1),
        depth[:, 2:].max(axis=1),
        np.full(count, np.log(blocks)),
    ]
    return np.stack(structure, axis=1)
