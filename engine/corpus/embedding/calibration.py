"""What an embedder is good for, tried on shipped pairs that say the same or only look alike.

Cosines of one model mean nothing for another, so no threshold is fixed: from which one on 95 % of the pairs say
the same is measured once for each embedder and language. What leaves something out must be sure of it: there
luck is ruled out at 98 % confidence, and where no threshold does that nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha256
from math import comb
from typing import TYPE_CHECKING

import msgspec

from engine.core.paths import shipped
from engine.corpus.dedup.semantic_guards import may_mean_the_same

if TYPE_CHECKING:
    from engine.corpus.embedding.protocol import Embedder

PRECISION = 0.95
ENOUGH = 8
"""Pairs above a threshold without which its precision says nothing."""
CONFIDENCE = 0.98
"""A threshold is chosen among many on some hundred pairs, and the share that was seen above the
best of them flatters it. With no pair that differs above it, 77 are needed: 0.95 to the power of 77 is under 0.02."""
_OFFSETS = (1, 7, 19)


class Labelled(msgspec.Struct, frozen=True):
    """Two sentences, and whether they say the same."""

    language: str
    one: str
    other: str
    same: bool


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Cosines by language; a language that is missing cannot be judged."""

    groups: dict[str, float]
    """From here 95 % of the pairs say the same, among pairs that are unrelated."""
    drops: dict[str, float]
    """From here, surely 95 % say the same, among pairs that only look alike."""
    pairs: str
    """Of which pairs: another set, another calibration."""


@cache
def labelled() -> tuple[Labelled, ...]:
    """The shipped pairs."""
    lines = _file().splitlines()
    return tuple(msgspec.json.decode(line, type=Labelled) for line in lines)


@cache
def version() -> str:
    """Another for other pairs and for another way to choose."""
    return sha256(_file() + f"{PRECISION} {ENOUGH} {CONFIDENCE}".encode()).hexdigest()[:8]


def _file() -> bytes:
    return (shipped("data") / "calibration" / "paraphrases.jsonl").read_bytes()


def calibrate(embedder: Embedder, pairs: Sequence[Labelled] | None = None) -> Calibration:
    """Two vectors for each pair: some seconds on a CPU. Raises what the embedder raises."""
    pairs = labelled() if pairs is None else pairs
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
        found = threshold([*((value, True) for value, same in cosines if same), *unrelated])
        if found is not None:
            groups[language] = found
        found = sure_threshold(
            cosine
            for cosine, row in zip(cosines, rows, strict=True)
            if may_mean_the_same(pairs[row].one, pairs[row].other)
        )
        if found is not None:
            drops[language] = found
    return Calibration(groups=groups, drops=drops, pairs=version())


def threshold(cosines: Iterable[tuple[float, bool]]) -> float | None:
    """The smallest cosine from which on PRECISION of the pairs say the same; None when ENOUGH of them never do."""
    return _smallest(cosines, lambda right, total: total >= ENOUGH and right >= PRECISION * total)


def sure_threshold(cosines: Iterable[tuple[float, bool]]) -> float | None:
    """The smallest cosine from which on, at CONFIDENCE, at least PRECISION of such pairs say the same; or None."""
    return _smallest(cosines, lambda right, total: _luck(right, total) <= 1 - CONFIDENCE)


def _luck(right: int, total: int) -> float:
    """How likely `right` or more of `total` pairs say the same where only PRECISION of all do: the exact binomial
    test, whose inverse is the bound of Clopper and Pearson (1934)."""
    wrong = total - right
    return sum(comb(total, n) * (1 - PRECISION) ** n * PRECISION ** (total - n) for n in range(wrong + 1))


def _smallest(cosines: Iterable[tuple[float, bool]], good: Callable[[int, int], bool]) -> float | None:
    best = None
    right = 0
    ordered = sorted(cosines, reverse=True)
    for total, (value, same) in enumerate(ordered, 1):
        right += same
        tied = total < len(ordered) and ordered[total][0] == value
        if not tied and good(right, total):
            best = value
    return best
