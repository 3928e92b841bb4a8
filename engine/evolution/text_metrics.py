"""How good generated text is, by its characters alone: repetition, diversity, relevance, consistency.

Pure functions on strings. Everything counts characters, never words, so that Chinese reads like English.
Distinct-n is that of Li et al. 2016 (arXiv:1510.03055).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from engine.corpus.filters.normalise import fold

GRAM = 3
"""Characters of the pieces in which two texts are compared."""
REPEATED_GRAM = 4
"""Characters of the pieces in which a text repeats itself."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one model to the fixed questions. Shares are 0 to 1; None where nothing was asked."""

    answers: int
    consistency: float | None
    """How alike two draws for one question are: Jaccard of their 3-grams. Higher is steadier."""
    relevance: float | None
    """How much more an answer shares with the one that was really given than with those to other questions.
    0 is chance, higher is better, below 0 is worse than chance."""
    repetition: float | None
    """Share of an answer's 4-grams that stood in it before. Lower is better."""
    length: float | None
    """Mean bytes of an answer."""
    stopped: float | None
    """Share of answers that ended by themselves."""


def grams(text: str, size: int = GRAM) -> set[str]:
    """Character n-grams of the folded text; the text itself where it is shorter."""
    folded = fold(text)
    if len(folded) <= size:
        return {folded} if folded else set()
    return {folded[i : i + size] for i in range(len(folded) - size + 1)}


def jaccard(one: str, other: str) -> float:
    """0 to 1; two empty texts are not alike."""
    first, second = grams(one), grams(other)
    union = len(first | second)
    return len(first & second) / union if union else 0.0


def contained(text: str, source: str) -> float:
    """Share of the 3-grams of `text` that stand in `source`, 0 to 1."""
    own = grams(text)
    return len(own & grams(source)) / len(own) if own else 0.0


def repetition(text: str) -> float:
    """Share of the 4-character pieces of `text` that stood in it before."""
    pieces = [text[i : i + REPEATED_GRAM] for i in range(len(text) - REPEATED_GRAM + 1)]
    return 1 - len(set(pieces)) / len(pieces) if pieces else 0.0


def distinct(texts: Sequence[str], size: int) -> float:
    """Different n-grams of characters over all of them, in all texts together; 0 without any."""
    pieces = [text[i : i + size] for text in texts for i in range(len(text) - size + 1)]
    return len(set(pieces)) / len(pieces) if pieces else 0.0


def entropy(texts: Sequence[str]) -> float:
    """Shannon entropy of the characters of all texts together, bits per character."""
    counts = Counter(character for text in texts for character in text)
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values()) if total else 0.0


def quality_of(
    draws: Sequence[tuple[str, str]], wanted: Sequence[str], stopped: Sequence[bool], lengths: Sequence[int]
) -> Quality:
    """From two draws for each question, the answers really given, and what is known of the first draws.

    `stopped` and `lengths` (bytes) may count more answers than there are questions.
    """
    if not draws:
        return Quality(
            answers=0, consistency=None, relevance=None, repetition=None, length=None, stopped=None
        )
    texts = [text for pair in draws for text in pair]
    return Quality(
        answers=len(texts),
        consistency=_mean([jaccard(one, other) for one, other in draws]),
        relevance=_mean([_relevance(index, pair[0], wanted) for index, pair in enumerate(draws)]),
        repetition=_mean([repetition(text) for text in texts]),
        length=_mean([float(length) for length in lengths]),
        stopped=_mean([float(flag) for flag in stopped]),
    )


def _relevance(index: int, text: str, wanted: Sequence[str]) -> float:
    others = [jaccard(text, other) for place, other in enumerate(wanted) if place != index]
    return jaccard(text, wanted[index]) - (_mean(others) if others else 0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
