"""The values of an adapter, read once in small parts: whether all are finite, how much they change, their hash.

The norm of `b @ a` comes from the small matrices `b.T @ b` and `a @ a.T` of `(rank, rank)`; the product of the base's
size is never formed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from engine.core.i18n import _
from engine.hive.aggregation.tensor_io import decode
from engine.hive.lora_file import ITEM_SIZES, BadAdapter, LoraModule, TensorEntry
from engine.hive.protocol import Rule

_PART = 1 << 16
"""Values that are read together."""
_HASHED = 1 << 18


def change_norm(fd: int, modules: dict[str, LoraModule], path: Path | None = None) -> float:
    """Frobenius norm of the change of the base over all matrices, scales included.

    Reads the open file `fd` in parts of 256 KB. Raises BadAdapter for NaN, infinity, and a file that became shorter.
    """
    total = 0.0
    for module in modules.values():
        outer = np.zeros((module.rank, module.rank))
        for columns in _column_blocks(fd, module.a, path):
            outer += columns @ columns.T
        inner = np.zeros_like(outer)
        for rows in _row_blocks(fd, module.b, path):
            inner += rows.T @ rows
        # A sum of squares; rounding may leave a negative zero.
        total += module.scale**2 * max(0.0, float(np.sum(inner * outer)))
    return math.sqrt(total)


def hash_file(fd: int) -> str:
    """SHA-256 of the open file in hex. Raises OSError."""
    digest, position = sha256(), 0
    while part := os.pread(fd, _HASHED, position):
        digest.update(part)
        position += len(part)
    return digest.hexdigest()


def _row_blocks(fd: int, entry: TensorEntry, path: Path | None) -> Iterator[np.ndarray]:
    """The rows of a matrix, float64."""
    rows, columns = entry.shape
    step = max(1, _PART // columns)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        yield _values(fd, entry, first * columns, count * columns, path).reshape(count, columns)


def _column_blocks(fd: int, entry: TensorEntry, path: Path | None) -> Iterator[np.ndarray]:
    """Blocks of columns of a matrix, float64."""
    rows, columns = entry.shape
    if rows * columns <= _PART:
        yield _values(fd, entry, 0, rows * columns, path).reshape(rows, columns)
        return
    step = max(1, _PART // rows)
    for first in range(0, columns, step):
        count = min(step, columns - first)
        yield np.stack([_values(fd, entry, row * columns + first, count, path) for row in range(rows)])


def _values(fd: int, entry: TensorEntry, first: int, count: int, path: Path | None) -> np.ndarray:
    size = ITEM_SIZES[entry.dtype]
    data = os.pread(fd, count * size, entry.start + first * size)
    if len(data) != count * size:
        raise BadAdapter(Rule.HEADER, _("the file became shorter while it was read"), path=path)
    values = decode(data, entry.dtype)
    if not np.isfinite(values).all():
        raise BadAdapter(Rule.FINITE, _("the adapter holds NaN or infinity"), path=path)
    return values
