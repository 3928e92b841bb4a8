"""Arithmetic on updates that are products of small factors: `b @ a` with b `(out, rank)` and a `(rank, in)`.

The full matrix is never formed: norms and inner products come from the Gram matrices of the factors, and the singular
value decomposition from that of a core of the size of the rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from engine.hive.aggregation.tensor_io import Matrix


@dataclass(frozen=True)
class Stack:
    """The updates of several adapters of one matrix, side by side: `b[:, block] @ a[block]` is one of them."""

    b: Matrix
    """`(out, sum of ranks)`, the scales of the adapters in it."""
    a: Matrix
    """`(sum of ranks, in)`."""
    starts: tuple[int, ...]
    """Where the block of each adapter begins."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    def block(self, number: int) -> tuple[Matrix, Matrix]:
        """(b, a) of one adapter."""
        part = slice(self.starts[number], (*self.starts, self.b.shape[1])[number + 1])
        return self.b[:, part], self.a[part]

    def weighted(self, factors: Sequence[float]) -> Matrix:
        """b with the block of each adapter multiplied by its factor."""
        sizes = np.diff([*self.starts, self.b.shape[1]])
        repeated: Matrix = np.repeat(np.asarray(factors, float), sizes)
        return self.b * repeated


def stack(blocks: Sequence[tuple[Matrix, Matrix]]) -> Stack:
    """The (b, a) of adapters side by side."""
    starts = np.cumsum([0, *(a.shape[0] for _b, a in blocks)])[:-1]
    return Stack(
        np.concatenate([b for b, _a in blocks], axis=1),
        np.concatenate([a for _b, a in blocks], axis=0),
        tuple(int(start) for start in starts),
    )


def inner_products(one: Stack, other: Stack) -> Matrix:
    """`<one_i, other_j>` (Frobenius) of all pairs of updates, `(len one, len other)`.

    `tr((B_i A_i)^T B_j A_j)` is the sum of the entries of `(B_i^T B_j) * (A_i A_j^T)`.
    """
    entries = (one.b.T @ other.b) * (one.a @ other.a.T)
    return np.add.reduceat(np.add.reduceat(entries, one.starts, axis=0), other.starts, axis=1)


def squared_norm(b: Matrix, a: Matrix) -> float:
    """Of `b @ a`, Frobenius."""
    return float(np.sum((b.T @ b) * (a @ a.T)))


@dataclass(frozen=True)
class Truncated:
    """The best approximation of a product of some rank."""

    b: Matrix
    a: Matrix
    kept: float
    """Its squared Frobenius norm."""
    total: float
    """That of the whole product."""


def truncate(b: Matrix, a: Matrix, rank: int) -> Truncated:
    """The best approximation of `b @ a` of rank `rank` (Eckart-Young), or of its own rank where that is smaller.

    QR of both factors, then the singular values of the core `R_b @ R_a^T`, which are those of the product. Both factors
    of the result have the same share of a singular value, so that neither becomes too small for 16 bits.
    """
    q_b, r_b = np.linalg.qr(b)
    q_a, r_a = np.linalg.qr(a.T)
    left, values, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    squares = values**2
    root = np.sqrt(values[:rank])
    return Truncated(
        (q_b @ left[:, :rank]) * root,
        root[:, None] * (right[:rank] @ q_a.T),
        float(squares[:rank].sum()),
        float(squares.sum()),
    )


def merge_equal_a(blocks: Sequence[tuple[Matrix, Matrix]]) -> list[tuple[Matrix, Matrix]]:
    """The sum of products in as few blocks as their A allow: those with the same A add their B."""
    merged: dict[tuple[int, bytes], tuple[Matrix, Matrix]] = {}
    for b, a in blocks:
        key = len(a), sha256(a.tobytes()).digest()
        old = merged.get(key)
        merged[key] = (b, a) if old is None else (old[0] + b, a)
    return list(merged.values())


def mean_of_factors(
    blocks: Sequence[tuple[Matrix, Matrix]], weights: Sequence[float]
) -> tuple[Matrix, Matrix]:
    """(mean of b, mean of a), as plain FedAvg takes them; factors of smaller rank are filled up with zeros."""
    rank = max(a.shape[0] for _b, a in blocks)
    mean_b = np.zeros((blocks[0][0].shape[0], rank))
    mean_a = np.zeros((rank, blocks[0][1].shape[1]))
    for (b, a), weight in zip(blocks, weights, strict=True):
        mean_b[:, : b.shape[1]] += weight * b
        mean_a[: a.shape[0]] += weight * a
    return mean_b, mean_a


def padded(b: Matrix, a: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """The same product with `rank` columns and rows: one rank for all matrices is what every program reads alike."""
    missing = rank - a.shape[0]
    return np.pad(b, ((0, 0), (0, missing))), np.pad(a, ((0, missing), (0, 0)))
