"""Calibrates an embedder on shipped pairs of sentences: paraphrases, and pairs that only look alike.

Cosines of different models are not comparable, so thresholds are measured for each embedder and language: the
smallest cosine above which 95 % of the pairs are paraphrases. For dropping, this must hold at 98 % confidence; where no
threshold does, nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha256
from math import comb
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from engine.core.paths import shipped
from engine.corpus.dedup import opposites, semantic_guards
from engine.corpus.dedup.semantic_guards import may_mean_the_same

if TYPE_CHECKING:
    from engine.corpus.embedding.backends import Embedder

PRECISION = 0.95
MIN_PAIRS = 8
"""Pairs above a threshold that are needed to measure its precision."""
CONFIDENCE = 0.98
"""The threshold is selected among many on a few hundred pairs, so the observed precision of the best one is biased
upwards. Without a false pair above it, 77 pairs are needed: 0.95 ** 77 < 0.02."""
_OFFSETS = (1, 7, 19)


class LabelledPair(msgspec.Struct, frozen=True):
    """Two sentences, and whether they are paraphrases."""

    language: str
    one: str
    other: str
    same: bool


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds (cosines) by language; a missing language has none."""

    groups: dict[str, float]
    """Precision of 95 % among paraphrases and unrelated pairs, and no less than half of the paraphrases reach: groups
    conversations. The second matters in a corpus about one subject, in which nothing is unrelated."""
    drops: dict[str, float]
    """Precision of 95 % at 98 % confidence among paraphrases and pairs that look alike: drops conversations."""
    pairs: str
    """`calibration_version()` at the time of the calibration."""


@cache
def labelled_pairs() -> tuple[LabelledPair, ...]:
    """The shipped pairs."""
    lines = _file().splitlines()
    return tuple(msgspec.json.decode(line, type=LabelledPair) for line in lines)


@cache
def calibration_version() -> str:
    """Changes with the pairs, the selection rule and the guards."""
    code = [Path(str(module.__file__)).read_bytes() for module in (semantic_guards, opposites)]
    rule = f"{PRECISION} {MIN_PAIRS} {CONFIDENCE}".encode()
    return sha256(b"".join([_file(), rule, *code])).hexdigest()[:8]


def _file() -> bytes:
    return (shipped("data") / "calibration" / "paraphrases.jsonl").read_bytes()


def calibrate(embedder: Embedder, pairs: Sequence[LabelledPair] | None = None) -> Calibration:
    """Encodes all pairs, some seconds on a CPU, and selects the thresholds. Raises what the embedder raises."""
    pairs = labelled_pairs() if pairs is None else pairs
    ones = embedder.encode([pair.one for pair in pairs])
    others = embedder.encode([pair.other for pair in pairs])
    groups, drops = {}, {}
    for language in sorted({pair.language for pair in pairs}):
        rows = [index for index, pair in enumerate(pairs) if pair.language == language]
        cosines = [(float(ones[row] @ others[row]), pairs[row].same) for row in rows]
        unrelated = [
            (float(ones[row] @ others[rows[(place + offset) % len(rows)]]), False)
            for offset in _OFFSETS
            for place, row in enumerate(rows)
        ]
        group = threshold([*((value, True) for value, same in cosines if same), *unrelated])
        if group is not None:
            groups[language] = max(group, median(value for value, same in cosines if same))
        drop = confident_threshold(
            cosine
            for cosine, row in zip(cosines, rows, strict=True)
            if may_mean_the_same(pairs[row].one, pairs[row].other)
        )
        if drop is not None:
            drops[language] = drop
    return Calibration(groups=groups, drops=drops, pairs=calibration_version())


def threshold(cosines: Iterable[tuple[float, bool]]) -> float | None:
    """The smallest cosine with a precision of PRECISION on at least MIN_PAIRS pairs; None without one."""
    return _smallest_cosine(cosines, lambda right, total: total >= MIN_PAIRS and right >= PRECISION * total)


def confident_threshold(cosines: Iterable[tuple[float, bool]]) -> float | None:
    """The smallest cosine with a precision of at least PRECISION at CONFIDENCE; None without one."""
    return _smallest_cosine(cosines, lambda right, total: _p_value(right, total) <= 1 - CONFIDENCE)


def _p_value(right: int, total: int) -> float:
    """Probability of `right` or more paraphrases among `total` pairs at a true precision of PRECISION: the exact
    binomial test, whose inverse is the bound of Clopper and Pearson (1934)."""
    wrong = total - right
    return sum(comb(total, n) * (1 - PRECISION) ** n * PRECISION ** (total - n) for n in range(wrong + 1))


def _smallest_cosine(
    cosines: Iterable[tuple[float, bool]], accepts: Callable[[int, int], bool]
) -> float | None:
    best = None
    right = 0
    ordered = sorted(cosines, reverse=True)
    for total, (value, same) in enumerate(ordered, 1):
        right += same
        tied = total < len(ordered) and ordered[total][0] == value
        if not tied and accepts(right, total):
            best = value
    return best
