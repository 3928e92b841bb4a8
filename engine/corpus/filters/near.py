"""Near duplicates: candidates by MinHash LSH (Broder 1997; rensa), each verified by its exact Jaccard index.

Texts are compared as sets of character 3-grams of their folded form. MinHash only says which pairs are worth
comparing, so no text is ever judged by an estimate; `twins` has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec
import numpy as np
import rensa
from numpy.typing import NDArray

from engine.corpus.filters.normalise import jaccard, shingles
from engine.corpus.filters.twins import SLACK, are_twins

PERMUTATIONS = 128
BANDS = 32
"""Bands of four rows: a pair of Jaccard 0.8 is missed once in ten million, one of 0.6 once in eighty."""
SHORTEST = 6
"""Folded characters below which a text is compared exactly only."""
_SEED = 42
_BLOCK = 1000
_WIDEST = 64
"""Members of a bucket compared all with all; in a wider one each is compared with so many before it."""


class Pair(msgspec.Struct, frozen=True):
    """Two texts by index, `first < second`, and their exact Jaccard index."""

    first: int
    second: int
    similarity: float


def near_pairs(folded: Sequence[str], threshold: float = 0.8) -> list[Pair]:
    """Pairs of folded texts that are near duplicates at `threshold`, in order of index.

    Give each distinct text once. Memory: 512 bytes a text, and the n-grams of some thousand texts.
    """
    rows = np.array([i for i, text in enumerate(folded) if len(text) >= SHORTEST], dtype=np.int64)
    if len(rows) < 2:
        return []

    @lru_cache(maxsize=4096)
    def grams(index: int) -> frozenset[str]:
        return shingles(folded[index])

    found = []
    for first, second in _candidates(_digests([folded[i] for i in rows])):
        one, other = int(rows[first]), int(rows[second])
        shorter, longer = sorted((len(grams(one)), len(grams(other))))
        if shorter >= (threshold - SLACK) * longer:
            similarity = jaccard(grams(one), grams(other))
            if are_twins(folded[one], folded[other], similarity, threshold):
                found.append(Pair(one, other, similarity))
    return found


def clusters(size: int, links: Iterator[tuple[int, int]] | Sequence[tuple[int, int]]) -> list[int]:
    """Connected components: for each of `size` nodes the smallest index of its component."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in links:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return [root(node) for node in range(size)]


def _digests(texts: list[str]) -> NDArray[np.uint32]:
    """MinHash signatures, shape (texts, PERMUTATIONS)."""
    digests = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for start in range(0, len(texts), _BLOCK):
        tokens = [list(shingles(text)) for text in texts[start : start + _BLOCK]]
        matrix = rensa.RMinHash.digest_matrix_from_token_sets(tokens, PERMUTATIONS, _SEED)
        digests[start : start + len(tokens)] = matrix.to_rows()
    return digests


def _candidates(digests: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Pairs of rows that share a band, each once, in order."""
    width = PERMUTATIONS // BANDS
    size = len(digests)
    keys: set[int] = set()
    for band in range(BANDS):
        columns = np.ascontiguousarray(digests[:, band * width : (band + 1) * width])
        _, bucket = np.unique(columns.view(f"V{width * 4}").ravel(), return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        edges = np.flatnonzero(np.diff(bucket[order])) + 1
        starts = np.concatenate(([0], edges))
        ends = np.concatenate((edges, [size]))
        for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
            members = order[start:end].tolist()
            for place, second in enumerate(members):
                keys.update(first * size + second for first in members[max(0, place - _WIDEST) : place])
    for key in sorted(keys):
        yield divmod(key, size)
