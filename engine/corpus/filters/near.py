"""Near duplicates: candidates by MinHash LSH (Broder 1997; rensa), each verified by its exact Jaccard index.

Texts are compared as sets of character 3-grams of their folded form. MinHash only says which pairs are worth
comparing, so no text is ever called a twin by an estimate; `twins` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import msgspec
import numpy as np
import rensa
from numpy.typing import NDArray

from engine.corpus.filters.twins import SLACK, are_twins

PERMUTATIONS = 128
BANDS = 32
"""Bands of four rows: a pair of Jaccard 0.8 is missed once in ten million, one of 0.6 once in eighty."""
SHORTEST = 6
"""Folded characters below which a text is compared exactly only."""
_SEED = 42
_BLOCK = 1000
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
    def grams(index: int) -> NDArray[np.uint64]:
        return np.unique(_packed(folded[index]))

    found = []
    digests = _digests([folded[i] for i in rows])
    for one, other in rows[_candidates(digests, threshold - SLACK)].tolist():
        if compared and not compared(one, other):
            continue
        shorter, longer = sorted((len(grams(one)), len(grams(other))))
        if shorter >= (threshold - SLACK) * longer:
            shared = len(np.intersect1d(grams(one), grams(other), assume_unique=True))
            similarity = shared / (shorter + longer - shared)
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
    """Ranges of texts of at most so many, with at most some characters together, or of one long text."""
    start = size = 0
    for end, text in enumerate(texts):
        if size and (size + len(text) > _BLOCK_CHARACTERS or end - start == _BLOCK):
            yield start, end
            start, size = end, 0
        size += len(text)
    yield start, len(texts)


def _packed(text: str) -> NDArray[np.uint64]:
    """Each character 3-gram of a text as one number: a code point has 21 bits."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    packed: NDArray[np.uint64] = points[:-2] | points[1:-1] << np.uint64(21) | points[2:] << np.uint64(42)
    return packed


def _gram_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A hash of each character 3-gram of texts of `SHORTEST` characters or more, one after the other, and where
    each text begins. A gram that stands twice is there twice: a minimum is the same."""
    hashes = _packed("".join(texts))
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


def _candidates(digests: NDArray[np.uint32], least: float) -> NDArray[np.int64]:
    """Pairs of rows that share a band, each once, in order; shape (n, 2).

    Left out are those whose signatures lie four standard deviations or more below a Jaccard index of `least`:
    of pairs that have it, three in a hundred thousand, and the bands alone miss more.
    """
    width = PERMUTATIONS // BANDS
    size = len(digests)
    floor = least - 4 * (0.25 / PERMUTATIONS) ** 0.5
    found = [np.empty(0, dtype=np.int64)]
    for band in range(BANDS):
        columns = np.ascontiguousarray(digests[:, band * width : (band + 1) * width])
        _, bucket = np.unique(columns.view(f"V{width * 4}").ravel(), return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        bucket = bucket[order]
        for apart in range(1, min(_WIDEST + 1, size)):
            places = np.flatnonzero(bucket[apart:] == bucket[:-apart])
            if not len(places):
                break
            for start in range(0, len(places), _PAIRS):
                block = places[start : start + _PAIRS]
                first, second = order[block], order[block + apart]
                likely = (digests[first] == digests[second]).mean(axis=1) >= floor
                found.append(first[likely] * size + second[likely])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), size), axis=1)
