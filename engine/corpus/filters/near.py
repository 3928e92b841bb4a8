"""Near duplicates: candidates by MinHash LSH (Broder 1997; rensa), each verified by its exact Jaccard index.

Texts are compared as sets of character 3-grams of their folded form. MinHash only says which pairs are worth
comparing, so no text is ever judged by an estimate; `twins` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
_BLOCK_CHARACTERS = 500_000
"""Folded characters whose n-grams are hashed at once: some 20 MB."""
_PAIRS = 8192
"""Candidates whose signatures are compared at once."""
_WIDEST = 64
"""Members of a bucket compared all with all; in a wider one each is compared with so many before it."""


class Pair(msgspec.Struct, frozen=True):
    """Two texts by index, `first < second`, and their exact Jaccard index."""

    first: int
    second: int
    similarity: float


def near_pairs(
    folded: Sequence[str], threshold: float = 0.8, *, compared: Callable[[int, int], bool] | None = None
) -> list[Pair]:
    """Pairs of folded texts that are near duplicates at `threshold`, in order of index.

    Give each distinct text once. With `compared`, only pairs of which it says so are looked at.
    Memory: 512 bytes a text, and the n-grams of some thousand texts.
    """
    rows = np.array([i for i, text in enumerate(folded) if len(text) >= SHORTEST], dtype=np.int64)
    if len(rows) < 2:
        return []

    @lru_cache(maxsize=4096)
    def grams(index: int) -> frozenset[str]:
        return shingles(folded[index])

    found = []
    digests = _digests([folded[i] for i in rows])
    for first, second in _likely(digests, _candidates(digests), threshold - SLACK):
        one, other = int(rows[first]), int(rows[second])
        if compared and not compared(one, other):
            continue
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
    for start, end in _blocks(texts):
        hashes, offsets = _gram_hashes(texts[start:end])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, PERMUTATIONS, _SEED)
        digests[start:end] = matrix.to_rows()
    return digests


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts of at most some characters together, or of one long text."""
    start = size = 0
    for end, text in enumerate(texts):
        if size and size + len(text) > _BLOCK_CHARACTERS:
            yield start, end
            start, size = end, 0
        size += len(text)
    yield start, len(texts)


def _gram_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A hash of each character 3-gram of texts of `SHORTEST` characters or more, one after the other, and where
    each text begins. A gram that stands twice is there twice: a minimum is the same."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    hashes = points[:-2] | points[1:-1] << np.uint64(21) | points[2:] << np.uint64(42)
    # The finaliser of SplitMix64 (Steele et al. 2014): neighbouring characters must not give neighbouring hashes.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    ends = np.cumsum([len(text) for text in texts])
    inside = np.ones(len(hashes), dtype=bool)
    # Grams that reach over the end of a text belong to none.
    inside[ends[:-1] - 1] = inside[ends[:-1] - 2] = False
    offsets = np.concatenate(([0], ends - 2 * np.arange(1, len(texts) + 1))).astype(np.uint64)
    return hashes[inside], offsets


def _likely(digests: NDArray[np.uint32], pairs: NDArray[np.int64], least: float) -> Iterator[tuple[int, int]]:
    """Those of `pairs` (by row, shape (n, 2)) whose signatures do not rule a Jaccard index of `least` out: six
    standard deviations of the estimate below it, which happens once in a thousand million."""
    floor = least - 6 * (0.25 / PERMUTATIONS) ** 0.5
    for start in range(0, len(pairs), _PAIRS):
        block = pairs[start : start + _PAIRS]
        estimates = (digests[block[:, 0]] == digests[block[:, 1]]).mean(axis=1)
        yield from block[estimates >= floor].tolist()


def _candidates(digests: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Pairs of rows that share a band, each once, in order; shape (n, 2)."""
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
    ordered = np.sort(np.fromiter(keys, dtype=np.int64, count=len(keys)))
    return np.stack(np.divmod(ordered, size), axis=1)
