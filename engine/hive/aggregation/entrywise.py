"""Median and trimmed mean of updates, entry by entry, and the low-rank approximation of a full matrix.

A median of products is not a product of few factors, so here the full matrix is formed, one at a time, from bands of
rows of all adapters (Yin et al., arXiv 1803.01498). Every adapter counts the same: claims of samples could be lies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.hive.aggregation.low_rank import Stack, Truncated
from engine.hive.aggregation.tensor_io import Matrix

BAND = 64 << 20
"""Bytes of the values of all adapters in one band of rows."""
_DENSE = 512
"""Up to this many rows or columns the singular values are computed in full."""
_ROUNDS, _TOLERANCE, _SPARE = 60, 1e-9, 16

Rule = Callable[[Matrix], Matrix]
"""From `(adapters, rows, columns)` to `(rows, columns)`."""


def median(values: Matrix) -> Matrix:
    """Of each entry over the adapters."""
    return np.asarray(np.median(values, axis=0))


def trimmed_mean(cut: int) -> Rule:
    """The mean of each entry without the `cut` largest and smallest values."""

    def rule(values: Matrix) -> Matrix:
        count = len(values)
        inner = np.partition(values, (cut, count - cut - 1), axis=0)[cut : count - cut]
        return np.asarray(inner.mean(axis=0))

    return rule


def combine_entries(stacked: Stack, rule: Rule) -> Matrix:
    """`rule` over the updates of all adapters, `(out, in)`."""
    rows, columns = stacked.shape
    count = len(stacked.starts)
    result = np.empty((rows, columns))
    blocks = [stacked.block(number) for number in range(count)]
    band = max(1, BAND // (8 * count * columns))
    for start in range(0, rows, band):
        values = np.stack([b[start : start + band] @ a for b, a in blocks])
        result[start : start + band] = rule(values)
    return result


def truncate_full(matrix: Matrix, rank: int) -> Truncated:
    """The best approximation of a full matrix of rank `rank`.

    Large ones by subspace iteration (Halko et al., arXiv 0909.4061) until the retained energy stands still: with 16 spare
    directions its share is that of the best one to about 1e-9.
    """
    total = float(np.vdot(matrix, matrix))
    if min(matrix.shape) <= _DENSE:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        return _truncated(left, values, right, rank, total)
    # Any start does: a fixed one gives the same result each time.
    start = np.random.default_rng(0).standard_normal((matrix.shape[1], min(rank + _SPARE, *matrix.shape)))
    basis, kept = np.linalg.qr(matrix @ start)[0], -1.0
    for _round in range(_ROUNDS):
        projected, _upper = np.linalg.qr(matrix.T @ basis)
        basis, upper = np.linalg.qr(matrix @ projected)
        energy = float((np.linalg.svd(upper, compute_uv=False)[:rank] ** 2).sum())
        if energy - kept <= _TOLERANCE * total:
            break
        kept = energy
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return _truncated(basis @ left, values, right, rank, total)


def _truncated(left: Matrix, values: Matrix, right: Matrix, rank: int, total: float) -> Truncated:
    root = np.sqrt(values[:rank])
    return Truncated(
        left[:, :rank] * root, root[:, None] * right[:rank], float((values[:rank] ** 2).sum()), total
    )
