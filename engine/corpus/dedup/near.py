"""Similar texts: candidates by MinHash LSH (Broder 1997; rensa), each verified by its exact Jaccard index.

Texts are compared as sets of character 3-grams of their letters. MinHash only selects pairs to compare; the exact
index and `is_similar` decide. Similar texts may say different things: `dedup.meaning` decides which are near duplicates. A sketch keeps the lowest 8 bits of each minimum (b-bit MinHash, Li & König
2010): a quarter of the memory, and unequal minima agree by chance once in 256.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import rensa
from numpy.typing import NDArray

from engine.corpus.dedup.meaning import ComparedText, same_text
from engine.corpus.filters.normalise import letters

PERMUTATIONS = 128
"""Bytes of a sketch."""
BANDS = 32
"""Bands of four rows: a pair of Jaccard index 0.8 is missed once in ten million, one of 0.6 once in eighty."""
MIN_LENGTH = 6
"""Letters and digits below which texts are compared exactly only."""
MAX_EDITS = 0.08
"""Share of letters that may differ where the Jaccard index falls just short of its threshold."""
MAX_EDITED_LENGTH = 1000
"""Letters up to which single edits are counted."""
_SENTENCE_LENGTH = 200
"""Letters up to which the same characters in another order mean something else."""
SLACK = 0.2
"""How far below its threshold the Jaccard index may be for edits to be counted: one edit breaks three 3-grams."""
_SEED = 42
_BLOCK_TEXTS = 1000
_BLOCK_CHARACTERS = 500_000
"""Letters whose n-grams are hashed together: some 20 MB."""
_PAIR_BLOCK = 8192
"""Candidates whose sketches are compared together."""
_MAX_BUCKET = 64
"""Members of a bucket that are compared all with all; in a larger one each is compared with this many before it."""
_READ_BATCH = 1024
"""Candidates whose texts are read together."""
_CACHED_CHARACTERS = 6_000_000
"""Characters of texts cached for the next candidates: 12 MB of Chinese."""
_NUMBER = re.compile(r"[0-9]+")


def slack_below(threshold: float) -> float:
    """SLACK up to a threshold of 0.8; from there it shrinks, so that a threshold of 1 asks for equal letters."""
    return min(SLACK, 1.0 - threshold)


Sketches = NDArray[np.uint8]


class SimilarPair(msgspec.Struct, frozen=True):
    """Two texts by index, `first < second`, and their similarity: the exact Jaccard index, or a cosine."""

    first: int
    second: int
    similarity: float


def near_pairs(texts: Sequence[str], threshold: float = 0.8) -> list[SimilarPair]:
    """Pairs of texts that are near duplicates at `threshold`: similar, and without a difference in meaning."""
    compared = [ComparedText(text) for text in texts]

    def same(one: int, other: int) -> bool:
        return same_text(compared[one], compared[other])

    return similar_pairs([letters(text) for text in texts], threshold, may_compare=same, by_words=True)


def similar_pairs(
    plain: Sequence[str],
    threshold: float = 0.8,
    *,
    may_compare: Callable[[int, int], bool] | None = None,
    by_words: bool = False,
) -> list[SimilarPair]:
    """Pairs of texts, given by their letters, that are similar at `threshold`, in order of index.
    `may_compare` excludes pairs for which it returns False.
       Memory: 128 bytes per text, and the n-grams of some thousand texts.
    """
    rows = np.array([i for i, text in enumerate(plain) if len(text) >= MIN_LENGTH], dtype=np.int64)
    if len(rows) < 2:
        return []
    lengths = np.array([len(plain[i]) for i in rows])
    found = rows[candidate_pairs(sketch_texts([plain[i] for i in rows]), lengths, threshold)]
    return list(
        verified_pairs(
            found,
            lambda indices: [plain[i] for i in indices],
            threshold,
            may_compare=may_compare,
            by_words=by_words,
        )
    )


def verified_pairs(
    pairs: NDArray[np.int64],
    texts: Callable[[Sequence[int]], Sequence[str]],
    threshold: float,
    *,
    may_compare: Callable[[int, int], bool] | None = None,
    by_words: bool = False,
) -> Iterator[SimilarPair]:
    """Those of `pairs`, shape (n, 2), that are similar at `threshold`, in their order.

    `texts` returns the letters of the texts of up to two thousand indices, in their order. `by_words`: the words of the pairs
    were found to say the same, so that the index alone decides, and all edits are counted as harmless.
    """
    known: dict[int, str] = {}
    for start in range(0, len(pairs), _READ_BATCH):
        block = [
            (one, other)
            for one, other in pairs[start : start + _READ_BATCH].tolist()
            if may_compare is None or may_compare(one, other)
        ]
        wanted = dict.fromkeys(index for pair in block for index in pair)
        missing = [index for index in wanted if index not in known]
        if sum(map(len, known.values())) > _CACHED_CHARACTERS:
            known = {index: known[index] for index in wanted if index in known}
        known.update(zip(missing, texts(missing) if missing else (), strict=True))
        for block_pairs in _blocks_of_pairs(block, known):
            for (one, other), similarity in zip(block_pairs, _jaccard(block_pairs, known), strict=True):
                if similarity >= threshold - slack_below(threshold) and (
                    by_words or is_similar(known[one], known[other], similarity, threshold)
                ):
                    yield SimilarPair(one, other, similarity)


def _blocks_of_pairs(
    pairs: Sequence[tuple[int, int]], texts: Mapping[int, str]
) -> Iterator[Sequence[tuple[int, int]]]:
    """Slices of `pairs` with at most _BLOCK_CHARACTERS characters, or of one pair of long texts."""
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
    """The exact Jaccard index of each pair of texts, vectorised: the sets of n-grams are slices of one array."""
    position = {
        index: number for number, index in enumerate(dict.fromkeys(i for pair in pairs for i in pair))
    }
    grams, ends = _trigrams([texts[index] for index in position])
    owner = np.repeat(np.arange(len(position)), np.diff(ends, prepend=0))
    order = np.argsort(grams)
    numbers = np.empty(len(grams), dtype=np.int64)
    numbers[order] = np.cumsum(_run_starts(grams[order]))
    sets = owner << 32 | numbers
    sets.sort()
    sets = sets[_run_starts(sets)]
    sizes = np.bincount(sets >> 32, minlength=len(position))
    starts = np.cumsum(sizes) - sizes
    sides = np.array([position[index] for pair in pairs for index in pair])
    counts = sizes[sides]
    offsets = starts[sides] - (np.cumsum(counts) - counts)
    members = sets[np.arange(counts.sum()) + np.repeat(offsets, counts)] & 0xFFFFFFFF
    both = np.repeat(np.arange(len(sides)) >> 1, counts) << 32 | members
    both.sort()
    shared = np.bincount(both[1:][both[1:] == both[:-1]] >> 32, minlength=len(pairs))
    together = counts[0::2] + counts[1::2] - shared
    return (shared / together).tolist()  # type: ignore[no-any-return]


class Components:
    """The connected components of a graph whose links come one by one (union-find)."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, node: int) -> int:
        """The smallest node that is connected to `node`."""
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def link(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self._parent[second] = first

    def apart(self, one: int, other: int) -> bool:
        return self.root(one) != self.root(other)


def sketch_texts(plain: Sequence[str]) -> Sketches:
    """Sketches of the letters of texts of `MIN_LENGTH` characters or more; shape (texts, PERMUTATIONS)."""
    found = np.empty((len(plain), PERMUTATIONS), dtype=np.uint8)
    for start, end in _blocks_of_texts(plain):
        grams, ends = _trigrams(plain[start:end])
        offsets = np.concatenate(([0], ends)).astype(np.uint64)
        # Repeated n-grams do not change a minimum.
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            _hashes(grams), offsets, PERMUTATIONS, _SEED
        )
        found[start:end] = np.array(matrix.to_rows(), dtype=np.uint32)
    return found


def _blocks_of_texts(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of at most _BLOCK_TEXTS texts and _BLOCK_CHARACTERS characters, or of one long text."""
    start = size = 0
    for end, text in enumerate(texts):
        if size and (size + len(text) > _BLOCK_CHARACTERS or end - start == _BLOCK_TEXTS):
            yield start, end
            start, size = end, 0
        size += len(text)
    if texts:
        yield start, len(texts)


def _trigrams(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The character 3-grams of texts of `MIN_LENGTH` characters or more, text after text and with repetitions, and the
    end of each text in them. A 3-gram is one number, because a code point has 21 bits."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    packed: NDArray[np.uint64] = points[:-2] | points[1:-1] << np.uint64(21) | points[2:] << np.uint64(42)
    ends = np.cumsum([len(text) for text in texts])
    inside = np.ones(len(packed), dtype=bool)
    # N-grams across the end of a text belong to none.
    inside[ends[:-1] - 1] = inside[ends[:-1] - 2] = False
    return packed[inside], ends - 2 * np.arange(1, len(texts) + 1)


def _hashes(grams: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): similar characters must not get similar hashes."""
    hashes = grams.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    return hashes


def candidate_pairs(
    sketched: Sketches,
    lengths: NDArray[np.int64],
    threshold: float,
    *,
    kinds: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Pairs of rows that share a band and may be similar, each once, in order; shape (n, 2).

    `lengths` are in letters. Pairs whose sketches agree three standard deviations less than the required
    Jaccard index predicts are excluded: this misses one true pair in seven hundred, a tenth of what the bands miss.
    Texts that few edits make equal need less than `threshold` (`is_similar`). `kinds`, one for each row,
    excludes pairs of the same kind.
    """
    size = len(sketched)
    bands = np.ascontiguousarray(sketched).view(np.uint32)
    found = [np.empty(0, dtype=np.int64)]
    positions = np.arange(size, dtype=np.uint64)
    for band in range(BANDS):
        keyed = bands[:, band].astype(np.uint64) << np.uint64(32) | positions
        keyed.sort()
        order = (keyed & np.uint64(0xFFFFFFFF)).astype(np.int64)
        bucket = keyed >> np.uint64(32)
        for distance in range(1, min(_MAX_BUCKET + 1, size)):
            equal = np.flatnonzero(bucket[distance:] == bucket[:-distance])
            if not len(equal):
                break
            for start in range(0, len(equal), _PAIR_BLOCK):
                block = equal[start : start + _PAIR_BLOCK]
                first, second = order[block], order[block + distance]
                if kinds is not None:
                    across = kinds[first] != kinds[second]
                    first, second = first[across], second[across]
                agreement = (sketched[first] == sketched[second]).mean(axis=1)
                longer = np.maximum(lengths[first], lengths[second])
                edited = np.abs(lengths[first] - lengths[second]) <= MAX_EDITS * longer
                edited &= (longer <= MAX_EDITED_LENGTH) & (
                    agreement >= _min_agreement(threshold - slack_below(threshold))
                )
                likely = edited | (agreement >= _min_agreement(threshold))
                found.append(first[likely] * size + second[likely])
    pairs = np.concatenate(found)
    pairs.sort()
    return np.stack(np.divmod(pairs[_run_starts(pairs)], max(1, size)), axis=1)


def _min_agreement(jaccard: float) -> float:
    """Share of equal bytes of two sketches at this Jaccard index, minus three standard deviations."""
    least = max(0.0, jaccard)
    return least + (1 - least) / 256 - 3 * math.sqrt(0.25 / PERMUTATIONS)


def _run_starts(values: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Mask of the first occurrence of each value of a sorted array (`np.unique` hashes, ten times as slow)."""
    first = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


def is_similar(one: str, other: str, similarity: float, threshold: float) -> bool:
    """Whether two texts with this exact Jaccard index differ in few of their letters.

    Short texts of the same characters in another order ("A beat B", "B beat A") are not, whatever the index. Short
    texts with few edits and the same numbers are, although each edit breaks three n-grams.
    """
    if one == other:
        return True
    longest = max(len(one), len(other))
    if similarity >= threshold:
        return longest > _SENTENCE_LENGTH or Counter(one) != Counter(other) or _neighbours_swapped(one, other)
    if (
        similarity < threshold - slack_below(threshold)
        or longest > MAX_EDITED_LENGTH
        or _NUMBER.findall(one) != _NUMBER.findall(other)
    ):
        return False
    most = int(MAX_EDITS * longest)
    here, there = Counter(one), Counter(other)
    # The bag distance is a lower bound of the number of edits.
    return (
        here != there
        and max((here - there).total(), (there - here).total()) <= most
        and _within_edits(one, other, most)
    )


def _neighbours_swapped(one: str, other: str) -> bool:
    """Whether the texts differ by swaps of neighbouring characters only, as typing errors do."""
    index = 0
    while index < len(one):
        if one[index] == other[index]:
            index += 1
        elif one[index : index + 2] == other[index : index + 2][::-1]:
            index += 2
        else:
            return False
    return True


def _within_edits(one: str, other: str, most: int) -> bool:
    """Whether the Levenshtein distance is at most `most` (banded, Ukkonen 1985)."""
    if abs(len(one) - len(other)) > most:
        return False
    # A common prefix and suffix need no edit.
    start = _common_prefix(one, other)
    one, other = one[start:], other[start:]
    end = _common_prefix(one[::-1], other[::-1])
    one, other = one[: len(one) - end], other[: len(other) - end]
    far = most + 1
    row = [min(column, far) for column in range(len(other) + 1)]
    for line, character in enumerate(one, 1):
        low, high = max(1, line - most), min(len(other), line + most)
        new = [far] * (len(other) + 1)
        new[0] = min(line, far)
        for column in range(low, high + 1):
            best = row[column - 1] + (character != other[column - 1])
            if row[column] < best:
                best = row[column] + 1
            if new[column - 1] < best:
                best = new[column - 1] + 1
            new[column] = best
        if min(new[max(0, low - 1) : high + 1]) > most:
            return False
        row = new
    return row[len(other)] <= most


def _common_prefix(one: str, other: str) -> int:
    """Length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (here, there) in pairs if here != there), min(len(one), len(other)))
