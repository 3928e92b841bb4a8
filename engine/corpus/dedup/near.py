"""Near duplicates: candidates by MinHash LSH (Broder 1997; rensa), each verified by its exact Jaccard index.

Texts are compared as sets of character 3-grams of their folded form. MinHash only says which pairs are worth
comparing, so no text is ever called a twin by an estimate; `twins` has the last word. A sketch keeps the lowest
8 bits of each minimum (b-bit MinHash, Li & König 2010): a quarter of the room, and unequal ones agree by
chance once in 256.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import rensa
from numpy.typing import NDArray

from engine.corpus.dedup.twins import EDITS, SHORT, SLACK, are_twins

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
"""Candidates whose texts are read at once."""
_KEPT_CHARACTERS = 6_000_000
"""Characters of texts that are kept for the next candidates: 12 MB of 汉字."""

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
    lengths = np.array([len(folded[i]) for i in rows])
    found = rows[candidates(sketches([folded[i] for i in rows]), lengths, threshold)]
    return list(verified(found, lambda indices: [folded[i] for i in indices], threshold, compared=compared))


def verified(
    pairs: NDArray[np.int64],
    texts: Callable[[Sequence[int]], Sequence[str]],
    threshold: float,
    *,
    compared: Callable[[int, int], bool] | None = None,
) -> Iterator[Pair]:
    """Those of `pairs`, shape (n, 2), that are near duplicates at `threshold`, in their order.

    `texts` gives the folded texts of some indices, in their order; it is asked for two thousand at most at once.
    """
    known: dict[int, str] = {}
    for start in range(0, len(pairs), _READ):
        block = [
            (one, other)
            for one, other in pairs[start : start + _READ].tolist()
            if compared is None or compared(one, other)
        ]
        wanted = dict.fromkeys(index for pair in block for index in pair)
        missing = [index for index in wanted if index not in known]
        if sum(map(len, known.values())) > _KEPT_CHARACTERS:
            known = {index: known[index] for index in wanted if index in known}
        known.update(zip(missing, texts(missing) if missing else (), strict=True))
        for some in _few_enough(block, known):
            for (one, other), similarity in zip(some, _jaccard(some, known), strict=True):
                if similarity >= threshold - SLACK and are_twins(
                    known[one], known[other], similarity, threshold
                ):
                    yield Pair(one, other, similarity)


def _few_enough(
    pairs: Sequence[tuple[int, int]], texts: Mapping[int, str]
) -> Iterator[Sequence[tuple[int, int]]]:
    """Runs of pairs with at most some characters together, or of one pair of long texts."""
    start = size = 0
    for end, (one, other) in enumerate(pairs):
        both = len(texts[one]) + len(texts[other])
        if size and size + both > _BLOCK_CHARACTERS:
            yield pairs[start:end]
            start, size = end, 0
        size += both
    if pairs:
        yield pairs[start:]


def _jaccard(pairs: Sequence[tuple[int, int]], texts: Mapping[int, str]) -> list[float]:
    """The exact Jaccard index of each pair of texts, all at once: their sets of n-grams are runs of one array."""
    place = {index: number for number, index in enumerate(dict.fromkeys(i for pair in pairs for i in pair))}
    grams, ends = _grams([texts[index] for index in place])
    owner = np.repeat(np.arange(len(place)), np.diff(ends, prepend=0))
    order = np.argsort(grams)
    numbers = np.empty(len(grams), dtype=np.int64)
    numbers[order] = np.cumsum(_first_of_equals(grams[order]))
    sets = owner << 32 | numbers
    sets.sort()
    sets = sets[_first_of_equals(sets)]
    sizes = np.bincount(sets >> 32, minlength=len(place))
    starts = np.cumsum(sizes) - sizes
    sides = np.array([place[index] for pair in pairs for index in pair])
    counts = sizes[sides]
    offsets = starts[sides] - (np.cumsum(counts) - counts)
    members = sets[np.arange(counts.sum()) + np.repeat(offsets, counts)] & 0xFFFFFFFF
    both = np.repeat(np.arange(len(sides)) >> 1, counts) << 32 | members
    both.sort()
    shared = np.bincount(both[1:][both[1:] == both[:-1]] >> 32, minlength=len(pairs))
    together = counts[0::2] + counts[1::2] - shared
    return (shared / together).tolist()  # type: ignore[no-any-return]


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
        grams, ends = _grams(folded[start:end])
        offsets = np.concatenate(([0], ends)).astype(np.uint64)
        # A gram that stands twice is there twice: a minimum is the same.
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            _hashed(grams), offsets, PERMUTATIONS, _SEED
        )
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


def _grams(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Each character 3-gram of texts of `SHORTEST` characters or more as one number, for a code point has 21 bits:
    text after text, as often as it stands there, and where each text ends."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    packed: NDArray[np.uint64] = points[:-2] | points[1:-1] << np.uint64(21) | points[2:] << np.uint64(42)
    ends = np.cumsum([len(text) for text in texts])
    inside = np.ones(len(packed), dtype=bool)
    # Grams that reach over the end of a text belong to none.
    inside[ends[:-1] - 1] = inside[ends[:-1] - 2] = False
    return packed[inside], ends - 2 * np.arange(1, len(texts) + 1)


def _hashed(grams: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): neighbouring characters must not give neighbouring hashes."""
    hashes = grams.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    return hashes


def candidates(
    sketched: Sketches,
    lengths: NDArray[np.int64],
    threshold: float,
    *,
    kinds: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Pairs of rows that share a band and may be twins, each once, in order; shape (n, 2).

    `lengths` are in folded characters. Left out are pairs whose sketches lie three standard deviations or more
    below the Jaccard index that they would need: of those that have it, one in seven hundred, and the bands alone
    miss ten times as many. Less than `threshold` is enough for texts so long that few edits make them one
    (`twins`). With `kinds`, one for each row, pairs of two rows of one kind are left out too.
    """
    size = len(sketched)
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
                alike = (sketched[first] == sketched[second]).mean(axis=1)
                longer = np.maximum(lengths[first], lengths[second])
                edited = np.abs(lengths[first] - lengths[second]) <= EDITS * longer
                edited &= (longer <= SHORT) & (alike >= _floor(threshold - SLACK))
                likely = edited | (alike >= _floor(threshold))
                found.append(first[likely] * size + second[likely])
    pairs = np.concatenate(found)
    pairs.sort()
    return np.stack(np.divmod(pairs[_first_of_equals(pairs)], max(1, size)), axis=1)


def _floor(jaccard: float) -> float:
    """Share of a sketch that two texts of this Jaccard index have in common, three standard deviations below."""
    least = max(0.0, jaccard)
    return least + (1 - least) / 256 - 3 * math.sqrt(0.25 / PERMUTATIONS)


def _first_of_equals(values: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Where each value of a sorted array stands first (`np.unique` hashes, which takes ten times as long)."""
    first = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first
