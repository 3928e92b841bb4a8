"""Near duplicates: candidates by MinHash LSH (Broder 1997; rensa), each verified by its exact Jaccard index.

Texts are compared as sets of character 3-grams of their folded form. MinHash only says which pairs are worth
comparing, so no text is ever called a twin by an estimate; `twins` has the last word. A sketch keeps the lowest
8 bits of each minimum (b-bit MinHash, Li & König 2010): a quarter of the room, and unequal ones agree by
chance once in 256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import rensa
from numpy.typing import NDArray

from engine.corpus.filters.twins import SLACK, are_twins

PERMUTATIONS = 128
"""Bytes of a sketch."""
BANDS = 32
"""Bands of four rows: a pair of Jaccard 0.8 is missed once in ten million, one of 0.6 once in eighty."""
SHORTEST = 6
"""Folded characters below which a text is compared exactly only."""
_SEED = 42
_BLOCK = 1000
_BLOCK_CHARACTERS = 500_000
"""Folded characters whose n-grams are hashed at once: some 20 MB."""
_PAIRS = 8192
"""Candidates whose sketches are compared at once."""
_WIDEST = 64
"""Members of a bucket compared all with all; in a wider one each is compared with so many before it."""
_READ = 1024
"""Candidates whose texts are read at once, and texts kept for the next ones."""

Sketches = NDArray[np.uint8]


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
    Memory: 128 bytes a text, and the n-grams of some thousand texts.
    """
    rows = np.array([i for i, text in enumerate(folded) if len(text) >= SHORTEST], dtype=np.int64)
    if len(rows) < 2:
        return []
    found = rows[candidates(sketches([folded[i] for i in rows]), threshold)]
    return list(verified(found, lambda indices: [folded[i] for i in indices], threshold, compared=compared))


def verified(
    pairs: NDArray[np.int64],
    texts: Callable[[Sequence[int]], Sequence[str]],
    threshold: float,
    *,
    compared: Callable[[int, int], bool] | None = None,
) -> Iterator[Pair]:
    """Those of `pairs`, shape (n, 2), that are near duplicates at `threshold`, in their order.

    `texts` gives the folded texts of some indices, in their order; it is asked for a thousand or two at once.
    """
    known: dict[int, tuple[str, NDArray[np.uint64]]] = {}
    for start in range(0, len(pairs), _READ):
        block = [
            (one, other)
            for one, other in pairs[start : start + _READ].tolist()
            if compared is None or compared(one, other)
        ]
        wanted = dict.fromkeys(index for pair in block for index in pair)
        known = {index: known[index] for index in wanted if index in known}
        missing = [index for index in wanted if index not in known]
        for index, text in zip(missing, texts(missing) if missing else (), strict=True):
            known[index] = text, np.unique(_packed(text))
        for one, other in block:
            (here, ours), (there, theirs) = known[one], known[other]
            shorter, longer = sorted((len(ours), len(theirs)))
            if shorter < (threshold - SLACK) * longer:
                continue
            shared = len(np.intersect1d(ours, theirs, assume_unique=True))
            similarity = shared / (shorter + longer - shared)
            if are_twins(here, there, similarity, threshold):
                yield Pair(one, other, similarity)


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


def sketches(folded: Sequence[str]) -> Sketches:
    """Of folded texts of `SHORTEST` characters or more; shape (texts, PERMUTATIONS)."""
    found = np.empty((len(folded), PERMUTATIONS), dtype=np.uint8)
    for start, end in _blocks(folded):
        hashes, offsets = _gram_hashes(folded[start:end])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, PERMUTATIONS, _SEED)
        found[start:end] = np.array(matrix.to_rows(), dtype=np.uint32)
    return found


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts of at most so many, with at most some characters together, or of one long text."""
    start = size = 0
    for end, text in enumerate(texts):
        if size and (size + len(text) > _BLOCK_CHARACTERS or end - start == _BLOCK):
            yield start, end
            start, size = end, 0
        size += len(text)
    if texts:
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


def candidates(
    sketched: Sketches, threshold: float, *, kinds: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Pairs of rows that share a band, each once, in order; shape (n, 2).

    Left out are those whose sketches lie four standard deviations or more below the least Jaccard index that
    `twins` looks at: of pairs that have it, three in a hundred thousand, and the bands alone miss more. With
    `kinds`, one for each row, pairs of two rows of one kind are left out too.
    """
    size = len(sketched)
    least = max(0.0, threshold - SLACK)
    floor = least + (1 - least) / 256 - 4 * (0.25 / PERMUTATIONS) ** 0.5
    bands = np.ascontiguousarray(sketched).view(np.uint32)
    found = [np.empty(0, dtype=np.int64)]
    places = np.arange(size, dtype=np.uint64)
    for band in range(BANDS):
        keyed = bands[:, band].astype(np.uint64) << np.uint64(32) | places
        keyed.sort()
        order = (keyed & np.uint64(0xFFFFFFFF)).astype(np.int64)
        bucket = keyed >> np.uint64(32)
        for apart in range(1, min(_WIDEST + 1, size)):
            equal = np.flatnonzero(bucket[apart:] == bucket[:-apart])
            if not len(equal):
                break
            for start in range(0, len(equal), _PAIRS):
                block = equal[start : start + _PAIRS]
                first, second = order[block], order[block + apart]
                if kinds is not None:
                    across = kinds[first] != kinds[second]
                    first, second = first[across], second[across]
                likely = (sketched[first] == sketched[second]).mean(axis=1) >= floor
                found.append(first[likely] * size + second[likely])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, size)), axis=1)
